"""The candles of calls as pictures need them: a window in multiples of the entry price, neighbours merged into bars."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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


def read_windows(store: Path, calls: Sequence[Mapping[str, Any]], most: int) -> list[Columns | None]:
    """Return each call's window in multiples of the entry price, at most `most` bars; None where the store has none of it.

    calls: rows of the artifact `paths`.
    """
    by_file: dict[Path, set[str]] = {}
    files: list[list[Path]] = []
    for call in calls:
        start, end = _span(call)
        months = month_range(month_of(start), month_of(end))
        files.append([month_file(store, call["interval"], month) for month in months])
        for path in files[-1]:
            by_file.setdefault(path, set()).add(call["mint"])
    loaded = {path: table for path, mints in by_file.items() if (table := _read(path, mints)) is not None}
    return [
        _window(call, [loaded[p] for p in paths if p in loaded], most) for call, paths in zip(calls, files, strict=True)
    ]


def _read(path: Path, mints: set[str]) -> pa.Table | None:
    """Candles of some tokens; None when the file is gone or damaged: a picture is not worth failing for."""
    try:
        return pq.read_table(opened(path), columns=["mint", "ts_ms", *_PRICES], filters=[("mint", "in", sorted(mints))])
    except (pa.ArrowException, OSError):
        return None


def _span(call: Mapping[str, Any]) -> tuple[int, int]:
    return min(call["alert_ts_ms"], call["entry_ts_ms"] - BEFORE_MS), call["entry_ts_ms"] + call["observed_ms"]


def _window(call: Mapping[str, Any], tables: list[pa.Table], most: int) -> Columns | None:
    start, end = _span(call)
    step = INTERVALS_MS[call["interval"]]
    if not tables:
        return None
    found = pa.concat_tables(tables)
    inside = pc.and_(
        pc.equal(found["mint"], call["mint"]),
        pc.and_(pc.greater_equal(found["ts_ms"], start), pc.less(found["ts_ms"], end)),
    )
    found = found.filter(inside).sort_by("ts_ms")
    if not found.num_rows:
        return None
    rows = {name: found[name].to_numpy() for name in ("ts_ms", *_PRICES)}
    merged = -(-(end - start) // (step * most))  # candles per bar, rounded up
    return _bars(rows, call["entry_ts_ms"], call["p0"], step * merged)


def _bars(rows: dict[str, npt.NDArray[Any]], entry_ts_ms: int, p0: float, width_ms: int) -> Columns:
    """Candles merged into bars on a grid through the entry; times in hours since the entry."""
    bar = (rows["ts_ms"] - entry_ts_ms) // width_ms
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
        **{name: [float(f"{v:.5g}") for v in values / p0] for name, values in prices.items()},
    }
