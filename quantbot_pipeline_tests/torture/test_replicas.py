"""Replication killed again and again at random requests: the destination becomes the source, byte for byte, and no reader ever saw half a run."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantbot_pipeline.runs.replicate import replicate
from quantbot_pipeline.runs.store import LocalRuns, RunStore
from quantbot_pipeline_tests.runs.test_replicate import believed, place_of
from quantbot_pipeline_tests.support.object_store import CREDENTIALS, Proxy, Store, leaks, object_runs
from quantbot_pipeline_tests.torture.conftest import Tally
from quantbot_pipeline_tests.torture.test_object_store import Kill, at_request

pytestmark = [pytest.mark.torture, pytest.mark.usefixtures("credentials")]
SEED = 20261127
FURTHEST = 30  # request at which a copy is killed; a run takes 14 to 20 between two stores
PAUSE_S = 0.3

COPIER = """
import json, sys
from pathlib import Path
from quantbot_pipeline.runs.replicate import replicate
from quantbot_pipeline.runs.store import LocalRuns
from quantbot_pipeline_tests.support.object_store import object_runs
endpoint, folder = sys.argv[1], Path(sys.argv[2])
source, destination = (
    object_runs(endpoint, place, folder / f"copies-{n}") if "://" in place else LocalRuns(Path(place))
    for n, place in enumerate(sys.argv[3:])
)
print("ready", flush=True)
sys.stdin.readline()
done = replicate(source, destination)
print(json.dumps([len(done.copied), done.faults]), flush=True)
"""


@pytest.fixture
def proxy(object_store: Store) -> Iterator[Proxy]:
    with Proxy(object_store.endpoint) as proxy:
        yield proxy


class Reader(threading.Thread):
    """Somebody at the destination who looks again and again, and verifies every byte of what is there."""

    def __init__(self, runs: RunStore) -> None:
        super().__init__(daemon=True)
        self.runs, self.looks, self.seen = runs, 0, set[str]()
        self.error: BaseException | None = None
        self._done = threading.Event()

    def run(self) -> None:
        try:
            while not self._done.wait(PAUSE_S):
                found = believed(self.runs)
                assert self.seen <= found, "what was there once stays"
                self.seen, self.looks = found, self.looks + 1
        except BaseException as e:
            self.error = e

    def end(self) -> None:
        self._done.set()
        self.join()
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize(("way", "kills"), [("objects-objects", 50), ("folder-objects", 25), ("objects-folder", 25)])
def test_replication_killed_at_random_requests(
    request: pytest.FixtureRequest,
    proxy: Proxy,
    object_store: Store,
    tmp_path: Path,
    way: str,
    kills: int,
    tally: Tally,
) -> None:
    source, destination = (place_of(kind, request, tmp_path / f"{n}-{kind}") for n, kind in enumerate(way.split("-")))
    chance, killed, finished, committed = random.Random(SEED), 0, 0, 0
    reader = Reader(as_somebody_else(destination.runs, object_store, tmp_path / "reader"))
    reader.start()
    while killed < kills:
        while committed - len(believed(destination.runs)) < 3:
            source.commit(f"2024-0{1 + committed % 3}")
            committed += 1
        process = copier(proxy, tmp_path, source.runs, destination.runs)
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        proxy.begin(at_request(chance.randrange(1, FURTHEST), Kill(process, chance.random() < 0.5)))
        process.stdin.write("\n")
        process.stdin.close()
        said = process.stdout.read()
        if process.wait() == -signal.SIGKILL:
            killed += 1
        else:
            finished += 1
            assert json.loads(said)[1] == {}
    proxy.begin()
    last = replicate(source.runs, destination.runs)
    assert last.faults == {} and destination.bytes() == source.bytes()
    assert len(believed(destination.runs)) == committed
    reader.end()
    assert reader.looks > 0
    changed = sorted(believed(destination.runs))[0]
    was = destination.runs.read(f"{changed}/truth/paths.parquet")
    destination.write(f"{changed}/truth/paths.parquet", was[:-1] + bytes([was[-1] ^ 1]))
    before = destination.bytes()
    assert [*replicate(source.runs, destination.runs, verify=True).differing] == [changed]
    assert destination.bytes() == before and leaks(tmp_path) == []
    tally(
        f"Replication {way.replace('-', ' to ')}, killed at random requests; a reader looked {reader.looks} times, and {finished} copies ended first",
        tried=kills, detected=killed, lost=0,
    )  # fmt: skip  # what is counted stands on one line


def copier(proxy: Proxy, folder: Path, *places: RunStore) -> "subprocess.Popen[str]":
    """A process that copies between two places, and waits for a line before it begins."""
    return subprocess.Popen(
        [sys.executable, "-c", COPIER, proxy.endpoint, str(folder), *(runs.place for runs in places)],
        env={**os.environ, **CREDENTIALS}, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip  # a table: what belongs together stands on one line


def as_somebody_else(runs: RunStore, store: Store, folder: Path) -> RunStore:
    """The same runs as another machine sees them."""
    return runs if isinstance(runs, LocalRuns) else object_runs(store.endpoint, runs.place, folder)
