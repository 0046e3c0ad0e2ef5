"""Whether one choice was better than another on the same test calls, to date: the guard of tuning.

Belongs here: the difference of two ways to choose, its standard error over blocks of time, and the words for it. Does not: how either
chose. Source: docs/search.md, "Tuning".
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.replay.statistics import STAKE

Floats = npt.NDArray[np.float64]
DAY_MS = 86_400_000
LEAST_BLOCK_MS = 2 * DAY_MS
SURE_Z, LEAST_MONTHS, LEAST_TRADES = 2.0, 3, 30
NOT_SHOWN = "not shown"


class Tested(NamedTuple):
    """Test calls to date (N,): entries in UTC ms, months as numbers, growth in bps under two ways to choose, whether the first traded."""

    entry_ts_ms: npt.NDArray[np.int64]
    month: npt.NDArray[np.int64]
    first: Floats
    second: Floats
    traded: npt.NDArray[np.bool_]


class Judged(NamedTuple):
    """The z of the mean difference, None where it has no error, and the words."""

    z: float | None
    verdict: str


def growth_bps(realized: Floats) -> Floats:
    """Return what each call adds to the growth score in bps; realized: fractions. Their mean is the score."""
    made: Floats = 10_000 / STAKE * np.log1p(STAKE * realized)
    return made


def judge(tested: Tested, horizon_ms: int, first: str, second: str) -> Judged:
    """Return the verdict `FIRST better`, `SECOND better` or `not shown`.

    The first is better at z >= 2 over at least 3 months in which it traded, with 30 trades; the second at z <= -2.
    """
    z = block_z(tested.entry_ts_ms, tested.first - tested.second, max(LEAST_BLOCK_MS, horizon_ms))
    months = len(np.unique(tested.month[tested.traded]))
    if z is None or abs(z) < SURE_Z:
        return Judged(z, NOT_SHOWN)
    if z < 0:
        return Judged(z, f"{second} better")
    enough = months >= LEAST_MONTHS and tested.traded.sum() >= LEAST_TRADES
    return Judged(z, f"{first} better" if enough else NOT_SHOWN)


def block_z(entry_ts_ms: npt.NDArray[np.int64], values: Floats, block_ms: int) -> float | None:
    """Return the mean divided by its standard error over blocks of time; None with fewer than two blocks or without an error."""
    blocks, place = np.unique(entry_ts_ms // block_ms, return_inverse=True)
    if len(blocks) < 2:
        return None
    mean = values.mean()
    left = np.bincount(place, values - mean, minlength=len(blocks))
    error = float(np.sqrt(len(blocks) / (len(blocks) - 1) * np.square(left).sum()) / len(values))
    return float(mean / error) if error > 0 else None
