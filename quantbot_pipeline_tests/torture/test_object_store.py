"""Runs in an object store, with every request of a commit harmed in turn: a run is whole or believed by nobody, and every failure is a sentence."""

import os
import random
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from quantbot_pipeline.bucket import Bucket
from quantbot_pipeline.catalog.catalog import Catalog, list_runs
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.errors import IntegrityError, QuantbotError, StoreError
from quantbot_pipeline.runs.manifest import RunDirectory
from quantbot_pipeline.runs.objects import ObjectRuns
from quantbot_pipeline.runs.verify import IncompleteRunError, check_run
from quantbot_pipeline_tests.support.builders import artifact_rows, make_manifest
from quantbot_pipeline_tests.support.object_store import CREDENTIALS, Plan, Proxy, Store, leaks, options
from quantbot_pipeline_tests.torture.conftest import Tally

pytestmark = [pytest.mark.torture, pytest.mark.usefixtures("credentials")]
REQUESTS = 11  # of a commit of eight files
FAULTS = ("500", "503", "cut", "half", "lost", "hang")
SEED = 20261127
PAUSE_S = 0.3  # between two looks of a reader: writers need the machine, too
WHOLE = "Runs in an object store are whole or believed by nobody: "


@pytest.fixture
def proxy(object_store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setattr("quantbot_pipeline.bucket.FIRST_PAUSE_S", 0.002)
    monkeypatch.setattr("quantbot_pipeline.bucket.LONGEST_PAUSE_S", 0.02)
    with Proxy(object_store.endpoint) as proxy:
        proxy.hang_s = 2.0
        yield proxy


@pytest.fixture
def url(object_store: Store) -> str:
    return f"s3://{object_store.make_bucket(f'b{uuid.uuid4().hex}')}/lab"


def runs_at(proxy: Proxy, url: str, folder: Path, *, patience: str = "10s", **more: Any) -> ObjectRuns:
    """The runs as a machine sees them whose client waits so long for an answer."""
    bucket = Bucket(url, options(proxy.endpoint) | {"timeout": patience, "connect_timeout": patience})
    return ObjectRuns(bucket, folder, **more)


def commit(runs: ObjectRuns, proxy: Proxy | None = None, plan: Any = None) -> RunDirectory:
    """Commit a run of eight files; the plan holds from its first request."""
    with runs.begin("2024-01") as staged:
        for name in ("alerts", "paths", "trades", "summary", "frontier"):
            staged.write(name, artifact_rows(name, 3))
        staged.write("errors", artifact_rows("errors", 0))
        logs = staged.write_logs("what it said\n", "")
        if proxy is not None:
            proxy.begin(plan)
        return staged.commit(make_manifest(staged, logs))


def believed(runs: ObjectRuns) -> set[str]:
    """The runs that a reader believes, every byte of them verified. Half a run among them is an AssertionError."""
    found = set()
    listing = runs.listing()
    for month in listing.months:
        for name in listing.names(month):
            try:
                manifest = listing.examine(month, name).manifest
            except IncompleteRunError:
                continue
            assert manifest.status == "completed"
            with runs.fresh(f"{month}/{name}") as folder:
                check_run(folder)
            found.add(name)
    return found


def said(error: QuantbotError) -> None:
    """A failure is one sentence that names the place."""
    text = str(error)
    assert "\n" not in text and text.startswith("s3://") and len(text) < 400, text


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from-there-on"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_every_request_of_a_commit(
    proxy: Proxy, url: str, tmp_path: Path, fault: str, lasting: bool, tally: Tally
) -> None:
    committed = {commit(runs_at(proxy, url, tmp_path / "writer")).name}
    writer = runs_at(proxy, url, tmp_path / "writer", patience="1s" if fault == "hang" else "10s")
    refused, requests = 0, (1, 9, 10, 11) if fault == "hang" and lasting else range(1, REQUESTS + 1)
    for request in requests:
        hit = at_request(request, fault, lasting=lasting)
        try:
            committed.add(commit(writer, proxy, hit).name)
        except (StoreError, IntegrityError) as e:
            refused += 1
            said(e)
        proxy.begin()
        reader = runs_at(proxy, url, tmp_path / f"reader-{request}")
        seen = believed(reader)
        assert committed <= seen, "a run that was said to be committed is there"
        assert len(seen - committed) <= (1 if lasting and fault in ("lost", "half") else 0), (
            "none is there that nobody heard of"
        )
        committed = seen
    assert refused == (len(requests) if lasting else 0), "one fault is repeated away, a lasting one is said"
    assert leaks(tmp_path) == []
    tally(
        f"{WHOLE}{fault} {'from a request on' if lasting else 'at one request'}", tried=len(requests), detected=refused
    )


