"""Calls and candles in an object store: what is fetched, what a death on the way leaves, ingests at once, and what is no input."""

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.bucket import Bucket
from quantbot_pipeline.config import make_config
from quantbot_pipeline.errors import QuantbotError, StoreError
from quantbot_pipeline.home import Home
from quantbot_pipeline.ingest.candles import ingest_candles
from quantbot_pipeline.market.calls import read_calls
from quantbot_pipeline.market.candle_files import month_file
from quantbot_pipeline.market.opening import opened
from quantbot_pipeline.market.pointers import Publisher, parse_pointer
from quantbot_pipeline_tests.conftest import Quantbot
from quantbot_pipeline_tests.ingest.test_inputs import ALL, JAN_1, machine_at, stored, take
from quantbot_pipeline_tests.support.builders import HOUR_MS, call, candle
from quantbot_pipeline_tests.support.object_store import KEY, SECRET, Proxy, Store, leaks, options

MONTH = "candles/interval=5m/month=2024-01"
POINTERS = (f"{MONTH}/current.json", "calls/current.json")


@pytest.fixture
def bucket(object_store: Store, credentials: None) -> str:
    return object_store.make_bucket(f"b{uuid.uuid4().hex}")


@pytest.fixture
def proxy(object_store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setattr("quantbot_pipeline.bucket.FIRST_PAUSE_S", 0.002)
    monkeypatch.setattr("quantbot_pipeline.bucket.LONGEST_PAUSE_S", 0.01)
    with Proxy(object_store.endpoint) as proxy:
        yield proxy


@pytest.fixture
def machine(bucket: str, proxy: Proxy, tmp_path: Path) -> Callable[..., Home]:
    """Make a machine of a name that reaches the store through the proxy, unless told otherwise."""

    def made(name: str, endpoint: str = proxy.endpoint, **settings: Any) -> Home:
        return machine_at(
            tmp_path / name, inputs=f"s3://{bucket}/lab", store_options=options(endpoint, timeout="60s"), **settings
        )

    return made


def content(home: Home) -> tuple[list[Any], list[Any]]:
    """All calls, and the candles of January."""
    there = month_file(home.candles.folder, "5m", "2024-01").exists()
    return read_calls(home.calls, *ALL).calls["call_id"].to_pylist(), stored(home) if there else []


# --- what is fetched --------------------------------------------------------------------------------------------------


def test_a_backtest_reads_the_row_groups_of_its_tokens_and_little_else(
    machine: Callable[..., Home], proxy: Proxy, bucket: str, object_store: Store, tmp_path: Path
) -> None:
    here = machine("here")
    minutes = np.arange(JAN_1, JAN_1 + 31 * 24 * HOUR_MS, 300_000)  # 8,928 candles a token: 15 tokens a row group
    prices = 1 + np.random.default_rng(1).random((60, len(minutes), 2))
    high, low = prices.max(axis=2).ravel(), prices.min(axis=2).ravel()
    columns = {"mint": np.repeat([f"t{i:02}" for i in range(60)], len(minutes)), "ts_ms": np.tile(minutes, 60)}
    columns |= {"open": low, "high": high, "low": low, "close": high, "volume": high}
    file = tmp_path / "candles.parquet"
    pq.write_table(pa.table(columns), file)
    ingest_candles([file], here.candles, "5m")
    take(here, [call("t07", JAN_1 + 24 * HOUR_MS), call("t09", JAN_1 + 48 * HOUR_MS)])
    whole = pq.read_metadata(opened(month_file(here.candles.folder, "5m", "2024-01")))
    assert whole.num_row_groups == 4
    group = whole.row_group(0)
    needed = sum(group.column(i).total_compressed_size for i in range(group.num_columns))
    there = machine("there")
    proxy.begin()
    policy = {"kind": "fixed_stop", "stop_pct": 0.2, "take_profit_pct": 0.5}
    made = run_month(there, "policy", "2024-01", make_config({"policies": [policy]}))
    assert made is not None and made.manifest.artifacts["trades"].rows == 2
    assert needed < fetched(proxy) <= 1.1 * needed
    assert run_month(there, "path-only", "2024-01", make_config({})) is not None
    size = month_file(there.candles.folder, "5m", "2024-01").stat().st_size
    assert fetched(proxy) == size, "features need the whole month, and what was fetched before is here"


def fetched(proxy: Proxy) -> int:
    """Bytes of candles that the store has sent."""
    return sum(size for (_, path, _), size in zip(proxy.log, proxy.sent, strict=True) if "candles.parquet" in path)


# --- deaths on the way ------------------------------------------------------------------------------------------------


def killed_at(pointer: str, fault: str) -> Callable[[int, str, str], str | None]:
    """A plan in which the swap of a pointer never comes to the store, or nobody hears of it, and nothing after it does either."""
    reached: list[int] = []

    def plan(n: int, method: str, path: str) -> str | None:
        if method == "PUT" and path.replace("%3D", "=").endswith(pointer):
            reached.append(n)
        return None if not reached else fault if n == reached[0] else "cut"

    return plan


@pytest.mark.parametrize("fault", ["cut", "lost"])
def test_an_ingest_that_dies_at_the_swap_counts_whole_or_not_at_all(
    machine: Callable[..., Home], proxy: Proxy, object_store: Store, tmp_path: Path, fault: str
) -> None:
    take(machine("first"), [call("t", "2024-01-02", call_id="a")], [candle("t", JAN_1)])
    old = content(machine("reader", object_store.endpoint))
    writer = machine("writer")
    for pointer, given in (
        ("calls/current.json", {"calls": [call("t", "2024-01-03", call_id="b"), call("t", "2024-02-03", call_id="c")]}),
        (POINTERS[0], {"rows": [candle("t", JAN_1, close=1.05), candle("t", JAN_1 + 300_000, -1.0)]}),
    ):
        proxy.begin(killed_at(pointer, fault))
        with pytest.raises(StoreError, match="unknown whether the ingest counted") as died:
            take(writer, **given)
        assert str(died.value).count("\n") == 0
        proxy.begin()
    now = content(machine("later", object_store.endpoint))
    assert now == (old if fault == "cut" else (["a", "b", "c"], [candle("t", JAN_1, close=1.05)]))
    assert leaks(tmp_path) == []


# --- two at once ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pointer", POINTERS)
def test_an_ingest_that_comes_second_applies_its_own_to_what_the_first_left(
    machine: Callable[..., Home], proxy: Proxy, object_store: Store, pointer: str
) -> None:
    other = machine("other", object_store.endpoint)
    take(other, [call("t", "2024-01-02", call_id="old")], [candle("t", JAN_1)])
    faster: list[str] = []

    def overtake() -> None:
        faster.append("at the swap")
        rows = [candle("t", JAN_1 + 300_000, close=1.01), candle("u", JAN_1, close=1.02)]
        take(other, [call("t", "2024-01-03", "first", call_id="x"), call("t", "2024-01-04", call_id="y")], rows)

    def plan(n: int, method: str, path: str) -> Any:
        at = method == "PUT" and path.replace("%3D", "=").endswith(pointer)
        return overtake if at and not faster else None

    here = machine("here")
    proxy.begin(plan)
    rows = [candle("t", JAN_1 + 300_000, close=1.03), candle("v", JAN_1, close=1.04)]
    take(here, [call("t", "2024-02-03", "second", call_id="x"), call("t", "2024-02-04", call_id="z")], rows)
    assert faster
    later = machine("later")
    ids, stored_rows = content(later)
    closes = {(row["mint"], row["ts_ms"]): row["close"] for row in stored_rows}
    assert closes == {
        ("t", JAN_1): 1.0, ("t", JAN_1 + 300_000): 1.03, ("u", JAN_1): 1.02, ("v", JAN_1): 1.04,
    }  # fmt: skip  # a table
    assert sorted(ids) == ["old", "x", "y", "z"], "of two calls with one id the first stays, whatever its month"
    callers = read_calls(later.calls, *ALL).calls.to_pylist()
    overtaken = "first" if pointer.startswith("calls") else "second"
    assert {row["caller_name"] for row in callers if row["call_id"] == "x"} == {overtaken}


# --- what no longer counts --------------------------------------------------------------------------------------------


def test_files_that_no_longer_count_stay_for_a_while(
    machine: Callable[..., Home], bucket: str, object_store: Store, tmp_path: Path
) -> None:
    here = machine("here")
    for i in range(2):
        take(here, [call("t", f"2024-01-0{i + 2}", call_id=str(i))], [candle("t", JAN_1, close=1.0 + i / 100)])
    object_store.write(bucket, f"lab/{MONTH}/{'0' * 32}/candles.parquet", b"of an ingest that was killed")
    reader = machine("reader")
    old = opened(month_file(reader.candles.folder, "5m", "2024-01"))
    take(here, None, [candle("t", JAN_1, close=1.05)])
    assert pq.read_table(old)["close"].to_pylist() == [1.01], "a run in flight reads on"
    files = [key for key in object_store.keys(bucket, "lab/candles") if key.endswith(".parquet")]
    assert len(files) == 4, "all are young"
    client = Bucket(f"s3://{bucket}/lab", options(object_store.endpoint))
    assert Publisher(client, tmp_path, age_s=0.0).sweep(MONTH) == 3
    assert Publisher(client, tmp_path, age_s=0.0).sweep("calls") >= 2
    assert content(machine("later")) == (["0", "1"], [candle("t", JAN_1, close=1.05)])
    take(here, None, [candle("t", JAN_1, close=1.06)])
    pointer = parse_pointer(object_store.read(bucket, f"lab/{MONTH}/current.json"), "")
    assert len(pointer.retired) == 1, "what is gone is forgotten"


# --- what is no input -------------------------------------------------------------------------------------------------


def test_bytes_that_are_not_those_of_the_pointer_are_an_error_and_never_a_price(
    machine: Callable[..., Home], bucket: str, object_store: Store
) -> None:
    take(machine("here"), [call("t", "2024-01-03", call_id="a")], [candle("t", JAN_1)])
    for key in (one for one in object_store.keys(bucket, "lab/c") if one.endswith(".parquet")):
        damaged = bytearray(object_store.read(bucket, key))
        damaged[len(damaged) // 3] ^= 1
        object_store.write(bucket, key, bytes(damaged))
    there = machine("there")
    with pytest.raises(StoreError, match="another checksum than the pointer says"):
        _ = there.calls
    with pytest.raises(StoreError, match="another checksum than the pointer says"):
        stored(there)


def test_a_copy_that_is_damaged_is_fetched_again(machine: Callable[..., Home], tmp_path: Path) -> None:
    take(machine("here"), None, [candle("t", JAN_1)])
    assert stored(machine("there")) == [candle("t", JAN_1)]
    copies = list((tmp_path / "there").glob("data/cache/inputs-*/parts/*/*"))
    assert len(copies) == 1
    copies[0].write_bytes(bytes(copies[0].stat().st_size))
    assert stored(machine("there")) == [candle("t", JAN_1)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "damaged"),
        (b"{}", "version is missing"),
        (b'{"version":"2.0.0","files":{},"retired":{}}', "upgrade quantbot"),
        (
            b'{"version":"1.0.0","files":{"candles":{"key":"../../x","size":1,"parts":[[0,"0"]]}},"retired":{}}',
            "damaged",
        ),
    ],
)
def test_a_pointer_that_is_none_is_named(
    machine: Callable[..., Home], bucket: str, object_store: Store, text: bytes, says: str
) -> None:
    for pointer in POINTERS:
        object_store.write(bucket, f"lab/{pointer}", text)
    there = machine("there")
    with pytest.raises(QuantbotError, match=says) as refused:
        _ = there.candles
    assert f"s3://{bucket}/lab/{POINTERS[0]}" in str(refused.value)
    with pytest.raises(QuantbotError, match=says):
        _ = there.calls


