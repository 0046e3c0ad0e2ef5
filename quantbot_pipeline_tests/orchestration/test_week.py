"""A week that nobody looks after, simulated: at its end nothing is missing, nothing is twice, nothing waits, and each failure was told once.

The quick form is a day with three deaths; see `test_unattended`.
"""

import itertools
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from quantbot_pipeline.catalog.last_sync import due_months
from quantbot_pipeline.home import Home
from quantbot_pipeline.orchestration.closings import look, widest_kinds
from quantbot_pipeline.orchestration.partitions import month_partitions
from quantbot_pipeline.runs.verify import check_run
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.support.builders import make_home, ms, stored_hash, write_csv
from quantbot_pipeline_tests.support.clocks import COMPILER, MISSING, Clock
from quantbot_pipeline_tests.support.content import ask
from quantbot_pipeline_tests.support.disks import disk
from quantbot_pipeline_tests.support.labs import finish, run, run_dirs, start
from quantbot_pipeline_tests.support.receivers import Receiver
from quantbot_pipeline_tests.support.servers import make_instance
from quantbot_pipeline_tests.support.told import assert_each_failure_is_told_once, assert_nothing_waits
from quantbot_pipeline_tests.support.week import STEP_S, Drop, Plan, Week, pending, rows_of

FIRST, LAST, OPEN = "2029-10", "2029-12", "2030-01"
BEGIN = "2030-01-30T00:30"
STEPS = int(os.environ.get("WEEK_STEPS", "14"))
KILLS = int(os.environ.get("WEEK_KILLS", "200"))
SIZE_MB = 1500
MORE_DAYS = 4  # within which whatever was broken off is asked for again

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A new home on a disk of its own, and this process in it."""
    with disk(tmp_path / "disk", SIZE_MB) as is_disk:
        if not is_disk:
            pytest.skip("needs the right to mount a tmpfs")
        home = tmp_path / "disk" / "home"
        home.mkdir()
        for name in ("QUANTBOT_HOME", "DAGSTER_HOME"):
            monkeypatch.setenv(name, str(home))
        monkeypatch.chdir(home)
        yield home
        monkeypatch.undo()


def begin(home: Path, environment: Mapping[str, str], months: list[str]) -> None:
    """Give the home three calls in each month, and switch the automation on."""
    make_instance(home)
    calls, prices = zip(*(rows_of(month, range(3)) for month in months), strict=True)
    for kind, rows, more in (("calls", calls, ()), ("candles", prices, ("--interval", "5m"))):
        file = write_csv(home / "given" / f"{kind}.csv", [*itertools.chain(*rows)])
        assert run(home, "ingest", kind, file, *more, **environment).status == 0
    assert run(home, "automation", "on", **environment).status == 0


def week_of_files() -> list[Drop]:
    """Calls of the open month and their candles, late calls, candles of a closed month, and one file that is none."""
    drops = [Drop(2, "broken.parquet", [])]
    for n, step in enumerate(range(STEPS)):
        calls, prices = rows_of(OPEN, range(10 + 2 * n, 12 + 2 * n))
        drops += [Drop(step, f"calls_{n}.csv", calls), Drop(min(step + n % 2, STEPS - 1), f"prices_{n}_5m.csv", prices)]
    late_calls, late_prices = rows_of("2029-11", range(30, 32))
    drops += [Drop(STEPS // 4, "late_calls.csv", late_calls), Drop(STEPS // 2, "late_prices_5m.csv", late_prices)]
    return drops


def ctrl_c(week: Week) -> None:
    """An operator begins a backtest and thinks better of it."""
    before = run_dirs(week.home)
    process = start(week.home, "backtest", "full", "--from", FIRST, "--to", LAST, **week.environment)
    while process.poll() is None and run_dirs(week.home) == before:
        time.sleep(0.02)
    if process.poll() is None:
        os.kill(process.pid, signal.SIGINT)
    week.counts[f"operator's command ended with {finish(process).status}"] += 1


TERMINATE = """mutation ($id: String!) { terminateRun(runId: $id) { __typename } }"""


def terminate(week: Week) -> None:
    """An operator launches a backfill in the web UI and terminates its run."""
    week.server.wait("web server", week.server.locations)
    backfill = week.server.launch_backfill(["truth/paths", "policy/trades"], [FIRST, "2029-11"])
    with dg.DagsterInstance.get() as instance:

        def begun() -> list[str]:
            found = instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill}))
            return [one.run_id for one in found if one.status == dg.DagsterRunStatus.STARTED]

        (run_id,) = week.server.wait("run of the backfill", begun)
        week.server.ask(TERMINATE, id=run_id)
        week.server.wait("end of the run", lambda: instance.get_run_by_id(run_id).is_finished)  # type: ignore[union-attr]
        week.counts[f"terminated run ended as {instance.get_run_by_id(run_id).status.value}"] += 1  # type: ignore[union-attr]


# --- what must hold at the end ------------------------------------------------------------------------------------------


def come_to_rest(week: Week, lab: Home) -> None:
    """Let days pass until nothing is left to be done; then the programs end."""
    with dg.DagsterInstance.get() as instance:
        for number in range(int(MORE_DAYS * 86_400 / STEP_S)):
            week.settle(instance)
            week.say(f"rest {number}")
            if not (left := still_to_do(week, lab, instance)):
                break
            print("left:", left, flush=True)
            week.advance(STEP_S)
            time.sleep(8)  # a schedule's ticks are looked for every few seconds
        assert not left
    week.close()


def still_to_do(week: Week, lab: Home, instance: dg.DagsterInstance) -> dict[str, Any]:
    inbox = [path.name for path in lab.settings.inbox_dir.glob("*") if path.is_file()]
    known = month_partitions(lab.settings.first_partition).get_partition_keys(
        current_time=datetime.fromtimestamp(week.now_s(), UTC)
    )
    left = {
        "inbox": inbox,
        "closings": look(instance, lab, int(week.now_s() * 1000), known),
        "catalog": due_months(lab.catalog),
        "runs": pending(instance),
    }
    return {name: what for name, what in left.items() if what}


def assert_months_are_complete(week: Week, lab: Home, months: list[str]) -> None:
    """Each month has every kind of run, made of what the stores hold now: a backfill of what changed makes nothing."""
    span = ("--from", months[0], "--to", months[-1])
    runs = run(lab.path, "backfill", *span, "--only-changed", "--format", "json", **week.environment).json()
    assert [made for made in runs if not made["unchanged"] or made["status"] != "completed"] == []
    assert {made["month"] for made in runs} == set(months)
    assert len(runs) == len(months) * len(widest_kinds())
    cataloged = dict(ask(lab.catalog.path, "SELECT run_id, status FROM backtest_runs_catalog"))
    assert {cataloged.get(made["run_id"]) for made in runs} == {"completed"}


def assert_catalog_is_clean(week: Week, lab: Home) -> None:
    """What lies in runs/ is cataloged once; what a kill left between its rename and `_SUCCESS` is quarantined, and nothing else."""
    done = run(lab.path, "backtest", "catalog-sync", **week.environment)
    assert "Traceback" not in done.err, done
    rows = ask(lab.catalog.path, "SELECT run_id, run_dir FROM backtest_runs_catalog")
    bad = {lab.runs.folder / path for (path,) in ask(lab.catalog.path, "SELECT path FROM quarantine")}
    cataloged = {lab.runs.folder / run_dir for _, run_dir in rows}
    assert len(rows) == len({run_id for run_id, _ in rows})
    assert cataloged == run_dirs(lab.path) - bad
    assert not [folder for folder in bad if (folder / "_SUCCESS").exists()]
    for folder in cataloged:
        check_run(folder)
    week.counts["runs"], week.counts["quarantined"] = len(cataloged), len(bad)


def assert_each_file_is_in_once(week: Week, lab: Home, months: list[str], drops: list[Drop]) -> None:
    """Each file lies in done/ or rejected/ once, and the stores are those of an ingest that nobody disturbed."""
    broken = {drop.name for drop in drops if not drop.rows}
    assert_files_are_set_aside(lab, {drop.name for drop in drops} - broken, broken)
    calls, prices = zip(*(rows_of(month, range(3)) for month in months), strict=True)
    taken = [row for drop in drops for row in drop.rows]
    other = make_home(lab.path.parent / "undisturbed")
    for kind, rows in (
        ("calls", [*itertools.chain(*calls), *(row for row in taken if "call_id" in row)]),
        ("candles", [*itertools.chain(*prices), *(row for row in taken if "open" in row)]),
    ):
        file, more = write_csv(other.path / f"{kind}.csv", rows), ("--interval", "5m") if kind == "candles" else ()
        clock = {name: value for name, value in week.environment.items() if not name.startswith("QUANTBOT_")}
        assert run(other.path, "ingest", kind, file, *more, **clock).status == 0
    stored = "SELECT call_id, mint, caller_name, chain, alert_ts_ms FROM alerts ORDER BY ALL"
    assert ask(lab.calls.path, stored) == ask(other.calls.path, stored)
    assert hashes(lab) == hashes(other)


def assert_files_are_set_aside(lab: Home, taken: set[str], broken: set[str]) -> None:
    inbox = lab.settings.inbox_dir
    assert {path.name for path in (inbox / "done").iterdir()} == taken
    assert {path.name for path in (inbox / "rejected").iterdir()} == broken | {f"{name}.reason.txt" for name in broken}


def hashes(lab: Home) -> dict[str, str]:
    """{file of candles: hash of its values}."""
    folder = lab.candles.folder
    return {
        str(file.relative_to(folder)): stored_hash(file)
        for file in sorted(folder.glob("interval=*/month=*/candles.parquet"))
    }


@pytest.mark.torture
@pytest.mark.skipif(COMPILER is None, reason=MISSING)
def test_a_week_with_two_hundred_deaths(place: Path, receiver: Receiver, warm_engine: None, tmp_path: Path) -> None:
    clock = Clock(tmp_path, ms(BEGIN) / 1000)
    months, drops = [FIRST, "2029-11", LAST, OPEN], week_of_files()
    begin(place, clock.environment, months)
    week, lab = Week(place, receiver, clock), Home(Settings(home=place))
    try:
        week.run(
            Plan(
                STEPS,
                KILLS,
                drops,
                full_disks=(STEPS // 3, 2 * STEPS // 3),
                special={STEPS // 5: ctrl_c, STEPS // 2 + 1: terminate},
            )
        )
        come_to_rest(week, lab)
    finally:
        week.close()
    with dg.DagsterInstance.get() as instance:
        try:
            assert_nothing_waits(instance)
            week.counts.update(assert_each_failure_is_told_once(instance, receiver.got))
            assert not [message for message in receiver.got if "catalog_health" in f"{message}"]
        finally:
            week.say("end")
    assert_each_file_is_in_once(week, lab, months, drops)
    assert_months_are_complete(week, lab, months)
    assert_catalog_is_clean(week, lab)
    week.say("end")
