"""A server on this machine that answers as GeckoTerminal, Birdeye and Binance Vision document it, and fails when it is told to.

The market behind it is a pure function of token and time, with gaps: every run sees the same candles.
"""

import io
import json
import threading
import time
import zipfile
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from quantbot_pipeline.months import DAY_MS, month_start_ms, next_month, parse_day
from quantbot_pipeline.vocabulary import INTERVALS_MS

Fault = Callable[[BaseHTTPRequestHandler], None]
GECKO_STEPS = {("minute", "5"): "5m", ("minute", "1"): "1m", ("minute", "15"): "15m", ("hour", "1"): "1h"}


def has_candle(mint: str, ts: int, step: int) -> bool:
    """Whether the token trades at this time: about a fifth of the slots are empty, never at one distance for long."""
    return (ts // step * 2_654_435_761 + len(mint)) % 97 >= 20


def prices(mint: str, ts: int, step: int) -> tuple[float, float, float, float, float]:
    """Open, high, low, close, volume."""
    n = ts // step * 40_503 + sum(mint.encode())
    o, c = 1 + n % 89 / 100, 1 + n * 7 % 83 / 100
    return o, max(o, c) + 0.05, min(o, c) - 0.05, c, float(n % 1000)


def market(mint: str, start: int, end: int, step: int) -> list[tuple[int, float, float, float, float, float]]:
    """The candles of a token with `start <= time < end`, ascending."""
    first = -(-start // step) * step
    return [(ts, *prices(mint, ts, step)) for ts in range(first, end, step) if has_candle(mint, ts, step)]


class Hosts:
    """The three hosts behind one port. `asked` lists what was asked, `faults` what happens to the next requests."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.faults: list[Fault | None] = []
        self.delay_s = 0.0
        self.born = 0  # before this time no token trades
        hosts = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hosts.asked.append(self.path)
                hosts.headers.append({name.lower(): value for name, value in self.headers.items()})
                hosts.times.append(time.monotonic())
                fault = hosts.faults.pop(0) if hosts.faults else None
                time.sleep(hosts.delay_s)
                if fault is not None:
                    fault(self)
                else:
                    reply(self, *hosts.answer(self.path))

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, path: str) -> tuple[int, bytes]:
        parts = urlsplit(path)
        where, query = parts.path.strip("/").split("/"), {k: v[0] for k, v in parse_qs(parts.query).items()}
        if where[0] == "networks" and where[-1] == "pools":
            return self.pools(where[3])
        if where[0] == "networks":
            return self.gecko(where[3].removeprefix("pool-"), where[5], query)
        if where[0] == "defi":
            return self.birdeye(query)
        return self.vision(where[-1]) if where[0] == "data" else (404, b"{}")

    def pools(self, mint: str) -> tuple[int, bytes]:
        def pool(address: str, base: str) -> dict[str, Any]:
            return {
                "id": f"solana_{address}",
                "type": "pool",
                "attributes": {"address": address},
                "relationships": {"base_token": {"data": {"id": f"solana_{base}", "type": "token"}}},
            }

        found = [pool("quoted", "So11111111111111111111111111111111111111112"), pool(f"pool-{mint}", mint)]
        return 200, json.dumps({"data": [] if mint.startswith("0xdead") else found}).encode()

    def gecko(self, mint: str, timeframe: str, query: dict[str, str]) -> tuple[int, bytes]:
        step = INTERVALS_MS[GECKO_STEPS[(timeframe, query["aggregate"])]]
        before, limit = int(query["before_timestamp"]) * 1000, int(query["limit"])
        assert limit <= 1000
        found = [row for row in market(mint, before - 3 * limit * step, before, step) if row[0] >= self.born][-limit:]
        rows = [[ts // 1000, *row] for ts, *row in reversed(found)]
        meta = {"base": {"address": mint, "symbol": "T"}, "quote": {"address": "USD", "symbol": "USD"}}
        data = {"id": "x", "type": "ohlcv_request_response", "attributes": {"ohlcv_list": rows}}
        return 200, json.dumps({"data": data, "meta": meta}).encode()

    def birdeye(self, query: dict[str, str]) -> tuple[int, bytes]:
        step = INTERVALS_MS[query["type"].lower()]
        first, last = int(query["time_from"]) * 1000, int(query["time_to"]) * 1000
        found = [row for row in market(query["address"], first, last + 1, step) if row[0] >= self.born]
        assert (last - first) // step < 1000
        items = [
            {
                "unixTime": ts // 1000,
                "o": o,
                "h": h,
                "l": low,
                "c": c,
                "v": v,
                "type": query["type"],
                "address": query["address"],
                "currency": "usd",
            }
            for ts, o, h, low, c, v in found
        ]
        return 200, json.dumps({"success": True, "data": {"items": items}}).encode()

    def vision(self, name: str) -> tuple[int, bytes]:
        pair, interval, *date = name.removesuffix(".zip").split("-")
        day = "-".join(date)
        start, end = month_start_ms(day), month_start_ms(next_month(day[:7]))
        if len(date) == 3:
            start = parse_day(day, end=False)
            end = start + DAY_MS
        if end <= self.born:
            return 404, b"<Error><Code>NoSuchKey</Code></Error>"
        step = INTERVALS_MS[interval]
        unit = 1000 if start >= month_start_ms("2025-01") else 1
        lines = (
            f"{ts * unit},{o},{h},{low},{c},{v},{(ts + step) * unit - 1},1,2,3,4,0"
            for ts, o, h, low, c, v in market(pair, start, end, step)
        )
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{name.removesuffix('.zip')}.csv", "\n".join(lines) + "\n")
        return 200, packed.getvalue()


def reply(handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def status(code: int, body: bytes = b"no", **headers: str) -> Fault:
    return lambda handler: reply(handler, code, body, **headers)


def in_a_second() -> Fault:
    return lambda handler: reply(handler, 429, b"", Retry_After=formatdate(time.time() + 2, usegmt=True))


def cut(handler: BaseHTTPRequestHandler) -> None:
    """Half of the length that was promised, then nothing."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"data": ')
    handler.close_connection = True


def half(handler: BaseHTTPRequestHandler) -> None:
    """A part of an answer of which no length was promised."""
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(b'{"success": true, "data": {"items": [')
    handler.close_connection = True


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.connection.close()
