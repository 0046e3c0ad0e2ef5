"""Processes whose file system fails at a chosen moment: `shim.c` compiled and preloaded, and a server that forks workers.

The server has imported and compiled everything, so that an attempt costs the work itself and no start-up.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

import pytest

from quantbot_pipeline_tests.support.serving import Serving, ask, serving


class Fault(IntEnum):
    """What happens at the chosen call; the order of the enum in shim.c."""

    COUNT = 0  # nothing: the calls are counted
    IO_ERROR = 1  # this one call fails
    DISK_FULL = 2  # this call and all later ones that need space fail
    KILL = 3  # the process dies instead of making the call
    TORN = 4  # the next write leaves half of its bytes, then the process dies


class Attempt(NamedTuple):
    """How a worker ended: the error it reported, or None; the signal that killed it, or 0; the calls seen (if it lived)."""

    error: str | None
    killed: int
    seen: int
    result: str | None


SERVER = """
import ctypes, json, os, sys
sys.modules["__main__"].__file__ = "server"  # else DuckDB takes it for a terminal and draws on standard output
from pathlib import Path
from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.config import make_config
from quantbot_pipeline.errors import QuantbotError
from quantbot_pipeline.home import Home
from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.ingest.candles import ingest_candles
from quantbot_pipeline.settings import Settings

shim = ctypes.CDLL(None)

def work(task, home):
    lab = Home(Settings(home=Path(home), threads=1, memory_limit="256MB"))
    if task == "run":
        return str(run_month(lab, "path-only", "2024-01", make_config({})).run_dir)
    if task == "ingest":
        ingest_calls([lab.path / "more/calls.jsonl"], lab.calls)
        ingest_candles([lab.path / "more/candles.parquet"], lab.candles, "5m")
        return "ingested"
    return sync(lab.catalog, rebuild=task == "rebuild").model_dump_json()

def attempt(task, home, how, at):
    error = result = None
    shim.faults_arm(home.encode(), how, at)
    try:
        result = work(task, home)
    except (QuantbotError, OSError) as e:
        error = f"{type(e).__name__}: {e}"
    except BaseException as e:
        error = f"unforeseen {type(e).__name__}: {e}"
    return {"error": error, "result": result, "seen": shim.faults_seen()}

work("run", sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, json.dumps(attempt(*json.loads(line))).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    print(json.dumps([status, said]), flush=True)
"""


class Server:
    """Forks a worker per attempt, with everything imported."""

    def __init__(self, process: Serving) -> None:
        self._process = process

    def attempt(self, task: str, home: Path, how: Fault, at: int) -> Attempt:
        """Let a worker do `task` on `home`, with the fault at its `at`-th call."""
        status, said = ask(self._process, [task, str(home), how, at])
        if os.WIFSIGNALED(status):
            return Attempt(None, os.WTERMSIG(status), 0, None)
        assert status == 0, (task, how, at, status)
        told = json.loads(said)
        return Attempt(told["error"], 0, told["seen"], told["result"])


@contextmanager
def faulty_server(home: Path, folder: Path) -> Iterator[Server]:
    """A server of workers with the shim preloaded; `home` is where it warms up. Skips the test without a C compiler."""
    shim = _compiled(folder)
    with serving(SERVER, home, LD_PRELOAD=str(shim)) as process:
        yield Server(process)


def _compiled(folder: Path) -> Path:
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler")
    target = folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", target, source, "-ldl"], check=True)
    return target
