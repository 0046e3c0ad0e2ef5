"""Time: partitions and order follow UTC data alone, whatever the machine's zone, language, clock and file times say."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from quantbot_pipeline.catalog.catalog import Catalog, query_runs
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.runs.store import LocalRuns
from quantbot_pipeline_tests.support.builders import Row, artifact_rows, call, candle, commit_run, ms, write_csv
from quantbot_pipeline_tests.support.sizes import sizes
from quantbot_pipeline_tests.torture.conftest import Tally

ZONES = ("UTC", "America/New_York", "Asia/Kathmandu", "Pacific/Kiritimati", "Pacific/Niue", "Australia/Lord_Howe")
LOCALES = ("C", "C.UTF-8", "tr_TR.UTF-8", "de_DE.UTF-8", "ar_SA.UTF-8")
CLOCKS = (0, -86_400, 86_400 * 400)
# The last and the first millisecond of months, of a leap day and of the day that others have instead, of a year.
EDGES = (
    "2023-12-31",
    "2024-01-01",
    "2024-02-28",
    "2024-02-29",
    "2024-03-01",
    "2023-02-28",
    "2023-03-01",
    "2000-02-29",
    "2000-03-01",
)

LAB = """
import json, sys
from datetime import UTC, datetime
from pathlib import Path
from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.config import BacktestConfig
from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.market.calls import month_statistics, read_calls
from quantbot_pipeline.ingest.candles import ingest_candles
from quantbot_pipeline.home import Home
from quantbot_pipeline.settings import Settings
home, inputs = Path(sys.argv[1]), Path(sys.argv[2])
lab = Home(Settings(home=home, threads=1))
ingest_calls([inputs / "calls.csv"], lab.calls)
ingest_candles([inputs / "candles.csv"], lab.candles, "5m")
found = {"months": month_statistics(lab.calls)}
found["stored"] = sorted(p.parent.name for p in lab.candles.folder.rglob("candles.parquet"))
for month in found["months"]:
    made = run_month(lab, "path-only", month, BacktestConfig())
    entries = made.manifest.artifacts
    found[month] = [entries[name].content_sha256 for name in ("alerts", "paths", "features")]
    found[month] += [made.manifest.dataset.from_, made.manifest.dataset.to, made.run_dir.parent.name]
found["registered"] = sync(lab.catalog).registered
print(json.dumps([found, datetime.now(UTC).isoformat()]))
"""
# A clock that is wrong by CLOCK_ERROR seconds.
CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, t);
    const char *error = getenv("CLOCK_ERROR");
    if (error && id == CLOCK_REALTIME) t->tv_sec += atol(error);
    return result;
}
"""


def inputs(folder: Path) -> Path:
    """Calls one millisecond before, at and after every edge, with candles around them."""
    calls: list[Row] = []
    rows: list[Row] = []
    for day in EDGES:
        edge = ms(day)
        calls += [call(day, edge + off, call_id=f"{day}{off:+}") for off in (-60_001, -1, 0, 1)]
        rows += [candle(day, edge + i * 300_000, 1.0, 1.0 + (i % 7) / 10) for i in range(-24, 48)]
    write_csv(folder / "calls.csv", calls)
    write_csv(folder / "candles.csv", rows)
    return folder


@pytest.mark.parametrize("whole", sizes(False, True))
def test_zone_language_and_clock_change_nothing(tmp_path: Path, whole: bool, tally: Tally) -> None:
    source = inputs(tmp_path)
    clock = wrong_clock(tmp_path) if whole else None
    quick = [("Pacific/Kiritimati", "tr_TR.UTF-8", 0)]
    machines = [(z, lang, c) for z in ZONES for lang in LOCALES for c in CLOCKS] if whole else quick
    chance = random.Random(3)
    chosen = [("UTC", "C", 0), *(chance.sample(machines, 40) if whole else machines)]
    found = []
    for i, (zone, language, error) in enumerate(chosen):
        told = {"TZ": zone, "LC_ALL": language, "LANG": language, "CLOCK_ERROR": str(error)}
        preload = {"LD_PRELOAD": str(clock)} if clock is not None and error else {}
        done = subprocess.run(
            [sys.executable, "-c", LAB, tmp_path / f"home-{i}", source], capture_output=True, text=True, timeout=120,
            env=os.environ | told | preload, check=False,
        )  # fmt: skip  # a table: what belongs together stands on one line
        assert done.returncode == 0, (zone, language, error, done.stderr[-2000:])
        found.append(json.loads(done.stdout)[0])
    differ = [machine for machine, one in zip(chosen, found, strict=True) if one != found[0]]
    tally("time zones, languages and wrong clocks", tried=len(chosen), detected=0, lost=len(differ))
    assert not differ
    by_month: dict[str, int] = {}
    for day in EDGES:  # by hand: two of four calls lie before the edge
        before = {"01-01": f"{int(day[:4]) - 1}-12", "03-01": f"{day[:4]}-02"}.get(day[5:], day[:7])
        for month, n in ((before, 2), (day[:7], 2)):
            by_month[month] = by_month.get(month, 0) + n
    assert {month: n["calls"] for month, n in found[0]["months"].items()} == by_month
    assert {f"month={month}" for month in by_month} <= set(found[0]["stored"])


def wrong_clock(folder: Path) -> Path | None:
    """A library that makes the clock wrong for a process; None without a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    (folder / "clock.c").write_text(CLOCK)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "clock.so", folder / "clock.c", "-ldl"], check=True)
    return folder / "clock.so"


@pytest.mark.parametrize("rounds", sizes(2, 60))
def test_file_times_that_lie_hide_no_run_and_order_nothing(tmp_path: Path, rounds: int, tally: Tally) -> None:
    """Runs made with a clock that went back: their order is that of `created_at`; every sync finds every run."""
    runs, catalog = tmp_path / "runs", tmp_path / "c.duckdb"
    chance, made, lost = random.Random(5), {}, 0
    rows = {"alerts": artifact_rows("alerts", 1)}
    for i in range(rounds):
        created = f"2024-06-{chance.randrange(1, 29):02}T{chance.randrange(24):02}:00:00.{i:03}Z"
        run_dir = commit_run(runs, chance.choice(("2024-01", "2024-02")), tables=rows, created_at=created)
        made[run_dir.name.removeprefix("run_id=")] = created
        for path in [*run_dir.rglob("*"), run_dir, run_dir.parent, runs]:
            lie = chance.choice((0, 1, 10**9, 4 * 10**9))
            os.utime(path, (lie, lie), follow_symlinks=False)
        sync(Catalog(catalog, LocalRuns(runs)))
        known = query_runs(Catalog(catalog, LocalRuns(runs)), limit=1_000)["run_id"].to_pylist()
        lost += known != sorted(made, key=lambda run_id: (made[run_id], run_id), reverse=True)
    assert sync(Catalog(catalog, LocalRuns(runs))).published is False
    tally("file times that lie", tried=rounds, detected=0, lost=lost)
    assert not lost
