"""What a model goes by: the loss when a feature is shuffled among calls that it had not seen, and what it says at each value.

Belongs here: permutation importance and partial dependence. Does not: whether anybody should believe them; where the verdict is not
`better` no page draws them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from quantbot_pipeline.models.metrics import losses, mean_with_z
from quantbot_pipeline.models.model import Model, blended, distances_of, predict, shown
from quantbot_pipeline.models.numbers import Floats, Ints, known
from quantbot_pipeline.models.verdict import number
from quantbot_pipeline.vocabulary import WHOLE_GROUP

PERMUTATIONS = 5
QUANTILES = 20
SHOWN_CALLS = 100  # of the train calls, at even distances: the dependence is a mean over them
CALLER = "caller"
GROUPS = {
    "returns": ("ret_1h", "ret_4h", "ret_24h", "up_share_24h"),
    "volatility": ("rv_4h", "rv_24h", "max_up_24h"),
    "range": ("from_high_24h", "from_low_24h"),
    "volume": ("volume_share_1h",),
    "activity": ("candles_24h", "stale_ms"),
}
OTHER = "other"


class Increases(NamedTuple):
    """By how much each call's loss grows when a feature or a group is shuffled: {(feature, group): (C,)}."""

    of: dict[tuple[str, str], Floats]
    block: Ints


def group_of(feature: str) -> str:
    """Return the group of a feature."""
    return next((group for group, names in GROUPS.items() if feature in names), OTHER)


def subjects(features: Sequence[str]) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return what is shuffled, {(feature, group): the features}; the caller first, groups last as the feature `__all__`."""
    grouped: dict[str, list[str]] = {}
    for feature in features:
        grouped.setdefault(group_of(feature), []).append(feature)
    alone: dict[tuple[str, str], tuple[str, ...]] = {(CALLER, CALLER): (CALLER,)}
    alone |= {(feature, group_of(feature)): (feature,) for feature in features}
    return alone | {(WHOLE_GROUP, group): tuple(names) for group, names in {CALLER: [CALLER], **grouped}.items()}


def increases(model: Model, x: Floats, callers: Sequence[str], outcome: Floats, block: Ints, seed: int) -> Increases:
    """Return the increases of a month's calls with a known outcome: means of five shuffles inside the month."""
    amount, n = model.target.is_amount, len(outcome)
    before = predict(model, x, callers)
    loss = losses(outcome, before.value, is_amount=amount)
    order = np.random.default_rng(seed).permuted(np.tile(np.arange(n), (PERMUTATIONS, 1)), axis=1)
    used = _used(model)
    found = {}
    for subject, names in subjects(model.features).items():
        if not n or not used.intersection(names):
            found[subject] = np.zeros(n)
            continue
        distances = _shuffled(model, x, before.distances, names, order)
        after = losses(np.tile(outcome, PERMUTATIONS), shown(model, blended(model, distances)), is_amount=amount)
        total = np.zeros(n)
        for shuffle in after.reshape(PERMUTATIONS, n):
            total += shuffle - loss
        found[subject] = total / PERMUTATIONS
    return Increases(found, block)


def _used(model: Model) -> set[str]:
    """Return the features, and the caller, on which the blend depends at all."""
    caller, linear, boosting = model.weights
    used = {CALLER} if caller > 0 else set()
    if linear > 0 and model.linear is not None:
        used |= {model.features[column] for column in model.linear.columns}
    if boosting > 0 and model.boosting is not None:
        used |= {model.features[column] for column in model.boosting.used()}
    return used


def _shuffled(model: Model, x: Floats, distances: Floats, names: tuple[str, ...], order: Ints) -> Floats:
    """Return the distances with some features taken from other calls; members that do not read them stay as they are.

    order: the calls from which each shuffle takes them, shape (S, C). Returned are the shuffles one behind the other, (S * C, 3).
    """
    changed, others = np.tile(distances, (len(order), 1)), order.ravel()
    if names == (CALLER,):
        changed[:, 0] = distances[others, 0]
        return changed
    columns = [model.features.index(name) for name in names]
    x, given = np.tile(x, (len(order), 1)), x
    x[:, columns] = given[others][:, columns]
    if model.linear is not None and model.weights[1] > 0:
        changed[:, 1] = model.linear.predict(x) - model.base
    if model.boosting is not None and model.weights[2] > 0 and model.boosting.used().intersection(columns):
        changed[:, 2] = model.boosting.predict(x) - model.base
    return changed


def importance_rows(target: str, months: Sequence[Increases]) -> list[dict[str, Any]]:
    """Return the rows of `importance` without `run_id`: the mean increase to date and its z by blocks."""
    if not months:
        return []
    block = np.concatenate([month.block for month in months])
    rows = []
    for feature, group in months[-1].of:
        values = np.concatenate([month.of.get((feature, group), np.zeros(len(month.block))) for month in months])
        found = mean_with_z(values, block)
        measured = {"loss_increase": number(found.value), "z": number(found.z), "calls": len(values)}
        rows.append({"target": target, "feature": feature, "group": group} | measured)
    return rows


def dependence_rows(model: Model, x: Floats, callers: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of `dependence` without `run_id`: what the blend says when a feature has one of 20 train quantiles.

    x, callers: the train calls. A model without members has no rows.
    """
    if model.linear is None and model.boosting is None:
        return []
    some = np.unique(np.linspace(0, len(x) - 1, min(SHOWN_CALLS, len(x))).astype(int))
    sample, names = x[some], [callers[row] for row in some]
    fixed = distances_of(model, sample, names)
    rows = []
    for column, feature in enumerate(model.features):
        values = known(x[:, column])
        if not len(values):
            continue
        points = np.unique(np.quantile(values, (np.arange(QUANTILES) + 0.5) / QUANTILES))
        changed = np.tile(sample, (len(points), 1))
        changed[:, column] = np.repeat(points, len(sample))
        distances = np.tile(fixed, (len(points), 1))
        if model.linear is not None and model.weights[1] > 0:
            distances[:, 1] = model.linear.predict(changed) - model.base
        if model.boosting is not None and model.weights[2] > 0 and column in model.boosting.used():
            distances[:, 2] = model.boosting.predict(changed) - model.base
        said = shown(model, blended(model, distances)).reshape(len(points), len(sample)).mean(axis=1)
        rows += [
            {"target": model.target.name, "feature": feature, "at": at, "value": value}
            for at, value in zip(points.tolist(), said.tolist(), strict=True)
        ]
    return rows
