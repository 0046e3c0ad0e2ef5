"""Tuning: continuous levels found by quasi-random points and a refinement around the best of them.

Belongs here: the space, who proposes candidates, and which of them is chosen. Does not: the replay that measures them, and what
the choice is worth on calls that it has not seen; that is in `guard`. Source: docs/search.md, "Tuning".
"""

import functools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.replay.compile import Levels
from quantbot_pipeline.replay.policies import Policy, parse_policy
from quantbot_pipeline.replay.statistics import MEDIAN_RETURN, P95_DRAWDOWN
from quantbot_pipeline.search.leaning import lean
from quantbot_pipeline.search.objective import Constraints, Objective, score, violated

Floats = npt.NDArray[np.float64]

SEED = 0
SOBOL = 2_048  # a power of 2, which keeps the points balanced
ROUNDS, PARENTS, CHILDREN = 4, 16, 32
DEVIATION = 0.15  # of the unit cube in the first round; halved in every further one
NEIGHBOURS = 16  # whose mean score is the plateau of a choice
DIGITS = 4
MINUTE, HOUR = 60_000, 3_600_000

# Coordinates of the unit cube, their ranges, and the share of each that means "without".
STOP, TAKE, HOLD, TRAIL, ACTIVATION = range(5)
WITHOUT = (0.15, 0.2, 0.0, 0.3, 0.0)
STOPS, TAKES, ACTIVATIONS = (0.03, 0.60), (0.10, 4.0), (0.0, 1.5)
HOLDS_MS, TRAILS = (15 * MINUTE, 48 * HOUR), (0.02, 0.50)


@functools.cache
def first_points() -> Floats:
    """Return the points with which every search begins, (SOBOL, 5) in the unit cube."""
    from scipy.stats import qmc  # 0.5 s

    points: Floats = qmc.Sobol(len(WITHOUT), seed=SEED).random(SOBOL)
    return points


def levels_of(points: Floats) -> Levels:
    """Return the policies at some points of the unit cube (P, 5)."""
    share = [_share(points[:, i], without) for i, without in enumerate(WITHOUT)]
    minutes = _log(share[HOLD], *HOLDS_MS) / MINUTE
    trail = np.round(_log(share[TRAIL], *TRAILS), DIGITS)
    activation = np.round(ACTIVATIONS[0] + share[ACTIVATION] * (ACTIVATIONS[1] - ACTIVATIONS[0]), DIGITS)
    return Levels(
        stop=np.round(STOPS[0] + share[STOP] * (STOPS[1] - STOPS[0]), DIGITS),
        take=np.round(_log(share[TAKE], *TAKES), DIGITS),
        hold=np.round(minutes).astype(np.int64) * MINUTE,
        activation=np.where(np.isnan(trail), np.nan, activation),
        trail=trail,
    )


def _share(coordinate: Floats, without: float) -> Floats:
    """Return how far a coordinate is through its range; NaN in the part that means "without"."""
    return np.where(coordinate < without, np.nan, (coordinate - without) / (1 - without))


def _log(share: Floats, low: float, high: float) -> Floats:
    return np.clip(low * (high / low) ** share, low, high)


def policy_at(levels: Levels, i: int) -> Policy:
    """Return one of the policies as data."""
    stop, take, hold, activation, trail = (float(values[i]) for values in levels)
    timed: dict[str, Any] = {"kind": "time_stop", "max_hold_ms": int(hold)}
    rules = [timed | ({} if np.isnan(take) else {"take_profit_pct": take})]
    if not np.isnan(stop):
        rules.append({"kind": "fixed_stop", "stop_pct": stop})
    if not np.isnan(trail):
        rules.append({"kind": "trailing_stop", "activation_pct": activation, "trail_pct": trail})
    return parse_policy(rules[0] if len(rules) == 1 else {"kind": "combo", "policies": rules})


class Tuned(NamedTuple):
    """What a search found: the policy, its score, the mean score of its neighbours, and how many policies were measured."""

    policy: Policy
    promise: float
    plateau: float
    evaluations: int


class Tuner:
    """One search on one group of calls: take in what the first points earned, then ask and tell, round after round."""

    def __init__(
        self, calls: int, mints: int, constraints: Constraints, objective: Objective, pool_calls: int, *, leans: bool
    ) -> None:
        """calls, mints: of the group; leans: whether its statistics lean on those of all callers."""
        self._calls, self._mints, self._constraints, self._objective = calls, mints, constraints, objective
        self._pool_calls = pool_calls if leans else 0
        self._points, self._stats = np.empty((0, len(WITHOUT))), np.empty((0, objective.stats))

    def tell(self, points: Floats, own: Floats, pool: Floats) -> None:
        """Take in the statistics of some points (P, S): of the group's calls, and of all callers'."""
        stats = lean(own, self._calls, pool, self._pool_calls) if self._pool_calls else own
        self._points = np.concatenate([self._points, points])
        self._stats = np.concatenate([self._stats, stats])

    def ask(self, number: int) -> Floats:
        """Return the points of a round (0, 1, …): children of the best so far, mirrored at the walls of the cube."""
        rng = np.random.default_rng([SEED, number])
        parents = self._points[self._order()[:PARENTS]]
        moved = np.repeat(parents, CHILDREN, axis=0)
        moved = moved + rng.normal(0.0, DEVIATION / 2**number, moved.shape)
        return np.clip(1 - np.abs(1 - np.abs(moved)), 0.0, 1.0)

    def best(self) -> Tuned | None:
        """Return the first in order if it meets the constraints."""
        first = int(self._order()[0])
        if self._broken()[first].any():
            return None
        points = score(self._stats, self._objective)
        distance = np.square(self._points - self._points[first]).sum(axis=1)
        distance[first] = np.inf
        near = np.argsort(distance, kind="stable")[:NEIGHBOURS]
        return Tuned(
            policy_at(levels_of(self._points[first : first + 1]), 0),
            float(points[first]),
            float(points[near].mean()),
            len(points),
        )

    def _broken(self) -> npt.NDArray[np.bool_]:
        return violated(self._stats, self._calls + self._pool_calls, self._mints, self._constraints)

    def _order(self) -> npt.NDArray[np.int64]:
        """Return the points in order, best first: as a frontier is ranked; of equals the one that was proposed first."""
        keys = [score(self._stats, self._objective), self._stats[:, MEDIAN_RETURN], self._stats[:, P95_DRAWDOWN]]
        return np.lexsort([*(-np.round(key, 6) for key in reversed(keys)), self._broken().any(axis=1)])
