"""A crowd: very many calls of a thousand callers in one month, through ingest, truth and search, each in a process of its own.

Belongs here: how much memory and time each step takes. Calls are spread over the tokens' time at random; they mean nothing.
"""

import subprocess
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measuring import peak_memory_mb, table, title
from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.config import make_config
from quantbot_pipeline.home import Home
from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.ingest.candles import ingest_candles
from quantbot_pipeline.market.calls import CallStore
from quantbot_pipeline.market.candle_files import CandleStore
from quantbot_pipeline.months import month_start_ms
from quantbot_pipeline.settings import Settings

MONTH = "2026-01"
STEP_MS = 300_000
CALLERS, TOKENS, PER_TOKEN = 1_000, 200, 8_928
INPUTS = "write inputs"
STEPS = ("ingest calls", "ingest candles", "path-only", "policy", "optimization")


def run(options: Namespace) -> None:
    """Print CPU seconds and peak memory of each step on `--crowd` calls; the search on `--searched` of them."""
    for calls, steps in ((options.crowd, STEPS[:-1]), (options.searched, STEPS)):
        title(f"{calls:,} calls of {CALLERS:,} callers in one month, {TOKENS * PER_TOKEN:,} candles")
        with tempfile.TemporaryDirectory() as folder:
            _measured(f"{INPUTS} {calls}", folder)  # a process starts with the peak of its parent: this one stays small
            rows = [(step, *_measured(step, folder)) for step in steps]
        table(["step", "CPU s", "peak MB"], rows)


def _write_inputs(folder: Path, calls: int) -> None:
    rng = np.random.default_rng(5)
    start = month_start_ms(MONTH)
    mints = [f"token-{i:04}" for i in range(TOKENS)]
    alerts = start + rng.integers(0, 28 * 86_400_000, calls)
    named = {
        "call_id": [f"call-{i:07}" for i in range(calls)],
        "mint": np.array(mints)[rng.integers(0, TOKENS, calls)],
        "caller_name": [f"caller-{i:04}" for i in rng.integers(0, CALLERS, calls)],
        "chain": ["solana"] * calls,
        "alert_ts_ms": alerts,
    }
    pq.write_table(pa.table(named), folder / "calls.parquet")
    steps = np.exp(rng.normal(0, 0.01, (TOKENS, PER_TOKEN)).cumsum(axis=1))
    opened = np.concatenate([np.ones((TOKENS, 1)), steps[:, :-1]], axis=1)
    prices = {
        "open": opened,
        "high": np.maximum(opened, steps) * 1.005,
        "low": np.minimum(opened, steps) * 0.995,
        "close": steps,
    }
    market = {
        "mint": np.repeat(mints, PER_TOKEN),
        "ts_ms": np.tile(start + STEP_MS * np.arange(PER_TOKEN), TOKENS),
        **{name: column.reshape(-1) for name, column in prices.items()},
        "volume": np.ones(TOKENS * PER_TOKEN),
    }
    pq.write_table(pa.table(market), folder / "candles.parquet")


def _measured(step: str, folder: str) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.crowd", step, folder], capture_output=True, text=True, check=False
    )
    return tuple(done.stdout.split()) if done.returncode == 0 else ("failed", done.stderr.strip()[-60:])  # type: ignore[return-value]


def _do(step: str, folder: Path) -> None:
    lab = Home(Settings(home=folder / "home", threads=1))
    if step.startswith(INPUTS):
        _write_inputs(folder, int(step.removeprefix(INPUTS)))
    elif step == "ingest calls":
        ingest_calls([folder / "calls.parquet"], CallStore(lab.calls.path, memory_limit="512MB"))
    elif step == "ingest candles":
        ingest_candles([folder / "candles.parquet"], CandleStore(lab.candles.folder, memory_limit="512MB"), "5m")
    else:
        run_month(lab, step, MONTH, make_config({}))


if __name__ == "__main__":
    import time

    _do(sys.argv[1], Path(sys.argv[2]))
    print(f"{time.process_time():.1f} {peak_memory_mb():.0f}")
