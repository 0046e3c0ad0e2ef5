"""Which run a person means: an id, the beginning of one, a name, or a month and a kind of run.

Belongs here: looking it up in the catalog. Does not: what names runs have; see `runs.notes`.
"""

import re
from typing import Any

from quantbot_pipeline.catalog.catalog import Catalog, absent, reading
from quantbot_pipeline.catalog.schema import NOTED, kind_of_run
from quantbot_pipeline.errors import InputError

SHORTEST = 6  # characters of an id
COLUMNS = ("run_id", "run_dir", "month", "status", "created_at")
_MONTH = re.compile(r"\d{4}-\d{2}")


def chosen_run(catalog: Catalog, text: str, kind: str | None = None) -> dict[str, Any]:
    """Return run_id, run_dir, kind, month, status and created_at of the run that a text means.

    A month means its newest completed run; where it has runs of several kinds, `kind` says which. Raises InputError naming the
    choices when there is no such run or more than one.
    """
    if _MONTH.fullmatch(text):
        return _of_month(catalog, text, kind)
    by_id = _rows(catalog, "run_id = $text OR name = $text", text)
    if not by_id and len(text) >= SHORTEST:
        by_id = _rows(catalog, "starts_with(run_id, $text)", text)
    if len(by_id) > 1:
        named = ", ".join(f"{row['run_id']} ({row['kind']} {row['month']})" for row in by_id[:8])
        raise InputError(f"{text!r} means more than one run: {named}; write more of the id")
    if not by_id:
        raise InputError(absent(catalog, text))
    return by_id[0]


def _of_month(catalog: Catalog, month: str, kind: str | None) -> dict[str, Any]:
    rows = [row for row in _rows(catalog, "month = $text", month) if row["status"] == "completed"]
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    if kind is None and len(kinds) > 1:
        raise InputError(f"{month} has runs of several kinds: {', '.join(sorted(kinds))}; choose one with --kind")
    found = [row for row in rows if kind in (None, row["kind"])]
    if not found:
        raise InputError(
            f"no completed run{f' of kind {kind}' if kind else ''} in {month}; see `quantbot backtest catalog-query`"
        )
    return found[0]


def _rows(catalog: Catalog, condition: str, text: str) -> list[dict[str, Any]]:
    """Return runs, newest first; the condition is one of this module's."""
    with reading(catalog) as con:
        rows: list[dict[str, Any]] = (
            con.sql(
                f"SELECT {', '.join(COLUMNS)}, {kind_of_run()} AS kind FROM ({NOTED}) WHERE {condition} "
                "ORDER BY created_at DESC, run_id DESC",
                params={"text": text},
            )
            .to_arrow_table()
            .to_pylist()
        )
    return rows
