"""Birdeye's `defi/ohlcv`: candles of a token between two times; the key stands in a header and comes from the environment."""

import json
import os
from typing import Any, ClassVar

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.connectors.common import (
    Answer,
    Source,
    SourceError,
    Span,
    Token,
    chain_of,
    is_address,
    require_step,
)
from quantbot_pipeline.ingest.connectors.http import Http

CHAINS = ("solana", "ethereum", "bsc", "base", "polygon", "arbitrum", "avalanche", "sui")
KEY = "QUANTBOT_BIRDEYE_KEY"
PER_MINUTE = 60.0
FIELDS = ("unixTime", "o", "h", "l", "c", "v", "type", "address")


def birdeye_key() -> str:
    """Return the key of the environment. Raises InputError where there is none."""
    key = os.environ.get(KEY, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise InputError(f"{KEY} is not set, or is no key; birdeye needs one, and takes it from the environment only")
    return key


class Birdeye(Source):
    """Candles in USD as Birdeye makes them of all pools of a token."""

    steps: ClassVar[dict[str, str]] = {
        "1m": "1m",
        "3m": "3m",
        "5m": "5m",
        "15m": "15m",
        "30m": "30m",
        "1h": "1H",
        "2h": "2H",
        "4h": "4H",
        "6h": "6H",
        "8h": "8H",
        "12h": "12H",
        "1d": "1D",
    }

    def __init__(self, name: str, interval: str, http: Http) -> None:
        super().__init__(name, interval)
        self.kind, self.http = require_step(name, self.steps, interval), http

    @property
    def sent(self) -> int:
        return self.http.sent

    def left_out(self, token: Token) -> str | None:
        if not is_address(token.mint):
            return "no_address"
        return None if chain_of(token) in CHAINS else "unknown_chain"

    def ask(self, token: Token, span: Span) -> Answer:
        params: dict[str, str | int] = {
            "address": token.mint,
            "type": self.kind,
            "currency": "usd",
            "time_from": span.start // 1000,
            "time_to": (span.end - self.step_ms) // 1000,
        }
        body, answer = self.http.get("/defi/ohlcv", json.loads, params, {"x-chain": chain_of(token) or ""})
        return Answer(body, len(self._items(answer, token)), span)

    def _items(self, answer: Any, token: Token) -> list[Any]:
        where = f"birdeye, {token.mint}"
        if isinstance(answer, dict) and answer.get("success") is False:
            raise SourceError(f"{where}: it says: {str(answer.get('message'))[:200]}")
        data = answer.get("data") if isinstance(answer, dict) else None
        items = data.get("items") if isinstance(data, dict) else None
        if not isinstance(items, list):
            raise SourceError(f"{where}: no list at data.items; the interface may have changed")
        for item in items:
            if not isinstance(item, dict) or not all(field in item for field in FIELDS):
                raise SourceError(f"{where}: an item without {', '.join(FIELDS)}; the interface may have changed")
            if item["type"] != self.kind:
                raise SourceError(f"{where}: candles of {item['type']!r} and not of {self.kind}, which were asked for")
        return items
