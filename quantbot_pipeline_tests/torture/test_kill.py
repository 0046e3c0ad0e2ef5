"""kill -9 at random moments: no half run is ever believed, the next run succeeds, and what the dead left is swept.

Many moments hit a process that does nothing but commit runs and sync; a few hit the whole `quantbot backtest`. The process is
forked from a server that has imported and compiled everything, so that a moment costs milliseconds instead of seconds.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.catalog.catalog import query_runs
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.config import make_config
from quantbot_pipeline.errors import IntegrityError
from quantbot_pipeline.home import Home
from quantbot_pipeline.runs.verify import check_run
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.conftest import Quantbot
from quantbot_pipeline_tests.support.labs import MONTHS, finish, run_dirs, start
from quantbot_pipeline_tests.support.serving import said, serving
from quantbot_pipeline_tests.support.sizes import sizes
from quantbot_pipeline_tests.torture.conftest import Tally

LONGEST_S = 0.2
SEED = 20260131

# For every line on standard input: fork a child that commits runs for ever, say its pid, and wait until it is dead.
SERVER = """
import itertools, os, sys
sys.modules["__main__"].__file__ = "server"  # else DuckDB takes it for a terminal and draws on standard output
from pathlib import Path
from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.config import make_config
from quantbot_pipeline.home import Home
from quantbot_pipeline.settings import Settings

def work(lab, months):
    for month in itertools.cycle(months):
        for recipe in ("path-only", "full"):
            run_month(lab, recipe, month, make_config({}))
        sync(lab.catalog)

lab = Home(Settings(home=Path(sys.argv[1])))
run_month(lab, "full", sys.argv[2], make_config({}))
print("ready", flush=True)
for _ in sys.stdin:
    pid = os.fork()
    if pid == 0:
        try:
            work(lab, sys.argv[2:])
        finally:
            os._exit(1)
    print(pid, flush=True)
    _, status = os.waitpid(pid, 0)
    print(status, flush=True)
"""


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def assert_catalog_is_sound(lab: Home, checked: set[str]) -> None:
    """After a sync the catalog holds every whole run and no other; `checked` spares a second look at runs."""
    sync(lab.catalog)
    with duckdb.connect(str(lab.catalog.path), read_only=True) as con:
        cataloged = dict(con.execute("SELECT run_id, run_dir FROM backtest_runs_catalog").fetchall())
        assert con.execute("SELECT count(*) FROM paths WHERE run_id IS NULL OR p0 IS NULL").fetchall() == [(0,)]
    for run_id in cataloged.keys() - checked:
        assert check_run(lab.runs.folder / cataloged[run_id]).status == "completed"
        checked.add(run_id)
    for folder in run_dirs(lab.path):
        if folder.name.removeprefix("run_id=") not in cataloged:
            with pytest.raises(IntegrityError):
                check_run(folder)


@pytest.mark.parametrize("moments", sizes(10, 250))
def test_no_moment_leaves_half_a_run(home: Path, moments: int, tally: Tally) -> None:
    lab = Home(Settings(home=home, staging_max_age_s=0, threads=1))
    staging = lab.runs.folder / ".staging"
    chance = random.Random(SEED)
    checked: set[str] = set()
    interrupted = 0
    with serving(SERVER, home, *MONTHS[:3]) as process:
        for moment in range(moments):
            assert process.stdin is not None
            print("go", file=process.stdin, flush=True)
            pid = int(said(process))
            if moment % 2:  # odd ones only once a run is being written, else a busy machine is always hit before
                wait_for(lambda: any(path.is_dir() for path in staging.iterdir()))
            time.sleep(chance.uniform(0, LONGEST_S))
            os.kill(pid, signal.SIGKILL)
            assert os.WTERMSIG(int(said(process))) == signal.SIGKILL
            interrupted += any(path.is_dir() for path in staging.iterdir())
            assert_catalog_is_sound(lab, checked)
            made = run_month(lab, "path-only", chance.choice(MONTHS), make_config({}))
            assert made is not None
            assert check_run(made.run_dir).status == "completed"
            assert list(staging.iterdir()) == []
    assert interrupted >= moments // 10  # otherwise nothing was tested
    assert_catalog_is_sound(lab, checked)
    assert query_runs(lab.catalog, limit=100_000).num_rows == len(checked)
    leftovers = {path.name for path in home.rglob("*.tmp*")} | {path.name for path in home.rglob("*.wal")}
    assert leftovers == set()
    tally("kill -9 of committing runs: each whole or not there", tried=moments, detected=interrupted)


@pytest.mark.parametrize("moment_s", [pytest.param(0.02, marks=pytest.mark.torture), 0.2])
def test_the_whole_command_may_die_too(
    home: Path, quantbot: Quantbot, monkeypatch: pytest.MonkeyPatch, moment_s: float
) -> None:
    """Some time after its first write; Dagster's own state dies with it."""
    lab = Home(Settings(home=home))
    arguments = ("backtest", "full", "--from", "2024-01", "--to", "2024-03", "--format", "json")
    process = start(home, *arguments)
    wait_for(lab.runs.folder.exists)
    time.sleep(moment_s)
    os.killpg(process.pid, signal.SIGKILL)
    assert finish(process).status == -signal.SIGKILL
    checked: set[str] = set()
    assert_catalog_is_sound(lab, checked)
    monkeypatch.setenv("QUANTBOT_STAGING_MAX_AGE_S", "0")
    assert [r["month"] for r in quantbot(*arguments).json()] == ["2024-01", "2024-02", "2024-03"]
    assert list((lab.runs.folder / ".staging").iterdir()) == []
    assert_catalog_is_sound(lab, checked)
    with dg.DagsterInstance.get() as instance:
        assert instance.get_materialized_partitions(dg.AssetKey(["truth", "paths"])) == set(MONTHS[:3])
