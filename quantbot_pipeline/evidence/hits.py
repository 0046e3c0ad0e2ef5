"""Hit rates, shrunk towards what callers are like: a few calls say little.

Source: docs/evidence.md, "Hit rates and times". The prior is a mixture of Beta distributions, weighed by what all callers hit.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
MEANS = np.array([0.002, 0.005, 0.01, 0.015, *(i / 50 for i in range(1, 50))])
SIZES = 2.0 ** np.arange(11)
TAIL = 0.025


class Rate(NamedTuple):
    """A shrunk rate and its 95 % interval."""

    shrunk: float
    low: float
    high: float


def shrunk_rates(hits: Ints, known: Ints) -> list[Rate | None]:
    """Return the rate of every caller, from its hits among its known units; None without a unit."""
    from scipy.special import betaln

    size = np.tile(SIZES, len(MEANS))
    a = np.repeat(MEANS, len(SIZES)) * size
    b = size - a
    weight = np.repeat(np.log(np.gradient(MEANS)), len(SIZES))
    for y, n in zip(hits, known, strict=True):
        weight += betaln(a + y, b + n - y) - betaln(a, b)
    weight = np.exp(weight - weight.max())
    weight /= weight.sum()
    pairs = zip(hits.tolist(), known.tolist(), strict=True)
    return [_rate(weight, a + y, size + n, y, n) if n else None for y, n in pairs]


def _rate(weight: Floats, a: Floats, size: Floats, y: int, n: int) -> Rate:
    """Match the mean and variance of a mixture of Beta(a, size - a) by one Beta distribution."""
    from scipy.special import betaincinv

    means = a / size
    mean = float(weight @ means)
    variance = float(weight @ (means * (1 - means) / (size + 1) + (means - mean) ** 2))
    strength = mean * (1 - mean) / variance - 1
    low, high = (float(betaincinv(mean * strength, (1 - mean) * strength, q)) for q in (TAIL, 1 - TAIL))
    return Rate(mean, 0.0 if y == 0 else low, 1.0 if y == n else high)
