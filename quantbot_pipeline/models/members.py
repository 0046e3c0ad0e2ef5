"""The three members of a model, fitted: what each knows, and what it says of calls, with numpy alone.

Belongs here: the arrays of a member, and predicting with them. Does not: fitting what needs a library (`fitting`), or how much a
member counts (`blend`). A member says a distance from the base: in logits, or as a fraction of the stake for `return`.
Every sum runs in a fixed order, so that a call alone and the same call among others give the same bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from quantbot_pipeline.models.numbers import Floats, Ints, Mask, base_logit, known

PRIOR_BOUNDS = (2.0, 200.0)
PRIOR_OF_RETURN = 20.0
AT_ONCE = 4096  # calls whose columns are held at a time: they stay in the cache of the processor


class Callers(NamedTuple):
    """The rate of each caller: `distances[name]` from the base. A caller that is not among them is the base. prior: in calls."""

    prior: float
    distances: dict[str, float]

    def predict(self, names: Sequence[str]) -> Floats:
        """Return the distances, shape (C,)."""
        return np.array([self.distances.get(name, 0.0) for name in names], np.float64)


class Linear(NamedTuple):
    """Weights of clipped, standardised columns and of flags for missing values; shapes (K,). `columns`: among the features.

    A column without a missing value in training has the flag weight 0.
    """

    columns: Ints
    low: Floats
    high: Floats
    mean: Floats
    scale: Floats
    weights: Floats
    missing_weights: Floats
    intercept: float

    def predict(self, x: Floats) -> Floats:
        """Return the decision of each row of the features, shape (C,)."""
        said = np.full(len(x), self.intercept)
        for k, column in enumerate(self.columns):
            values, absent = self.standard(x, k, int(column))
            said += values * self.weights[k] + absent * self.missing_weights[k]
        return said

    def standard(self, x: Floats, k: int, column: int) -> tuple[Floats, Mask]:
        """Return a column clipped and standardised, 0 where it is missing; and where it is."""
        values = x[:, column]
        absent = np.isnan(values)
        shown = (np.clip(values, self.low[k], self.high[k]) - self.mean[k]) / self.scale[k]
        return np.where(absent, 0.0, shown), absent


@dataclass(frozen=True, eq=False)
class Trees:
    """Trees one behind the other: tree t has the nodes `[starts[t], starts[t + 1])`; other shapes (N,).

    A leaf has the children -1. A row goes left when its value is at most the threshold, or when it is missing and
    `missing_left` holds. Children come behind their parents, and are numbered inside the tree.
    """

    baseline: float
    starts: Ints
    feature: Ints
    threshold: Floats
    left: Ints
    right: Ints
    missing_left: Mask
    value: Floats

    def predict(self, x: Floats) -> Floats:
        """Return the sum of the leaves that each row falls into, shape (C,)."""
        said = np.full(len(x), self.baseline)
        for first in range(0, len(x), AT_ONCE):
            columns = np.ascontiguousarray(x[first : first + AT_ONCE].T)
            missing = np.isnan(columns)
            for begin, end in pairwise(self.starts.tolist()):  # tree after tree, as the library adds
                said[first : first + AT_ONCE] += self._leaves(begin, end, columns, missing)
        return said

    def _leaves(self, begin: int, end: int, columns: Floats, missing: Mask) -> Floats:
        """Return the leaf of each row in one tree; columns and missing (F, C).

        From the leaves up, each node chooses between its children for all rows at once. Walking each row down reads memory at
        random and takes several times as long.
        """
        chosen: dict[int, Any] = {}
        for node in range(end - 1, begin - 1, -1):  # children come behind their parents
            if self.left[node] < 0:
                chosen[node] = self.value[node]
                continue
            feature = self.feature[node]
            goes_left = columns[feature] <= self.threshold[node]
            if self.missing_left[node]:
                goes_left |= missing[feature]
            children = (chosen.pop(begin + int(child[node])) for child in (self.left, self.right))
            chosen[node] = np.where(goes_left, *children)
        return np.broadcast_to(chosen[begin], columns.shape[1:])

    def used(self) -> set[int]:
        """Return the features by which some tree decides."""
        return set(self.feature[self.left >= 0].tolist())


def caller_rates(names: Sequence[str], outcomes: Floats) -> Callers:
    """Fit the beta-binomial rate of every caller: (hits + k q) / (n + k), as a distance in logits from the base q."""
    who, calls, hits = _by_caller(names, outcomes)
    n = len(outcomes)
    base, prior = base_logit(float(hits.sum()), n), prior_by_moments(calls, hits)
    q = (hits.sum() + 0.5) / (n + 1)
    rate = (hits + prior * q) / (calls + prior)
    return Callers(prior, dict(zip(who, (np.log(rate / (1 - rate)) - base).tolist(), strict=True)))


def caller_means(names: Sequence[str], outcomes: Floats) -> Callers:
    """Fit the mean of every caller, with the weight of 20 calls at the mean of all; as a distance from that mean."""
    who, calls, sums = _by_caller(names, outcomes)
    mean = float(outcomes.mean())
    means = (sums + PRIOR_OF_RETURN * mean) / (calls + PRIOR_OF_RETURN)
    return Callers(PRIOR_OF_RETURN, dict(zip(who, (means - mean).tolist(), strict=True)))


def _by_caller(names: Sequence[str], outcomes: Floats) -> tuple[list[str], Floats, Floats]:
    """Return the callers in byte order, their calls and the sums of their outcomes."""
    who = sorted(set(names), key=str.encode)
    code = {name: i for i, name in enumerate(who)}
    codes = np.array([code[name] for name in names], np.int64)
    calls: Floats = np.bincount(codes, minlength=len(who)).astype(np.float64)
    sums: Floats = np.bincount(codes, outcomes, len(who)).astype(np.float64)
    return who, calls, sums


def prior_by_moments(calls: Floats, hits: Floats) -> float:
    """Return the weight of the prior in calls, from how much more callers differ than chance lets them; within [2, 200].

    calls, hits: per caller, shape (K,). The estimate is the moment estimate of the beta-binomial's correlation (Kleinman, 1973).
    """
    low, high = PRIOR_BOUNDS
    n, k = calls.sum(), len(calls)
    mean = hits.sum() / n
    spread = n - (calls**2).sum() / n - (k - 1)
    if not 0 < mean < 1 or spread <= 0:
        return high
    observed = (calls * (hits / calls - mean) ** 2).sum() / (mean * (1 - mean))
    correlation = (observed - (k - 1)) / spread
    return high if correlation <= 0 else float(np.clip(1 / correlation - 1, low, high))


def linear_scales(x: Floats, columns: Ints, low: Floats, high: Floats) -> Linear:
    """Return the scales of some columns as a member without weights: 1st and 99th percentile, mean and deviation of the clipped."""
    mean, scale, flags = np.zeros(len(columns)), np.ones(len(columns)), np.zeros(len(columns))
    for k, column in enumerate(columns):
        clipped = np.clip(known(x[:, column]), low[column], high[column])
        mean[k], deviation = clipped.mean(), clipped.std()
        scale[k] = deviation if deviation > 0 else 1.0
        flags[k] = len(clipped) < len(x)
    return Linear(columns, low[columns], high[columns], mean, scale, np.zeros(len(columns)), flags, 0.0)
