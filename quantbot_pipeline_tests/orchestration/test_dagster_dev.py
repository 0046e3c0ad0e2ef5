"""A real `dagster dev` on the repository's workspace, and a backfill launched through GraphQL as the web UI launches it."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from quantbot_pipeline.artifacts.verify import check_run
from quantbot_pipeline_tests.conftest import Quantbot
from quantbot_pipeline_tests.labs import CALLS_PER_MONTH, environment, run_dirs

REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 180  # on a busy machine; an idle one needs a quarter
RANGE = ["2024-01", "2024-02", "2024-03"]

LOCATIONS = """query { workspaceOrError { ... on Workspace { locationEntries {
    name loadStatus locationOrLoadError { __typename ... on PythonError { message } } } } } }"""
LAUNCH = """mutation ($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
BACKFILL = """query ($id: String!) {
    partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status error { message } } }
    runsOrError(filter: { tags: [{ key: "dagster/backfill", value: $id }] }) { ... on Runs { results { runId status } } } }"""
ASSET = """query ($key: AssetKeyInput!) {
    assetNodeOrError(assetKey: $key) { ... on AssetNode {
        groupName assetPartitionStatuses { ... on TimePartitionStatuses { ranges { startKey endKey status } } } } }
    assetOrError(assetKey: $key) { ... on Asset { assetMaterializations(limit: 50) { partition runId metadataEntries {
        label ... on IntMetadataEntry { intValue } ... on FloatMetadataEntry { floatValue } ... on PathMetadataEntry { path }
        ... on TableMetadataEntry { table { records } } } } } } }"""


class Server:
    """The GraphQL endpoint of a `dagster dev`, as the browser talks to it."""

    def __init__(self, home: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = home / "dagster_dev.log"
        dagster = Path(sys.executable).with_name("dagster")
        command = [
            str(dagster),
            "dev",
            "-w",
            str(REPOSITORY / "workspace.yaml"),
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
        ]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, env=environment(home, DAGSTER_HOME=str(home)), cwd=home, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer
        return dict(answer["data"])

    def wait(self, what: str, ready: Callable[[], Any]) -> Any:
        """What `ready` returns as soon as it is true."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            try:
                if found := ready():
                    return found
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                pass  # not listening yet
            time.sleep(0.25)
        raise AssertionError(f"no {what} within {PATIENCE_S} s:\n{self.log.read_text()[-3000:]}")

    def locations(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self.ask(LOCATIONS)["workspaceOrError"]["locationEntries"]
        return entries if entries and all(entry["loadStatus"] == "LOADED" for entry in entries) else []

    def stop(self) -> None:
        """Ctrl-C for the whole group (web server, daemon, code server, run workers), then the end for who is left."""
        os.killpg(self.process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def server(home: Path) -> Iterator[Server]:
    shutil.copy(REPOSITORY / "dagster.yaml", home)
    started = Server(home)
    try:
        yield started
    finally:
        started.stop()


def launch_backfill(server: Server, assets: list[str], months: list[str]) -> str:
    params = {"assetSelection": [{"path": key.split("/")} for key in assets], "partitionNames": months, "tags": []}
    launched = server.ask(LAUNCH, params=params)["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    return str(launched["backfillId"])


def finished_backfill(server: Server, backfill: str) -> dict[str, Any]:
    answer = server.ask(BACKFILL, id=backfill)
    status = answer["partitionBackfillOrError"]["status"]
    return {} if status in ("REQUESTED", "CANCELING", "FAILING", "COMPLETING") else answer


def test_a_backfill_of_a_range_of_months_completes_and_is_shown_month_by_month(
    home: Path, server: Server, quantbot: Quantbot
) -> None:
    (location,) = server.wait("code location", server.locations)
    assert location["locationOrLoadError"]["__typename"] == "RepositoryLocation", location
    backfill = launch_backfill(server, ["inputs/alerts", "inputs/candles", "truth/paths"], RANGE)
    answer = server.wait("end of the backfill", lambda: finished_backfill(server, backfill))
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
