"""Which calls a finding touches, and how bad it is: the last step from a finding to a row. Source: docs/anomalies.md."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.anomalies.findings import CALLER, PAIR, Finding, Floats, Ints
from quantbot_pipeline.anomalies.spikes import KIND as SPIKE
from quantbot_pipeline.vocabulary import INCLUDED, STOP_LOSS

# What makes the numbers of a call wrong that has it in its window.
SPOILS = ("unit_change", "duplicate_series", "time_shift", "interval_mismatch")
# What is looked at whatever it touches: it tells of a caller and not of a window.
OF_CALLERS = ("call_burst", "copied_calls", "late_calls", "deleted_calls", "regime", "prediction_drift")


class Calls(NamedTuple):
    """Calls as they were known at the month's end, ascending by alert, shapes (C,). Times in UTC ms.

    mint, caller: texts. status: a position in CALL_STATUSES. entry, t_peak: -1 where there is none. t_multiple: (C, 3), of 2x, 3x, 4x.
    p0: NaN without an entry. dd_bps: of the window so far. end: of the window. exit_ts, exit_reason, win: of the replayed policy.
    """

    mint: npt.NDArray[np.object_]
    caller: npt.NDArray[np.object_]
    alert: Ints
    status: npt.NDArray[np.uint8]
    p0: Floats
    entry: Ints
    end: Ints
    t_peak: Ints
    t_multiple: Ints
    dd_bps: Floats
    exit_ts: Ints
    exit_reason: npt.NDArray[np.uint8]
    win: npt.NDArray[np.bool_]

    @property
    def included(self) -> npt.NDArray[np.bool_]:
        """Whether a call has a window."""
        return self.status == INCLUDED

    @property
    def hit_2x(self) -> npt.NDArray[np.bool_]:
        """Whether the price had doubled by the month's end."""
        return self.t_multiple[:, 0] >= 0


def rows_of(findings: Iterable[Finding], calls: Calls, interval_ms: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of the artifact `anomalies` without run_id, in the order of the findings."""
    by_mint, by_caller = _rows_by(calls.mint, calls.included), _rows_by(calls.caller, None)
    for found in findings:
        touched = _touched(found, calls, by_mint, by_caller)
        yield {
            "kind": found.kind,
            "severity": _severity(found, touched, calls, interval_ms),
            "subject_type": found.subject_type,
            "subject": found.subject,
            "other_subject": found.other,
            "from_ts_ms": found.from_ts,
            "to_ts_ms": found.to_ts,
            "score": found.score,
            "limit": found.limit,
            "calls_touched": len(touched),
            "hits_touched": int(calls.hit_2x[touched].sum()),
            "reason": found.reason,
            "details": json.dumps(found.details, sort_keys=True, ensure_ascii=False) if found.details else None,
        }


def _rows_by(names: npt.NDArray[np.object_], wanted: "npt.NDArray[np.bool_] | None") -> dict[str, Ints]:
    """Return the rows of each name, ascending; of `wanted` rows alone."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names.tolist()):
        if wanted is None or wanted[row]:
            rows.setdefault(name, []).append(row)
    return {name: np.array(own, np.int64) for name, own in rows.items()}


def _touched(found: Finding, calls: Calls, by_mint: dict[str, Ints], by_caller: dict[str, Ints]) -> Ints:
    """Return the rows of included calls whose window meets the finding's time, or of the caller's calls in it."""
    nothing: Sequence[Ints] = [np.empty(0, np.int64)]
    if found.subject_type == CALLER or (found.subject_type == PAIR and not found.tokens):
        names = [name for name in (found.subject, found.other) if name is not None]
        rows = np.concatenate([*nothing, *(by_caller[name] for name in names if name in by_caller)])
        alert = calls.alert[rows]
        return rows[(alert >= found.from_ts) & (alert < found.to_ts)]
    rows = np.concatenate([*nothing, *(by_mint[mint] for mint in found.tokens if mint in by_mint)])
    return rows[(calls.entry[rows] < found.to_ts) & (calls.end[rows] > found.from_ts)]


def _severity(found: Finding, touched: Ints, calls: Calls, interval_ms: int) -> str:
    """Return `error` where numbers of a call are wrong if the finding is right, `warning` where one should look, else `info`."""
    if found.is_error or (found.kind in SPOILS and len(touched)):
        return "error"
    if found.kind == SPIKE and bool(_is_set_by_spike(found, touched, calls, interval_ms).any()):
        return "error"
    return "warning" if len(touched) or found.kind in (*SPOILS, *OF_CALLERS) else "info"


def _is_set_by_spike(found: Finding, rows: Ints, calls: Calls, interval_ms: int) -> npt.NDArray[np.bool_]:
    """Return which calls owe the spike's candle their peak, a first touch of 2x to 4x, their deepest low or their stop.

    A touch is dated with the close of its candle.
    """
    close = found.from_ts + interval_ms
    if found.details["side"] == "high":
        high: npt.NDArray[np.bool_] = (calls.t_peak[rows] == close) | (calls.t_multiple[rows] == close).any(axis=1)
        return high
    exits = calls.exit_ts[rows]
    stopped = (calls.exit_reason[rows] == STOP_LOSS) & ((exits == close) | (exits == found.from_ts))
    low = np.abs((found.details["price"] / calls.p0[rows] - 1) * 10_000 - calls.dd_bps[rows]) < 1e-6
    made: npt.NDArray[np.bool_] = stopped | low
    return made
