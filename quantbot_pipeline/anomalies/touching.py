"""Which calls a finding touches, and how bad it is: the last step from a finding to a row. Source: docs/anomalies.md."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.anomalies.calls import Calls, rows_by
from quantbot_pipeline.anomalies.findings import Finding, Ints
from quantbot_pipeline.anomalies.spikes import KIND as SPIKE
from quantbot_pipeline.vocabulary import STOP_LOSS

# What makes the numbers of a call wrong that has it in its window.
SPOILS = ("unit_change", "duplicate_series", "time_shift", "interval_mismatch")
# What is looked at whatever it touches: it tells of a caller and not of a window.
OF_CALLERS = ("call_burst", "copied_calls", "late_calls", "deleted_calls", "regime", "prediction_drift")


def rows_of(findings: Iterable[Finding], calls: Calls, interval_ms: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of the artifact `anomalies` without run_id, in the order of the findings."""
    by_mint = rows_by(calls.mint, calls.included)
    for found in findings:
        touched = _touched(found, calls, by_mint)
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


def _touched(found: Finding, calls: Calls, by_mint: dict[str, Ints]) -> Ints:
    """Return the rows that a finding names, or of included calls of its tokens whose window meets its time."""
    if found.calls is not None:
        return np.array(found.calls, np.int64)
    nothing: Sequence[Ints] = [np.empty(0, np.int64)]
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
