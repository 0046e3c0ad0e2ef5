"""What tuned levels promised and earned over all months, per caller and scheme, and what the guard says of the scheme.

Belongs here: sums over the rows of the artifact `tuned`. Does not: how a choice is judged; that is in `search`.
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

TUNED_BETTER = "tuned better"
SENTENCES = {
    TUNED_BETTER: "Levels tuned before each month earned more in it than the grid's choice did.",
    "grid better": "The grid's choice earned more than tuned levels did: do not use tuned levels.",
    "not shown": "That tuned levels earn more than the grid's choice is not shown: there is no reason to use them.",
}
JUDGED = ("verdict", "difference_z", "leaning_verdict", "leaning_z", "hold_verdict", "hold_z")
AVERAGED = ("out_of_sample_bps", "grid_bps", "unleaned_bps", "hold_bps")
CALLER_COLUMNS = (
    "caller_name",
    "scheme",
    "verdict",
    "months",
    "test_calls",
    "promised_bps",
    "plateau_bps",
    "earned_bps",
    *AVERAGED,
    "month",
    "policy_id",
    "policy_params",
)


def schemes(rows: pa.Table) -> list[dict[str, Any]]:
    """Return a row per scheme: the verdicts to date as of its newest month, and the first of them as a sentence."""
    newest = {row["scheme"]: row for row in rows.select(["scheme", "month", *JUDGED]).to_pylist()}  # the last one stays
    return [row | {"meaning": SENTENCES[row["verdict"]]} for row in newest.values()]


def promises(rows: pa.Table) -> list[dict[str, Any]]:
    """Return a row per caller and scheme: promise and result as means over test calls, with the verdict of the scheme.

    `earned_bps` is of the test calls for which something was promised; the other means are of all test calls, on which months without
    a choice earn 0. The policy is the newest month's.
    """
    verdicts = {row["scheme"]: row["verdict"] for row in schemes(rows)}
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows.to_pylist():
        groups.setdefault((row["caller_name"], row["scheme"]), []).append(row)
    return [_row(name, scheme, verdicts[scheme], group) for (name, scheme), group in groups.items()]


def _row(name: str, scheme: str, verdict: str, group: Sequence[dict[str, Any]]) -> dict[str, Any]:
    last, promised = group[-1], [row for row in group if row["promise_bps"] is not None]
    found = {
        "caller_name": name,
        "scheme": scheme,
        "verdict": verdict,
        "months": len(group),
        "test_calls": sum(row["test_calls"] for row in group),
        "promised_bps": _mean(promised, "promise_bps"),
        "plateau_bps": _mean(promised, "plateau_bps"),
        "earned_bps": _mean(promised, "out_of_sample_bps"),
        **{column: _mean(group, column) for column in AVERAGED},
        **{column: last[column] for column in ("month", "policy_id", "policy_params")},
    }
    return {column: found[column] for column in CALLER_COLUMNS}


def _mean(group: Sequence[dict[str, Any]], column: str) -> float | None:
    """Return the mean of a column over test calls; null without any of which it is known."""
    known = [(row["test_calls"], row[column]) for row in group if row[column] is not None]
    calls = sum(n for n, _ in known)
    return sum(n * value for n, value in known) / calls if calls else None
