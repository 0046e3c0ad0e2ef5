"""GeckoTerminal's public interface: the pool of a token, then the candles of the pool, newest first, without empty ones."""

import json
import re
from typing import Any, ClassVar

from quantbot_pipeline.ingest.connectors.common import (
    Answer,
    Source,
    SourceError,
    Span,
    Token,
    UnknownThere,
    chain_of,
    is_address,
    require_step,
)
from quantbot_pipeline.ingest.connectors.http import Http
from quantbot_pipeline.ingest.connectors.raw import RawStore
from quantbot_pipeline.ingest.tokens import folded_mint

NETWORKS = {
    "solana": "solana",
    "ethereum": "eth",
    "bsc": "bsc",
    "base": "base",
    "polygon": "polygon_pos",
    "arbitrum": "arbitrum",
    "avalanche": "avax",
    "sui": "sui-network",
    "ton": "ton",
    "tron": "tron",
}
PER_MINUTE = 30.0  # of the public interface
POOL = re.compile(r"[0-9A-Za-z_:.-]{1,128}")


class GeckoTerminal(Source):
    """Candles in USD of the first pool, in GeckoTerminal's own order, whose base is the token."""

    steps: ClassVar[dict[str, str]] = {
        "1m": "minute/1",
        "5m": "minute/5",
        "15m": "minute/15",
        "1h": "hour/1",
        "4h": "hour/4",
        "12h": "hour/12",
        "1d": "day/1",
    }

    def __init__(self, name: str, interval: str, http: Http, raw: RawStore) -> None:
        super().__init__(name, interval)
        self.timeframe, self.aggregate = require_step(name, self.steps, interval).split("/")
        self.http, self.raw = http, raw

    @property
    def sent(self) -> int:
        return self.http.sent

    def left_out(self, token: Token) -> str | None:
        if not is_address(token.mint):
            return "no_address"
        if chain_of(token) not in NETWORKS:
            return "unknown_chain"
        kept = self.raw.lookup("pools", token.mint)
        return "no_pool" if kept is not None and _pool(kept, token) is None else None

    def lookups(self, token: Token) -> int:
        return int(self.raw.lookup("pools", token.mint) is None)

    def ask(self, token: Token, span: Span) -> Answer:
        pool = self._pool_of(token)
        slots = (span.end - span.start) // self.step_ms
        where = f"/networks/{NETWORKS[chain_of(token) or '']}/pools/{pool}/ohlcv/{self.timeframe}"
        params: dict[str, str | int] = {
            "aggregate": self.aggregate,
            "before_timestamp": span.end // 1000,
            "limit": slots,
            "currency": "usd",
            "token": "base",
        }
        body, answer = self.http.get(where, json.loads, params)
        rows = _rows(where, answer)
        base = _at(answer, "meta", "base", "address")
        if rows and (not isinstance(base, str) or folded_mint(base) != folded_mint(token.mint)):
            raise SourceError(
                f"{where}: the candles are of {base!r} and not of {token.mint}; the interface may have changed"
            )
        return Answer(body, len(rows), span)

    def _pool_of(self, token: Token) -> str:
        kept = self.raw.lookup("pools", token.mint)
        if kept is None:
            where = f"/networks/{NETWORKS[chain_of(token) or '']}/tokens/{token.mint}/pools"
            try:
                kept, answer = self.http.get(where, json.loads, {"page": 1})
                if not isinstance(_at(answer, "data"), list):
                    raise SourceError(f"{where}: no list at data; the interface may have changed")
            except UnknownThere:
                kept = b'{"data": []}'
            pool = _pool(kept, token)
            self.raw.keep_lookup("pools", token.mint, kept)
        else:
            pool = _pool(kept, token)
        if pool is None:
            raise UnknownThere("no_pool")
        return pool


def _pool(body: bytes, token: Token) -> str | None:
    """Return the address of the first pool whose base is the token. Raises SourceError for an answer of another shape."""
    for pool in json.loads(body)["data"]:
        base = _at(pool, "relationships", "base_token", "data", "id")
        address = _at(pool, "attributes", "address")
        if not isinstance(base, str) or not isinstance(address, str) or not POOL.fullmatch(address):
            raise SourceError(
                f"the pools of {token.mint} have no base_token or address; the interface may have changed"
            )
        if folded_mint(base.rpartition("_")[2]) == folded_mint(token.mint):
            return address
    return None


def _rows(where: str, answer: Any) -> list[Any]:
    rows = _at(answer, "data", "attributes", "ohlcv_list")
    if not isinstance(rows, list) or any(not isinstance(row, list) or len(row) != 6 for row in rows):
        raise SourceError(f"{where}: no rows of six at data.attributes.ohlcv_list; the interface may have changed")
    return rows


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
