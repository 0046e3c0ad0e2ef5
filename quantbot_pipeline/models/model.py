"""A model of one target and month: what it holds, and what it predicts of calls.

Belongs here: the record and predicting with numpy. Does not: making it (`training`), or its form as text (`document`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from quantbot_pipeline.models.members import Callers, Linear, Trees
from quantbot_pipeline.models.numbers import Floats, Ints, Mask, expit
from quantbot_pipeline.models.targets import Target


class Model(NamedTuple):
    """A model. `base` and the distances of the members are logits, or fractions of the stake for `return`.

    trained_until: only calls whose window had ended at that time (UTC ms) were learned from. status: one of
    `vocabulary.MODEL_STATUSES`. positives: train calls of the class 1. limit: a call is taken when its value is above it; None: none
    is. residuals: 10th and 90th percentile, of `return`. cut: the outcomes that a `return` is cut to. low, high: 1st and 99th
    percentile of each feature in training, NaN for one without values.
    """

    target: Target
    feature_set: int
    features: tuple[str, ...]
    trained_until: int
    train_calls: int
    positives: int | None
    status: str
    base: float
    callers: Callers
    linear: Linear | None
    boosting: Trees | None
    weights: tuple[float, float, float]
    limit: float | None
    residuals: tuple[float, float] | None
    cut: tuple[float, float] | None
    low: Floats
    high: Floats


class Predicted(NamedTuple):
    """What a model says of calls, shape (C,) each; NaN where a member was not fitted. `distances` (C, 3): of the members."""

    value: Floats
    base: Floats
    caller: Floats
    linear: Floats
    boosting: Floats
    low: Floats
    high: Floats
    take: Mask
    outside: Ints
    distances: Floats


def predict(model: Model, x: Floats, callers: Sequence[str]) -> Predicted:
    """Return what the model says of calls: x (C, F) holds its features, NaN where one is missing.

    A call alone and the same call among others get the same bits.
    """
    distances = distances_of(model, x, callers)
    return from_distances(model, distances, outside_of(model, x))


def from_distances(model: Model, distances: Floats, outside: Ints) -> Predicted:
    """Return what the model says of calls whose members' distances (C, 3) are known."""
    n = len(distances)
    caller, linear, boosting = (shown(model, distances[:, k]) for k in range(3))
    if model.linear is None:
        linear = np.full(n, np.nan)
    if model.boosting is None:
        boosting = np.full(n, np.nan)
    value = shown(model, blended(model, distances))
    below, above = model.residuals or (np.nan, np.nan)
    take = value > model.limit if model.limit is not None else np.zeros(n, bool)
    base = shown(model, np.zeros(n))
    return Predicted(value, base, caller, linear, boosting, value + below, value + above, take, outside, distances)


def distances_of(model: Model, x: Floats, callers: Sequence[str]) -> Floats:
    """Return the distance of each member from the base, shape (C, 3); 0 for a member that was not fitted."""
    distances = np.zeros((len(x), 3))
    distances[:, 0] = model.callers.predict(callers)
    if model.linear is not None:
        distances[:, 1] = model.linear.predict(x) - model.base
    if model.boosting is not None:
        distances[:, 2] = model.boosting.predict(x) - model.base
    return distances


def blended(model: Model, distances: Floats) -> Floats:
    """Return the distance of the blend from the base, summed in the order of the members."""
    caller, linear, boosting = model.weights
    return distances[:, 0] * caller + distances[:, 1] * linear + distances[:, 2] * boosting


def shown(model: Model, distance: Floats) -> Floats:
    """Return probabilities, or fractions of the stake, at distances from the base."""
    said = np.ascontiguousarray(model.base + distance)
    return said if model.target.is_amount else expit(said)


def outside_of(model: Model, x: Floats) -> Ints:
    """Return of each call how many features lie beyond the 1st to 99th percentile of training; a missing one does not."""
    return ((x < model.low) | (x > model.high)).sum(axis=1).astype(np.int64)
