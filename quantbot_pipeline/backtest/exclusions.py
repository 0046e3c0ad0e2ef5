"""Which calls have no window and why, and which rejected candles a window would have used: rows of errors.parquet."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from quantbot_pipeline.backtest.inputs import PIECE, pieces, reach_ms
from quantbot_pipeline.backtest.record import Record
from quantbot_pipeline.backtest.replaying import Replayed
from quantbot_pipeline.config import BacktestConfig
from quantbot_pipeline.home import Home
from quantbot_pipeline.market.candle_files import read_rejected
from quantbot_pipeline.months import month_of, month_range
from quantbot_pipeline.vocabulary import INCLUDED, INTERVALS_MS

DRAINED = (
    "{mint} looks drained: {zero_candles} rejected candles with the price zero follow the last candle of a window. "
    "Trades that end there as data_end are valued at a last close that nobody could have had"
)


def report_exclusions(home: Home, replayed: Replayed, config: BacktestConfig, record: Record) -> int:
    """Report each excluded call, and rejected candles by token and reason; returns how many calls are excluded."""
    from quantbot_pipeline.replay.truth import excluded, included_rows

    texts = {
        "no_candles": "no valid {interval} candle of this mint is in the store",
        "no_entry": "no valid {interval} candle within {delay} min after the alert",
        "no_window": "the window after the entry has no candle",
        "low_coverage": "the window has too few candles (min_coverage {coverage})",
    }
    values = {
        "interval": config.interval,
        "delay": config.max_entry_delay_ms // 60_000,
        "coverage": config.min_coverage,
    }
    with record.phase("coverage"):
        calls, status = replayed.month.calls, replayed.truth.status
        texts = {reason: f"{reason}: {text.format(**values)}" for reason, text in texts.items()}

        def in_pieces() -> Iterator[list[dict[str, Any]]]:
            for piece in pieces(calls.num_rows, max(1, PIECE // 8)):  # a Python object each
                left_out = excluded(status[piece])
                named = calls[piece].take(pa.array([row for row, _ in left_out], pa.int64()))
                ids, mints = named["call_id"].to_pylist(), named["mint"].to_pylist()
                yield [
                    record.error(
                        "warning", "coverage", texts[reason], call_id=call_id, details={"reason": reason, "mint": mint}
                    )
                    for (_, reason), call_id, mint in zip(left_out, ids, mints, strict=True)
                ]

        record.excluded = in_pieces
        rejected = _rejected_of(home, replayed, config)
        for details in _rejected_candles(rejected, replayed, config):
            record.report(
                "warning", "coverage", f"{details['rows']} candles rejected: {details['reason']}", details=details
            )
        for details in _drained(rejected, replayed, config):
            record.report("warning", "coverage", DRAINED.format(**details), details=details)
        for reason, rows in replayed.month.rejected.items():
            record.report(
                "warning",
                "plan",
                f"{rows} calls rejected at ingest: {reason}",
                details={"reason": reason, "rows": rows},
            )
    return calls.num_rows - len(included_rows(replayed.truth))


def _rejected_of(home: Home, replayed: Replayed, config: BacktestConfig) -> pa.Table:
    """The rejected candles of the run's tokens."""
    month, calls, by_mint, *_ = replayed.month
    months = list(month_range(month, month_of(int(calls["alert_ts_ms"].to_numpy().max()) + reach_ms(config))))
    return read_rejected(home.candles.folder, config.interval, months, list(by_mint.code))


def _drained(rejected: pa.Table, replayed: Replayed, config: BacktestConfig) -> list[dict[str, Any]]:
    """Tokens with zero prices between the last candle of a censored window and the window's end."""
    (_, _, by_mint, *_), truth = replayed.month, replayed.truth
    zeros = rejected.filter(pc.equal(rejected["close"], 0.0))
    counts: dict[str, list[int]] = {}
    for mint, ts in zip(zeros["mint"].to_pylist(), zeros["ts_ms"].to_pylist(), strict=True):
        code = by_mint.code[mint]
        rows = by_mint.rows[by_mint.ends[code] - by_mint.counts[code] : by_mint.ends[code]]
        entry = truth.entry_ts[rows]
        after = (entry + truth.observed[rows] <= ts) & (ts < entry + config.horizon_ms) if ts is not None else False
        if np.any(truth.censored[rows] & (truth.status[rows] == INCLUDED) & after):
            counts.setdefault(mint, []).append(ts)
    return [
        {"mint": mint, "zero_candles": len(times), "first_ts_ms": min(times), "last_ts_ms": max(times)}
        for mint, times in sorted(counts.items())
    ]


def _rejected_candles(rejected: pa.Table, replayed: Replayed, config: BacktestConfig) -> list[dict[str, Any]]:
    """Rejected candles that a window of this run would have used, counted once each, by token and reason."""
    (_, calls, by_mint, *_), truth = replayed.month, replayed.truth
    alert = calls["alert_ts_ms"].to_numpy()
    # From the earliest possible entry to the window's end, or to the latest possible entry where there is no window.
    entered = truth.entry_ts >= 0
    last = np.where(
        entered, truth.entry_ts + config.horizon_ms - INTERVALS_MS[config.interval], alert + config.max_entry_delay_ms
    )
    counts: dict[tuple[str, str], list[int]] = {}
    for mint, ts, reason in zip(*(rejected[name].to_pylist() for name in ("mint", "ts_ms", "reason")), strict=True):
        code = by_mint.code[mint]
        rows = by_mint.rows[by_mint.ends[code] - by_mint.counts[code] : by_mint.ends[code]]
        if ts is not None and np.any((alert[rows] + config.latency_ms <= ts) & (ts <= last[rows])):
            counts.setdefault((mint, reason), []).append(ts)
    return [
        {"mint": mint, "reason": reason, "rows": len(times), "first_ts_ms": min(times), "last_ts_ms": max(times)}
        for (mint, reason), times in sorted(counts.items())
    ]
