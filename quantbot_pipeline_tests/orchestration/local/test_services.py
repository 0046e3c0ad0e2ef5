"""`quantbot ui` on addresses that cannot be had, and when what it runs does not stay up."""

import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from quantbot_pipeline.errors import StoreError
from quantbot_pipeline.orchestration.local import pulse, services
from quantbot_pipeline.orchestration.local.claim import claimed
from quantbot_pipeline_tests.conftest import Quantbot
from quantbot_pipeline_tests.support.labs import QUANTBOT, run
from quantbot_pipeline_tests.support.servers import Server, make_instance, quantbot_ui

LAUNCH_ANYTHING = """mutation { launchPartitionBackfill(backfillParams: {
    assetSelection: [{ path: ["inputs", "alerts"] }], partitionNames: ["2024-01"] }) { __typename } }"""


def test_a_port_in_use_is_said_before_anything_starts(quantbot: Quantbot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTBOT_UI_URL", "")
    monkeypatch.delenv("QUANTBOT_UI_URL")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        complaint = quantbot("ui", "--port", port).complaint
        assert os.environ["QUANTBOT_UI_URL"] == f"http://127.0.0.1:{port}", "links in notices lead to this UI"
        monkeypatch.setenv("QUANTBOT_UI_URL", "https://lab.example")
        assert quantbot("ui", "--port", port).complaint == complaint
        assert os.environ["QUANTBOT_UI_URL"] == "https://lab.example", "unless somebody said otherwise"
    assert complaint.startswith(f"127.0.0.1:{port}: ")
    assert "--port" in complaint


def test_an_address_that_does_not_exist_is_one_line(quantbot: Quantbot) -> None:
    assert "choose another --host or --port" in quantbot("ui", "--host", "nowhere.invalid").complaint
    assert "--port" in quantbot("ui", "--port", "70000").complaint


def test_a_program_that_cannot_stay_up_ends_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    long = (
        "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); time.sleep(600)"
    )

    def commands(host: str, port: int, door: Path, workspace: Path, read_only: bool) -> dict[str, list[str]]:
        assert str(door) in workspace.read_text()
        server = [sys.executable, "-c", long, str(door)]
        return {"code server": server, "daemon": [sys.executable, "-c", "print('up', flush=True); raise SystemExit(3)"]}

    def chore() -> None:
        raise ValueError("cannot be done")

    monkeypatch.setattr(services, "_commands", commands)
    monkeypatch.setattr(services, "CHORE_S", 0.0)
    said: list[str] = []
    with pytest.raises(StoreError, match="the daemon ended with status 3, 3 times soon after its start"):
        services.serve("127.0.0.1", free_port(), said.append, chore)
    again = "the daemon ended with status 3 and is started again"
    assert [text for text in said[1:] if text == again] == [again] * 2
    assert set(said[1:]) == {again, "ValueError: cannot be done"}, "a chore that fails ends nothing"
    assert capfd.readouterr().out.count("up") == services.PATIENCE


# A code server as Dagster's own speaks: it answers for a second, and then takes questions and answers none.
FALLING_SILENT = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
import grpc
from dagster._grpc.__generated__ import dagster_api_pb2 as words, dagster_api_pb2_grpc as api
started = time.monotonic()
class Servicer(api.DagsterApiServicer):
    def Ping(self, request, context):
        if time.monotonic() - started > 1:
            time.sleep(600)
        return words.PingReply(echo=request.echo)
server = grpc.server(ThreadPoolExecutor(4))
api.add_DagsterApiServicer_to_server(Servicer(), server)
server.add_insecure_port("unix:" + sys.argv[1])
server.start()
time.sleep(600)
"""


def test_a_code_server_that_answers_no_more_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def commands(host: str, port: int, door: Path, workspace: Path, read_only: bool) -> dict[str, list[str]]:
        return {services.CODE_SERVER: [sys.executable, "-c", FALLING_SILENT, str(door)]}

    monkeypatch.setattr(services, "_commands", commands)
    monkeypatch.setattr(pulse, "ASK_S", 0.2)
    monkeypatch.setattr(pulse, "SILENT_S", 2.0)
    monkeypatch.setattr(services, "SHORT_S", 1000.0)
    said: list[str] = []
    with pytest.raises(StoreError, match="the code server ended with status -9, 3 times soon after its start"):
        services.serve("127.0.0.1", free_port(), said.append)
    assert said[1::2] == ["the code server has not answered for 2 s and is ended"] * 3
    assert said[2::2] == ["the code server ended with status -9 and is started again"] * 2


def children(pid: int) -> dict[int, str]:
    """The living child processes with their command lines."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {int(child): Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ") for child in found}


@pytest.mark.torture
@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_a_second_ui_on_a_home_refuses_and_names_the_first_or_only_shows(home: Path) -> None:
    make_instance(home)
    first = quantbot_ui(home)
    shown: Server | None = None
    try:
        first.wait("code location", first.locations)
        refused = run(home, "ui", "--port", str(free_port()))
        assert (refused.status, refused.out) == (1, "")
        assert refused.err.count("\n") == 1
        assert f"(process {first.process.pid}, {first.address})" in refused.err
        assert "--read-only" in refused.err
        shown = Server(home, [str(QUANTBOT), "ui", "--read-only"])
        shown.wait("code location of the other", shown.locations)
        assert [name for name in children(shown.process.pid).values() if "dagster-daemon" in name] == []
        answer = shown.ask(LAUNCH_ANYTHING)["launchPartitionBackfill"]
        assert answer["__typename"] == "UnauthorizedError"
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait()
        with claimed([home / "data", home], "here"):
            pass  # the claim of the dead is free
    finally:
        with contextlib.suppress(ProcessLookupError):  # it was killed, and its children went with it
            first.stop()
        if shown is not None:
            shown.stop()
    assert not list(home.rglob(".quantbot-ui.json"))


@pytest.mark.torture
@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
@pytest.mark.parametrize("who", ["the one that takes questions", "the one that has loaded the code"])
@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
def test_a_real_code_server_comes_back(home: Path, who: str, how: signal.Signals) -> None:
    make_instance(home)
    server = quantbot_ui(home)
    try:
        server.wait("code location", server.locations)
        front = next(pid for pid, command in children(server.process.pid).items() if "code-server" in command)
        behind = next(iter(children(front)))
        os.kill(front if who == "the one that takes questions" else behind, how)

        def again() -> bool:
            return any(pid != front and "code-server" in c for pid, c in children(server.process.pid).items())

        server.wait("another code server", again, pulse.START_S + 60)  # it may not have answered yet
        assert not Path(f"/proc/{front}").exists()
        backfill = server.wait("answer", lambda: server.launch_backfill(["inputs/alerts"], ["2024-01"]))
        server.wait("end of a backfill", lambda: server.finished_backfill(backfill))
    finally:
        server.stop()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
