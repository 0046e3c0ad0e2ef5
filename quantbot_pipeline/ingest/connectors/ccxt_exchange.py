"""Any exchange that ccxt knows: candles of a pair from a time on, in ccxt's own arrays.

What is kept is the array that ccxt makes of the exchange's answer, since the answers of 100 exchanges differ.
"""

import json
from typing import Any

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.connectors.common import (
    Answer,
    Source,
    SourceError,
    Span,
    Token,
    is_address,
    require_extra,
    require_step,
)
from quantbot_pipeline.ingest.connectors.http import SPENT, Again, bucket_of, repeated

LEAST_LIMIT, MOST_LIMIT = 100, 1000


class CcxtExchange(Source):
    """Candles of an exchange's spot pairs. An answer that ends early is followed by a further question."""

    def __init__(
        self, name: str, interval: str, *, url: str | None, per_minute: float | None, backoff_s: float
    ) -> None:
        super().__init__(name, interval)
        require_extra("ccxt", "tenacity")
        import ccxt

        exchange = name.partition(":")[2]
        if exchange not in ccxt.exchanges:
            raise InputError(f"--source {name}: ccxt knows no exchange {exchange!r}; `ccxt.exchanges` lists them")
        self.exchange: Any = getattr(ccxt, exchange)({"enableRateLimit": True, "options": {"defaultType": "spot"}})
        if not self.exchange.has.get("fetchOHLCV"):
            raise InputError(f"--source {name}: the exchange gives no candles; take another one")
        self.word = require_step(name, {own: own for own in self.exchange.timeframes or {}}, interval)
        if url is not None:
            self.exchange.urls["api"] = _moved(self.exchange.urls["api"], url.rstrip("/"))
        features = ((self.exchange.features or {}).get("spot") or {}).get("fetchOHLCV") or {}
        asked = features.get("limit")
        self.page = max(LEAST_LIMIT, min(MOST_LIMIT, int(asked or 500)))
        self.bucket = bucket_of(name, per_minute) if per_minute else None
        self.backoff_s, self.asked = backoff_s, 0
        self.pairs: dict[str, str] | None = None

    @property
    def sent(self) -> int:
        return self.asked

    def left_out(self, token: Token) -> str | None:
        if is_address(token.mint) or not 3 <= len(token.mint) <= 40 or not token.mint.isprintable():
            return "no_pair"
        return None if self.pairs is None or _bare(token.mint) in self.pairs else "unknown_pair"

    def begin(self) -> None:
        markets = self._call(lambda: self.exchange.load_markets())
        spot = sorted(symbol for symbol, market in markets.items() if market.get("spot"))
        self.pairs = {_bare(symbol): symbol for symbol in spot}

    def ask(self, token: Token, span: Span) -> Answer:
        pair = (self.pairs or {})[_bare(token.mint)]
        slots = (span.end - span.start) // self.step_ms

        def question() -> Any:
            found = self.exchange.fetch_ohlcv(pair, self.word, since=span.start, limit=slots)
            json.loads(self.exchange.last_http_response or "")  # of a cut answer ccxt makes no candles, and no error
            return found

        rows = self._call(question)
        if not isinstance(rows, list) or any(not isinstance(row, list) or len(row) < 6 for row in rows):
            raise SourceError(f"{self.name}, {pair}: no rows of six numbers; update ccxt, or the exchange changed")
        inside = [row[:6] for row in rows if isinstance(row[0], int) and span.start <= row[0] < span.end]
        # An exchange may give fewer than were asked for: what lies behind the last one is a question of its own.
        end = max((row[0] for row in inside), default=span.end - self.step_ms) + self.step_ms
        return Answer(json.dumps(inside).encode(), len(inside), Span(span.start, min(end, span.end)))

    def _call(self, question: Any) -> Any:
        import ccxt

        def once() -> Any:
            if self.bucket is not None:
                self.bucket.take()
            self.asked += 1
            try:
                return question()
            except (ccxt.NetworkError, ValueError, TypeError, KeyError, IndexError) as e:
                raise Again(f"{type(e).__name__}: {str(e)[:200]}") from None
            except ccxt.BaseError as e:
                raise SourceError(f"{self.name}: {type(e).__name__}: {str(e)[:200]}") from None

        try:
            return repeated(once, self.backoff_s)
        except Again as e:
            raise SourceError(f"{self.name}: {SPENT}: {e}; run the same again later") from None


def _bare(symbol: str) -> str:
    return "".join(letter for letter in symbol.partition(":")[0].upper() if letter.isalnum())


def _moved(urls: Any, base: str) -> Any:
    """Return ccxt's addresses with another host; their paths stay."""
    if isinstance(urls, dict):
        return {key: _moved(value, base) for key, value in urls.items()}
    path = str(urls).partition("://")[2].partition("/")[2]
    return f"{base}/{path}" if path else base
