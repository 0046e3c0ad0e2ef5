"""Binance Vision: files of a day or a month of one pair, each once and for all."""

import io
import re
import zipfile
import zlib
from collections.abc import Sequence
from itertools import groupby
from typing import ClassVar

from quantbot_pipeline.ingest.connectors.common import (
    Answer,
    Source,
    Span,
    Token,
    UnknownThere,
    is_address,
    require_step,
)
from quantbot_pipeline.ingest.connectors.http import Http
from quantbot_pipeline.ingest.limits import MAX_ROW_BYTES
from quantbot_pipeline.months import DAY_MS, iso_ms, month_of, month_start_ms, next_month

PER_MINUTE = 300.0  # a file server; no limit is published
PAIR = re.compile(r"[A-Z0-9]{4,30}")
WHOLE_MONTH = 8  # from so many missing days on, a month is fetched as one file
LARGEST_TABLE = 256 << 20


class BinanceVision(Source):
    """Spot candles of a pair such as BTCUSDT. The file of a day appears on the day after, that of a month some days later."""

    steps: ClassVar[dict[str, str]] = {
        name: name for name in ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d")
    }
    settle_ms = 2 * DAY_MS

    def __init__(self, name: str, interval: str, http: Http, now_ms: int) -> None:
        super().__init__(name, interval)
        self.step, self.http = require_step(name, self.steps, interval), http
        self.last = (now_ms - self.settle_ms) // DAY_MS * DAY_MS  # no day from here on has its file for certain
        self.last_month = month_of(now_ms - 10 * DAY_MS)  # no month from here on

    @property
    def sent(self) -> int:
        return self.http.sent

    def left_out(self, token: Token) -> str | None:
        return None if PAIR.fullmatch(pair_of(token)) and not is_address(token.mint) else "no_pair"

    def pages(self, missing: Sequence[int], step: int) -> list[Span]:
        pages: list[Span] = []
        days = sorted({slot // DAY_MS * DAY_MS for slot in missing if slot < self.last})
        for month, of_month in groupby(days, month_of):
            some = list(of_month)
            if len(some) >= WHOLE_MONTH and month < self.last_month:
                pages.append(Span(month_start_ms(month), month_start_ms(next_month(month))))
            else:
                pages += [Span(day, day + DAY_MS) for day in some]
        return pages

    def ask(self, token: Token, span: Span) -> Answer:
        pair, day = pair_of(token), iso_ms(span.start)[:10]
        kind, stamp = ("daily", day) if span.end - span.start == DAY_MS else ("monthly", day[:7])
        where = f"/data/spot/{kind}/klines/{pair}/{self.step}/{pair}-{self.step}-{stamp}.zip"
        try:
            body, rows = self.http.get(where, _count_rows)
        except UnknownThere:
            return Answer(b"status 404", 0, span)
        return Answer(body, rows, span, ".zip")


def pair_of(token: Token) -> str:
    """Return a token's name as Binance writes it: BTC/USDT, BTC_USDT and BTC-USDT are BTCUSDT."""
    return re.sub(r"[/_-]", "", token.mint)


def _count_rows(body: bytes) -> int:
    """Return the rows of the only table of an archive. Raises ValueError for one that is cut or holds something else."""
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            tables = [entry for entry in archive.infolist() if entry.filename.endswith(".csv")]
            if len(tables) != 1 or tables[0].file_size > LARGEST_TABLE:
                raise ValueError("not one table of candles in the archive")
            rows = 0
            with archive.open(tables[0]) as lines:
                while line := lines.readline(MAX_ROW_BYTES):
                    rows += line[:1].isdigit()
            return rows
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as e:
        raise ValueError(f"not readable as zip: {e}") from None
