"""What changed since the month before: verdicts won and lost, callers that came and went, e-values that moved.

Belongs here: two months of evidence side by side. Does not: verdicts, or how a caller stands.
"""

import math
from typing import Any, NamedTuple

from quantbot_pipeline.catalog.catalog import Catalog, newest_runs_with
from quantbot_pipeline.evidence.wording import figure
from quantbot_pipeline.reports.remarks import read_each

COLUMNS = ("caller_name", "change", "verdict_before", "verdict", "e_before", "e_value", "new_units")
MOVED = 1.5  # an e-value that grew or fell by less is no change


class Changes(NamedTuple):
    """The newest month with evidence and the one before; None where there is none. Rows with COLUMNS, the gravest first."""

    month: str | None
    before: str | None
    rows: list[dict[str, Any]]


def changes(catalog: Catalog, interval: str | None = None) -> Changes:
    """Return what changed between the two newest months with evidence; no rows where there are not two."""
    run_dirs = newest_runs_with(catalog, "evidence", interval=interval)[-2:]
    names = ["caller_name", "verdict", "e_value", "units"]
    found = [
        (m.month, {row["caller_name"]: row for row in t.to_pylist()})
        for m, t in read_each(catalog, run_dirs, "evidence", names)
    ]
    if len(found) < 2:
        return Changes(found[-1][0] if found else None, None, [])
    (before, old), (month, new) = found
    rows = [row for name in old.keys() | new.keys() if (row := _changed(name, old.get(name), new.get(name)))]
    return Changes(month, before, sorted(rows, key=_gravity))


def _changed(name: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a caller's row; None when nothing changed that a reader should know."""
    change = _what(old, new)
    if change is None:
        return None
    return {
        "caller_name": name,
        "change": change,
        "verdict_before": old and old["verdict"],
        "verdict": new and new["verdict"],
        "e_before": old and old["e_value"],
        "e_value": new and new["e_value"],
        "new_units": (new["units"] if new else 0) - (old["units"] if old else 0),
    }


def _what(old: dict[str, Any] | None, new: dict[str, Any] | None) -> str | None:
    if new is None:
        return "gone"
    if old is None:
        return f"new: {new['verdict']}"
    if old["verdict"] != new["verdict"]:
        return f"{old['verdict']} became {new['verdict']}"
    moved = _moved(old["e_value"], new["e_value"])
    if abs(moved) < math.log(MOVED):
        return None
    return f"e {'grew' if moved > 0 else 'fell'} from {figure(old['e_value'])} to {figure(new['e_value'])}"


def _moved(old: float, new: float) -> float:
    return math.log(max(new, 1e-300) / max(old, 1e-300))


def _gravity(row: dict[str, Any]) -> tuple[int, float, bytes]:
    """Return what a change is sorted by: verdicts, then callers that came or went, then moves of e, the largest first."""
    old, new = row["verdict_before"], row["verdict"]
    kind = 1 if None in (old, new) else 0 if old != new else 2
    moved = 0.0 if kind == 1 else -abs(_moved(row["e_before"], row["e_value"]))
    return kind, moved, row["caller_name"].encode()
