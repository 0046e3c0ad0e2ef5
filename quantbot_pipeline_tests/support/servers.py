"""Real Dagster programs on a home, as processes: `quantbot ui`, `dagster dev`, a daemon alone; and how the browser talks to them."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from quantbot_pipeline_tests.support.labs import environment

REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 180  # on a busy machine; an idle one needs a quarter
Found = TypeVar("Found")

LOCATIONS = """query { workspaceOrError { ... on Workspace { locationEntries {
    name loadStatus locationOrLoadError { __typename ... on PythonError { message } } } } } }"""
LAUNCH = """mutation ($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
BACKFILL = """query ($id: String!) {
    partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status error { message } } }
    runsOrError(filter: { tags: [{ key: "dagster/backfill", value: $id }] }) { ... on Runs { results { runId status } } } }"""


def make_instance(home: Path) -> None:
    """The configuration that every home gets, in a hurry."""
    template = (REPOSITORY / "dagster.yaml").read_text()
    # What a home gets by itself, but for the pause: a test would spend its time waiting.
    (home / "dagster.yaml").write_text(template.replace("poll_interval_seconds: 15", "poll_interval_seconds: 2"))


class Program:
    """One program and all its children, in a session of their own; what it says goes to a file in the home."""

    def __init__(self, home: Path, command: Sequence[str], **more: str) -> None:
        self.log = home / f"{Path(command[0]).name}.log"
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                list(command), env=environment(home, **{"DAGSTER_HOME": str(home), "QUANTBOT_SENSOR_INTERVAL_S": "1", **more}),
                cwd=home, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip  # a table: what belongs together stands on one line

    def wait(self, what: str, ready: Callable[[], Found | None], patience_s: float = PATIENCE_S) -> Found:
        """What `ready` returns as soon as it is true; the program must live so long."""
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            try:
                if found := ready():
                    return found
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                pass  # not listening yet
            time.sleep(0.25)
        raise AssertionError(f"no {what} within {patience_s} s:\n{self.log.read_text()[-3000:]}")

    def stop(self) -> None:
        """Ctrl-C for the whole group (web server, daemon, code server, run workers), then the end for who is left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Server(Program):
    """A program with the web UI: its GraphQL endpoint, as the browser talks to it."""

    def __init__(self, home: Path, command: Sequence[str], **more: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        super().__init__(home, [*command, "--host", "127.0.0.1", "--port", str(self.port)], **more)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.address}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer
        return dict(answer["data"])

    def locations(self) -> list[dict[str, Any]]:
        """The code locations, once all are loaded."""
        entries: list[dict[str, Any]] = self.ask(LOCATIONS)["workspaceOrError"]["locationEntries"]
        loaded = [entry["loadStatus"] == "LOADED" and entry["locationOrLoadError"] for entry in entries]
        return entries if entries and all(loaded) else []

    def launch_backfill(self, assets: Sequence[str], months: Sequence[str]) -> str:
        """As the dialog of the UI does it; the id of the backfill."""
        selection = [{"path": key.split("/")} for key in assets]
        params = {"assetSelection": selection, "partitionNames": list(months), "tags": []}
        launched = self.ask(LAUNCH, params=params)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        return str(launched["backfillId"])

    def finished_backfill(self, backfill: str) -> dict[str, Any]:
        """The backfill and its runs, once it is over."""
        answer = self.ask(BACKFILL, id=backfill)
        status = answer["partitionBackfillOrError"]["status"]
        return {} if status in ("REQUESTED", "CANCELING", "FAILING", "COMPLETING") else answer


def quantbot_ui(home: Path, **more: str) -> Server:
    """`quantbot ui`."""
    return Server(home, [str(Path(sys.executable).with_name("quantbot")), "ui"], **more)


def dagster_dev(home: Path, **more: str) -> Server:
    """`dagster dev` on the repository's workspace, as in a checkout."""
    dagster = str(Path(sys.executable).with_name("dagster"))
    return Server(home, [dagster, "dev", "-w", str(REPOSITORY / "workspace.yaml")], **more)


def daemon(home: Path, **more: str) -> Program:
    """The daemon alone, as `deploy/systemd/` starts it."""
    program = str(Path(sys.executable).with_name("dagster-daemon"))
    return Program(home, [program, "run", "-m", "quantbot_pipeline.definitions"], **more)
