"""A real `dagster dev` on the repository's workspace, and a backfill launched through GraphQL as the web UI launches it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from quantbot_pipeline.artifacts.verify import check_run
from quantbot_pipeline_tests.conftest import Quantbot
from quantbot_pipeline_tests.labs import CALLS_PER_MONTH, run_dirs
from quantbot_pipeline_tests.orchestration.servers import REPOSITORY, Server, dagster_dev

RANGE = ["2024-01", "2024-02", "2024-03"]

ASSET = """query ($key: AssetKeyInput!) {
    assetNodeOrError(assetKey: $key) { ... on AssetNode {
        groupName assetPartitionStatuses { ... on TimePartitionStatuses { ranges { startKey endKey status } } } } }
    assetOrError(assetKey: $key) { ... on Asset { assetMaterializations(limit: 50) { partition runId metadataEntries {
        label ... on IntMetadataEntry { intValue } ... on FloatMetadataEntry { floatValue } ... on PathMetadataEntry { path }
        ... on TableMetadataEntry { table { records } } } } } } }"""


@pytest.fixture
def server(home: Path) -> Iterator[Server]:
    shutil.copy(REPOSITORY / "dagster.yaml", home)
    started = dagster_dev(home)
    try:
        yield started
    finally:
        started.stop()


def test_a_backfill_of_a_range_of_months_completes_and_is_shown_month_by_month(
    home: Path, server: Server, quantbot: Quantbot
) -> None:
    (location,) = server.wait("code location", server.locations)
    assert location["locationOrLoadError"]["__typename"] == "RepositoryLocation", location
    backfill = server.launch_backfill(["inputs/alerts", "inputs/candles", "truth/paths"], RANGE)
    answer = server.wait("end of the backfill", lambda: server.finished_backfill(backfill))
    assert answer["partitionBackfillOrError"] == {"status": "COMPLETED_SUCCESS", "error": None}
    (launched,) = answer["runsOrError"]["results"]  # one Dagster run for the whole range
    assert launched["status"] == "SUCCESS"

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
        assert len(metadata["best"]["table"]["records"]) == CALLS_PER_MONTH
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
