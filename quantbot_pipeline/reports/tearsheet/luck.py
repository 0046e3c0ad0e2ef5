"""What luck does to an account: the band around its equity, and what as many random calls had earned.

Belongs here: draws that depend on a name alone, and what is made of them. Does not: the account itself (`numbers`).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.evidence.clusters import DAY_MS, by_day
from quantbot_pipeline.evidence.support import random_words

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
DRAWS = 1_000
BAND = (2.5, 97.5)  # percentiles of the draws


def band(entry: Ints, returns: Floats, share: float, moments: Ints, name: str) -> tuple[Floats, Floats]:
    """Return the 95 % band of the equity before each moment, from 1,000 redrawings of the days of the entries.

    One more day is drawn from, on which one trade loses everything: an account that has not met its first rug is not safe from
    it. A day's growth is that of its trades one after the other; it counts from the day after its entry on.
    """
    growth, counts = by_day(entry, np.log1p(share * np.maximum(returns, -1))[:, None])
    days = np.unique(entry // DAY_MS)
    pool = np.append(growth[:, 0] if len(counts) else [], math.log1p(-share))
    drawn = pool[_draws(name, len(days), len(pool))]
    paths = np.concatenate([np.ones((DRAWS, 1)), np.exp(np.cumsum(drawn, axis=1))], axis=1)
    low, high = np.percentile(paths, BAND, axis=0)
    place = np.searchsorted((days + 1) * DAY_MS, moments, side="right")
    return low[place], high[place]


class Control(NamedTuple):
    """Sums of returns that as many random calls of each month had earned, by month: percentiles of the draws."""

    low: Floats
    middle: Floats
    high: Floats
    beaten: float  # the share of draws that earned less in all


def random_control(counts: Sequence[int], pools: Sequence[Floats], earned: float, name: str) -> Control | None:
    """Return what `counts[m]` trades drawn from `pools[m]` with replacement add up to; None with nothing to draw.

    A month whose pool is empty adds nothing.
    """
    total = np.zeros((DRAWS, len(pools)))
    drawn = False
    for month, (count, pool) in enumerate(zip(counts, pools, strict=True)):
        if count and len(pool):
            total[:, month] = pool[_draws(f"{name}|{month}", count, len(pool))].sum(axis=1)
            drawn = True
    if not drawn:
        return None
    sums = np.cumsum(total, axis=1)
    low, middle, high = np.percentile(sums, [BAND[0], 50, BAND[1]], axis=0)
    return Control(low, middle, high, float((sums[:, -1] < earned).mean()))


def _draws(name: str, count: int, n: int) -> Ints:
    """Return (DRAWS, count) numbers below n that depend on the name alone, made as docs/evidence.md says."""
    words = random_words(f"0|{name}", DRAWS * count).reshape(DRAWS, count)
    picked: Ints = (((words >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32)).astype(np.int64)
    return picked
