"""A crowd: very many calls of a thousand callers in one month, through ingest, truth and search, each in a process of its own.

Belongs here: how much memory and time each step takes. Calls are spread over the tokens' time at random; they mean nothing.
"""

import subprocess
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

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
from quantbot_pipeline.months import month_start_ms, months_before
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


class Size(NamedTuple):
    """How much of everything: calls and tokens are of each month, which ends with MONTH."""

    calls: int
    callers: int = CALLERS
    tokens: int = TOKENS
    months: int = 1


def write_inputs(folder: Path, size: Size) -> list[str]:
    """Write `calls_M.parquet` and `candles_M.parquet` of each month M; return the months. Every month has other tokens."""
    months = [months_before(MONTH, back) for back in reversed(range(size.months))]
    for nth, month in enumerate(months):
        rng = np.random.default_rng(5 + nth)
        mints = [f"token-{month}-{i:04}" for i in range(size.tokens)]
        pq.write_table(_calls(rng, month, mints, size), folder / f"calls_{month}.parquet")
        pq.write_table(_candles(rng, month, mints), folder / f"candles_{month}.parquet")
    return months


def _calls(rng: np.random.Generator, month: str, mints: list[str], size: Size) -> pa.Table:
    named = {
        "call_id": [f"call-{month}-{i:07}" for i in range(size.calls)],
        "mint": np.array(mints)[rng.integers(0, size.tokens, size.calls)],
        "caller_name": [f"caller-{i:04}" for i in rng.integers(0, size.callers, size.calls)],
        "chain": ["solana"] * size.calls,
        "alert_ts_ms": month_start_ms(month) + rng.integers(0, 25 * 86_400_000, size.calls),
    }
    return pa.table(named)


def _candles(rng: np.random.Generator, month: str, mints: list[str]) -> pa.Table:
    shape = (len(mints), PER_TOKEN)
    steps = np.exp(rng.normal(0, 0.01, shape).cumsum(axis=1))
    opened = np.concatenate([np.ones((len(mints), 1)), steps[:, :-1]], axis=1)
    prices = {
        "open": opened,
        "high": np.maximum(opened, steps) * 1.005,
        "low": np.minimum(opened, steps) * 0.995,
        "close": steps,
    }
    market = {
        "mint": np.repeat(mints, PER_TOKEN),
        "ts_ms": np.tile(month_start_ms(month) + STEP_MS * np.arange(PER_TOKEN), len(mints)),
        **{name: column.reshape(-1) for name, column in prices.items()},
        "volume": np.ones(len(mints) * PER_TOKEN),
    }
    return pa.table(market)


def _measured(step: str, folder: str) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.crowd", step, folder], capture_output=True, text=True, check=False
    )
    return tuple(done.stdout.split()) if done.returncode == 0 else ("failed", done.stderr.strip()[-60:])  # type: ignore[return-value]


def _do(step: str, folder: Path) -> None:
    lab = Home(Settings(home=folder / "home", threads=1))
    if step.startswith(INPUTS):
        write_inputs(folder, Size(int(step.removeprefix(INPUTS))))
    elif step == "ingest calls":
        ingest_calls(sorted(folder.glob("calls_*.parquet")), CallStore(lab.calls.path, memory_limit="512MB"))
    elif step == "ingest candles":
        ingest_candles(
            sorted(folder.glob("candles_*.parquet")), CandleStore(lab.candles.folder, memory_limit="512MB"), "5m"
        )
    else:
        run_month(lab, step, MONTH, make_config({}))


if __name__ == "__main__":
    import time

    _do(sys.argv[1], Path(sys.argv[2]))
    print(f"{time.process_time():.1f} {peak_memory_mb():.0f}")
