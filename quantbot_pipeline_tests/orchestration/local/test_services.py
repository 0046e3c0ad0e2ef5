"""`quantbot ui` on addresses that cannot be had, and when what it runs does not stay up."""

import socket
import sys
from pathlib import Path

import pytest

from quantbot_pipeline.errors import StoreError
from quantbot_pipeline.orchestration.local import services
from quantbot_pipeline_tests.conftest import Quantbot


def test_a_port_in_use_is_said_before_anything_starts(quantbot: Quantbot) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        complaint = quantbot("ui", "--port", port).complaint
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

    def commands(host: str, port: int, door: Path, workspace: Path) -> dict[str, list[str]]:
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


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
