"""Fetched candles: exactly the windows that miss, by pages, through every fault of a host, and never the same twice."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.home import Home
from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.ingest.candles import ingest_candles
from quantbot_pipeline.ingest.connectors.common import SourceError
from quantbot_pipeline.ingest.connectors.fetch import FetchReport, fetch_candles
from quantbot_pipeline.ingest.connectors.http import Bucket
from quantbot_pipeline.ingest.connectors.raw import unpacked_bytes
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.support.builders import (
    DAY_MS,
    HOUR_MS,
    Row,
    call,
    candle,
    ms,
    solana_address,
    write_jsonl,
    write_parquet,
)
from quantbot_pipeline_tests.support.hosts import Fault, Hosts, cut, half, hang_up, in_a_second, market, status

STEP = 300_000
ONE, TWO, EVM = solana_address(1), solana_address(2), "0x" + "ab" * 20
KEY = "secret-key-of-the-test"
WINDOW_MS = 49 * HOUR_MS + STEP  # the latest entry, and 48 hours


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    made = Hosts()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTBOT_BIRDEYE_KEY", KEY)


def lab(tmp_path: Path, hosts: Hosts, calls: list[Row], **more: Any) -> Home:
    """A home with these calls that asks the test's own server."""
    urls = dict.fromkeys(("geckoterminal_url", "birdeye_url", "binance_vision_url", "ccxt_url"), hosts.url)
    fast = {"fetch_per_minute": 60_000.0, "fetch_backoff_s": 0.01}
    home = Home(Settings.model_validate({"home": tmp_path, "memory_limit": "256MB", **urls, **fast, **more}))
    ingest_calls([write_jsonl(tmp_path / "calls.jsonl", calls)], home.calls)
    return home


def stored(home: Home, interval: str = "5m") -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for path in sorted(home.candles.folder.glob(f"interval={interval}/month=*/candles.parquet")):
        rows += [tuple(row.values()) for row in pq.read_table(path, partitioning=None).to_pylist()]
    return sorted(rows)


def expected(mint: str, start: int, end: int, step: int = STEP) -> list[tuple[Any, ...]]:
    return [(mint, *row) for row in market(mint, start, end, step)]


SOURCES = ("geckoterminal", "birdeye")


@pytest.mark.parametrize("source", SOURCES)
def test_the_windows_of_the_calls_are_in_the_store_and_nothing_is_asked_twice(
    tmp_path: Path, hosts: Hosts, source: str
) -> None:
    at = ms("2024-01-31T10:02:11")
    home = lab(tmp_path, hosts, [call(ONE, at), call(ONE, at + HOUR_MS), call(TWO, at + 40 * DAY_MS)])
    report = fetch_candles(home, source, "5m")
    start = at // STEP * STEP
    rows = {row[:2]: row for row in stored(home)}
    wanted = expected(ONE, start, start + WINDOW_MS + HOUR_MS) + expected(
        TWO, start + 40 * DAY_MS, start + 40 * DAY_MS + WINDOW_MS
    )
    assert [rows.get(row[:2]) for row in wanted] == wanted
    assert (report.calls, report.windows, report.missing, report.inserted) == (3, 2, 2, len(rows))
    assert report.months == ["2024-01", "2024-02", "2024-03"]
    asked = len(hosts.asked)
    assert report.requests == asked == {"geckoterminal": 4, "birdeye": 2}[source]
    again = fetch_candles(home, source, "5m")
    assert (again.missing, again.requests, again.inserted, len(hosts.asked)) == (0, 0, 0, asked)


def test_a_dry_run_says_how_many_requests_there_would_be_and_sends_none(tmp_path: Path, hosts: Hosts) -> None:
    home = lab(tmp_path, hosts, [call(ONE, "2024-01-01"), call(TWO, "2024-02-01"), call("PAIR", "2024-02-02")])
    planned = fetch_candles(home, "geckoterminal", "1m", dry_run=True)
    assert hosts.asked == []
    assert (planned.requests, planned.left_out) == (2 * (3 + 1), {"no_address": 1})
    assert not (tmp_path / "data/raw").exists()
    assert fetch_candles(home, "geckoterminal", "1m").requests == planned.requests