def test_a_store_that_heeds_no_condition_is_refused(machine: Callable[..., Home], proxy: Proxy) -> None:
    proxy.begin(lambda n, method, path: "unconditional" if method == "PUT" else None)
    here = machine("here")
    for given in ({"calls": [call("t", "2024-01-03")]}, {"rows": [candle("t", JAN_1)]}):
        with pytest.raises(StoreError, match="no If-"):
            take(here, **given)
    proxy.begin()
    assert content(machine("there")) == ([], [])


# --- commands ---------------------------------------------------------------------------------------------------------


def test_every_command_works_on_inputs_in_a_store_and_no_secret_is_shown(
    home: Path, quantbot: Quantbot, monkeypatch: pytest.MonkeyPatch, proxy: Proxy, bucket: str, tmp_path: Path
) -> None:
    months, sql = ("--from", "2024-01", "--to", "2024-01"), "SELECT DISTINCT call_id, p0, peak_multiple FROM paths"
    assert quantbot("backtest", "full", *months).status == 0
    local = quantbot("query", sql, "--format", "json").json()
    monkeypatch.setenv("QUANTBOT_INPUTS", f"s3://{bucket}/lab")
    monkeypatch.setenv("QUANTBOT_STORE_OPTIONS", json.dumps(options(proxy.endpoint)))
    said = [
        quantbot("backtest", "path-only", *months),
        quantbot("ingest", "calls", "inbox/calls.jsonl"),
        quantbot("ingest", "candles", "inbox/candles.parquet", "--interval", "5m"),
        quantbot("backtest", "full", *months, "--only-changed", "--format", "json"),
        quantbot("backtest", "path-only", *months),
        quantbot("dashboard"),
        quantbot("validate"),
        quantbot("migrate", "--dry-run"),
    ]
    assert [done.status for done in said] == [0] * len(said), said
    assert "no calls between" in said[0].err and f"s3://{bucket}/lab/calls" in said[0].err
    assert f"s3://{bucket}/lab/candles" in said[2].out + said[2].err
    assert [run["unchanged"] for run in said[3].json()] == [True], "the inputs are those of the folder"
    assert sorted(map(str, quantbot("query", sql, "--format", "json").json())) == sorted(map(str, local))
    proxy.begin(lambda n, method, path: "403")
    said += [
        quantbot("ingest", "calls", "inbox/calls.jsonl"),
        quantbot("ingest", "candles", "inbox/candles.parquet", "--interval", "5m"),
        quantbot("backtest", "path-only", *months),
    ]
    assert [done.status for done in said[-3:]] == [1, 1, 1], said[-3:]
    assert all("access refused" in done.err for done in said[-3:])
    text = "".join(done.out + done.err for done in said)
    assert KEY not in text and SECRET not in text and "Traceback" not in text
    assert leaks(home, tmp_path) == []
