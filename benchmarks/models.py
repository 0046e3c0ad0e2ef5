"""What features, models, anomalies and a score cost: months of the sample market with many calls (`--months 24 --calls 20000`).

Belongs here: the sizes and the CPU seconds. Does not: what predictions are worth; docs/models.md tells of that.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import measuring
from benchmarks.backfill import COPY_MONTHS, write_market
from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.backtest.remembered import ReplayCache
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.config import make_config
from quantbot_pipeline.home import Home
from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.ingest.candles import ingest_candles
from quantbot_pipeline.market.calls import month_statistics, read_calls
from quantbot_pipeline.market.candle_files import month_rows
from quantbot_pipeline.months import iso_ms, month_start_ms
from quantbot_pipeline.settings import Settings
from quantbot_pipeline.vocabulary import INTERVALS_MS

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
CONFIG = make_config({})  # the four targets that a user gets who names none
INTERVAL = CONFIG.interval
MOST_TOKENS = 40


def run(options: argparse.Namespace) -> None:
    """Print the CPU seconds of a backfill of `path-only`, `model` and `anomalies`, of a month alone, and of a score."""
    copies = -(-options.months // COPY_MONTHS)
    with tempfile.TemporaryDirectory(prefix="quantbot-bench-") as folder:
        lab = Home(Settings(home=Path(folder) / "home"))
        lab.path.mkdir()
        months = write_market(lab, copies)[-options.months :]
        _call_more(lab, options.calls)
        calls = sum(counts["calls"] for counts in month_statistics(lab.calls).values())
        measuring.title(f"Models: {len(months)} months, {calls:,} calls, targets {', '.join(CONFIG.targets)}")
        run_month(lab, "path-only", months[0], CONFIG)  # loads the engine
        rows = [_backfilled(lab, kind, months) for kind in ("path-only", "model", "anomalies")]
        measuring.table(("CPU s", f"{len(months)} months", "the last month alone"), rows)
        print("targets: model under 180 s, its last month alone under 20 s\n")
        sync(lab.catalog)
        _score(lab, months[-1], calls, options.repeats)
        _candles(Home(Settings(home=Path(folder) / "candles")), min(options.calls // 500, MOST_TOKENS))


def _call_more(lab: Home, wanted: int) -> None:
    """Add calls until there are about so many: those of the sample again, by other callers within half a day."""
    calls = read_calls(lab.calls, 0, 1 << 62).calls
    rng = np.random.default_rng(5)
    rows = rng.integers(0, calls.num_rows, max(wanted - calls.num_rows, 0))
    some = calls.take(pa.array(rows))
    alert = some["alert_ts_ms"].to_numpy() + rng.integers(-12 * HOUR_MS, 12 * HOUR_MS, len(rows))
    first, last = calls["alert_ts_ms"][0].as_py(), calls["alert_ts_ms"][-1].as_py()
    names = [f"{name}:{i % 7}" for i, name in enumerate(some["caller_name"].to_pylist())]
    more = {"caller_name": names, "mint": some["mint"], "alert_ts_ms": np.clip(alert, first, last)}
    file = lab.path / "generated" / "calls_more.parquet"
    pq.write_table(pa.table(more), file)
    ingest_calls([file], lab.calls)


def _backfilled(lab: Home, kind: str, months: list[str]) -> tuple[str, str, str]:
    """Make a kind of run of all months in one process, then the last one again by itself; earlier runs are there by then."""
    cache: ReplayCache = {}
    marks = [time.process_time()]
    for month in months:
        run_month(lab, kind, month, CONFIG, cache=cache)
    marks.append(time.process_time())
    run_month(lab, kind, months[-1], CONFIG, cache={})
    marks.append(time.process_time())
    whole, alone = np.diff(marks).tolist()
    return kind, f"{whole:.1f}", f"{alone:.2f}"


def _candles(lab: Home, tokens: int) -> None:
    """Print what `anomalies` costs a candle where tokens trade all month: the sample's tokens live a few days."""
    lab.path.mkdir()
    step, start, length = INTERVALS_MS[INTERVAL], month_start_ms("2026-01"), 8_928  # of a month of 31 days
    rng = np.random.default_rng(3)
    closes = np.exp(np.cumsum(rng.normal(0, 0.004, (tokens, 2 * length)), axis=1))
    opens = np.concatenate([np.ones((tokens, 1)), closes[:, :-1]], axis=1)
    wick = np.exp(np.abs(rng.normal(0, 0.002, closes.shape)))
    columns = {
        "mint": np.repeat([f"token{i:03}" for i in range(tokens)], 2 * length),
        "ts_ms": np.tile(start + step * np.arange(2 * length), tokens),
        "open": opens.ravel(),
        "high": (np.maximum(opens, closes) * wick).ravel(),
        "low": (np.minimum(opens, closes) / wick).ravel(),
        "close": closes.ravel(),
        "volume": rng.lognormal(8, 1, closes.size),
    }
    pq.write_table(pa.table(columns), lab.path / "candles.parquet")
    calls = {"mint": ["token000"] * 2, "caller_name": ["a"] * 2, "alert_ts_ms": [start, month_start_ms("2026-02")]}
    pq.write_table(pa.table(calls), lab.path / "calls.parquet")
    ingest_candles([lab.path / "candles.parquet"], lab.candles, INTERVAL)
    ingest_calls([lab.path / "calls.parquet"], lab.calls)
    run_month(lab, "anomalies", "2026-01", CONFIG)  # loads what it needs
    began = time.process_time()
    run_month(lab, "anomalies", "2026-02", CONFIG)
    spent = time.process_time() - began
    candles = month_rows(lab.candles.folder, INTERVAL, "2026-02")[0]
    print(
        f"\nanomalies, {tokens} tokens that trade all month, {candles:,} candles: {1e6 * spent / candles:.2f} µs a candle"
    )
    print("target: under 2")


def _score(lab: Home, month: str, calls: int, repeats: int) -> None:
    """Print CPU seconds of `quantbot score` as a whole process, of the calls of a month's last days."""
    since = iso_ms(
        min(month_start_ms(month) + 27 * DAY_MS, read_calls(lab.calls, 0, 1 << 62).calls["alert_ts_ms"][-1].as_py())
    )
    command = [sys.executable, "-m", "quantbot_pipeline", "score", "--since", since, "--format", "csv"]
    given = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    spent, walls, lines = [], [], 0
    for _ in range(repeats + 1):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            [*command, "--home", str(lab.path)], check=True, capture_output=True, text=True, env=given
        )
        after, lines = resource.getrusage(resource.RUSAGE_CHILDREN), done.stdout.count("\n") - 1
        walls.append(time.perf_counter() - began)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    head = (f"quantbot score, {calls:,} stored calls, {lines:,} rows", "CPU s", "wall s")
    measuring.table(head, [("median", *(f"{measuring.median(values[1:]):.2f}" for values in (spent, walls)))])
    print("target: under 2")
