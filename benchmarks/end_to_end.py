"""From the stores to a committed run, against decoding the same Parquet alone: what a user waits for.

The store holds one token per call, so that every candle is decoded once and replayed once. What is measured is
`run_month`, as the command line and Dagster call it, with everything that it does: reading calls, planning, replay,
aggregation, writing with checksums and fsync.
"""

import argparse
import functools
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import measuring
from benchmarks.market import MINUTE_MS, MONTH, START_MS, random_market
from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.config import make_config
from quantbot_pipeline.home import Home
from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.market import candle_files
from quantbot_pipeline.market.candle_footer import COLUMNS
from quantbot_pipeline.settings import Settings

INTERVAL = "1m"
CALLERS = 100
CHUNK = 100  # tokens generated at once
WHAT: dict[str, str] = {"policy backtest, 4 policies": "policy", "policy search, the default grid": "optimization"}


def run(options: argparse.Namespace) -> None:
    """Measure both kinds of run and decoding alone."""
    measuring.title(f"End to end: {options.calls} calls x {options.candles} one-minute candles, {CALLERS} callers")
    with tempfile.TemporaryDirectory(prefix="quantbot-bench-") as folder:
        lab = Home(Settings(home=Path(folder)))
        _make_inputs(lab, options.calls, options.candles)
        store = candle_files.month_file(lab.candles.folder, INTERVAL, MONTH)
        for threads in sorted({1, os.cpu_count() or 1}):
            _measure(lab.changed(threads=threads), store, options.repeats)
        print(f"{store.stat().st_size / 1e6:,.0f} MB of candles; peak memory {measuring.peak_memory_mb():.0f} MB")


def _measure(lab: Home, store: Path, repeats: int) -> None:
    """Runs against decoding on as many threads: they share caches, so that two cost more CPU than one, decoding alone too."""
    config = make_config({"interval": INTERVAL})
    works: dict[str, Callable[[], object]] = {
        "decoding alone": lambda: _decode(store, lab.settings.threads, verified=True),
        "decoding alone, nothing verified": lambda: _decode(store, lab.settings.threads, verified=False),
    }
    works |= {name: functools.partial(run_month, lab, recipe, MONTH, config) for name, recipe in WHAT.items()}
    spent = {name: measuring.median(seconds) for name, seconds in measuring.interleaved(works, repeats).items()}
    measuring.table(
        (f"threads: {lab.settings.threads}", "CPU s", "of decoding alone"),
        [(name, f"{seconds:.2f}", f"{seconds / spent['decoding alone']:.2f} x") for name, seconds in spent.items()],
    )


def _decode(store: Path, threads: int, *, verified: bool) -> None:
    """The columns that a replay needs, row group by row group, page checksums verified or not.

    The leanest way to decode with pyarrow: reading the whole file at once costs six times as much, in page faults.
    """
    metadata, own = pq.read_metadata(store), threading.local()

    def decode(group: int) -> None:
        if not hasattr(own, "file"):
            own.file = pq.ParquetFile(store, metadata=metadata, pre_buffer=False, page_checksum_verification=verified)
        own.file.read_row_group(group, columns=COLUMNS, use_threads=False)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(decode, range(metadata.num_row_groups)))


def _make_inputs(lab: Home, calls: int, n: int) -> None:
    rng = np.random.default_rng(3)
    source = Path(lab.path) / "calls.parquet"
    names = [f"token{i:06d}" for i in range(calls)]
    callers = [f"caller{i:03d}" for i in rng.integers(0, CALLERS, calls)]
    pq.write_table(
        pa.table({"mint": names, "caller_name": callers, "alert_ts_ms": np.full(calls, START_MS - MINUTE_MS)}), source
    )
    ingest_calls([source], lab.calls)
    # As an ingest writes it, without its sorting and checking: that would take longer than everything measured here.
    candle_files.write_sorted(
        candle_files.month_file(lab.candles.folder, INTERVAL, MONTH),
        pa.RecordBatchReader.from_batches(candle_files.SCHEMA, _batches(rng, names, n)),
    )


def _batches(rng: np.random.Generator, names: list[str], n: int) -> Iterator[pa.RecordBatch]:
    ts = START_MS + MINUTE_MS * np.arange(n)
    for first in range(0, len(names), CHUNK):
        tokens = names[first : first + CHUNK]
        market = random_market(rng, len(tokens), n)
        prices = [pa.array(column.reshape(-1)) for column in market]
        mint = pa.array(tokens).take(pa.array(np.repeat(np.arange(len(tokens)), n)))
        volume = pa.array(np.full(len(mint), 1.0))
        yield pa.record_batch([mint, pa.array(np.tile(ts, len(tokens))), *prices, volume], schema=candle_files.SCHEMA)
