"""Scoring calls with the committed models: what was to be said of a call at its alert, and what the verdict of that is.

Belongs here: which model scores which call, and from which candles and outcomes. Does not: making models, printing. scikit-learn is
not loaded, and no month is replayed whose outcomes a run has already.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from quantbot_pipeline.artifacts.schemas import PREDICTIONS
from quantbot_pipeline.backtest.prediction_columns import (
    MODEL_FEATURES,
    model_features,
    past_columns,
    prediction_columns,
)
from quantbot_pipeline.backtest.settled import settled_outcomes
from quantbot_pipeline.catalog.catalog import newest_runs_with
from quantbot_pipeline.config import BacktestConfig
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.home import Home
from quantbot_pipeline.months import iso_now, month_of
from quantbot_pipeline.runs.manifest import RunDirectory, RunManifest, read_manifest
from quantbot_pipeline.runs.verify import read_artifact
from quantbot_pipeline.vocabulary import MONEY_NOT_SHOWN, TOO_LITTLE_DATA

if TYPE_CHECKING:
    from quantbot_pipeline.models.model import Model

Verdicts = Mapping[str, tuple[str, str]]
SCORES = pa.schema(
    [
        *PREDICTIONS,
        *(
            pa.field(name, pa.string(), nullable=False)
            for name in ("scored_at", "model_month", "verdict", "money_verdict")
        ),
    ]
)


class MonthModels(NamedTuple):
    """The models of a month's run, by target, with their ids, and the configuration of the run."""

    month: str
    run_id: str
    config: BacktestConfig
    models: "dict[str, tuple[str, Model]]"


def score(
    home: Home, calls: pa.Table, verdicts: Verdicts, *, targets: Sequence[str] = (), interval: str | None = None
) -> pa.Table:
    """Return SCORES of calls: one row per target and call, in the order of the calls.

    calls: call_id, caller_name, mint (string), alert_ts_ms (int64), by time. verdicts: {target: verdict, money verdict} to date; a
    target without one has too little data. Columns of outcomes are null. A call is scored by the models of its month, else by the
    newest earlier ones: `model_month` says which. Raises InputError where no such models are cataloged.
    """
    months = np.array([month_of(at) for at in calls["alert_ts_ms"].to_pylist()], dtype=object)
    runs = {run_dir.split("/")[0]: run_dir for run_dir in newest_runs_with(home.catalog, "models", interval=interval)}
    parts, scored_at = [], iso_now()
    for month in dict.fromkeys(months.tolist()):
        which = max((known for known in runs if known <= month), default=None)
        if which is None:
            raise InputError(
                f"no cataloged models of {month} or before: `quantbot backtest model --from {month} --to {month}` makes them"
            )
        made = read_models(home.runs.open(runs[which]), targets)
        own = calls.filter(pa.array(months == month))
        parts += _scored(home, own, made, verdicts, scored_at)
    return pa.concat_tables([SCORES.empty_table(), *parts])


def read_models(run_dir: RunDirectory, targets: Sequence[str] = ()) -> MonthModels:
    """Return the models of a run, of some targets or of all, every byte verified. Raises InputError for a target that it lacks."""
    from quantbot_pipeline.models.document import from_text

    manifest = read_manifest(run_dir)
    rows = read_artifact(run_dir, manifest, "models", ("target", "model_id", "document")).to_pylist()
    texts = {row["target"]: (row["model_id"], row["document"]) for row in rows}
    if missing := [target for target in targets if target not in texts]:
        raise InputError(f"--target {missing[0]}: the models of {manifest.month} predict {', '.join(texts)}")
    chosen = {target: texts[target] for target in (targets or texts)}
    models = {target: (model_id, from_text(text, MODEL_FEATURES)) for target, (model_id, text) in chosen.items()}
    return MonthModels(manifest.month, manifest.run_id, config_of(manifest), models)


def config_of(manifest: RunManifest) -> BacktestConfig:
    """Return the configuration that a run was made with."""
    fields = {name: value for name, value in manifest.parameters.items() if name in BacktestConfig.model_fields}
    # Where there is one policy its name is written beside it, and is no part of the configuration.
    return BacktestConfig.model_validate(
        {k: v for k, v in fields.items() if k not in ("policy_id", "from_ms", "to_ms")}
    )


def _scored(home: Home, calls: pa.Table, made: MonthModels, verdicts: Verdicts, scored_at: str) -> list[pa.Table]:
    from quantbot_pipeline.models.model import predict

    n, names, alert = calls.num_rows, calls["caller_name"].to_pylist(), calls["alert_ts_ms"].to_numpy()
    x = model_features(home, calls, made.config.interval)
    past = past_columns(names, alert, settled_outcomes(home, made.config, int(alert.max())), made.config.horizon_ms)
    parts = []
    for target, (model_id, model) in made.models.items():
        verdict, money = verdicts.get(target, (TOO_LITTLE_DATA, MONEY_NOT_SHOWN))
        said = {"scored_at": scored_at, "model_month": made.month, "verdict": verdict, "money_verdict": money}
        columns: dict[str, Any] = {"run_id": pa.repeat(pa.scalar(made.run_id), n)}
        columns |= {name: calls[name] for name in ("call_id", "caller_name", "mint", "alert_ts_ms")}
        columns |= prediction_columns(model, model_id, predict(model, x, names), x) | past
        columns |= {
            f.name: pa.nulls(n, f.type)
            for f in SCORES
            if f.name in ("excluded", "outcome", "outcome_known_ts_ms", "policy_return")
        }
        columns |= {name: pa.repeat(pa.scalar(text), n) for name, text in said.items()}
        parts.append(pa.table({name: columns[name] for name in SCORES.names}).cast(SCORES))
    return parts


def with_meaning(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return scores for people: the number, in words what it is, and the sentence of its verdict."""
    from quantbot_pipeline.models.targets import parse_target
    from quantbot_pipeline.models.verdict import sentence

    return [
        {
            "caller_name": row["caller_name"],
            "mint": row["mint"],
            "target": row["target"],
            "value": round(row["value"], 4),
            "base_value": round(row["base_value"], 4),
            "verdict": row["verdict"],
            "money_verdict": row["money_verdict"],
            "take": row["take"],
            "stale": row["stale"],
            "outside": row["outside"],
            "model_month": row["model_month"],
            "meaning": f"{parse_target(row['target']).words}; {sentence(row['verdict'], row['money_verdict'])}",
        }
        for row in rows
    ]


def newest_first(scores: pa.Table) -> pa.Table:
    """Return scores by time of the call, the newest first, a call's targets together."""
    keys = [("alert_ts_ms", "descending"), ("call_id", "ascending")]
    return scores.take(pc.sort_indices(scores, sort_keys=keys))


def remark_of(scores: pa.Table) -> list[str]:
    """Return what a reader must know of some scores: months whose own models are not made yet, calls without candles."""
    months = {
        (month_of(at), model)
        for at, model in zip(scores["alert_ts_ms"].to_pylist(), scores["model_month"].to_pylist(), strict=True)
    }
    older = sorted({f"calls of {month} by the models of {model}" for month, model in months if month != model})
    said = [f"scored {', '.join(older)}; `quantbot backtest model` makes the month's own"] if older else []
    stale = len(set(scores.filter(scores["stale"])["call_id"].to_pylist())) if scores.num_rows else 0
    if stale:
        said.append(f"{stale} calls have no candle in the day before them: of these a model knows the caller alone")
    return said