class Kill:
    """Kills a writer before its request is forwarded, or after the store has answered it."""

    def __init__(self, process: "subprocess.Popen[str]", after: bool) -> None:
        self._process, self.after = process, after

    def __call__(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


def at_request(request: int, fault: object, *, lasting: bool = False) -> Plan:
    """A plan that harms one request, or all from it on."""
    return lambda n, method, path: fault if n == request or (lasting and n > request) else None


WRITER = """
import sys, os
from quantbot_pipeline_tests.support.object_store import Proxy, object_runs
from quantbot_pipeline_tests.torture.test_object_store import commit
endpoint, url, folder = sys.argv[1:4]
from pathlib import Path
runs = object_runs(endpoint, url, Path(folder))
print("ready", flush=True)
sys.stdin.readline()
print(commit(runs).name, flush=True)
"""


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_writer_killed_at_every_request(
    proxy: Proxy, object_store: Store, url: str, tmp_path: Path, after: bool, tally: Tally
) -> None:
    committed = {commit(runs_at(proxy, url, tmp_path / "writer")).name}
    killed = 0
    for request in range(1, REQUESTS + 1):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, proxy.endpoint, url, str(tmp_path / "writer")],
            env={**os.environ, **CREDENTIALS}, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip  # a table: what belongs together stands on one line
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "ready\n"

        proxy.begin(at_request(request, Kill(process, after)))
        process.stdin.write("\n")
        process.stdin.close()
        name = process.stdout.readline().strip()
        killed += process.wait() == -signal.SIGKILL
        assert name == ""
        proxy.begin()
        seen = believed(runs_at(proxy, url, tmp_path / f"reader-{request}"))
        last = {True} if after and request == REQUESTS else set()
        assert committed <= seen and len(seen - committed) == len(last), "only behind the last answer it is committed"
        committed = seen
    assert killed == REQUESTS
    keys = object_store.keys(url.split("/")[2])
    old = runs_at(proxy, url, tmp_path / "sweeper", staging_max_age_s=0.0)
    dead = len({key.split("/")[2] for key in keys if "run_id=" in key} - committed)
    assert dead > 0 and old.sweep() >= dead
    assert believed(runs_at(proxy, url, tmp_path / "last")) == committed
    assert {key.split("/")[2] for key in object_store.keys(url.split("/")[2]) if "run_id=" in key} == committed
    tally(f"{WHOLE}killed {'after' if after else 'before'} every request", tried=REQUESTS, detected=killed)


@pytest.mark.parametrize("faulty", [0.0, 0.04], ids=["quiet", "faulty"])
def test_a_crowd_of_writers_readers_and_syncs(
    proxy: Proxy, url: str, tmp_path: Path, faulty: float, tally: Tally
) -> None:
    commit(runs_at(proxy, url, tmp_path / "first"))
    chance, lock, done = random.Random(SEED), threading.Lock(), threading.Event()
    committed: list[str] = []
    refused: list[str] = []
    looks: list[int] = []

    def plan(n: int, method: str, path: str) -> str | None:
        with lock:
            return chance.choice(("500", "503", "cut", "lost")) if chance.random() < faulty else None

    proxy.begin(plan)

    def write(number: int) -> None:
        runs = runs_at(proxy, url, tmp_path / f"writer-{number}")
        runs.copies.folder.mkdir(parents=True)
        (runs.copies.folder / ".probed.json").write_text('{"quoted": false, "plain": true}')
        for _ in range(3):
            try:
                name = commit(runs).name
                with lock:
                    committed.append(name)
            except (StoreError, IntegrityError) as e:
                said(e)
                with lock:
                    refused.append(str(e))

    def read(number: int) -> None:
        runs = runs_at(proxy, url, tmp_path / f"reader-{number}")
        while not done.wait(PAUSE_S):
            with lock:
                before = set(committed)
            try:
                seen = believed(runs)
            except StoreError as e:
                said(e)
                continue
            assert before <= seen
            looks.append(len(seen))

    def register(number: int) -> None:
        catalog = Catalog(tmp_path / f"catalog-{number}.duckdb", runs_at(proxy, url, tmp_path / f"sync-{number}"))
        while not done.wait(PAUSE_S):
            try:
                report = sync(catalog)
            except StoreError as e:
                said(e)
                continue
            assert report.quarantined == report.incomplete

    with ThreadPoolExecutor(28) as pool:
        others = [pool.submit(read, n) for n in range(8)] + [pool.submit(register, n) for n in range(4)]
        writers = [pool.submit(write, n) for n in range(16)]
        for writer in writers:
            writer.result()
        done.set()
        for other in others:
            other.result()
    proxy.begin()
    seen = believed(runs_at(proxy, url, tmp_path / "last"))
    assert set(committed) <= seen
    assert len(committed) == len(set(committed)) and len(committed) + len(refused) == 48
    assert len(seen) - 1 - len(committed) <= len(refused)
    for number in range(4):
        catalog = Catalog(tmp_path / f"catalog-{number}.duckdb", runs_at(proxy, url, tmp_path / f"sync-{number}"))
        sync(catalog)
        assert {row["run_dir"].split("/")[1] for row in list_runs(catalog, limit=1000)} == seen
    _sweep_twice(proxy, url, tmp_path)
    assert believed(runs_at(proxy, url, tmp_path / "after")) == seen
    assert leaks(tmp_path) == []
    promise = (
        f"16 writers, 8 readers, 4 syncs, two sweeps on an object store{', 4 % of requests broken' if faulty else ''}"
    )
    tally(promise, tried=48, detected=len(refused), lost=0)


def _sweep_twice(proxy: Proxy, url: str, tmp_path: Path) -> None:
    """Two sweeps at once, of everything that is not committed."""
    sweepers = [runs_at(proxy, url, tmp_path / f"sweeper-{n}", staging_max_age_s=0.0) for n in range(2)]
    with ThreadPoolExecutor(2) as pool:
        for swept in [pool.submit(runs.sweep) for runs in sweepers]:
            swept.result()
