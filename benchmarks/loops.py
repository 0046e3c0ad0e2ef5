"""What one would write first: a loop over policies, and in it a loop over candles; in Python, and compiled by numba.

The yardstick of the engine, and its witness: exit, price, reason and excursion of every policy must be the same bits.
"""

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from quantbot_pipeline.vocabulary import DATA_END, HORIZON, STOP_LOSS, TAKE_PROFIT, TRAILING

Floats = npt.NDArray[np.float64]


class Exits(NamedTuple):
    """Per policy (P,): index of the exit candle, whether it was left at the open, price, reason, excursion in bps."""

    at: npt.NDArray[np.int64]
    at_open: npt.NDArray[np.bool_]
    price: Floats
    reason: npt.NDArray[np.uint8]
    mae_bps: Floats


def no_exits(policies: int) -> Exits:
    """Room for the exits of one call."""
    return Exits(
        np.empty(policies, np.int64),
        np.empty(policies, np.bool_),
        np.empty(policies),
        np.empty(policies, np.uint8),
        np.empty(policies),
    )


def python_loop(open_, high, low, close, p0, stops, takes, censored, out):  # type: ignore[no-untyped-def]
    """Fixed stops and take profits (factors of p0) on one call's window; runs as plain Python and is compiled below."""
    n = len(close)
    for p in range(len(stops)):
        stop, take = p0 * stops[p], p0 * takes[p]
        lowest = p0
        at, at_open, price, reason = n - 1, False, close[n - 1], DATA_END if censored else HORIZON
        for i in range(n):
            if open_[i] <= stop:
                at, at_open, price, reason = i, True, open_[i], STOP_LOSS
            elif open_[i] >= take:
                at, at_open, price, reason = i, True, open_[i], TAKE_PROFIT
            elif low[i] <= stop:
                at, price, reason = i, stop, STOP_LOSS
            elif high[i] >= take:
                at, price, reason = i, take, TAKE_PROFIT
                lowest = min(lowest, low[i])
            else:
                lowest = min(lowest, low[i])
                continue
            if at_open or reason == STOP_LOSS:
                lowest = min(lowest, price)
            break
        out.at[p], out.at_open[p], out.price[p], out.reason[p] = at, at_open, price, reason
        out.mae_bps[p] = (lowest / p0 - 1) * 10_000


numba_loop = numba.njit(error_model="numpy")(python_loop)


@numba.njit(error_model="numpy")
def numba_trailing_loop(open_, high, low, close, p0, keeps, censored, out):  # type: ignore[no-untyped-def]
    """Trailing stops from the entry on; `keeps` are `1 - trail`."""
    n = len(close)
    for p in range(len(keeps)):
        keep = keeps[p]
        top, lowest = p0, p0
        at, at_open, price, reason = n - 1, False, close[n - 1], DATA_END if censored else HORIZON
        for i in range(n):
            level = top * keep
            if open_[i] <= level:
                at, at_open, price, reason = i, True, open_[i], TRAILING
                lowest = min(lowest, price)
                break
            if low[i] <= level:
                at, price, reason = i, level, TRAILING
                lowest = min(lowest, price)
                break
            lowest = min(lowest, low[i])
            top = max(top, high[i])
            if close[i] <= top * keep:
                at, price, reason = i, top * keep, TRAILING
                break
        out.at[p], out.at_open[p], out.price[p], out.reason[p] = at, at_open, price, reason
        out.mae_bps[p] = (lowest / p0 - 1) * 10_000
