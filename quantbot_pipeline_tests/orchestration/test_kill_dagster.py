"""kill -9 of the run worker, the daemon and the web server during a backfill: it completes, and the catalog is complete and exclusive.

`quantbot ui` runs for real and starts again what was killed; the run that lost its worker is repeated by Dagster. A round launches one backfill
through GraphQL and kills each of the three at a moment of its own. The campaign is for `make torture`; one round is for `make test`.
"""

import contextlib
import functools
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.home import Home
from quantbot_pipeline.runs.verify import check_run
from quantbot_pipeline.settings import Settings
from quantbot_pipeline.specs import outputs
from quantbot_pipeline_tests.support.labs import MONTHS, run_dirs
from quantbot_pipeline_tests.support.processes import children, pid_of
from quantbot_pipeline_tests.support.servers import PATIENCE_S, Server, make_instance, quantbot_ui

KILLS = 20  # of each
POWER_CUTS = 3
LONG_S = 2 * PATIENCE_S  # a run that died while it was starting is found after three minutes
SEED = 20260131
LONGEST_S = (
    3.0  # from the start of what is to be killed; a run of these months takes about one second once its worker is up
)
RANGE = list(MONTHS[:3])
ASSETS = ["inputs/alerts", "inputs/candles", *("/".join(key) for key in outputs())]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")


@pytest.fixture
def server(home: Path) -> Iterator[Server]:
    make_instance(home)
    started = quantbot_ui(home)
    try:
        yield started
    finally:
        started.stop()


def worker_of(instance: dg.DagsterInstance, backfill: str) -> list[int]:
    """The process of the backfill's newest unfinished run, once it has said its pid."""
    for run in instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill}), limit=1):
        if not run.is_finished:
            return pid_of(instance, run)
    return []


def kill_soon(find: Callable[[], list[int]], moment_s: float, over: threading.Event) -> bool:
    """SIGKILL for what `find` finds, some time after it is there; False if the backfill was over before."""
    while not (pids := find()):
        if over.wait(0.02):
            return False
    over.wait(moment_s)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pids[0], signal.SIGKILL)
        return True
    return False


def one_round(server: Server, moments: random.Random) -> Counter[str]:
    """A backfill, launched again until it succeeds, while each of the three is killed once; how often each was."""
    counts: Counter[str] = Counter()
    with dg.DagsterInstance.get() as instance:
        backfill = server.launch_backfill(ASSETS, RANGE)
        over = threading.Event()
        ui = server.process.pid
        victims = {
            "run worker": lambda: worker_of(instance, backfill),
            "daemon": lambda: children(ui, "dagster-daemon"),
            "web server": lambda: children(ui, "dagster_webserver"),
        }

        def hunt(name: str, moment_s: float) -> None:
            counts[name] += kill_soon(victims[name], moment_s, over)

        # The daemon and the web server are there from the start on, the worker comes some seconds later.
        longest = {"run worker": LONGEST_S / 2, "daemon": 3 * LONGEST_S, "web server": 3 * LONGEST_S}
        hunters = [threading.Thread(target=hunt, args=(name, moments.uniform(0, s))) for name, s in longest.items()]
        for hunter in hunters:
            hunter.start()
        answer = server.wait("end of the backfill", lambda: server.finished_backfill(backfill))
        over.set()
        for hunter in hunters:
            hunter.join()
        if answer["partitionBackfillOrError"]["status"] != "COMPLETED_SUCCESS":
            counts["launched again"] += 1
            again = server.launch_backfill(ASSETS, RANGE)
            answer = server.wait("end of the repeated backfill", lambda: server.finished_backfill(again))
        counts["runs"] += len(answer["runsOrError"]["results"])
        assert answer["partitionBackfillOrError"] == {"status": "COMPLETED_SUCCESS", "error": None}
        assert "SUCCESS" in {run["status"] for run in answer["runsOrError"]["results"]}
    return counts


def assert_complete_and_exclusive(home: Path) -> None:
    """Every month is shown as materialized; what Dagster reported and what is whole on the disk is cataloged, once, and nothing else."""
    lab = Home(Settings(home=home))
    sync(lab.catalog)
    with duckdb.connect(str(lab.catalog.path), read_only=True) as con:
        rows = con.execute("SELECT run_id, run_dir FROM backtest_runs_catalog").fetchall()
        bad = {path for (path,) in con.execute("SELECT path FROM quarantine").fetchall()}
        (twice,) = con.execute("SELECT count(*) - count(DISTINCT (run_id, call_id)) FROM paths").fetchone() or (None,)
    assert twice == 0
    assert len(rows) == len({run_id for run_id, _ in rows})
    cataloged = {lab.runs.folder / run_dir for _, run_dir in rows}
    assert cataloged == run_dirs(home) - {lab.runs.folder / path for path in bad}
    # Between the rename of its directory and `_SUCCESS` a killed run is visible and not believed; nothing else may be wrong.
    assert all(not (lab.runs.folder / path / "_SUCCESS").exists() for path in bad)
    assert {check_run(folder).status for folder in cataloged} == {"completed"}
    with dg.DagsterInstance.get() as instance:
        for key in outputs():
            assert instance.get_materialized_partitions(dg.AssetKey(list(key))) == set(RANGE)
            records = instance.fetch_materializations(dg.AssetKey(list(key)), limit=10_000).records
            reported = [r.asset_materialization for r in records]
            assert {Path(str(m.metadata["run_dir"].value)) for m in reported if m is not None} <= cataloged
        assert instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])) == 0


def campaign(home: Path, server: Server, kills: int) -> Counter[str]:
    """Rounds until each of the three was killed so often."""
    server.wait("code location", server.locations)
    moments, counts = random.Random(SEED), Counter[str]()
    while min(counts[name] for name in ("run worker", "daemon", "web server")) < kills:
        counts += one_round(server, moments) + Counter(rounds=1)
        print(time.strftime("%H:%M:%S"), dict(counts), flush=True)
        assert counts["rounds"] < 3 * kills + 3, counts  # otherwise the moments are no moments of a backfill
    assert_complete_and_exclusive(home)
    return counts


@pytest.mark.torture
def test_a_backfill_survives_twenty_deaths_of_each(home: Path, server: Server) -> None:
    campaign(home, server, KILLS)


@pytest.mark.torture
def test_a_backfill_survives_a_power_cut(home: Path) -> None:
    """Everything dies at once, also the code server that would have noticed its worker's end: run monitoring must."""
    make_instance(home)
    moments = random.Random(SEED)
    for _ in range(POWER_CUTS):
        server = quantbot_ui(home)
        try:
            server.wait("code location", server.locations)
            backfill = server.launch_backfill(ASSETS, RANGE)
            with dg.DagsterInstance.get() as instance:
                server.wait("run worker", functools.partial(worker_of, instance, backfill))
            time.sleep(moments.uniform(0, LONGEST_S / 2))
            os.killpg(server.process.pid, signal.SIGKILL)
            server.process.wait()
            server = quantbot_ui(home)
            answer = server.wait("end of the backfill", functools.partial(server.finished_backfill, backfill), LONG_S)
            assert answer["partitionBackfillOrError"] == {"status": "COMPLETED_SUCCESS", "error": None}
        finally:
            server.stop()
    assert_complete_and_exclusive(home)
