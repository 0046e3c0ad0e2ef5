"""E-values of a caller: of the grid as a family, of the monthly choice, and against the edge that would matter.

Source: docs/evidence.md, "E-value". Sums over all policies of a grid are kept as sums: their accounts are many.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.evidence.account import family, wealth
from quantbot_pipeline.evidence.rules import EvidenceRules

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
LEAST = 1e-300  # of an account whose logarithm is taken


class Bets(NamedTuple):
    """A caller's resolved units in the order of their bets, and what every policy made of them.

    entry, month, missing: (n,). closed (ms, UTC), x: (P, n). hurdle: (months, P). chosen: (n,) the policy of the monthly
    choice, -1 without one. idle: (n,) units of months whose choice was to stay out.
    """

    entry: Ints
    month: Ints
    missing: Mask
    closed: Ints
    x: Floats
    hurdle: Floats
    chosen: Ints
    idle: Mask

    def of(self, units: Mask) -> "Bets":
        """Return some of the units."""
        return self._replace(
            entry=self.entry[units],
            month=self.month[units],
            missing=self.missing[units],
            closed=np.ascontiguousarray(self.closed[:, units]),
            x=np.ascontiguousarray(self.x[:, units]),
            chosen=self.chosen[units],
            idle=self.idle[units],
        )

    def choice(self) -> tuple[Mask, Ints, Floats, Floats]:
        """Return which units have a choice, and of these the time of closing, x and the hurdle."""
        has = self.chosen >= 0
        which, units = self.chosen[has], np.flatnonzero(has)
        return has, self.closed[which, units], self.x[which, units], self.hurdle[self.month[has], which]


class EValue(NamedTuple):
    """An e-value with its two halves, and the weighted growth of its accounts: sum of v W ln W."""

    family: float
    choice: float
    growth: float

    @property
    def value(self) -> float:
        """The mean of family and choice."""
        return (self.family + self.choice) / 2


class Refuting(NamedTuple):
    """The e-value against the edge that would matter, its growth, and the number of its bets."""

    value: float
    growth: float
    bets: int


def e_value(bets: Bets, fractions: Floats) -> EValue:
    """Return the e-value of a caller's bets against the hurdle."""
    made = np.empty((len(bets.x), len(fractions)))
    family(bets.entry, bets.closed, bets.x, bets.month, bets.hurdle, fractions, made)
    has, closed, x, hurdle = bets.choice()
    chosen = wealth(bets.entry[has], closed, (1 + x) / (1 + hurdle) - 1, fractions)
    return EValue(float(made.mean()), float(chosen.mean()), (_growth(made) + _growth(chosen)) / 2)


def e_none(bets: Bets, rules: EvidenceRules, fractions: Floats) -> Refuting:
    """Return the e-value that says: the monthly choice earns less than the edge that would matter."""
    has, chosen_closed, chosen_x, _ = bets.choice()
    x, closed = np.zeros(len(bets.entry)), bets.entry.copy()
    x[has], closed[has] = chosen_x, chosen_closed
    used = (has | bets.idle) & ~bets.missing
    payoff = (rules.edge - x[used]) / (rules.cap - rules.edge)
    made = wealth(bets.entry[used], closed[used], payoff, fractions)
    return Refuting(float(made.mean()), _growth(made), int(used.sum()))


def _growth(made: Floats) -> float:
    return float((made * np.log(np.maximum(made, LEAST))).mean())


def without_hurdle(bets: Bets) -> Bets:
    """Return the same bets against nothing."""
    return bets._replace(hurdle=np.zeros_like(bets.hurdle))
