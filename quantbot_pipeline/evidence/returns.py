"""What every policy made of every unit: its capped return, and when the position is closed.

Source: docs/evidence.md, "Returns". Hundreds of policies leave a call in a few dozen ways, so x is computed once per exit.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.compiled import compiled
from quantbot_pipeline.evidence.units import Units
from quantbot_pipeline.replay.results import Exits, Outcomes, Truth
from quantbot_pipeline.replay.statistics import realized_return_bps
from quantbot_pipeline.vocabulary import DATA_END

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
AT_ONCE = 64  # units: what they read and write stays in cache
LOST = -1.0


def capped(exits: Exits, p0: Floats, cost: float, cap: float) -> Floats:
    """Return x: the realized return, at most the cap; a token that stopped trading cannot be sold."""
    gained = np.minimum(realized_return_bps(exits.px, p0, cost) / 10_000, cap)
    return np.where(exits.reason == DATA_END, LOST, gained)


def missing_lost(units: Units, policies: int, horizon_ms: int) -> tuple[Ints, Floats]:
    """Return room for (closed, x), each (P, N), in which missing units have lost their stake at the horizon."""
    closed, x = np.empty((policies, len(units.row)), np.int64), np.empty((policies, len(units.row)))
    closed[:, units.missing] = units.entry[units.missing] + horizon_ms
    x[:, units.missing] = LOST
    return closed, x


def fill(
    closed: Ints, x: Floats, units: Ints, rows: Ints, truth: Truth, outcomes: Outcomes, cost: float, cap: float
) -> None:
    """Fill in what some policies made of some units. closed, x: (policies, N); rows: the calls of the units in the outcomes."""
    owner = np.repeat(np.arange(len(outcomes.first)), outcomes.distinct)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(outcomes.distinct) - outcomes.distinct, outcomes.distinct)
    p0 = np.ones(len(outcomes.exits.ts))
    p0[outcomes.first[owner] + within] = truth.p0[owner]
    made = capped(outcomes.exits, p0, cost, cap)
    _gather(units, rows, outcomes.first, outcomes.which, outcomes.exits.ts, made, closed, x)


@compiled(error_model="numpy")
def _gather(units: Any, rows: Any, first: Any, which: Any, ts: Any, made: Any, closed: Any, x: Any) -> None:
    for begin in range(0, len(units), AT_ONCE):
        end = min(begin + AT_ONCE, len(units))
        for p in range(len(x)):
            for i in range(begin, end):
                exit_ = first[rows[i]] + np.int64(which[rows[i], p])
                closed[p, units[i]] = ts[exit_]
                x[p, units[i]] = made[exit_]
