"""Predictions and their verdicts as tables for people: a number never leaves this file without the verdict of its target.

Belongs here: the report to date, and which verdict goes with a prediction. Does not: how a verdict is found; that is in `models`.
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from quantbot_pipeline.catalog.catalog import Catalog
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.reports.remarks import load_newest
from quantbot_pipeline.runs.manifest import RunDirectory, RunManifest, read_manifest
from quantbot_pipeline.runs.verify import read_artifact
from quantbot_pipeline.vocabulary import BLEND, MODEL_VERDICTS, TO_DATE, TOO_LITTLE_DATA

MODEL_COLUMNS = (
    "target",
    "verdict",
    "money_verdict",
    "month",
    "test_months",
    "calls",
    "positives",
    "gain_over_base",
    "gain_over_base_z",
    "gain_over_caller",
    "gain_over_caller_z",
    "auc",
    "r2",
    "calibration_slope",
    "covered",
    "taken_share",
    "lift",
    "all_return_bps",
    "taken_return_bps",
    "taken_return_z",
    "weight_caller",
    "weight_linear",
    "weight_boosting",
    "train_calls",
    "meaning",
)
# Of a table on a terminal: the verdict, and what it rests on.
PRINTED = (
    "target",
    "verdict",
    "money_verdict",
    "month",
    "test_months",
    "calls",
    "gain_over_base",
    "gain_over_base_z",
    "gain_over_caller_z",
    "auc",
    "taken_return_z",
    "meaning",
)
WITH_VERDICT = ("verdict", "money_verdict")
# Artifacts of numbers that say something only with the verdict of their target.
JUDGED = ("predictions", "models", "importance", "dependence", "calibration")


def model_report(
    catalog: Catalog, *, target: str | None = None, interval: str | None = None, month: str | None = None
) -> list[dict[str, Any]]:
    """Return a row per target: the blend to date, as of the newest month that has it; the best verdicts first.

    `meaning` says the verdict in a sentence. Raises InputError for a target of which there is no report.
    """
    rows = blend_to_date(load_newest(catalog, "model_report", interval=interval, month=month))
    newest = {row["target"]: row for row in rows}  # month after month: the last one stays
    if target is not None and target not in newest:
        known = f"targets there: {', '.join(newest)}" if newest else "make one with `quantbot backtest model`"
        raise InputError(f"no report of the target {target!r}; {known}")
    return told([row for row in newest.values() if target in (None, row["target"])])


def blend_to_date(report: pa.Table) -> list[dict[str, Any]]:
    """Return the rows of a report that carry the verdicts: the blend to date, month after month."""
    blend = pc.and_(pc.equal(report["model"], BLEND), pc.equal(report["scope"], TO_DATE))
    return report.filter(blend).to_pylist()


def report_of_run(run_dir: RunDirectory) -> list[dict[str, Any]]:
    """Return the same rows of one run, every byte verified; none for a run of another kind."""
    manifest = read_manifest(run_dir)
    if "model_report" not in manifest.artifacts:
        return []
    rows = read_artifact(run_dir, manifest, "model_report").to_pylist()
    to_date = [row for row in rows if row["model"] == BLEND and row["scope"] == TO_DATE]
    return told([row | {"month": manifest.month} for row in to_date])


def told(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of the blend to date as the report shows them, the best verdicts first."""
    from quantbot_pipeline.models.verdict import sentence

    found = [row | {"meaning": sentence(row["verdict"], row["money_verdict"])} for row in rows]
    found.sort(key=lambda row: MODEL_VERDICTS.index(row["verdict"]))
    return [{name: row[name] for name in MODEL_COLUMNS} for row in found]


