"""What size and delay cost: curves of the mean return, and where it breaks even.

Source: docs/evidence.md, "Costs". The pool holds both sides and keeps their product constant.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.evidence.clusters import by_day, cluster_error
from quantbot_pipeline.evidence.means import HALVINGS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
SHARES = (0.0, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1)
MOST_SHARE = 0.5
LATENCIES_MS = (0, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000)
HIGHEST = 1e300  # of a price multiple: its impact stays a number


class Point(NamedTuple):
    """A point of a cost curve: the mean of some units and its standard error, as fractions."""

    value: float
    units: int
    same_entry: float | None
    mean: float
    error: float | None


def after_impact(gross: Floats, share: "float | Floats", cost: float, cap: float) -> Floats:
    """Return x of positions that take such a share of a pool's liquidity. gross: exit over entry price."""
    g = np.minimum(gross, HIGHEST)
    made: Floats = np.minimum(g / (1 + 2 * share * (1 + np.sqrt(g))) * (1 - cost) / (1 + cost) - 1, cap)
    return made


def point(value: float, entry: Ints, x: Floats, same_entry: float | None = None) -> Point:
    """Return the point of some units, with its standard error over days."""
    mean = float(x.mean())
    sums, counts = by_day(entry, x[:, None])
    error = None if len(counts) < 2 else float(cluster_error(sums, counts, np.array([mean]))[0])
    return Point(value, len(x), same_entry, mean, error)


def size_curve(entry: Ints, gross: Floats, cost: float, cap: float) -> list[Point]:
    """Return the mean return by the share of the pool."""
    return [point(share, entry, after_impact(gross, share, cost, cap)) for share in SHARES]


def break_even_share(gross: Floats, cost: float, cap: float) -> float | None:
    """Return the share of the pool at which nothing is left; 0 if nothing ever is, None if it is more than half."""
    return _root(lambda share: float(after_impact(gross, share, cost, cap).mean()), MOST_SHARE) if len(gross) else None


def break_even_money(gross: Floats, liquidity: Floats, cost: float, cap: float) -> float | None:
    """Return the same in money, from the liquidity of each pool; None unless all are known."""
    if not len(gross) or not (np.isfinite(liquidity) & (liquidity > 0)).all():
        return None
    most = MOST_SHARE * float(liquidity.max())
    return _root(lambda money: float(after_impact(gross, money / liquidity, cost, cap).mean()), most)


def _root(mean: Callable[[float], float], most: float) -> float | None:
    if mean(0.0) <= 0:
        return 0.0
    if mean(most) > 0:
        return None
    low, high = 0.0, most
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if mean(middle) > 0:
            low = middle
        else:
            high = middle
    return low


def break_even_latency(curve: Sequence[Point]) -> float | None:
    """Return the delay at which nothing is left, between two points of a curve; None if something always is."""
    for i, here in enumerate(curve):
        if here.mean <= 0:
            if i == 0:
                return 0.0
            before = curve[i - 1]
            return before.value + (here.value - before.value) * before.mean / (before.mean - here.mean)
    return None
