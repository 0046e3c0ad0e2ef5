"""Candles by ccxt, of a server that answers as Kraken documents it; skipped where the extra is not installed."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from quantbot_pipeline.home import Home
from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.ingest.connectors.fetch import fetch_candles
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.support.builders import HOUR_MS, call, ms, write_jsonl
from quantbot_pipeline_tests.support.hosts import Hosts, market, status

pytest.importorskip("ccxt")
ASSETS = {
    "XXBT": {"aclass": "currency", "altname": "XBT", "decimals": 10, "display_decimals": 5, "status": "enabled"},
    "ZUSD": {"aclass": "currency", "altname": "USD", "decimals": 4, "display_decimals": 2, "status": "enabled"},
}
PAIR = {
    "altname": "XBTUSD",
    "wsname": "XBT/USD",
    "aclass_base": "currency",
    "base": "XXBT",
    "aclass_quote": "currency",
    "quote": "ZUSD",
    "lot": "unit",
    "cost_decimals": 5,
    "pair_decimals": 1,
    "lot_decimals": 8,
    "lot_multiplier": 1,
    "leverage_buy": [],
    "leverage_sell": [],
    "fees": [[0, 0.4]],
    "fees_maker": [[0, 0.25]],
    "fee_volume_currency": "ZUSD",
    "margin_call": 80,
    "margin_stop": 40,
    "ordermin": "0.0001",
    "costmin": "0.5",
    "tick_size": "0.1",
    "status": "online",
}


class Kraken(Hosts):
    """Assets, pairs and candles; an answer has at most `most` candles."""

    most = 300

    def answer(self, path: str) -> tuple[int, bytes]:
        where, _, query = path.partition("?")
        if where.endswith("/Assets"):
            return 200, json.dumps({"error": [], "result": ASSETS}).encode()
        if where.endswith("/AssetPairs"):
            return 200, json.dumps({"error": [], "result": {"XXBTZUSD": PAIR}}).encode()
        if not where.endswith("/OHLC"):
            return 404, b"{}"
        asked = dict(part.split("=") for part in query.split("&"))
        since = int(asked["since"]) * 1000
        rows = market("BTCUSD", since + 1, since + 2000 * 300_000, 300_000)[: self.most]
        body = [[ts // 1000, *map(str, (o, h, low, c)), "1.0", str(v), 3] for ts, o, h, low, c, v in rows]
        return 200, json.dumps({"error": [], "result": {"XXBTZUSD": body, "last": since // 1000}}).encode()


@pytest.fixture
def hosts() -> Iterator[Kraken]:
    made = Kraken()
    yield made
    made.close()


def test_candles_of_an_exchange_come_page_by_page_and_once(tmp_path: Path, hosts: Kraken) -> None:
    home = Home(Settings(home=tmp_path, ccxt_url=hosts.url, fetch_backoff_s=0.01))
    at = ms("2024-01-05")
    calls = [call("BTC/USD", at, chain=""), call("NOPE/USD", at, chain="")]
    ingest_calls([write_jsonl(tmp_path / "calls.jsonl", calls)], home.calls)
    hosts.faults = [None, None, status(503), status(200, b'{"error": [], "res')]
    report = fetch_candles(home, "ccxt:kraken", "5m").require_whole()
    assert report.left_out == {"unknown_pair": 1}
    assert report.answers >= 2, "300 candles are less than a window"
    path = home.candles.folder / "interval=5m/month=2024-01/candles.parquet"
    rows = [tuple(row.values()) for row in pq.read_table(path, partitioning=None).to_pylist()]
    end = at + 49 * HOUR_MS + 300_000
    assert rows == [("BTC/USD", *row) for row in market("BTCUSD", at, end, 300_000)]
    asked = sum("OHLC" in path for path in hosts.asked)
    fetch_candles(home, "ccxt:kraken", "5m").require_whole()
    assert sum("OHLC" in path for path in hosts.asked) == asked
