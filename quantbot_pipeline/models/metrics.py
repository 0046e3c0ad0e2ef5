"""How good predictions were: losses, gains over the base and over the caller's rate, and how sure each gain is.

Belongs here: measures of calls whose outcome is known. Does not: what they mean (`verdict`). A measure that is undefined is NaN.
z is a gain divided by its standard error over blocks of time: calls of two days share a market.
"""

from typing import NamedTuple

import numpy as np

from quantbot_pipeline.models.numbers import FAR, Floats, Ints, Mask, logit

MIN_BLOCKS = 3  # a spread of two numbers is no measure of a spread
MAX_SLOPE = 100.0  # of a calibration: where every hit is predicted above every miss there is none
DAY_MS = 86_400_000


class Judged(NamedTuple):
    """Predictions of calls whose outcome is known, shape (C,) each. said: {model: what it said}; NaN where it said nothing.

    block: the block of time of the call. low, high: NaN but for amounts. returns: realized fractions of the policy.
    """

    outcome: Floats
    said: dict[str, Floats]
    take: Mask
    low: Floats
    high: Floats
    returns: Floats
    block: Ints
    month: Ints

    def of(self, rows: "Mask | Ints") -> "Judged":
        """Return some of the calls."""
        said = {name: values[rows] for name, values in self.said.items()}
        take, low, high, returns = self.take[rows], self.low[rows], self.high[rows], self.returns[rows]
        return Judged(self.outcome[rows], said, take, low, high, returns, self.block[rows], self.month[rows])


class Measure(NamedTuple):
    """A number and its z; NaN where it is undefined."""

    value: float
    z: float


UNDEFINED = Measure(float("nan"), float("nan"))


def blocks_of(alert: Ints, horizon_ms: int) -> Ints:
    """Return the block of time of each alert (UTC ms): two days long, or as long as the horizon if that is longer."""
    return alert // max(2 * DAY_MS, horizon_ms)


def losses(outcome: Floats, said: Floats, *, is_amount: bool) -> Floats:
    """Return the loss of each call: the squared error of an amount, else the negative log likelihood."""
    if is_amount:
        return (outcome - said) ** 2
    return -np.log(np.where(outcome > 0, said, 1.0 - said))


def standard_error(deviations: Floats, block: Ints) -> float:
    """Return the standard error of the sum of deviations from its mean, by blocks; NaN with fewer than three blocks."""
    if not len(deviations):
        return float("nan")
    code = np.unique(block, return_inverse=True)[1]
    sums = np.bincount(code, deviations)
    count = len(sums)
    if count < MIN_BLOCKS:
        return float("nan")
    return float(np.sqrt(count / (count - 1) * (sums**2).sum()))


def mean_with_z(values: Floats, block: Ints) -> Measure:
    """Return the mean of values, and its z by blocks."""
    n = len(values)
    if not n:
        return UNDEFINED
    mean = float(values.mean())
    error = standard_error(values - mean, block) / n
    return Measure(mean, mean / error if error > 0 else float("nan"))


def gain(judged: Judged, model: str, over: str, *, is_amount: bool) -> Measure:
    """Return by which share a model's loss is below that of another, and the z of the difference; of `return` this is R²."""
    if not len(judged.outcome) or model == over:
        return UNDEFINED
    own, other = (losses(judged.outcome, judged.said[name], is_amount=is_amount) for name in (model, over))
    difference, total = mean_with_z(other - own, judged.block), float(other.mean())
    return Measure(difference.value / total if total > 0 else float("nan"), difference.z)


def auc(outcome: Floats, said: Floats) -> float:
    """Return how often a hit is predicted above a miss, ties counted half; NaN with one class."""
    hits = int(outcome.sum())
    misses = len(outcome) - hits
    if not hits or not misses:
        return float("nan")
    _, code, counts = np.unique(said, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[code]
    return float((ranks[outcome > 0].sum() - hits * (hits + 1) / 2) / (hits * misses))


class Calibration(NamedTuple):
    """`logit(truth) = intercept + slope * logit(said)`; NaN where it is undefined."""

    slope: float
    intercept: float


def calibration(outcome: Floats, said: Floats) -> Calibration:
    """Return the calibration by logistic regression without a penalty: a slope of 1 and an intercept of 0 are perfect."""
    undefined = Calibration(float("nan"), float("nan"))
    if not len(outcome) or outcome.min() == outcome.max() or said.min() == said.max():
        return undefined
    x = np.column_stack([np.ones(len(said)), logit(said)])
    found = np.array([0.0, 1.0])
    for _ in range(50):
        z = np.clip(x @ found, -FAR, FAR)
        p = 1 / (1 + np.exp(-z))
        information = (x * (p * (1 - p))[:, None]).T @ x
        if not np.isfinite(information).all() or abs(np.linalg.det(information)) < 1e-12:
            return undefined
        step = np.linalg.solve(information, x.T @ (outcome - p))
        found = found + step
        if abs(found[1]) > MAX_SLOPE:
            return undefined
        if np.abs(step).max() < 1e-10:
            return Calibration(float(found[1]), float(found[0]))
    return undefined


def money(judged: Judged) -> Measure:
    """Return how much more the taken calls earned than all, per call as a fraction, and its z by blocks."""
    take, n = judged.take, len(judged.take)
    if not take.any() or take.all():
        return UNDEFINED
    all_mean, taken_mean = judged.returns.mean(), judged.returns[take].mean()
    influence = take / take.mean() * (judged.returns - taken_mean) - (judged.returns - all_mean)
    error = standard_error(influence, judged.block) / n
    difference = float(taken_mean - all_mean)
    return Measure(difference, difference / error if error > 0 else float("nan"))
