"""Calls and candles of all months as the arrays that models learn from and are judged on.

Belongs here: replaying months with the policy, their features, and which outcomes are known. Does not: models; `models` is pure.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.backtest.earlier_runs import config_hash_of, whole
from quantbot_pipeline.backtest.features import day_before
from quantbot_pipeline.backtest.inputs import MonthInputs, reach_ms, seen_until
from quantbot_pipeline.backtest.prediction_columns import MODEL_FEATURES, model_features
from quantbot_pipeline.backtest.remembered import forget_others
from quantbot_pipeline.backtest.replaying import Replayed, replay_month
from quantbot_pipeline.backtest.run import Run
from quantbot_pipeline.market.candle_files import store_signature
from quantbot_pipeline.market.features.names import FEATURE_SET
from quantbot_pipeline.specs import KINDS
from quantbot_pipeline.vocabulary import INCLUDED

if TYPE_CHECKING:
    from quantbot_pipeline.models.targets import Target
    from quantbot_pipeline.models.walk import History
    from quantbot_pipeline.replay.results import Truth

Floats = npt.NDArray[np.float64]
CALLS = "prediction calls"


class MonthArrays(NamedTuple):
    """A month's calls, shape (C,): features (C, F), truth, and realized fractions under the policy (NaN without a window)."""

    x: Floats
    truth: "Truth"
    returns: Floats


class Calls(NamedTuple):
    """All months, ascending, the made one last: inputs, arrays, and the history that models see; `begins`: of each month's rows.

    seen_until: up to when it is known how calls ended, UTC ms; None without candles.
    """

    months: Sequence[MonthInputs]
    arrays: Sequence[MonthArrays]
    begins: npt.NDArray[np.int64]
    history: "History"
    seen_until: int | None

    @property
    def own(self) -> slice:
        """The rows of the month that is made."""
        return slice(int(self.begins[-2]), int(self.begins[-1]))


def calls_of(run: Run, targets: "Sequence[Target]") -> Calls:
    """Return the calls of all months up to the one that is made; months replayed for an earlier run are remembered."""
    months = [*run.earlier, run.inputs]
    store = store_signature(run.home.candles.folder)
    made_with = config_hash_of(KINDS["model"], whole(run.config), run.inputs.month)
    keys = [
        (CALLS, m.month, m.fingerprint, day_before(run.home, m.month, run.config.interval), made_with, store)
        for m in months
    ]
    forget_others(run.cache, CALLS, keys)
    arrays: list[MonthArrays] = []
    for inputs, key in zip(months, keys, strict=True):
        own = inputs is run.inputs
        if key not in run.cache or (own and run.excluded is None):  # the made month says which calls are left out
            run.cache[key] = _arrays_of(run, inputs)
        arrays.append(run.cache[key])
    seen = seen_until(run.home, run.inputs.month, run.config)
    history = _history(run, months, arrays, targets, seen)
    begins = np.cumsum([0, *(m.calls.num_rows for m in months)])
    return Calls(months, arrays, begins, history, seen)


def _arrays_of(run: Run, inputs: MonthInputs) -> MonthArrays:
    from quantbot_pipeline.replay.results import empty_truth
    from quantbot_pipeline.replay.statistics import realized_return_bps

    if not inputs.calls.num_rows:
        run.excluded = 0
        return MonthArrays(np.empty((0, len(MODEL_FEATURES))), empty_truth(0), np.empty(0))
    policy = next(iter(run.config.parsed_policies().values()))
    made: Replayed = (
        run.replay([policy])
        if inputs is run.inputs
        else replay_month(run.home, inputs, run.config, [policy], run.record)
    )
    rows = np.flatnonzero(made.truth.status == INCLUDED)
    returns = np.full(inputs.calls.num_rows, np.nan)
    exits = made.outcomes.at(rows, 0)
    returns[rows] = realized_return_bps(exits.px, made.truth.p0[rows], run.cost) / 10_000
    with run.record.phase("slice"):
        return MonthArrays(model_features(run.home, inputs.calls, run.config.interval), made.truth, returns)


def _history(
    run: Run,
    months: Sequence[MonthInputs],
    arrays: Sequence[MonthArrays],
    targets: "Sequence[Target]",
    seen: int | None,
) -> "History":
    from quantbot_pipeline.models.targets import outcomes_of
    from quantbot_pipeline.models.walk import History
    from quantbot_pipeline.replay.results import joined_truth

    truth = joined_truth([month.truth for month in arrays])
    returns = np.concatenate([month.returns for month in arrays])
    included = truth.status == INCLUDED
    horizon = run.config.horizon_ms
    known = included & (truth.entry_ts + horizon <= seen) if seen is not None else included
    with np.errstate(all="ignore"):
        peak = truth.peak / truth.p0
        outcomes = {
            target.name: outcomes_of(target, peak, truth.t_multiple >= 0, truth.dd_bps, returns) for target in targets
        }
    return History(
        x=np.concatenate([month.x for month in arrays]),
        callers=[name for m in months for name in m.calls["caller_name"].to_pylist()],
        alert=np.concatenate([m.calls["alert_ts_ms"].to_numpy() for m in months]),
        entry=truth.entry_ts,
        included=included,
        known=known,
        outcomes=outcomes,
        returns=returns,
        month=np.repeat(np.arange(len(months)), [m.calls.num_rows for m in months]),
        horizon_ms=horizon,
        feature_set=FEATURE_SET,
        features=MODEL_FEATURES,
    )


def known_exclusions(run: Run, calls: Calls) -> "tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]":
    """Return of the made month's calls whether they are left out, and whether that is known yet, (C,) each."""
    history, own = calls.history, calls.own
    included = history.included[own]
    waited = history.alert[own] + reach_ms(run.config)
    over = waited <= calls.seen_until if calls.seen_until is not None else np.zeros(len(included), bool)
    return ~included, np.where(included, history.known[own], over)
