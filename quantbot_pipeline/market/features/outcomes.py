"""What a caller's earlier calls had come to when a call was made: settled calls alone, whose whole window had ended.

Belongs here: counts, rates and means of settled outcomes, leaning on those of all callers. Does not: which window a call has.
These columns depend on the horizon, so that they are no part of the feature set.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.market.features.kernels import DAY_MS

OUTCOME_HISTORY = ("caller_settled_calls", "caller_hit_2x_rate", "caller_log_peak", "pooled_hit_2x_rate")
LEANING = 20  # how many calls of everybody a caller's own are weighed against
RECENT_MS = 30 * DAY_MS

Floats = npt.NDArray[np.float64]


class Outcomes(NamedTuple):
    """Calls with a window (N,): who made them, entry in UTC ms (int64), whether 2x was hit (bool), peak multiple (float64)."""

    callers: Sequence[str]
    entry_ts_ms: npt.NDArray[np.int64]
    hit_2x: npt.NDArray[np.bool_]
    peak_multiple: Floats


def outcome_history(
    callers: Sequence[str], alert_ts_ms: npt.NDArray[np.int64], outcomes: Outcomes, horizon_ms: int
) -> dict[str, Floats]:
    """Return OUTCOME_HISTORY of calls as of their alerts: (C,) float64, NaN is null; the count is never null.

    outcomes: those of all calls with a window, in any order; of which only those with `entry_ts_ms + horizon_ms <= alert` count.
    With H hits of N settled calls `q = (H + 0.5) / (N + 1)`. The caller's rate is `(hits + 20 q) / (n + 20)`, its log peak the mean
    of ln(peak_multiple) leaning on that of all with the same weight. The pooled rate is of entries of the last 30 days.
    """
    order = np.argsort(outcomes.entry_ts_ms, kind="stable")
    entry = outcomes.entry_ts_ms[order]
    hits, peaks = _sums(outcomes.hit_2x[order]), _sums(np.log(outcomes.peak_multiple[order]))
    settled = np.searchsorted(entry, alert_ts_ms - horizon_ms, side="right")
    recent = np.minimum(np.searchsorted(entry, alert_ts_ms - RECENT_MS), settled)
    q = (hits[settled] + 0.5) / (settled + 1)
    made = {name: np.full(len(alert_ts_ms), np.nan) for name in OUTCOME_HISTORY}
    with np.errstate(invalid="ignore"):
        mean = peaks[settled] / settled
    made["pooled_hit_2x_rate"] = (hits[settled] - hits[recent] + LEANING * q) / (settled - recent + LEANING)
    asked, known = np.asarray(callers, dtype=object), np.asarray(outcomes.callers, dtype=object)[order]
    for caller in dict.fromkeys(callers):
        rows, own = np.flatnonzero(asked == caller), np.flatnonzero(known == caller)
        n = np.searchsorted(entry[own], alert_ts_ms[rows] - horizon_ms, side="right")
        own_hits = _sums(outcomes.hit_2x[order[own]])[n]
        own_peaks = _sums(np.log(outcomes.peak_multiple[order[own]]))[n]
        made["caller_settled_calls"][rows] = n
        made["caller_hit_2x_rate"][rows] = (own_hits + LEANING * q[rows]) / (n + LEANING)
        made["caller_log_peak"][rows] = (own_peaks + LEANING * mean[rows]) / (n + LEANING)
    for name in OUTCOME_HISTORY[1:]:
        made[name][settled == 0] = np.nan
    return made


def _sums(values: npt.NDArray[np.bool_] | Floats) -> Floats:
    """Return the sums of the first 0, 1, 2 … values: what comes later changes none of them."""
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
