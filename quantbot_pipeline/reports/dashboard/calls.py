"""The best and the worst calls, with their trades and, where the store still has them, their candles."""

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from quantbot_pipeline.market.candle_files import month_file
from quantbot_pipeline.months import month_of, month_range
from quantbot_pipeline.reports.dashboard.policies import PolicyKey, levels_of
from quantbot_pipeline.reports.page.encode import Columns, Index, columns
from quantbot_pipeline.vocabulary import INTERVALS_MS

EACH = 8  # best and worst calls
MAX_CANDLES = 200  # per chart: neighbours are merged beyond that
BEFORE_MS = 2 * 3_600_000  # shown before the entry
_PRICES = ("open", "high", "low", "close")


def calls_section(
    con: duckdb.DuckDBPyConnection,
    paths: pa.Table,
    candles_dir: Path,
    callers: Index[str],
    policies: Index[PolicyKey],
) -> list[dict[str, Any]]:
    """The calls with the highest peaks and those with the deepest drawdowns; `con` holds the table `replayed`.

    Of calls that bought the same token at the same time one stands for all: their pictures are the same.
    """
    con.register("paths", paths)
    picked = con.sql(
        """WITH once AS (FROM paths QUALIFY row_number() OVER (PARTITION BY mint, entry_ts_ms ORDER BY call_id) = 1),
           high AS (SELECT *, 'best' AS which FROM once ORDER BY peak_multiple DESC, call_id LIMIT $n),
           deep AS (SELECT *, 'worst' AS which FROM once WHERE call_id NOT IN (SELECT call_id FROM high)
                    ORDER BY dd_bps, call_id LIMIT $n)
           SELECT which, call_id, caller_name, mint, chain, interval, month, alert_ts_ms, entry_ts_ms, p0, peak_multiple,
                  dd_bps, t_peak_ms, t_2x_ms, t_3x_ms, t_4x_ms, observed_ms, censored
           FROM (FROM high UNION ALL FROM deep) ORDER BY which, if(which = 'best', -peak_multiple, dd_bps), call_id""",
        params={"n": EACH},
    ).to_arrow_table()
    rows = picked.to_pylist()
    candles = _read_candles(candles_dir, rows)
    levels: dict[int, list[tuple[str, float]]] = {}
    for row, drawn in zip(rows, candles, strict=True):
        row["caller"] = callers.of(row.pop("caller_name"))
        row["trades"] = _trades(con, row["call_id"])
        row["candles"] = drawn
        for policy in row["trades"]["policy"]:
            levels.setdefault(policy, levels_of(policies.values[policy]))
        row["levels"] = {policy: levels[policy] for policy in row["trades"]["policy"]}
    return rows


def _trades(con: duckdb.DuckDBPyConnection, call_id: str) -> Columns:
    table = con.sql(
        """SELECT policy, exit_ts_ms, exit_px / entry_px AS exit_multiple, exit_reason, r AS realized_return_bps
           FROM replayed WHERE call_id = ? ORDER BY realized_return_bps DESC, policy""",
        params=[call_id],
    ).to_arrow_table()
    return columns(table)


def _read_candles(store: Path, calls: list[dict[str, Any]]) -> list[Columns | None]:
    """For each call its window, in multiples of the entry price; None where the store has none of it."""
    by_file: dict[Path, set[str]] = {}
    files: list[list[Path]] = []
    for call in calls:
        start, end = _span(call)
        months = month_range(month_of(start), month_of(end))
        files.append([month_file(store, call["interval"], month) for month in months])
        for path in files[-1]:
            by_file.setdefault(path, set()).add(call["mint"])
    loaded = {path: table for path, mints in by_file.items() if (table := _read(path, mints)) is not None}
    return [_window(call, [loaded[p] for p in paths if p in loaded]) for call, paths in zip(calls, files, strict=True)]


def _read(path: Path, mints: set[str]) -> pa.Table | None:
    """Candles of some tokens; None when the file is gone or damaged: a picture is not worth failing for."""
    try:
        return pq.read_table(path, columns=["mint", "ts_ms", *_PRICES], filters=[("mint", "in", sorted(mints))])
    except (pa.ArrowException, OSError):
        return None


def _span(call: dict[str, Any]) -> tuple[int, int]:
    return min(call["alert_ts_ms"], call["entry_ts_ms"] - BEFORE_MS), call["entry_ts_ms"] + call["observed_ms"]


def _window(call: dict[str, Any], tables: list[pa.Table]) -> Columns | None:
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
    merged = -(-(end - start) // (step * MAX_CANDLES))  # candles per bar, rounded up
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
