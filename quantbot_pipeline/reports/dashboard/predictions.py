"""What can be predicted of calls, for the page: the verdict of each target, and what it rests on, month by month.

Belongs here: which numbers travel to the page. Importance and dependence of a target travel only where its verdict is `better`:
elsewhere they describe noise.
"""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from quantbot_pipeline.artifacts.schemas import ARTIFACTS
from quantbot_pipeline.catalog.catalog import Catalog, newest_runs_with
from quantbot_pipeline.models.targets import parse_target
from quantbot_pipeline.reports.page.encode import columns, of_rows
from quantbot_pipeline.reports.predictions import MODEL_COLUMNS, blend_to_date, explanations, told, with_verdicts
from quantbot_pipeline.reports.remarks import load_newest, read_each
from quantbot_pipeline.vocabulary import BETTER

Z95 = 1.959963984540054
MONTHLY = (
    "month", "target", "verdict", "money_verdict", "calls", "gain", "low", "high", "gain_over_base_z", "gain_over_caller_z",
    "all_return_bps", "taken_return_bps", "taken_return_z", "weight_caller", "weight_linear", "weight_boosting",
)  # fmt: skip  # a table: what belongs together stands on one line
# Of a prediction, what a call's page shows.
OF_CALL = (
    "call_id",
    "target",
    "status",
    "value",
    "base_value",
    "caller_value",
    "low",
    "high",
    "take",
    "stale",
    "outside",
)
FEATURES = 6  # whose dependence is drawn
DIGITS = {"loss_increase": 5, "z": 2, "at": 5, "value": 5, "predicted": 4, "observed": 4, "low": 4, "high": 4}


def predictions_section(catalog: Catalog) -> dict[str, Any]:
    """Every target's report to date and its months; calibration; importance and dependence of what is `better`."""
    rows = blend_to_date(load_newest(catalog, "model_report"))
    newest = told(list({row["target"]: row for row in rows}.values()))
    targets = [row | {"words": parse_target(row["target"]).words} for row in newest]
    better = [row["target"] for row in targets if row["verdict"] == BETTER]
    importance = _explained(catalog, "importance", better)
    return {
        "targets": of_rows(targets, (*MODEL_COLUMNS, "words")),
        "months": of_rows([_month(row) for row in rows], MONTHLY),
        "calibration": columns(_explained(catalog, "calibration", [row["target"] for row in targets]), DIGITS),
        "importance": columns(importance, DIGITS),
        "dependence": columns(_drawn(_explained(catalog, "dependence", better), importance), DIGITS),
    }


def predictions_of(
    catalog: Catalog, calls: list[dict[str, Any]], section: dict[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    """Return {call id: what was predicted of it, target by target, with the verdicts of the section}, of some calls."""
    if not section["targets"]["target"]:
        return {}
    months = {call["month"] for call in calls}
    run_dirs = [d for d in newest_runs_with(catalog, "predictions") if d.split("/")[0] in months]
    wanted = pa.array([call["call_id"] for call in calls], pa.string())
    said = section["targets"]
    known = dict(zip(said["target"], zip(said["verdict"], said["money_verdict"], strict=True), strict=True))
    found: dict[str, list[dict[str, Any]]] = {}
    for _, table in read_each(catalog, run_dirs, "predictions", OF_CALL):
        own = with_verdicts(table.filter(pc.is_in(table["call_id"], value_set=wanted)), known)
        for row in own.to_pylist():
            found.setdefault(row.pop("call_id"), []).append(row | {"words": parse_target(row["target"]).words})
    return found


def _month(row: dict[str, Any]) -> dict[str, Any]:
    """Return a month of a target; the band is the gain and 1.96 of its standard errors on both sides, null without a z."""
    gain, z = row["gain_over_base"], row["gain_over_base_z"]
    width = None if gain is None or not z else Z95 * abs(gain / z)
    band = {"gain": gain, "low": None, "high": None} if width is None else {
        "gain": gain, "low": gain - width, "high": gain + width,
    }  # fmt: skip  # a table: what belongs together stands on one line
    return {name: (row | band)[name] for name in MONTHLY}


def _explained(catalog: Catalog, artifact: str, targets: list[str]) -> pa.Table:
    """Return the newest rows of an artifact for some targets; nothing is read for none."""
    names = [name for name in ARTIFACTS[artifact][1].names if name != "run_id"]
    if not targets:
        return ARTIFACTS[artifact][1].empty_table().select(names)
    rows = explanations(catalog, artifact).select(names)
    return rows.filter(pc.is_in(rows["target"], value_set=pa.array(targets, pa.string())))


def _drawn(dependence: pa.Table, importance: pa.Table) -> pa.Table:
    """Return the dependence on the features that matter most to each target."""
    ranked = sorted(importance.to_pylist(), key=lambda row: -(row["loss_increase"] or 0.0))
    by_target: dict[str, list[str]] = {}
    for row in ranked:
        by_target.setdefault(row["target"], []).append(row["feature"])
    pairs = zip(dependence["target"].to_pylist(), dependence["feature"].to_pylist(), strict=True)
    single = set(dependence["feature"].to_pylist())
    kept = {target: [name for name in names if name in single][:FEATURES] for target, names in by_target.items()}
    return dependence.filter(pa.array([feature in kept.get(target, ()) for target, feature in pairs], pa.bool_()))
