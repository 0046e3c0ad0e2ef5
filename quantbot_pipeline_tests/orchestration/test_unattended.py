"""From files in the inbox to the catalog and an alert, with a real daemon and without another touch; three deaths change nothing of it.

It is the quick form of `test_week`; `make test` has it without the deaths, each of which takes a minute to be noticed and mended.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from quantbot_pipeline.catalog.catalog import query_runs
from quantbot_pipeline.catalog.last_sync import due_months
from quantbot_pipeline.home import Home
from quantbot_pipeline.orchestration.closings import UNFINISHED, widest_kinds
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.conftest import Quantbot
from quantbot_pipeline_tests.support.builders import small_market, write_csv
from quantbot_pipeline_tests.support.content import ask
from quantbot_pipeline_tests.support.processes import pid_of
from quantbot_pipeline_tests.support.receivers import Receiver
from quantbot_pipeline_tests.support.servers import Program, daemon, make_instance
from quantbot_pipeline_tests.support.told import assert_each_failure_is_told_once, assert_nothing_waits
from quantbot_pipeline_tests.support.week import LONG_S, pending

MONTHS = ["2024-01", "2024-02"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.mark.parametrize("deaths", [False, pytest.param(True, marks=pytest.mark.torture)])
def test_files_become_cataloged_months_and_a_bad_one_an_alert_whoever_dies(
    home: Path, quantbot: Quantbot, receiver: Receiver, deaths: bool
) -> None:
    lab = Home(Settings(home=home))
    lab.calls.path.unlink()  # nothing is known but what comes through the inbox
    make_instance(home)
    inbox = lab.settings.inbox_dir
    inbox.mkdir(parents=True)
    calls, candles = small_market()
    (inbox / "broken.parquet").write_bytes(b"PAR1, but nothing of the kind")
    write_csv(inbox / "calls.csv", calls)
    write_csv(inbox / "pump_5m.csv", candles)
    with dg.DagsterInstance.get() as instance:
        started = daemon(home, QUANTBOT_ALERT_URLS=receiver.url)
        try:
            assert {row["now"] for row in quantbot("automation", "on", "--format", "json").json()} == {"on"}
            if deaths:
                kill_worker(started, instance, "ingest_inbox")
                kill_worker(started, instance, "everything")
                started.process.kill()
                started.process.wait()
                started.stop()  # its code server, and who works there, go with it
                started = daemon(home, QUANTBOT_ALERT_URLS=receiver.url)
            started.wait("catalog of all runs", lambda: not pending(instance) and all_cataloged(lab), LONG_S)
            started.wait("alert", lambda: receiver.got)
            started.wait("end of the last run", lambda: not pending(instance) and not due_months(lab.catalog))
        finally:
            started.stop()
        assert_nothing_waits(instance)
        counts = assert_each_failure_is_told_once(instance, receiver.got)
    assert counts.get("Dagster runs ended as FAILURE", 0) >= (2 if deaths else 0)
    (message,) = [message for message in receiver.got if message["title"] == "quantbot: rejected file, broken.parquet"]
    assert "set aside in inbox/rejected/" in message["message"]
    assert sorted(path.name for path in (inbox / "done").iterdir()) == ["calls.csv", "pump_5m.csv"]
    assert sorted(path.name for path in (inbox / "rejected").iterdir()) == [
        "broken.parquet",
        "broken.parquet.reason.txt",
    ]
    assert "not readable as parquet" in (inbox / "rejected" / "broken.parquet.reason.txt").read_text()
    rows = query_runs(lab.catalog, limit=100).to_pylist()
    assert len({row["run_id"] for row in rows}) == len(rows)
    assert {(row["month"], row["status"], row["dataset_calls_count"]) for row in rows} >= {
        ("2024-01", "completed", 3),
        ("2024-02", "completed", 1),
    }
    assert {
        ("truth/paths:contract", True),
        ("results/walk_forward:contract", True),
        ("catalog/runs:catalog_health", True),
    } <= (checked := checks_made())
    assert {passed for name, passed in checked if not name.endswith("free_disk")} == {True}


def kill_worker(started: Program, instance: dg.DagsterInstance, job: str) -> None:
    """SIGKILL for the process of a run of this job, as soon as it has said its number."""

    def first() -> list[int]:
        runs = instance.get_runs(dg.RunsFilter(job_name=job, statuses=UNFINISHED))
        return [pid for run in runs for pid in pid_of(instance, run)]

    os.kill(started.wait(f"worker of {job}", first)[0], signal.SIGKILL)


def all_cataloged(lab: Home) -> bool:
    """Whether the catalog has a run of every kind of both months."""
    if not lab.catalog.path.exists():
        return False
    sql = "SELECT month, count(DISTINCT (run_type, json_extract(parameters_json, '$.strategy_id'))) FROM backtest_runs_catalog GROUP BY 1 ORDER BY 1"
    return ask(lab.catalog.path, sql) == [(month, len(widest_kinds())) for month in MONTHS]


def checks_made() -> set[tuple[str, bool]]:
    """(check, whether it passed) of every evaluation in any run."""
    with dg.DagsterInstance.get() as instance:
        return {
            (evaluation.asset_check_key.to_user_string(), evaluation.passed)
            for run in instance.get_runs()
            for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
            if entry.dagster_event is not None and (evaluation := entry.dagster_event.asset_check_evaluation_data)
        }
