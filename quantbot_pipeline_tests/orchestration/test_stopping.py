"""Ctrl-C and *Terminate* at random moments: no later month, no later asset, no failed run, and an end within seconds.

Some moments are for `make test`, fifty of Ctrl-C for each kind of home and twenty of *Terminate* for `make torture`.
"""

import json
import logging
import os
import random
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run

from quantbot_pipeline.definitions import build_defs
from quantbot_pipeline.home import Home
from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.orchestration.launch import LOCATION
from quantbot_pipeline.orchestration.partitions import range_tags
from quantbot_pipeline.orchestration.resources import Lab
from quantbot_pipeline.runs.verify import check_run
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.support.labs import finish, run_dirs, start
from quantbot_pipeline_tests.support.servers import Server, make_instance, quantbot_ui

SEED = 20260204
WITHIN_S = 2.0  # from a signal to the end of the command, where no query is long
PER_MONTH = 20_000
ALL = [f"2024-{month:02}" for month in range(1, 7)]
LAUNCH = """mutation ($p: ExecutionParams!) { launchRun(executionParams: $p) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
TERMINATE = """mutation ($id: String!) { terminateRun(runId: $id) { __typename } }"""


@pytest.fixture
def busy(home: Path) -> Home:
    """The home with many calls more, in six months: a month of it takes long enough to be hit anywhere."""
    lab, file = Home(Settings(home=home)), home / "many.parquet"
    months = ", ".join(f"epoch_ms(TIMESTAMP '{month}-02')" for month in ALL)
    duckdb.execute(
        f"""COPY (SELECT 'm' || m || '-' || i AS call_id, 'MINT' || (i % 500) AS mint, 'caller' || (i % 20) AS caller_name,
                   'sol' AS chain, first + i * 60000 AS alert_ts_ms
            FROM range({PER_MONTH}) t(i), (SELECT unnest([{months}]) AS first, generate_subscripts([{months}], 1) AS m))
            TO '{file}' (FORMAT parquet)"""
    )
    ingest_calls([file], lab.calls)
    return lab


@pytest.fixture
def server(busy: Home) -> Iterator[Server]:
    make_instance(busy.path)
    started = quantbot_ui(busy.path)
    try:
        started.wait("code location", started.locations)
        yield started
    finally:
        started.stop()


def one_ctrl_c(home: Path, moment_s: float, *arguments: str) -> tuple[int, float, int]:
    """The exit status of a command that is interrupted this long after it began, how long it went on, how many runs it has made."""
    before = run_dirs(home)
    process = start(home, *arguments, "--format", "json")
    while process.poll() is None and not run_begun(home, before):
        time.sleep(0.002)
    time.sleep(moment_s)
    asked_at, clock = time.time(), time.monotonic()
    in_time = process.poll() is None
    os.kill(process.pid, signal.SIGINT)
    done = finish(process)
    took, made = time.monotonic() - clock, run_dirs(home) - before
    if in_time and done.status == -signal.SIGINT and json.loads(done.out):
        in_time = (
            False  # it had printed its runs and was ending: the signal itself ended it, which a shell shows as 130
        )
    if in_time:
        assert (done.status, done.out) == (130, ""), done
        assert done.err == "quantbot: interrupted; what is committed stays\n"
    assert_nothing_is_made_after(made, asked_at)
    assert not [p for p in (home / "runs" / ".staging").glob("*") if p.is_dir()]
    return (done.status if in_time else 0), took, len(made)


def assert_nothing_is_made_after(made: set[Path], asked_at: float) -> None:
    for folder in made:
        manifest = check_run(folder)
        assert manifest.status == "completed"
        assert datetime.fromisoformat(manifest.started_at).timestamp() <= asked_at


def campaign_of_ctrl_c(home: Path, times: int, longest_s: float, *arguments: str) -> None:
    moments, tried, late, made = random.Random(SEED), 0, 0, 0
    while tried < times:
        status, took, runs = one_ctrl_c(home, moments.uniform(0, longest_s), *arguments)
        if status == 0:
            longest_s *= 0.9  # over before it was interrupted: that moment does not count
            continue
        tried, late, made = tried + 1, late + (took > WITHIN_S), made + runs
        print(f"{arguments[1]}: {tried} of {times} ended with 130, {late} of them late; {made} runs made", flush=True)
    assert late <= max(1, times // 20), "a busy machine is late at times, the kind is not"
    with dg.DagsterInstance.get() as instance:
        shown = instance.get_materialized_partitions(dg.AssetKey(["truth", "paths"]))
        assert shown <= {path.parent.name for path in run_dirs(home)}
        assert not instance.get_runs_count(
            dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.NOT_STARTED])
        )


def test_ctrl_c_stops_a_backtest_wherever_it_lands(busy: Home) -> None:
    campaign_of_ctrl_c(busy.path, 3, 3.0, "backtest", "path-only", "--from", ALL[0], "--to", ALL[-1])


@pytest.mark.torture
@pytest.mark.parametrize("kind", ["path-only", "full"])
def test_ctrl_c_stops_a_backtest_at_fifty_moments(busy: Home, kind: str) -> None:
    campaign_of_ctrl_c(busy.path, 50, 5.0, "backtest", kind, "--from", ALL[0], "--to", ALL[-1])


@pytest.mark.torture
def test_ctrl_c_stops_small_months_at_fifty_moments(home: Path) -> None:
    campaign_of_ctrl_c(home, 50, 3.0, "backtest", "full", "--from", "2024-01", "--to", "2024-05")


def launch_everything(server: Server) -> str:
    """The id of a run of all kinds over all months, launched as the launchpad does it."""
    tags = [{"key": key, "value": value} for key, value in range_tags(ALL).items()]
    params = {
        "selector": {
            "repositoryName": "__repository__",
            "repositoryLocationName": LOCATION,
            "pipelineName": "everything",
        },
        "runConfigData": {},
        "mode": "default",
        "executionMetadata": {"tags": tags},
    }
    launched = server.ask(LAUNCH, p=params)["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    return str(launched["run"]["runId"])


def campaign_of_terminate(server: Server, home: Path, times: int, longest_s: float) -> None:
    moments = random.Random(SEED)
    with dg.DagsterInstance.get() as instance:
        for number in range(times):
            before = run_dirs(home)
            run_id = launch_everything(server)
            server.wait("a first month", lambda: run_begun(home, before))  # noqa: B023
            time.sleep(moments.uniform(0, longest_s))
            asked_at, clock = time.time(), time.monotonic()
            server.ask(TERMINATE, id=run_id)
            ended = server.wait("end of the run", lambda: finished(instance, run_id))  # noqa: B023
            took = time.monotonic() - clock
            print(f"Terminate {number + 1} of {times}: {ended.value} after {took:.1f} s", flush=True)
            assert ended == dg.DagsterRunStatus.CANCELED
            assert took < 10
            assert_nothing_is_made_after(run_dirs(home) - before, asked_at)
            reported = reported_runs(instance, run_id)
            assert reported <= run_dirs(home) - before, "nothing is materialized that was not made"


def run_begun(home: Path, before: set[Path]) -> bool:
    return any(path.is_dir() for path in (home / "runs" / ".staging").glob("*")) or run_dirs(home) != before


def finished(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus | None:
    run = instance.get_run_by_id(run_id)
    return run.status if run is not None and run.is_finished else None


def reported_runs(instance: dg.DagsterInstance, run_id: str) -> set[Path]:
    events: list[Any] = [
        entry.dagster_event for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    ]
    metadata = [event.step_materialization_data.materialization.metadata for event in events]
    return {Path(str(m["run_dir"].value)) for m in metadata if "run_dir" in m}


@pytest.mark.torture
def test_terminate_stops_a_run_of_everything(server: Server, busy: Home) -> None:
    campaign_of_terminate(server, busy.path, 1, 2.0)


@pytest.mark.torture
def test_terminate_stops_a_run_of_everything_at_twenty_moments(server: Server, busy: Home) -> None:
    campaign_of_terminate(server, busy.path, 20, 8.0)


@pytest.mark.parametrize("month_of_request", [0, 1])
def test_a_canceled_run_makes_no_further_month_though_its_signal_is_lost(home: Path, month_of_request: int) -> None:
    """The status is all that is left of *Terminate* once the signal was swallowed."""
    job = build_defs({"lab": Lab(home=str(home))}).resolve_job_def("everything").as_ephemeral_job({}, {})
    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(job, tags=range_tags(["2024-01", "2024-02"]))

        class Cancel(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if record.getMessage().startswith("run ") and len(run_dirs(home)) == month_of_request:
                    instance.report_run_canceling(run)

        logger, handler = logging.getLogger("quantbot_pipeline.backtest.record"), Cancel()
        logger.setLevel(logging.DEBUG)
        logger.addHandler(handler)
        try:
            execute_run(InMemoryJob(job), run, instance)
        finally:
            logger.removeHandler(handler)
        assert finished(instance, run.run_id) == dg.DagsterRunStatus.CANCELED
        assert reported_runs(instance, run.run_id) == run_dirs(home)
    assert sorted(path.parent.name for path in run_dirs(home)) == ["2024-01", "2024-02"][: month_of_request + 1]
