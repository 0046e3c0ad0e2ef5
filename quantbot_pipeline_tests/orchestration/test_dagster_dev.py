"""A real `dagster dev` on the repository's workspace, and a backfill launched through GraphQL as the web UI launches it."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import duckdb
import pytest
from playwright.sync_api import sync_playwright

from quantbot_pipeline.definitions import defs
from quantbot_pipeline.orchestration.launch import LOCATION, launched_tag
from quantbot_pipeline.orchestration.partitions import MONTHS_TAG, months_of
from quantbot_pipeline.runs.verify import check_run
from quantbot_pipeline_tests.conftest import Quantbot
from quantbot_pipeline_tests.support.labs import CALLS_PER_MONTH, run_dirs
from quantbot_pipeline_tests.support.servers import PATIENCE_S, REPOSITORY, Server, dagster_dev
from quantbot_pipeline_tests.support.windows import ARGUMENTS

RANGE = ["2024-01", "2024-02", "2024-03"]

# Tables that do not fit beside what else the page shows, and plots on which something is drawn.
TOO_WIDE = """[...document.querySelectorAll('table')].filter(t => t.getBoundingClientRect().right > innerWidth ||
    t.parentElement.scrollWidth > t.parentElement.clientWidth + 1).map(t => t.innerText.slice(0, 80))"""
DRAWN = """[...document.querySelectorAll('canvas')].filter(c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
    return d.some((v, i) => v !== d[i % 4]); }).length"""
ASSET = """query ($key: AssetKeyInput!) {
    assetNodeOrError(assetKey: $key) { ... on AssetNode {
        groupName assetPartitionStatuses { ... on TimePartitionStatuses { ranges { startKey endKey status } } } } }
    assetOrError(assetKey: $key) { ... on Asset { assetMaterializations(limit: 50) { partition runId metadataEntries {
        label ... on IntMetadataEntry { intValue } ... on FloatMetadataEntry { floatValue } ... on PathMetadataEntry { path }
        ... on TableMetadataEntry { table { records } } } } } } }"""

RUNS_OF_JOB = (
    """query ($job: PipelineSelector!) { pipelineOrError(params: $job) { ... on Pipeline { runs { runId } } } }"""
)
REEXECUTE = """mutation ($params: ReexecutionParams!) { launchRunReexecution(reexecutionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""


@pytest.fixture
def server(home: Path) -> Iterator[Server]:
    shutil.copy(REPOSITORY / "dagster.yaml", home)
    started = dagster_dev(home)
    try:
        yield started
    finally:
        started.stop()


def test_a_backfill_of_a_range_of_months_completes_and_is_shown_month_by_month(
    home: Path, server: Server, quantbot: Quantbot, tmp_path: Path
) -> None:
    (location,) = server.wait("code location", server.locations)
    assert location["locationOrLoadError"]["__typename"] == "RepositoryLocation", location
    backfill = server.launch_backfill(["inputs/alerts", "inputs/candles", "truth/paths", "results/frontier"], RANGE)
    answer = server.wait("end of the backfill", lambda: server.finished_backfill(backfill))
    assert answer["partitionBackfillOrError"] == {"status": "COMPLETED_SUCCESS", "error": None}
    (launched,) = answer["runsOrError"]["results"]  # one Dagster run for the whole range
    assert launched["status"] == "SUCCESS"
    with dg.DagsterInstance.get() as instance:
        tags = instance.get_run_by_id(launched["runId"]).tags  # type: ignore[union-attr]
    assert set(launched_tag()) <= set(tags)
    assert tags[MONTHS_TAG] == f"{RANGE[0]} … {RANGE[-1]}"

    shown = server.ask(ASSET, key={"path": ["truth", "paths"]})
    assert shown["assetNodeOrError"]["groupName"] == "truth"
    assert shown["assetNodeOrError"]["assetPartitionStatuses"]["ranges"] == [
        {"startKey": RANGE[0], "endKey": RANGE[-1], "status": "MATERIALIZED"}
    ]
    run_dirs_shown = {}
    for event in shown["assetOrError"]["assetMaterializations"]:
        assert event["runId"] == launched["runId"]
        metadata = {entry["label"]: entry for entry in event["metadataEntries"]}
        assert metadata["calls"]["intValue"] == metadata["rows"]["intValue"] == CALLS_PER_MONTH
        assert 0 <= metadata["hit_2x_rate"]["floatValue"] <= 1
        assert metadata["bytes"]["intValue"] > 0
        assert metadata["seconds"]["floatValue"] > 0
        assert len(metadata["highest_peaks"]["table"]["records"]) == CALLS_PER_MONTH
        run_dirs_shown[event["partition"]] = Path(metadata["run_dir"]["path"])
    assert sorted(run_dirs_shown) == RANGE
    assert set(run_dirs_shown.values()) == run_dirs(home)
    for month, folder in run_dirs_shown.items():
        manifest = check_run(folder)
        assert (manifest.month, manifest.dagster.run_id) == (month, launched["runId"])

    assert quantbot("backtest", "catalog-sync").status == 0
    with duckdb.connect(str(home / "data" / "backtest_catalog.duckdb"), read_only=True) as con:
        rows = con.execute("SELECT month, run_id FROM backtest_runs_catalog ORDER BY month").fetchall()
    assert rows == [(month, run_dirs_shown[month].name.removeprefix("run_id=")) for month in RANGE]

    reexecute_a_run_of_the_command_line(server, quantbot)
    if (chromium := shutil.which("chromium") or shutil.which("chromium-browser")) is None:
        pytest.skip("Chromium is not installed, so nobody looked at the UI: apt-get install chromium")
    look_at_the_ui(server, chromium, Path(os.environ.get("UI_SCREENSHOTS", tmp_path)))


def reexecute_a_run_of_the_command_line(server: Server, quantbot: Quantbot) -> None:
    """The run stands in its job's list, and its page's *Re-execute all* makes the same months again."""
    assert quantbot("backtest", "policy", "--from", RANGE[0], "--to", RANGE[-1]).status == 0
    job = {"repositoryName": "__repository__", "repositoryLocationName": LOCATION, "pipelineName": "policy"}
    (listed,) = server.ask(RUNS_OF_JOB, job=job)["pipelineOrError"]["runs"]
    answer = server.ask(REEXECUTE, params={"parentRunId": listed["runId"], "strategy": "ALL_STEPS"})
    again = answer["launchRunReexecution"]
    assert again["__typename"] == "LaunchRunSuccess", again
    with dg.DagsterInstance.get() as instance:

        def finished() -> dg.DagsterRun | None:
            run = instance.get_run_by_id(again["run"]["runId"])
            return run if run is not None and run.is_finished else None

        run = server.wait("end of the re-execution", finished)
    assert run.status == dg.DagsterRunStatus.SUCCESS
    assert months_of(run.tags) == RANGE


def look_at_the_ui(server: Server, chromium: str, folder: Path) -> None:
    """What a user sees in the browser, page by page; a screenshot of each goes to the folder (UI_SCREENSHOTS)."""
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1440, "height": 1100})
        page.set_default_timeout(1000 * PATIENCE_S / 3)

        def see(name: str, path: str, *texts: str) -> str:
            page.goto(server.address + path)
            for text in texts:
                page.get_by_text(text, exact=True).first.wait_for()
            return keep(name)

        def keep(name: str) -> str:
            page.wait_for_timeout(500)  # what slides in has arrived
            page.screenshot(path=folder / f"{name}.png")
            return page.locator("body").inner_text()

        see("lineage", "/asset-groups", "catalog", "inputs", "policy", "reports", "results", "truth")
        page.get_by_text("results", exact=True).last.click()
        # The graph draws what is in the window: which assets of the group that is depends on how many it has.
        page.get_by_text(re.compile("^(frontier|v1_frontier|walk_forward|evidence)$")).first.wait_for()
        keep("lineage_results")

        month = f"partition={RANGE[1]}"
        for name, key, column in (
            ("paths", "truth/paths", "peak_multiple"),
            ("frontier", "results/frontier", "score"),
        ):
            text = see(f"partition_{name}", f"/assets/{key}?view=partitions&{month}", "Metadata", "run_dir", column)
            assert "Unsynced" not in text
            assert page.evaluate(TOO_WIDE) == []
        see("overview", "/assets/truth/paths", "Description", "Latest check results")
        page.get_by_role("button", name="Plots").or_(page.get_by_text("Plots", exact=True)).first.click()
        page.locator("canvas").nth(5).wait_for()
        keep("plots")
        assert page.locator("canvas").count() == page.evaluate(DRAWN) >= 8

        text = see(
            "checks", "/assets/truth/paths?view=checks", "contract", "input_quality", "regression", "Passed", "by_month"
        )
        assert f"{RANGE[0]} to {RANGE[-1]}: schema, invariants and checksums hold" in text
        assert page.evaluate(TOO_WIDE) == []
        see("automation", "/automation", *(d.name for d in (*(defs.schedules or ()), *(defs.sensors or ()))))
        location = "/locations/quantbot_pipeline.definitions"
        text = see("schedule", f"{location}/schedules/closed_month", "Execution timezone")
        assert "Everything for each month that has ended, once its last windows have closed" in text
        assert "have not changed since the last look" in see("sensor", f"{location}/sensors/inbox_files", "Frequency")
        see("jobs", "/jobs", "everything", "catalog_sync")
        browser.close()
