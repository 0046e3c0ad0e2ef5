"""The dashboard of the sample market, of 60 months and of 500 callers with 50,000 calls: how large, how long, how much memory."""

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks import measuring
from examples.lab import make_lab
from quantbot_pipeline.home import Home
from quantbot_pipeline.reports.dashboard.data import collect
from quantbot_pipeline.reports.dashboard.page import render
from quantbot_pipeline.reports.page import drawing
from quantbot_pipeline_tests.support.crowds import Crowd, commit_crowd

LIMITS = {
    "sample": (3e6, 10.0),
    "months": (4.5e6, 10.0),
    "crowd": (10e6, 30.0),
}  # bytes, CPU seconds: what a reader may expect
MONTHS = ("2026-01", "2026-02", "2026-03", "2026-04", "2026-05", "2026-06")  # all of the sample market
CROWD = Crowd(callers=500, calls=50_000, months=3)
YEARS = Crowd(callers=8, calls=6_000, months=60)


def run(options: argparse.Namespace) -> None:
    """Make the homes, then measure collecting the numbers and rendering the page. Fails when a limit is broken."""
    measuring.title(
        f"Dashboard: the sample market; {YEARS.months} months; {CROWD.callers} callers with {CROWD.calls} calls"
    )
    start = time.process_time()
    drawing.bundle()  # once per process: Vega's JavaScript
    print(
        f"Vega's JavaScript: {time.process_time() - start:.1f} CPU s, {len(drawing.bundle()) / 1e6:.2f} MB of every page"
    )
    rows, broken = [], []
    with tempfile.TemporaryDirectory() as folder:
        homes = {
            "sample": make_lab(Path(folder) / "sample", MONTHS),
            "months": commit_crowd(Path(folder) / "months", YEARS),
            "crowd": commit_crowd(Path(folder) / "crowd", CROWD),
        }
        for name, home in homes.items():
            bytes_, wall, cpu = _measured(home, options.repeats)
            rows.append((name, f"{bytes_ / 1e6:.2f} MB", f"{cpu:.1f}", f"{wall:.1f}"))
            most_bytes, most_s = LIMITS[name]
            if bytes_ > most_bytes or cpu > most_s:
                broken.append(f"{name}: {most_bytes / 1e6:g} MB, {most_s:g} s are the limit")
    measuring.table(("home", "page", "CPU s", "wall s"), rows)
    print(f"peak memory {measuring.peak_memory_mb():.0f} MB (with what made the homes)")
    if broken:
        raise SystemExit("; ".join(broken))


def _measured(home: Home, repeats: int) -> tuple[int, float, float]:
    """(bytes, wall and CPU seconds) of the page; medians."""
    walls, cpus, size = [], [], 0
    for _ in range(repeats):
        wall, cpu = time.monotonic(), time.process_time()
        size = len(render(collect(home)).encode())
        walls.append(time.monotonic() - wall)
        cpus.append(time.process_time() - cpu)
    return size, measuring.median(walls), measuring.median(cpus)