def for_people(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of a table on a terminal: shares as percent, z with one digit."""

    def shown(name: str, value: Any) -> Any:
        if value is None:
            return None
        if name.startswith("gain_") and not name.endswith("_z"):
            return f"{value:+.1%}"
        return round(value, 2) if isinstance(value, float) else value

    return [{name: shown(name, row[name]) for name in PRINTED} for row in rows]


def verdicts_of(catalog: Catalog, interval: str | None = None) -> dict[str, tuple[str, str]]:
    """Return {target: (verdict, money verdict)} to date."""
    rows = model_report(catalog, interval=interval)
    return {row["target"]: (row["verdict"], row["money_verdict"]) for row in rows}


def predictions(
    catalog: Catalog,
    *,
    target: str | None = None,
    caller: str | None = None,
    month: str | None = None,
    interval: str | None = None,
) -> pa.Table:
    """Return the predictions of the newest run of each month, with `month` and the verdicts of their targets to date."""
    rows = load_newest(catalog, "predictions", interval=interval, month=month)
    rows = _of_target(rows, target)
    if caller is not None:
        rows = rows.filter(pc.equal(rows["caller_name"], caller))
    return with_verdicts(rows, verdicts_of(catalog, interval))


def with_verdicts(rows: pa.Table, known: dict[str, tuple[str, str]]) -> pa.Table:
    """Return rows that have a `target` with its verdicts behind the columns; a target without a report has too little data."""
    said = [known.get(name, (TOO_LITTLE_DATA, "not shown")) for name in rows["target"].to_pylist()]
    for place, name in enumerate(WITH_VERDICT):
        rows = rows.append_column(name, pa.array([pair[place] for pair in said], pa.string()))
    return rows


def explanations(
    catalog: Catalog, artifact: str, *, target: str | None = None, interval: str | None = None
) -> pa.Table:
    """Return the newest rows of `importance`, `dependence` or `calibration` of each target, with the verdicts of the targets."""
    rows = _of_target(load_newest(catalog, artifact, interval=interval), target)
    last = dict(zip(rows["target"].to_pylist(), rows["month"].to_pylist(), strict=True))
    is_last = [last[t] == m for t, m in zip(rows["target"].to_pylist(), rows["month"].to_pylist(), strict=True)]
    newest = rows.filter(pa.array(is_last, pa.bool_()))
    return with_verdicts(newest, verdicts_of(catalog, interval))


def measures(
    catalog: Catalog, *, target: str | None = None, month: str | None = None, interval: str | None = None
) -> pa.Table:
    """Return how every model did, month after month, each row with the verdicts of the blend to date of the same run."""
    rows = _of_target(load_newest(catalog, "model_report", interval=interval, month=month), target)
    keys = list(zip(rows["run_id"].to_pylist(), rows["target"].to_pylist(), strict=True))
    for name in WITH_VERDICT:
        known = {key: said for key, said in zip(keys, rows[name].to_pylist(), strict=True) if said is not None}
        filled = pa.array([known.get(key) for key in keys], pa.string())
        rows = rows.set_column(rows.column_names.index(name), name, filled)
    return rows


def documents(
    catalog: Catalog, *, target: str | None = None, month: str | None = None, interval: str | None = None
) -> pa.Table:
    """Return the models of each month as documents, with the verdicts of their targets to date."""
    rows = _of_target(load_newest(catalog, "models", interval=interval, month=month), target)
    return with_verdicts(rows, verdicts_of(catalog, interval))


def artifact_with_verdicts(
    run_dir: RunDirectory, manifest: RunManifest, artifact: str, columns: Sequence[str] | None = None
) -> pa.Table:
    """Return rows of a run's artifact, every byte verified; what needs a verdict has those of the run's own report behind it."""
    if artifact not in JUDGED:
        return read_artifact(run_dir, manifest, artifact, columns)
    asked = None if columns is None else list(dict.fromkeys((*columns, "target")))
    rows = read_artifact(run_dir, manifest, artifact, asked)
    known = {row["target"]: (row["verdict"], row["money_verdict"]) for row in report_of_run(run_dir)}
    judged = with_verdicts(rows, known)
    return judged if columns is None else judged.select([*columns, *WITH_VERDICT])


def _of_target(rows: pa.Table, target: str | None) -> pa.Table:
    return rows if target is None else rows.filter(pc.equal(rows["target"], target))
