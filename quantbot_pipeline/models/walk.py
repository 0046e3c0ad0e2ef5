"""Walking forward: the calls of all months as arrays, what a month's model may learn from, and what months were tested.

Belongs here: which calls count where. Does not: how calls and candles become arrays; that is the recipe's.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from quantbot_pipeline.models.explain import Increases, increases
from quantbot_pipeline.models.metrics import Judged, blocks_of
from quantbot_pipeline.models.model import Model, Predicted, predict
from quantbot_pipeline.models.numbers import Floats, Ints, Mask
from quantbot_pipeline.models.targets import Target
from quantbot_pipeline.models.training import FITTED, TrainCalls, train
from quantbot_pipeline.vocabulary import BLEND, MODELS


class History(NamedTuple):
    """All calls, month after month, each month's by time; shapes (C,), x (C, F). Times in UTC ms.

    included: whether the call has a window. known: whether its window had ended by the end of the data. entry: -1 without a window.
    outcomes: {target: (C,)}, and returns: realized fractions of the policy; they mean nothing without a window.
    month: the number of the call's month. feature_set, features: what the columns of x are.
    """

    x: Floats
    callers: list[str]
    alert: Ints
    entry: Ints
    included: Mask
    known: Mask
    outcomes: Mapping[str, Floats]
    returns: Floats
    month: Ints
    horizon_ms: int
    feature_set: int
    features: tuple[str, ...]

    def names(self, rows: Ints) -> list[str]:
        """Return the callers of some calls."""
        return [self.callers[row] for row in rows]


class JudgedMonth(NamedTuple):
    """What a month's model said of the month's calls with a known outcome (`rows` of the history), and why."""

    rows: Ints
    model: Model
    predicted: Predicted
    increases: Increases


def train_rows(history: History, until: int) -> Ints:
    """Return the included calls whose whole window had ended at `until`, by time."""
    return np.flatnonzero(history.included & (history.entry + history.horizon_ms <= until))


def model_of(history: History, target: Target, until: int) -> Model:
    """Return the model of a target for the month that begins at `until`. Call it inside `fitting.fitting`."""
    rows = train_rows(history, until)
    calls = TrainCalls(
        x=history.x[rows],
        callers=history.names(rows),
        alert=history.alert[rows],
        ended=history.entry[rows] + history.horizon_ms,
        outcome=history.outcomes[target.name][rows],
    )
    return train(target, calls, until, history.feature_set, history.features)


def outcome_under(history: History, model: Model, rows: Ints) -> Floats:
    """Return the outcomes of calls as the model's target means them: an amount is cut as in training."""
    outcome = history.outcomes[model.target.name][rows]
    return outcome if model.cut is None else np.clip(outcome, *model.cut)


def judge_month(history: History, model: Model, month: int) -> JudgedMonth:
    """Return what a fitted model says of its month's calls with a known outcome; none of a model that is the base rate."""
    chosen = history.included & history.known & (history.month == month)
    rows = np.flatnonzero(chosen) if model.status == FITTED else np.zeros(0, np.int64)
    names, x, block = history.names(rows), history.x[rows], blocks_of(history.alert[rows], history.horizon_ms)
    seed = model.trained_until // 86_400_000
    found = increases(model, x, names, outcome_under(history, model, rows), block, seed)
    return JudgedMonth(rows, model, predict(model, x, names), found)


def judged_of(history: History, months: list[JudgedMonth]) -> Judged:
    """Return the calls of tested months, as measures take them."""
    rows = np.concatenate([month.rows for month in months])
    said = {
        name: np.concatenate([getattr(month.predicted, "value" if name == BLEND else name) for month in months])
        for name in MODELS
    }
    return Judged(
        outcome=np.concatenate([outcome_under(history, month.model, month.rows) for month in months]),
        said=said,
        take=np.concatenate([month.predicted.take for month in months]),
        low=np.concatenate([month.predicted.low for month in months]),
        high=np.concatenate([month.predicted.high for month in months]),
        returns=history.returns[rows],
        block=blocks_of(history.alert[rows], history.horizon_ms),
        month=history.month[rows],
    )
