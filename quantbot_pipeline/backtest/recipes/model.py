"""Predictions of a month's calls by models of earlier months, and how good such predictions were to date."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from quantbot_pipeline.backtest.earlier_models import judged_months, models_of
from quantbot_pipeline.backtest.predicting import Calls, calls_of, known_exclusions
from quantbot_pipeline.backtest.prediction_columns import past_columns, prediction_columns
from quantbot_pipeline.backtest.run import Run
from quantbot_pipeline.backtest.writing import write_rows
from quantbot_pipeline.market.features.outcomes import Outcomes
from quantbot_pipeline.replay.results import joined_truth

if TYPE_CHECKING:
    from quantbot_pipeline.models.model import Model
    from quantbot_pipeline.models.walk import JudgedMonth


def make(run: Run) -> None:
    from quantbot_pipeline.models.targets import parse_targets

    targets = parse_targets(run.config.targets)
    calls = calls_of(run, targets)
    models = models_of(run, calls, targets)
    judged = judged_months(run, calls, models)
    with run.record.phase("optimization"):
        _write_predictions(run, calls, models[-1])
        _write_reports(run, calls, judged)
        _write_models(run, models[-1])
    for model in models[-1]:
        if model.status != "fitted":
            text = f"{model.target.name}: {model.status} before {run.inputs.month} ({model.train_calls}); the prediction is the base rate"
            run.record.report("info", "optimization", text, details={"target": model.target.name})


def _write_predictions(run: Run, calls: Calls, models: "Sequence[Model]") -> None:
    from quantbot_pipeline.models.document import model_id_of, to_text
    from quantbot_pipeline.models.model import predict

    own, history, inputs = calls.own, calls.history, run.inputs.calls
    x, names, past = history.x[own], history.callers[own], _past(calls)
    with run.staged.writing("predictions") as predictions:
        for model in models:
            said = predict(model, x, names)
            columns: dict[str, Any] = {name: inputs[name] for name in ("call_id", "caller_name", "mint", "alert_ts_ms")}
            columns |= prediction_columns(model, model_id_of(to_text(model)), said, x) | past
            predictions.add(pa.table(columns | _outcome_columns(run, calls, model)))


def _past(calls: Calls) -> dict[str, Any]:
    """Return the outcome history of the made month's calls."""
    history, own = calls.history, calls.own
    rows = np.flatnonzero(history.included)
    truth = joined_truth([month.truth for month in calls.arrays])
    hit, peak = truth.t_multiple[rows, 0] >= 0, truth.peak[rows] / truth.p0[rows]
    settled = Outcomes(history.names(rows), history.entry[rows], hit, peak)
    return past_columns(history.callers[own], history.alert[own], settled, history.horizon_ms)


def _outcome_columns(run: Run, calls: Calls, model: "Model") -> dict[str, Any]:
    """Return the columns that are null until a call's window has ended."""
    from quantbot_pipeline.models.walk import outcome_under

    history, rows = calls.history, np.arange(calls.own.start, calls.own.stop)
    left_out, is_known = known_exclusions(run, calls)
    unknown = left_out | ~is_known
    return {
        "excluded": pa.array(left_out, mask=~is_known),
        "outcome": pa.array(outcome_under(history, model, rows), mask=unknown),
        "outcome_known_ts_ms": pa.array(history.entry[rows] + history.horizon_ms, mask=unknown),
        "policy_return": pa.array(history.returns[rows], mask=unknown),
    }


def _write_reports(run: Run, calls: Calls, judged: "Sequence[Sequence[JudgedMonth]]") -> None:
    from quantbot_pipeline.models.explain import dependence_rows, importance_rows
    from quantbot_pipeline.models.report import calibration_rows, report_rows
    from quantbot_pipeline.models.walk import judged_of, train_rows

    history, last = calls.history, len(calls.months) - 1
    rows: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("model_report", "importance", "dependence", "calibration")
    }
    for months in judged:
        model, to_date = months[-1].model, judged_of(history, list(months))
        rows["model_report"] += report_rows(model, to_date, last)
        rows["importance"] += importance_rows(model.target.name, [month.increases for month in months])
        learned = train_rows(history, model.trained_until)
        rows["dependence"] += dependence_rows(model, history.x[learned], history.names(learned))
        rows["calibration"] += calibration_rows(model, to_date)
    for artifact, found in rows.items():
        write_rows(run, artifact, found)


def _write_models(run: Run, models: "Sequence[Model]") -> None:
    from quantbot_pipeline.models.document import model_id_of, to_text

    rows = []
    for model in models:
        text = to_text(model)
        rows.append(
            {
                "target": model.target.name,
                "model_id": model_id_of(text),
                "trained_until_ts_ms": model.trained_until,
                "train_calls": model.train_calls,
                "feature_set": model.feature_set,
                "features": json.dumps(list(model.features)),
                "document": text,
            }
        )
    write_rows(run, "models", rows)
