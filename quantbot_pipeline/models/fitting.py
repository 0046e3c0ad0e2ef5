"""Fitting the linear and the boosted member with scikit-learn, and taking them out of it as arrays.

Belongs here: everything that knows scikit-learn; it is imported inside functions, so that whoever only predicts does not load
it. Does not: what a member is. Fits run on one thread: their bits must not depend on the machine's cores.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from quantbot_pipeline.errors import InputError, QuantbotError
from quantbot_pipeline.models.members import Linear, Trees, linear_scales
from quantbot_pipeline.models.numbers import Floats, Ints, range_of, telling

C = 0.1  # of the logistic regression: the inverse of its penalty
ALPHA = 30.0  # of the ridge regression
BOOSTING: dict[str, Any] = {
    "max_iter": 40,
    "max_leaf_nodes": 7,
    "learning_rate": 0.05,
    "min_samples_leaf": 20,
    "l2_regularization": 1.0,
    "early_stopping": False,
    "random_state": 0,
}
CLOSE = 1e-9  # of the linear member: the library sums in an order that depends on the batch


@contextmanager
def fitting() -> Iterator[None]:
    """Have fits run on one thread. Raises InputError without scikit-learn."""
    try:
        import sklearn.ensemble  # noqa: F401
        from threadpoolctl import threadpool_limits
    except ImportError as e:
        raise InputError(
            f"models need scikit-learn ({e}); install the extra: pip install 'quantbot-pipeline[ml]'"
        ) from None
    with threadpool_limits(1):
        yield


def fit_members(x: Floats, outcomes: Floats, *, is_amount: bool) -> tuple[Linear | None, Trees | None]:
    """Fit both members on calls, x (C, F) with NaN where a feature is missing; None where no feature tells anything.

    Call it inside `fitting`. Raises QuantbotError where the arrays do not say what the library says.
    """
    columns = telling(x)
    if not len(columns):
        return None, None
    return _linear(x, outcomes, columns, is_amount), _trees(x, outcomes, columns, is_amount)


def _linear(x: Floats, outcomes: Floats, columns: Ints, is_amount: bool) -> Linear:
    from sklearn.linear_model import LogisticRegression, Ridge

    scales = linear_scales(x, columns, *range_of(x))
    parts = [scales.standard(x, k, int(column)) for k, column in enumerate(columns)]
    flagged = np.flatnonzero(scales.missing_weights)
    design = np.column_stack([values for values, _ in parts] + [parts[k][1].astype(float) for k in flagged])
    made: Any = (
        Ridge(alpha=ALPHA, solver="cholesky") if is_amount else LogisticRegression(C=C, solver="newton-cholesky")
    )
    made.fit(design, outcomes)
    weights, missing = np.ravel(made.coef_), np.zeros(len(columns))
    missing[flagged] = weights[len(columns) :]
    member = scales._replace(
        weights=weights[: len(columns)].copy(), missing_weights=missing, intercept=float(np.ravel(made.intercept_)[0])
    )
    said = made.predict(design) if is_amount else made.decision_function(design)
    if not np.allclose(member.predict(x), said, rtol=CLOSE, atol=CLOSE):
        raise QuantbotError(
            "the linear member does not say what scikit-learn says; report this with the versions installed"
        )
    return member


def _trees(x: Floats, outcomes: Floats, columns: Ints, is_amount: bool) -> Trees:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    made: Any = (HistGradientBoostingRegressor if is_amount else HistGradientBoostingClassifier)(**BOOSTING)
    shown = x[:, columns]
    made.fit(shown, outcomes)
    member = _taken_out(made, columns)
    said = made.predict(shown) if is_amount else made.decision_function(shown)
    if not np.array_equal(member.predict(x), said):
        raise QuantbotError(
            "the trees do not say bit for bit what scikit-learn says; install the version of constraints.txt"
        )
    return member


def _taken_out(made: Any, columns: Ints) -> Trees:
    """Return the trees of a fitted library object; they lie in a private attribute, so the caller compares."""
    nodes = [predictor.nodes for (predictor,) in made._predictors]
    joined = np.concatenate(nodes)
    is_leaf = joined["is_leaf"].astype(bool)
    # A split of missing against known values has the threshold infinity, which JSON has no word for.
    threshold = np.where(is_leaf, 0.0, np.clip(joined["num_threshold"], -sys.float_info.max, sys.float_info.max))
    return Trees(
        baseline=float(np.ravel(made._baseline_prediction)[0]),
        starts=np.cumsum([0, *map(len, nodes)]),
        feature=np.where(is_leaf, columns[0], columns[np.where(is_leaf, 0, joined["feature_idx"])]),
        threshold=threshold,
        left=np.where(is_leaf, -1, joined["left"].astype(np.int64)),
        right=np.where(is_leaf, -1, joined["right"].astype(np.int64)),
        missing_left=joined["missing_go_to_left"].astype(bool) & ~is_leaf,
        value=np.where(is_leaf, joined["value"], 0.0),
    )
