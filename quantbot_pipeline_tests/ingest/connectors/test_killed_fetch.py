"""A fetch killed at any moment and repeated: the store is that of an undisturbed fetch, and no kept answer is asked for again."""

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantbot_pipeline.home import Home
from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.ingest.connectors.fetch import fetch_candles
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.support.builders import DAY_MS, call, ms, solana_address, write_jsonl
from quantbot_pipeline_tests.support.hosts import Hosts
from quantbot_pipeline_tests.support.serving import said, serving
from quantbot_pipeline_tests.support.sizes import sizes

STEP = 300_000
SEED = 20261126
# For every home on standard input: fork a child that fetches, say its pid, and wait until it is dead.
SERVER = """
import os, sys
sys.modules["__main__"].__file__ = "server"  # else DuckDB takes it for a terminal and draws on standard output
from pathlib import Path
import httpx, tenacity, pyarrow.parquet, duckdb
from quantbot_pipeline.home import Home
from quantbot_pipeline.ingest.connectors.fetch import fetch_candles
from quantbot_pipeline.settings import Settings

print("ready", flush=True)
for home in sys.stdin:
    pid = os.fork()
    if pid == 0:
        try:
            fetch_candles(Home(Settings(home=Path(home.strip()))), "birdeye", "5m").require_whole()
            os._exit(0)
        finally:
            os._exit(1)
    print(pid, flush=True)
    sys.stdin.readline()  # until then a child that has ended keeps its number
    print(os.waitpid(pid, 0)[1], flush=True)
"""


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    made = Hosts()
    made.delay_s = 0.01
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, hosts: Hosts) -> None:
    monkeypatch.setenv("QUANTBOT_BIRDEYE_KEY", "key")
    monkeypatch.setenv("QUANTBOT_BIRDEYE_URL", hosts.url)
    monkeypatch.setenv("QUANTBOT_FETCH_PER_MINUTE", "60000")
    monkeypatch.setenv("QUANTBOT_FETCH_BACKOFF_S", "0.01")


def store_of(home: Path) -> dict[str, bytes]:
    files = (home / "data/candles").rglob("*.parquet")
    return {str(path.relative_to(home)): path.read_bytes() for path in files}


def kept_of(home: Path) -> set[tuple[str, str, str]]:
    """(token, from, to) of what was asked for, of each kept answer."""
    found = set()
    for path in (home / "data/raw/birdeye").glob("interval=5m/mint=*/[0-9]*"):
        start, end = path.name.split(".")[0].split("-")
        found.add((path.parent.name.partition("=")[2], str(int(start) // 1000), str((int(end) - STEP) // 1000)))
    return found


def asked_of(path: str) -> tuple[str, str, str]:
    query = dict(part.split("=") for part in path.partition("?")[2].split("&"))
    return query["address"], query["time_from"], query["time_to"]


@pytest.mark.parametrize("moments", sizes(2, 50))
def test_no_moment_of_a_kill_shows(tmp_path: Path, hosts: Hosts, moments: int) -> None:
    calls = [call(solana_address(n), ms("2024-01-30") + n * DAY_MS // 3) for n in range(14)]
    begun = Home(Settings(home=tmp_path / "begun"))
    ingest_calls([write_jsonl(tmp_path / "calls.jsonl", calls)], begun.calls)
    whole = tmp_path / "whole"
    shutil.copytree(begun.path, whole)
    start = time.monotonic()
    fetch_candles(Home(Settings(home=whole)), "birdeye", "5m").require_whole()
    lasts = time.monotonic() - start
    wanted, all_kept = store_of(whole), kept_of(whole)
    assert len(all_kept) == 14
    chance, killed, between = random.Random(SEED), 0, 0
    given = {name: value for name, value in os.environ.items() if name.startswith("QUANTBOT_")}
    with serving(SERVER, tmp_path, **given) as process:
        assert process.stdin is not None
        for moment in range(moments):
            home = tmp_path / f"killed-{moment}"
            shutil.copytree(begun.path, home)
            print(home, file=process.stdin, flush=True)
            pid = int(said(process))
            if moment:
                time.sleep(chance.uniform(0.0, lasts * 1.2))
            else:  # on a busy machine a few random moments may all miss the answers
                while not kept_of(home) and time.monotonic() < start + 120:
                    time.sleep(hosts.delay_s / 4)
            os.kill(pid, signal.SIGKILL)
            print("reap", file=process.stdin, flush=True)
            killed += os.WIFSIGNALED(int(said(process)))
            kept = kept_of(home)
            between += 0 < len(kept) < 14
            time.sleep(2 * hosts.delay_s)
            asked = len(hosts.asked)
            fetch_candles(Home(Settings(home=home)), "birdeye", "5m").require_whole()
            assert not kept & {asked_of(path) for path in hosts.asked[asked:]}, moment
            assert kept_of(home) == all_kept
            assert store_of(home) == wanted, moment
            left = [path.name for path in (home / "data").rglob("*") if path.name.endswith((".tmp", ".todo"))]
            assert left == []
            shutil.rmtree(home)
    assert killed > moments / 3
    assert between > 0, "some kills came between two answers"
