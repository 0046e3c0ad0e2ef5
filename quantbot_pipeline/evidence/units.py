"""Units: which calls count as observations, and which are repeats, missing or not yet resolved.

Source: docs/evidence.md, "Units". Eight calls of one token within a window are one observation.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.replay.results import Truth
from quantbot_pipeline.vocabulary import INCLUDED, NO_ENTRY

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Calls(NamedTuple):
    """Every call of the months up to the judged one, shape (C,). `caller`: a position in the names in byte order.

    id_rank: the place of the call's id in byte order. month: a position in the months, ascending. mint: a number per token.
    """

    caller: Ints
    mint: Ints
    month: Ints
    alert: Ints
    id_rank: Ints
    truth: Truth


class Units(NamedTuple):
    """Units, caller after caller, each caller's in the order of its bets; shape (N,). `row`: of the call; times in UTC ms."""

    row: Ints
    caller: Ints
    mint: Ints
    month: Ints
    entry: Ints
    missing: Mask
    resolved: Mask

    def of(self, chosen: "Mask | slice") -> "Units":
        """Return some of the units."""
        return Units(*(array[chosen] for array in self))  # type: ignore[arg-type]


def find_units(calls: Calls, latency_ms: int, horizon_ms: int) -> Units:
    """Return the units of all callers, unresolved ones included."""
    truth = calls.truth
    included = truth.status == INCLUDED
    entry = np.where(included, truth.entry_ts, calls.alert + latency_ms)
    rows = np.flatnonzero(truth.status != NO_ENTRY)
    rows = rows[np.lexsort([calls.id_rank[rows], entry[rows], calls.caller[rows]])]
    rows = rows[~_repeats(calls.caller[rows], calls.mint[rows], entry[rows], horizon_ms)]
    ended = data_end(truth)
    return Units(
        row=rows,
        caller=calls.caller[rows],
        mint=calls.mint[rows],
        month=calls.month[rows],
        entry=entry[rows],
        missing=~included[rows],
        resolved=np.zeros(len(rows), bool) if ended is None else entry[rows] + horizon_ms <= ended,
    )


def data_end(truth: Truth) -> int | None:
    """Return the last moment that an included call has seen, UTC ms; None without one."""
    included = truth.status == INCLUDED
    return int((truth.entry_ts + truth.observed)[included].max()) if included.any() else None


def _repeats(caller: Ints, mint: Ints, entry: Ints, horizon_ms: int) -> Mask:
    """Return which calls follow a unit of their caller on their token within the horizon."""
    repeat = np.zeros(len(entry), bool)
    last: dict[tuple[int, int], int] = {}
    for i, (who, what, when) in enumerate(zip(caller.tolist(), mint.tolist(), entry.tolist(), strict=True)):
        if when - last.get((who, what), when - horizon_ms) < horizon_ms:
            repeat[i] = True
        else:
            last[who, what] = when
    return repeat
