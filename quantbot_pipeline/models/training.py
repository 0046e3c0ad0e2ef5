"""Making the model of a target from train calls: members, blend, limit, intervals. Source: docs/models.md.

Belongs here: which calls each step may see. Does not: the formulas of the members and of the blend.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from quantbot_pipeline.models.blend import MEMBERS, weights_of_amounts, weights_of_logits
from quantbot_pipeline.models.fitting import fit_members
from quantbot_pipeline.models.members import Callers, caller_means, caller_rates
from quantbot_pipeline.models.model import Model, distances_of, shown
from quantbot_pipeline.models.numbers import Floats, Ints, base_logit, range_of
from quantbot_pipeline.models.targets import Target
from quantbot_pipeline.vocabulary import MODEL_STATUSES

MIN_CALLS, MIN_CLASS = 100, 10
BLOCKS = 5
MIN_BLOCK_CALLS, MIN_BLOCK_CLASS = 40, 4
TAKE_QUANTILE = 0.8
FITTED, NO_CALLS, TOO_FEW_CALLS, TOO_FEW_OF_A_CLASS = MODEL_STATUSES


class TrainCalls(NamedTuple):
    """Calls to learn from, by alert time; shapes (C,), x (C, F) with NaN where a feature is missing. Times in UTC ms.

    ended: when the call's whole window had ended.
    """

    x: Floats
    callers: list[str]
    alert: Ints
    ended: Ints
    outcome: Floats

    def of(self, rows: Ints) -> "TrainCalls":
        """Return some of the calls."""
        names = [self.callers[row] for row in rows]
        return TrainCalls(self.x[rows], names, self.alert[rows], self.ended[rows], self.outcome[rows])


def train(target: Target, calls: TrainCalls, until: int, feature_set: int, features: tuple[str, ...]) -> Model:
    """Return the model of a target from calls whose windows had ended at `until` (UTC ms). Call it inside `fitting.fitting`.

    With fewer than 100 calls, or 10 of a class, it is the base rate, and its status says so.
    """
    n, cut = len(calls.outcome), None
    if target.is_amount and n:
        low, high = np.quantile(calls.outcome, [0.01, 0.99]).tolist()
        cut = (low, high)
        calls = calls._replace(outcome=np.clip(calls.outcome, low, high))
    status = _status(target, calls.outcome)
    made = Model(
        target=target,
        feature_set=feature_set,
        features=features,
        trained_until=until,
        train_calls=n,
        positives=None if target.is_amount else int(calls.outcome.sum()),
        status=status,
        base=_base(target, calls.outcome),
        callers=Callers(0.0, {}),
        linear=None,
        boosting=None,
        weights=(0.0, 0.0, 0.0),
        limit=None,
        residuals=None,
        cut=cut,
        low=np.full(len(features), np.nan),
        high=np.full(len(features), np.nan),
    )
    return made if status != FITTED else _blended(_with_members(made, calls), calls)


def _status(target: Target, outcomes: Floats) -> str:
    n = len(outcomes)
    if n < MIN_CALLS:
        return TOO_FEW_CALLS if n else NO_CALLS
    rarer = min(outcomes.sum(), n - outcomes.sum())
    return TOO_FEW_OF_A_CLASS if not target.is_amount and rarer < MIN_CLASS else FITTED


def _base(target: Target, outcomes: Floats) -> float:
    if target.is_amount:
        return float(outcomes.mean()) if len(outcomes) else 0.0
    return base_logit(float(outcomes.sum()), len(outcomes))


def _with_members(model: Model, calls: TrainCalls) -> Model:
    """Return the model with its members fitted on these calls, and their base."""
    amount = model.target.is_amount
    linear, boosting = fit_members(calls.x, calls.outcome, is_amount=amount)
    callers = (caller_means if amount else caller_rates)(calls.callers, calls.outcome)
    low, high = range_of(calls.x)
    base = _base(model.target, calls.outcome)
    return model._replace(base=base, callers=callers, linear=linear, boosting=boosting, low=low, high=high)


def _blended(model: Model, calls: TrainCalls) -> Model:
    """Return the model with weights, limit and residuals from its members' predictions of calls that they had not seen."""
    amount = model.target.is_amount
    found = [_unseen(model, calls, rows, learn) for rows, learn in blocks(calls, amount)]
    if not found:
        return model
    rows, base, distances = (np.concatenate(parts) for parts in zip(*found, strict=True))
    outcome = calls.outcome[rows]
    weights = (weights_of_amounts if amount else weights_of_logits)(outcome, base, distances)
    first, second, third = weights.tolist()
    model = model._replace(weights=(first, second, third))
    said = base + distances[:, 0] * first + distances[:, 1] * second + distances[:, 2] * third
    if amount:
        low, high = np.quantile(outcome - said, [0.1, 0.9]).tolist()
        model = model._replace(residuals=(low, high))
    if not weights.any():
        return model
    limit = float(np.quantile(said, TAKE_QUANTILE))
    return model._replace(limit=limit if amount else float(shown(model, np.array([limit - model.base]))[0]))


def _unseen(model: Model, calls: TrainCalls, rows: Ints, learn: Ints) -> tuple[Ints, Floats, Floats]:
    """Return the rows of a block, and base and distances that members say of them who learned from others."""
    seen = _with_members(model, calls.of(learn))
    block = calls.of(rows)
    return rows, np.full(len(rows), seen.base), distances_of(seen, block.x, block.callers).reshape(-1, MEMBERS)


def blocks(calls: TrainCalls, is_amount: bool) -> Iterator[tuple[Ints, Ints]]:
    """Yield (rows of a block, rows to learn from): five blocks in time behind a first stretch, each purged.

    A block is learned for from calls whose windows had ended when it began. One with under 40 of them, or 4 of a class, is
    left out.
    """
    n = len(calls.outcome)
    edges = np.linspace(0, n, BLOCKS + 2).astype(int)
    for first, last in pairwise(edges[1:]):
        if first == last:
            continue
        learn = np.flatnonzero(calls.ended <= calls.alert[first])
        hits = calls.outcome[learn].sum()
        if len(learn) < MIN_BLOCK_CALLS or (not is_amount and min(hits, len(learn) - hits) < MIN_BLOCK_CLASS):
            continue
        yield np.arange(first, last), learn
