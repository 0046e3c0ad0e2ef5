"""Calls and candles in an object store, with an ingest killed at every request, and four at once on a store that fails: nothing half, nothing lost."""

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

from quantbot_pipeline.errors import QuantbotError
from quantbot_pipeline.home import Home
from quantbot_pipeline.market.calls import read_calls
from quantbot_pipeline.market.candle_files import month_file
from quantbot_pipeline_tests.ingest.test_inputs import ALL, JAN_1, machine_at, stored, take
from quantbot_pipeline_tests.support.builders import Row, call, candle, ms
from quantbot_pipeline_tests.support.object_store import CREDENTIALS, Proxy, Store, leaks, options
from quantbot_pipeline_tests.torture.conftest import Tally
from quantbot_pipeline_tests.torture.test_object_store import Kill, at_request, said

pytestmark = [pytest.mark.torture, pytest.mark.usefixtures("credentials")]
SEED = 20261127
MONTHS = ("2024-01", "2024-02")
WHOLE = "Inputs in an object store change whole or not at all: "
HONOURED = '{"quoted": false, "plain": true}'  # what both servers of the campaign take
OLD: tuple[list[Row], list[Row]] = (
    [call("t", "2024-01-02", call_id="a"), call("t", "2024-02-02", call_id="b")],
    [candle("t", ms(f"{month}-01")) for month in MONTHS],
)
NEWS: tuple[list[Row], list[Row]] = (
    [call("t", "2024-01-03", call_id="c"), call("t", "2024-02-03", call_id="d"), call("", "2024-01-04")],
    [
        row
        for month in MONTHS
        for row in (candle("t", ms(f"{month}-01"), close=1.05), candle("u", ms(f"{month}-01"), -1.0))
    ],
)
WRITER = """
import sys
from pathlib import Path
from quantbot_pipeline_tests.support.object_store import options
from quantbot_pipeline_tests.torture.test_object_inputs import NEWS, machine_at, take
endpoint, url, folder = sys.argv[1:4]
home = machine_at(Path(folder), inputs=url, store_options=options(endpoint, timeout="10s"))
home.calls, home.candles
print("ready", flush=True)
sys.stdin.readline()
take(home, *NEWS)
print("done", flush=True)
"""


@pytest.fixture
def proxy(object_store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setattr("quantbot_pipeline.bucket.FIRST_PAUSE_S", 0.002)
    monkeypatch.setattr("quantbot_pipeline.bucket.LONGEST_PAUSE_S", 0.02)
    with Proxy(object_store.endpoint) as proxy:
        yield proxy


@pytest.fixture
def bucket(object_store: Store) -> str:
    return object_store.make_bucket(f"b{uuid.uuid4().hex}")


def machine(endpoint: str, url: str, folder: Path) -> Home:
    """A machine whose client waits long, and which has probed the store already."""
    home = machine_at(folder, inputs=url, store_options=options(endpoint, timeout="10s"))
    home.settings.inputs_dir.mkdir(parents=True, exist_ok=True)
    (home.settings.inputs_dir / ".probed.json").write_text(HONOURED)
    return home


def seen(home: Home) -> list[Any]:
    """What a reader believes: the calls and their sightings, and the candles of each month."""
    read = read_calls(home.calls, *ALL)
    found: list[Any] = [(read.calls["call_id"].to_pylist(), read.rejected)]
    for month in MONTHS:
        there = month_file(home.candles.folder, "5m", month).exists()
        found.append([(row["mint"], row["close"]) for row in stored(home, month)] if there else [])
    return found


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_an_ingest_killed_at_every_request(
    proxy: Proxy, object_store: Store, bucket: str, tmp_path: Path, after: bool, tally: Tally
) -> None:
    take(machine(object_store.endpoint, f"s3://{bucket}/first", tmp_path / "first"), *OLD)
    objects = {key: object_store.read(bucket, key) for key in object_store.keys(bucket, "first/")}
    old: list[Any] = [(["a", "b"], {}), [("t", 1.0)], [("t", 1.0)]]
    new: list[Any] = [(["a", "c", "b", "d"], {"mint": 1}), [("t", 1.05)], [("t", 1.05)]]
    killed = request = 0
    while True:
        request += 1
        for key, content in objects.items():
            object_store.write(bucket, key.replace("first/", f"at-{request}/"), content)
        url, folder = f"s3://{bucket}/at-{request}", tmp_path / f"writer-{request}"
        machine(proxy.endpoint, url, folder)
        proxy.begin()
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, proxy.endpoint, url, str(folder)],
            env={**os.environ, **CREDENTIALS}, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip  # a table: what belongs together stands on one line
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        proxy.begin(at_request(request, Kill(process, after)))
        process.stdin.write("\n")
        process.stdin.close()
        done = process.stdout.readline() == "done\n"
        died = process.wait() == -signal.SIGKILL
        proxy.begin()
        now = seen(machine(object_store.endpoint, url, tmp_path / f"reader-{request}"))
        assert all(is_now in was_or_is for is_now, was_or_is in zip(now, zip(old, new, strict=True), strict=True)), now
        if done:
            assert now == new and not died
            break
        killed += died
        later = machine(object_store.endpoint, url, folder)  # the same machine, with what the dead one left
        take(later, *NEWS)
        assert seen(later) == new, "the same again completes it"
        take(later, *NEWS)
        assert seen(machine(object_store.endpoint, url, tmp_path / f"last-{request}")) == new
    assert killed == request - 1 > 20
    assert leaks(tmp_path) == []
    tally(f"{WHOLE}killed {'after' if after else 'before'} a request", tried=killed, detected=0)


def test_four_ingests_at_once_on_a_store_that_fails(
    proxy: Proxy, object_store: Store, bucket: str, tmp_path: Path, tally: Tally
) -> None:
    chance, lock, faulty = random.Random(SEED), threading.Lock(), 0.03
    url = f"s3://{bucket}/lab"
    done: list[str] = []
    refused: list[str] = []

    def plan(n: int, method: str, path: str) -> str | None:
        with lock:
            return chance.choice(("500", "503", "cut", "lost")) if chance.random() < faulty else None

    proxy.begin(plan)

    def write(number: int) -> None:
        home = machine(proxy.endpoint, url, tmp_path / f"writer-{number}")
        for i in range(3):
            name = f"{number}-{i}"
            try:
                take(home, [call(name, "2024-01-02", call_id=name)], [candle(name, JAN_1)])
            except QuantbotError as e:
                said(e)
                refused.append(name)
            else:
                done.append(name)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    proxy.begin()
    (ids, _), candles, _ = seen(machine(object_store.endpoint, url, tmp_path / "reader"))
    mints = [mint for mint, _ in candles]
    assert set(done) <= set(ids) and set(done) <= set(mints), "nothing that was said to be done is lost"
    assert len(set(ids)) == len(ids) and len(set(mints)) == len(mints)
    assert set(ids) | set(mints) <= {*done, *refused}
    assert len(done) > 6
    tally(f"{WHOLE}four at once, three times", tried=12, detected=len(refused))