def test_only_the_calls_of_the_range_and_the_candles_that_miss_are_asked_for(tmp_path: Path, hosts: Hosts) -> None:
    first, second = ms("2024-01-10"), ms("2024-02-10")
    home = lab(tmp_path, hosts, [call(ONE, first), call(ONE, second)])
    whole = [candle(ONE, second + i * STEP) for i in range(WINDOW_MS // STEP) if not 100 <= i < 110]
    ingest_candles([write_parquet(tmp_path / "c.parquet", whole)], home.candles, "5m")
    report = fetch_candles(home, "birdeye", "5m", from_ms=ms("2024-02-01"), to_ms=ms("2024-03-01"))
    assert (report.calls, report.missing, report.requests) == (1, 1, 1)
    assert f"time_from={(second + 100 * STEP) // 1000}&time_to={(second + 109 * STEP) // 1000}" in hosts.asked[0]


FAULTS: dict[str, Fault] = {
    "too many, in seconds": status(429, Retry_After="0.2"),
    "too many, a date": in_a_second(),
    "too many": status(429),
    "broken": status(500),
    "away": status(503),
    "cut": cut,
    "half": half,
    "no JSON": status(200, b"<html>busy</html>"),
    "not UTF-8": status(200, b"\xff\xfe\x00"),
    "nothing": status(200, b""),
    "hung up": hang_up,
}


@pytest.mark.parametrize("source", [*SOURCES, "binance-vision"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_host_is_survived(tmp_path: Path, hosts: Hosts, source: str, fault: str) -> None:
    at = ms("2024-01-05")
    mint = "BTCUSDT" if source == "binance-vision" else ONE
    home = lab(tmp_path, hosts, [call(mint, at)])
    hosts.faults = [FAULTS[fault], None, FAULTS[fault], FAULTS[fault]]
    fetch_candles(home, source, "5m").require_whole()
    rows = {row[:2]: row for row in stored(home)}
    wanted = expected(mint, at, at + WINDOW_MS)
    assert [rows.get(row[:2]) for row in wanted] == wanted


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b'{"data": {"items": [{"o": 1}]}}', b'{"data": {"attributes": {"ohlcv_list": [[1]]}}}', b"7"]
)
def test_an_answer_of_another_shape_stops_the_fetch_with_one_sentence(
    tmp_path: Path, hosts: Hosts, source: str, body: bytes
) -> None:
    home = lab(tmp_path, hosts, [call(ONE, "2024-01-05"), call(TWO, "2024-01-05")])
    first = [None] * (2 if source == "geckoterminal" else 1)  # one token goes well
    hosts.faults = [*first, *[None] * (source == "geckoterminal"), status(200, body)]
    report = fetch_candles(home, source, "5m")
    assert "the interface may have changed" in report.stopped
    assert report.inserted > 400, "what was kept before is in the store"
    with pytest.raises(SourceError, match="the interface may have changed"):
        report.require_whole()
    asked = len(hosts.asked)
    assert fetch_candles(home, source, "5m").stopped == ""
    assert len(hosts.asked) == asked + 1, "only what was not answered"


@pytest.mark.parametrize("code", [400, 401, 403, 302, 410])
def test_a_refusal_is_not_repeated_and_says_no_key(tmp_path: Path, hosts: Hosts, code: int) -> None:
    home = lab(tmp_path, hosts, [call(ONE, "2024-01-05")])
    hosts.faults = [status(code, KEY.encode())]
    report = fetch_candles(home, "birdeye", "5m")
    assert f"status {code}" in report.stopped
    assert KEY not in report.model_dump_json()
    assert len(hosts.asked) == 1


def test_the_key_goes_to_the_host_and_nowhere_else(tmp_path: Path, hosts: Hosts) -> None:
    home = lab(tmp_path, hosts, [call(ONE, "2024-01-05")])
    at = ms("2024-01-05") // 1000
    item = {"unixTime": at, "o": 1, "h": 1, "l": 1, "c": 1, "v": 1, "type": "5m", "address": ONE}
    echo = json.dumps({"success": True, "data": {"items": [item]}, "you": KEY})
    hosts.faults = [status(500, KEY.encode()), status(200, echo.encode())]
    fetch_candles(home, "birdeye", "5m").require_whole()
    assert [headers["x-api-key"] for headers in hosts.headers] == [KEY, KEY]
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        content = path.read_bytes()
        assert KEY.encode() not in content, path
        if path.name.endswith(".json.zst"):
            assert KEY.encode() not in unpacked_bytes(path)
    hosts.faults = [status(200, f'{{"success": false, "message": "{KEY} is wrong"}}'.encode())]
    (next((tmp_path / "data/raw/birdeye").rglob("*.json.zst"))).unlink()
    report = fetch_candles(home, "birdeye", "5m", from_ms=0)
    assert "is wrong" in report.stopped
    assert KEY not in report.stopped


def test_a_missing_key_is_one_sentence(tmp_path: Path, hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    home = lab(tmp_path, hosts, [call(ONE, "2024-01-05")])
    monkeypatch.delenv("QUANTBOT_BIRDEYE_KEY")
    with pytest.raises(InputError, match="QUANTBOT_BIRDEYE_KEY is not set"):
        fetch_candles(home, "birdeye", "5m")
    assert fetch_candles(home, "birdeye", "5m", dry_run=True).requests == 1


def test_a_host_that_asks_for_an_hour_is_left_alone(tmp_path: Path, hosts: Hosts) -> None:
    home = lab(tmp_path, hosts, [call(ONE, "2024-01-05")])
    hosts.faults = [status(429, Retry_After="3600")]
    assert "asks to wait 3,600 s" in fetch_candles(home, "birdeye", "5m").stopped
    assert len(hosts.asked) == 1


def test_attempts_end(tmp_path: Path, hosts: Hosts) -> None:
    home = lab(tmp_path, hosts, [call(ONE, "2024-01-05")])
    hosts.faults = [status(502)] * 20
    assert "no answer after 6 attempts: status 502" in fetch_candles(home, "birdeye", "5m").stopped
    assert len(hosts.asked) == 6


def test_a_retry_after_is_waited_for(tmp_path: Path, hosts: Hosts) -> None:
    home = lab(tmp_path, hosts, [call(ONE, "2024-01-05")])
    hosts.faults = [status(429, Retry_After="1")]
    fetch_candles(home, "birdeye", "5m").require_whole()
    assert hosts.times[1] - hosts.times[0] >= 1.0


def test_the_rate_of_a_host_is_kept(tmp_path: Path, hosts: Hosts) -> None:
    calls = [call(solana_address(n), "2024-01-05") for n in range(6)]
    home = lab(tmp_path, hosts, calls, fetch_per_minute=600.0)
    fetch_candles(home, "birdeye", "5m").require_whole()
    assert len(hosts.asked) == 6
    assert hosts.times[-1] - hosts.times[0] >= 5 * 0.1 - 0.1  # a server notes a request some milliseconds late


def test_a_bucket_lets_a_burst_through_and_then_its_rate() -> None:
    bucket, begun = Bucket(1200, burst=3), time.monotonic()
    for _ in range(7):
        bucket.take()
    assert 4 * 0.05 - 0.04 <= time.monotonic() - begun < 2


def test_what_no_source_can_know_is_counted(tmp_path: Path, hosts: Hosts) -> None:
    calls = [
        call(EVM, "2024-01-05", chain=""),
        call("0xdead" + "00" * 18, "2024-01-05", chain="eth"),
        call("BTC/USDT", "2024-01-05", chain=""),
    ]
    home = lab(tmp_path, hosts, calls)
    report = fetch_candles(home, "geckoterminal", "5m")
    assert report.left_out == {"no_address": 1, "no_pool": 1, "unknown_chain": 1}
    assert (report.requests, fetch_candles(home, "geckoterminal", "5m").requests) == (1, 0)
    assert fetch_candles(home, "binance-vision", "5m").left_out == {"no_pair": 2}


def test_a_window_without_a_candle_is_an_answer_too(tmp_path: Path, hosts: Hosts) -> None:
    hosts.born = ms("2024-02-01")
    home = lab(tmp_path, hosts, [call(ONE, "2024-01-05"), call("BTCUSDT", "2024-01-05")])
    for source in (*SOURCES, "binance-vision"):
        report = fetch_candles(home, source, "5m").require_whole()
        assert report.empty == report.answers > 0
        asked = len(hosts.asked)
        assert fetch_candles(home, source, "5m").require_whole().requests == 0
        assert len(hosts.asked) == asked
    assert stored(home) == []


def test_days_and_whole_months_of_binance_vision(tmp_path: Path, hosts: Hosts) -> None:
    home = lab(
        tmp_path,
        hosts,
        [*(call("BTC/USDT", ms("2024-12-01") + i * DAY_MS) for i in range(12)), call("ETHUSDT", "2025-03-31T23:00:00")],
    )
    fetch_candles(home, "binance-vision", "1h").require_whole()
    names = [path.rpartition("/")[2] for path in hosts.asked]
    assert names == [
        "BTCUSDT-1h-2024-12.zip",
        *(f"ETHUSDT-1h-2025-{day}.zip" for day in ("03-31", "04-01", "04-02", "04-03")),
    ]
    assert [row for row in stored(home, "1h") if row[0] == "BTC/USDT"] == [
        ("BTC/USDT", *row) for row in market("BTCUSDT", ms("2024-12-01"), ms("2025-01-01"), HOUR_MS)
    ]
    start = ms("2025-03-31")
    assert [row for row in stored(home, "1h") if row[0] == "ETHUSDT"] == expected(
        "ETHUSDT", start, start + 4 * DAY_MS, HOUR_MS
    )


def test_nothing_is_asked_of_the_future_and_the_rest_later(tmp_path: Path, hosts: Hosts) -> None:
    at = int(time.time() * 1000) - 30 * HOUR_MS
    home = lab(tmp_path, hosts, [call(ONE, at)])
    now = at + 10 * HOUR_MS
    assert fetch_candles(home, "birdeye", "5m", now_ms=now).answers == 1
    until = (now - 900_000) // STEP * STEP
    assert f"time_to={(until - STEP) // 1000}" in hosts.asked[0]
    assert fetch_candles(home, "birdeye", "5m", now_ms=now).answers == 0
    assert fetch_candles(home, "birdeye", "5m", now_ms=now + HOUR_MS).answers == 1
    assert f"time_from={until // 1000}" in hosts.asked[1]


def test_one_refused_token_does_not_keep_the_others_out(tmp_path: Path, hosts: Hosts) -> None:
    home = lab(tmp_path, hosts, [call(ONE, "2024-01-05"), call(TWO, "2024-01-05")])
    at = ms("2024-01-05")
    rows = [
        {
            "unixTime": (at + i * 2 * STEP) // 1000,
            "o": 1,
            "h": 1,
            "l": 1,
            "c": 1,
            "v": 1,
            "type": "5m",
            "address": min(ONE, TWO),
        }
        for i in range(40)
    ]
    hosts.faults = [status(200, json.dumps({"success": True, "data": {"items": rows}}).encode())]
    report: FetchReport = fetch_candles(home, "birdeye", "5m")
    assert list(report.refused) == [min(ONE, TWO)]
    assert {row[0] for row in stored(home)} == {max(ONE, TWO)}
    with pytest.raises(InputError, match="answers for 1 token are refused"):
        report.require_whole()
    assert list(fetch_candles(home, "birdeye", "5m").refused) == [min(ONE, TWO)], "it is said again"


@pytest.mark.parametrize("source", ["gecko", "ccxt:", "ccxt:nowhere", ""])
def test_an_unknown_source_is_named(tmp_path: Path, hosts: Hosts, source: str) -> None:
    if source.startswith("ccxt:n"):
        pytest.importorskip("ccxt")
    home = lab(tmp_path, hosts, [call(ONE, "2024-01-05")])
    with pytest.raises(InputError, match="--source"):
        fetch_candles(home, source, "5m")


def test_an_interval_that_the_source_lacks_is_named(tmp_path: Path, hosts: Hosts) -> None:
    home = lab(tmp_path, hosts, [call(ONE, "2024-01-05")])
    with pytest.raises(InputError, match="geckoterminal has no such candles; choose one of 1m, 5m"):
        fetch_candles(home, "geckoterminal", "3m")


def test_the_store_can_be_made_again_from_the_raw_answers(tmp_path: Path, hosts: Hosts) -> None:
    home = lab(tmp_path, hosts, [call(ONE, "2024-01-05"), call(TWO, "2024-01-31T12:00:00"), call(TWO, "2023-01-01")])
    hosts.born = ms("2023-06-01")
    fetch_candles(home, "geckoterminal", "5m").require_whole()
    before = {path: path.read_bytes() for path in home.candles.folder.rglob("*.parquet")}
    assert len(before) == 2
    for path in before:
        path.unlink()
    report = ingest_candles([home.settings.raw_dir / "geckoterminal"], home.candles, "5m")
    assert {path: path.read_bytes() for path in home.candles.folder.rglob("*.parquet")} == before
    assert report.left_out == {"other format": 3}, "two answers with pools, one without candles"
