"""Candles as pictures need them: a span of time in multiples of a price, neighbours merged into bars."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from quantbot_pipeline.market.candle_files import month_file
from quantbot_pipeline.market.opening import opened
from quantbot_pipeline.months import month_of, month_range
from quantbot_pipeline.reports.page.encode import Columns
from quantbot_pipeline.vocabulary import INTERVALS_MS

BEFORE_MS = 2 * 3_600_000  # shown before the entry
_PRICES = ("open", "high", "low", "close")


class Span(NamedTuple):
    """What a picture shows: candles of a token from one time to another, hours from `zero_ms`, prices in multiples of `unit`.

    unit: None takes the first open that is shown.
    """

    mint: str
    interval: str
    from_ms: int
    to_ms: int
    zero_ms: int
    unit: float | None


def span_of_call(call: Mapping[str, Any]) -> Span:
    """Return the window of a call, a row of the artifact `paths`, in multiples of its entry price."""
    entry = call["entry_ts_ms"]
    start = min(call["alert_ts_ms"], entry - BEFORE_MS)
    return Span(call["mint"], call["interval"], start, entry + call["observed_ms"], entry, call["p0"])


def read_windows(store: Path, spans: Sequence[Span], most: int) -> list[Columns | None]:
    """Return the candles of each span, at most `most` bars; None where the store has none of it."""
    by_file: dict[Path, set[str]] = {}
    files: list[list[Path]] = []
    for span in spans:
        months = month_range(month_of(span.from_ms), month_of(span.to_ms))
        files.append([month_file(store, span.interval, month) for month in months])
        for path in files[-1]:
            by_file.setdefault(path, set()).add(span.mint)
    loaded = {path: table for path, mints in by_file.items() if (table := _read(path, mints)) is not None}
    return [
        _window(span, [loaded[p] for p in paths if p in loaded], most) for span, paths in zip(spans, files, strict=True)
    ]


def _read(path: Path, mints: set[str]) -> pa.Table | None:
    """Candles of some tokens; None when the file is gone or damaged: a picture is not worth failing for."""
    try:
        return pq.read_table(opened(path), columns=["mint", "ts_ms", *_PRICES], filters=[("mint", "in", sorted(mints))])
    except (pa.ArrowException, OSError):
        return None


def _window(span: Span, tables: list[pa.Table], most: int) -> Columns | None:
    step = INTERVALS_MS[span.interval]
    if not tables:
        return None
    found = pa.concat_tables(tables)
    inside = pc.and_(
        pc.equal(found["mint"], span.mint),
        pc.and_(pc.greater_equal(found["ts_ms"], span.from_ms), pc.less(found["ts_ms"], span.to_ms)),
    )
    found = found.filter(inside).sort_by("ts_ms")
    if not found.num_rows:
        return None
    rows = {name: found[name].to_numpy() for name in ("ts_ms", *_PRICES)}
    merged = -(-(span.to_ms - span.from_ms) // (step * most))  # candles per bar, rounded up
    unit = float(rows["open"][0]) if span.unit is None else span.unit
    return _bars(rows, span.zero_ms, unit, step * merged)


def _bars(rows: dict[str, npt.NDArray[Any]], zero_ms: int, unit: float, width_ms: int) -> Columns:
    """Candles merged into bars on a grid through a time; hours since then."""
    bar = (rows["ts_ms"] - zero_ms) // width_ms
    first = np.flatnonzero(np.diff(bar, prepend=bar[0] - 1))
    last = np.append(first[1:], len(bar)) - 1
    prices = {
        "open": rows["open"][first],
        "high": np.maximum.reduceat(rows["high"], first),
        "low": np.minimum.reduceat(rows["low"], first),
        "close": rows["close"][last],
    }
    hours = width_ms / 3_600_000
    return {
        "hours": [round(float(b * hours), 4) for b in bar[first]],
        "width": [round(hours, 4)],
        **{name: [float(f"{v:.5g}") for v in values / unit] for name, values in prices.items()},
    }
