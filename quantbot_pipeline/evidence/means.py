"""The interval of a mean return that holds however often one looks.

Source: docs/evidence.md, "Interval of the choice's return". A mean is refuted when an account that bets against it grew rich.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.compiled import compiled
from quantbot_pipeline.evidence.account import closings, play
from quantbot_pipeline.evidence.rules import REFUTED

Floats = npt.NDArray[np.float64]
HALVINGS = 60
_kernel = compiled(error_model="numpy")


class Interval(NamedTuple):
    """A mean and the means that are not refuted, as fractions."""

    mean: float
    low: float
    high: float


def mean_interval(
    entry: npt.NDArray[np.int64], closed: npt.NDArray[np.int64], x: Floats, cap: float, fractions: Floats
) -> Interval | None:
    """Return the mean of x with its interval; None without bets."""
    if not len(x):
        return None
    low, high = _refuted(entry, closed, x, cap, fractions)
    return Interval(float(x.mean()), float(low), float(high))


@_kernel
def _refuted(entry: Any, closed: Any, x: Any, cap: Any, fractions: Any) -> Any:
    head, link = closings(entry, closed)
    stake, payoff, made = np.empty((len(x), len(fractions))), np.empty(len(x)), np.empty(len(fractions))
    bottom, top = -1.0, cap
    for _ in range(HALVINGS):
        m = (bottom + top) / 2
        for i in range(len(x)):
            payoff[i] = (1.0 + x[i]) / (1.0 + m) - 1.0
        play(payoff, fractions, head, link, stake, made)
        if made.mean() >= REFUTED:
            bottom = m
        else:
            top = m
    low = bottom
    bottom, top = -1.0, cap
    for _ in range(HALVINGS):
        m = (bottom + top) / 2
        for i in range(len(x)):
            payoff[i] = (m - x[i]) / (cap - m)
        play(payoff, fractions, head, link, stake, made)
        if made.mean() >= REFUTED:
            top = m
        else:
            bottom = m
    return low, top
