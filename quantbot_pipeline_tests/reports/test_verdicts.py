"""Verdicts beside the rows of other reports: of their own month or the last one before, never of a later one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.home import Home
from quantbot_pipeline.reports.dashboard.data import collect
from quantbot_pipeline.reports.searches import FRONTIER_COLUMNS, WALK_FORWARD_COLUMNS, frontier, walk_forward
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.support.builders import artifact_rows, commit_run

NAMES = ("__all__", "ann", "bob")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Frontiers and walk-forwards of four months, evidence of the second and the fourth; `bob` comes late."""
    made = Home(Settings(home=tmp_path / "home"))
    for month in ("2024-01", "2024-02", "2024-03", "2024-04"):
        n = len(NAMES)
        rank = {"caller_name": NAMES, "rank": [1] * n, "policy_params": ["{}"] * n, "trades": [5] * n}
        commit(made, month, "grid-search", "frontier", **rank)
        walked = {
            "caller_name": NAMES,
            "scheme": ["anchored"] * n,
            "policy_params": ["{}"] * n,
            "policy_month": [month] * n,
            "out_of_sample_trades": [0] * n,
            "hold_trades": [0] * n,
            "pooled_trades": [0] * n,
        }
        commit(made, month, "walk-forward", "walk_forward", **walked)
    for month, verdicts in {"2024-02": ["inconclusive"], "2024-04": ["evidence", "none"]}.items():
        commit(made, month, "evidence", "evidence", caller_name=["ann", "bob"][: len(verdicts)], verdict=verdicts)
    sync(made.catalog)
    return made


def commit(made: Home, month: str, strategy: str, artifact: str, **values: Sequence[Any]) -> None:
    rows = artifact_rows(artifact, len(values["caller_name"]), **values)
    others = ("evidence_times", "evidence_costs") if artifact == "evidence" else ()
    beside = {name: artifact_rows(name, 1, caller_name=["ann"]) for name in others}
    commit_run(
        made.runs.folder,
        month,
        tables={"alerts": artifact_rows("alerts", 2), artifact: rows} | beside,
        run_type="optimization",
        parameters={"config_hash": "c0ffee", "strategy_id": strategy},
    )


def test_a_frontier_is_in_sample_and_has_the_verdict_as_of_its_month(home: Home) -> None:
    rows = frontier(home.catalog)
    assert {row["sample"] for row in rows} == {"in sample"}
    said = {(row["caller_name"], row["month"][-1]): row["verdict"] for row in rows}
    assert [said["ann", month] for month in "1234"] == [None, "inconclusive", "inconclusive", "evidence"]
    assert [said["bob", month] for month in "1234"] == [None, None, None, "none"]
    assert [said["__all__", month] for month in "1234"] == [None] * 4
    assert set(FRONTIER_COLUMNS) <= set(rows[0])
    (one,) = frontier(home.catalog, caller="ann", month="2024-03")
    assert one["verdict"] == "inconclusive"


def test_a_walk_forward_is_out_of_sample_and_has_the_newest_verdict(home: Home) -> None:
    rows = walk_forward(home.catalog)
    assert all(tuple(row) == WALK_FORWARD_COLUMNS for row in rows)
    assert [(row["caller_name"], row["sample"], row["verdict"]) for row in rows] == [
        ("__all__", "out of sample", None),
        ("ann", "out of sample", "evidence"),
        ("bob", "out of sample", "none"),
    ]


def test_the_dashboard_has_both_beside_its_rows(home: Home) -> None:
    data = collect(home)
    walked, best = data["callers"]["walk_forward"], data["frontier"]["best"]
    named = [data["names"][i] for i in walked["caller"]]
    assert dict(zip(named, walked["verdict"], strict=True)) == {"__all__": None, "ann": "evidence", "bob": "none"}
    assert set(walked["sample"]) == {"out of sample"}
    assert set(best["sample"]) == {"in sample"}
    shown = zip((data["names"][i] for i in best["caller"]), best["month"], best["verdict"], strict=True)
    assert {month: verdict for name, month, verdict in shown if name == "ann"} == {
        "2024-01": None,
        "2024-02": "inconclusive",
        "2024-03": "inconclusive",
        "2024-04": "evidence",
    }
