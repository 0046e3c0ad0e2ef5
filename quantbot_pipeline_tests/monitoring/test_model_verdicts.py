"""What of a report is news, and when a calibration is off."""

from pathlib import Path
from typing import Any

import pytest

from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.home import Home
from quantbot_pipeline.monitoring.calibration import sentence, slope_error, slopes
from quantbot_pipeline.monitoring.model_verdicts import ModelsTold, NewestReport, model_news, newest_report
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.support.builders import artifact_rows, commit_run

BASE, NONE = "no better than the base rate", "too little data"


def report(run: str, **verdicts: tuple[str, str]) -> NewestReport:
    figures = {"gain_over_base_z": 3.1, "calls": 200, "test_months": 4}
    rows = {name: {"verdict": v, "money_verdict": m, **figures} for name, (v, m) in verdicts.items()}
    return NewestReport(run, "2024-06", rows)


def texts(told: ModelsTold | None, newest: NewestReport) -> list[str]:
    return [finding.text for finding in model_news(told, newest)[1]]


def test_the_first_look_tells_what_is_better_and_a_later_one_what_changed() -> None:
    first = report("a", win=("better", "not shown"), hit_2x=(BASE, "not shown"))
    told, findings = model_news(None, first)
    assert [finding.text for finding in findings] == [
        "win: better, was too little data; z over the base rate 3.1, 200 calls of 4 months"
    ]
    assert texts(told, first) == []
    assert texts(told, report("b", win=(BASE, "not shown"), hit_2x=(BASE, "not shown"))) == [
        "win: no better than the base rate, was better; z over the base rate 3.1, 200 calls of 4 months"
    ]
    (changed,) = model_news(told, report("c", win=("better", "earns more"), hit_2x=(BASE, "earns more")))[1]
    assert changed.text == "win: better; of its money: earns more, was not shown" and changed.severity == "success"
    assert (
        texts(told, report("d", win=("better", "not shown"), hit_2x=(BASE, "not shown"), new=(NONE, "not shown"))) == []
    )


def test_the_newest_report_is_that_of_the_newest_month(tmp_path: Path) -> None:
    home = Home(Settings(home=tmp_path))
    assert newest_report(home.catalog) is None
    for month, verdict in (("2024-02", "better"), ("2024-01", BASE)):
        rows = artifact_rows("model_report", 2, model=["base", "blend"], scope=["to_date"] * 2, verdict=[None, verdict])
        tables = {"alerts": artifact_rows("alerts", 2), "model_report": rows}
        commit_run(home.runs.folder, month, tables=tables, run_type="model", parameters={"config_hash": "c0ffee"})
    assert sync(home.catalog).quarantined == 0
    found = newest_report(home.catalog)
    assert found is not None and found.month == "2024-02"
    assert [row["verdict"] for row in found.targets.values()] == ["better"]
    assert newest_report(home.catalog, known=found.run_id) is None


def calibrated(slope: float | None, calls: int, spread: float) -> list[dict[str, Any]]:
    bins = [{"target": "win", "calls": calls // 10, "predicted": 0.5 + spread * (i - 4.5)} for i in range(10)]
    row = {"target": "win", "model": "blend", "scope": "to_date", "calls": calls, "calibration_slope": slope}
    return slopes([row, row | {"scope": "month"}, row | {"model": "boosting"}], bins)


@pytest.mark.parametrize(
    ("slope", "calls", "spread", "is_off"),
    [(0.2, 1000, 0.08, True), (0.9, 1000, 0.08, False), (0.2, 100, 0.02, False), (2.5, 1000, 0.08, True)],
)
def test_a_slope_is_off_when_its_whole_interval_is(slope: float, calls: int, spread: float, is_off: bool) -> None:
    (found,) = calibrated(slope, calls, spread)
    assert found["is_off"] == is_off and found["low"] < slope < found["high"]
    assert ("too far apart" if slope < 1 else "too close together") in sentence(found)


def test_a_slope_that_is_none_or_of_too_few_outcomes_is_not_judged() -> None:
    assert calibrated(None, 1000, 0.08) == calibrated(0.1, 90, 0.08) == calibrated(0.1, 1000, 0.0) == []
    assert slope_error([]) is None
