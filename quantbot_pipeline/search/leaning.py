"""Leaning on the pool: a caller's statistics, pulled towards those of all callers as if so many of their calls were its own.

Belongs here: how much a caller's own calls weigh. Does not: what is chosen by the statistics. Source: docs/search.md, "Leaning".
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def leaned(stats: Floats, calls: Sequence[int], everybody: int | None, pool_calls: int) -> Floats:
    """Return the statistics (G, P, S) of callers leaned on those of all callers, the group at `everybody`.

    calls: how many calls each group has. A caller's statistic x becomes `(n x + K x_all) / (n + K)` with K = `pool_calls`; all callers'
    stay as they are. A statistic that one of the two lacks (NaN) is that of the other. With K = 0, or without the group of all
    callers, `stats` itself is returned.
    """
    if not pool_calls or everybody is None:
        return stats
    made = stats.copy()
    for i, n in enumerate(calls):
        if i != everybody:
            made[i] = lean(stats[i], n, stats[everybody], pool_calls)
    return made


def lean(own: Floats, calls: int, pool: Floats, pool_calls: int) -> Floats:
    """Return one caller's statistics leaned on those of all callers, of equal shape."""
    both = (calls * own + pool_calls * pool) / (calls + pool_calls)
    return np.where(np.isnan(own), pool, np.where(np.isnan(pool), own, both))
