"""Growth: CPU and memory of each step while one thing grows and the others stay: calls, callers, months, tokens, runs.

Belongs here: whether a cost is linear in what grows. Each step is a process of its own; the largest sizes come with `--grow`.
"""

import json
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path

from benchmarks.catalog import commit_runs
from benchmarks.crowd import Size, write_inputs
from benchmarks.measuring import peak_memory_mb, table, title
from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.backtest.remembered import ReplayCache
from quantbot_pipeline.backtest.warm_up import warm_up
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.config import make_config
from quantbot_pipeline.home import Home
from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.ingest.candles import ingest_candles
from quantbot_pipeline.reports.dashboard.data import collect
from quantbot_pipeline.reports.dashboard.page import render
from quantbot_pipeline.reports.leaderboard import leaderboard
from quantbot_pipeline.settings import Settings

INGEST, SYNC = ("ingest calls", "ingest candles"), ("sync", "sync again")
REPORTS = ("sync", "leaderboard", "dashboard")
# What grows: {size: what it is of}, the steps that are measured, and how many of the sizes are measured by default.
AXES: dict[str, tuple[dict[int, Size], tuple[str, ...], int]] = {
    "calls of a month": (
        {n: Size(n) for n in (1_000, 10_000, 100_000, 1_000_000)},
        (*INGEST[:1], "path-only", "policy"),
        3,
    ),
    "callers": (
        {n: Size(20_000, callers=n) for n in (10, 100, 1_000, 10_000)},
        ("full", "evidence", *REPORTS),
        3,
    ),
    "months": (
        {n: Size(60, callers=6, tokens=5, months=n) for n in (1, 12, 60, 120)},
        ("full", "v1-baseline", "walk-forward", "evidence", *REPORTS),
        3,
    ),
    "tokens with 8,928 candles": (
        {n: Size(2_000, tokens=n) for n in (20, 200, 2_000)},
        (*INGEST, "policy", "anomalies"),
        2,
    ),
    "runs": ({n: Size(n) for n in (100, 1_000, 10_000, 100_000)}, SYNC, 3),
}


def run(options: Namespace) -> None:
    """Print a table for each thing that grows: a row per size, CPU seconds and peak MB of each step."""
    for name, (sizes, steps, usual) in AXES.items():
        title(f"Growth of {name}")
        chosen = list(sizes) if options.grow else list(sizes)[:usual]
        rows = []
        for n in chosen:
            with tempfile.TemporaryDirectory(prefix="quantbot-growth-") as folder:
                _measured("runs" if name == "runs" else "inputs", folder, sizes[n])
                if name != "runs":
                    needed = [step for step in INGEST if step not in steps]
                    for step in needed:
                        _measured(step, folder, sizes[n])
                found = [_measured(step, folder, sizes[n]) for step in steps]
            rows.append((f"{n:,}", *(f"{cpu:.2f} s, {mb:.0f} MB" for cpu, mb in found)))
        table([name, *steps], rows)


def _measured(step: str, folder: str, size: Size) -> tuple[float, float]:
    """CPU seconds and peak MB of a step, in a process of its own that has loaded everything before."""
    words = [sys.executable, "-m", "benchmarks.growth", step, folder, json.dumps(size)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{step} at {size}: {done.stderr.strip()[-500:]}")
    cpu, peak = done.stdout.split()
    return float(cpu), float(peak)


def _do(step: str, folder: Path, size: Size) -> None:
    lab = Home(Settings(home=folder / "home", threads=1))
    if step == "inputs":
        write_inputs(folder, size)
    elif step == "runs":
        commit_runs(lab.runs.folder, size.calls)
    elif step == "ingest calls":
        ingest_calls(sorted(folder.glob("calls_*.parquet")), lab.calls)
    elif step == "ingest candles":
        ingest_candles(sorted(folder.glob("candles_*.parquet")), lab.candles, "5m")
    elif step in SYNC:
        sync(lab.catalog)
    elif step == "leaderboard":
        leaderboard(lab.catalog)
    elif step == "dashboard":
        render(collect(lab))
    else:
        cache: ReplayCache = {}
        months = sorted(path.stem.removeprefix("calls_") for path in folder.glob("calls_*.parquet"))
        for month in months:
            run_month(lab, step, month, make_config({}), cache=cache)


if __name__ == "__main__":
    warm_up()
    began = time.process_time()
    _do(sys.argv[1], Path(sys.argv[2]), Size(*json.loads(sys.argv[3])))
    print(f"{time.process_time() - began:.2f} {peak_memory_mb():.0f}")
