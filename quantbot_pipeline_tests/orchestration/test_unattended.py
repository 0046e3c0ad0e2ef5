"""From files in the inbox to the catalog and an alert, with a real daemon and without another touch."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from quantbot_pipeline.catalog.catalog import query_runs
from quantbot_pipeline.home import Home
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.conftest import Quantbot
from quantbot_pipeline_tests.support.builders import small_market, write_csv
from quantbot_pipeline_tests.support.receivers import Receiver
from quantbot_pipeline_tests.support.servers import daemon, make_instance

MONTHS = ["2024-01", "2024-02"]
KINDS = ("full", "optimization", "optimization", "optimization")  # what a month of `everything` leaves in the catalog


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def test_files_become_cataloged_months_and_a_bad_one_an_alert(
    home: Path, quantbot: Quantbot, receiver: Receiver
) -> None:
    lab = Home(Settings(home=home))
    lab.calls.path.unlink()  # nothing is known but what comes through the inbox
    make_instance(home)
    assert {row["now"] for row in quantbot("automation", "on", "--format", "json").json()} == {"on"}
    inbox = lab.settings.inbox_dir
    inbox.mkdir(parents=True)
    started = daemon(home, QUANTBOT_ALERT_URLS=receiver.url)
    try:
        started.wait("first look", lambda: "SensorDaemon" in started.log.read_text())
        calls, candles = small_market()
        (inbox / "broken.parquet").write_bytes(b"PAR1, but nothing of the kind")
        write_csv(inbox / "calls.csv", calls)
        write_csv(inbox / "pump_5m.csv", candles)

        def cataloged() -> list[dict[str, object]]:
            if not lab.catalog.path.exists():
                return []
            rows = query_runs(lab.catalog, limit=100).to_pylist()
            return rows if len(rows) == len(KINDS) * len(MONTHS) else []

        started.wait("catalog of all runs", cataloged)
        (message,) = started.wait("alert", receiver.take)
        started.wait("end of the last run", lambda: not active())
    finally:
        started.stop()
    assert message["title"] == "quantbot: rejected file, broken.parquet"
    assert "set aside in inbox/rejected/" in message["message"]
    assert sorted(path.name for path in (inbox / "done").iterdir()) == ["calls.csv", "pump_5m.csv"]
    assert sorted(path.name for path in (inbox / "rejected").iterdir()) == [
        "broken.parquet",
        "broken.parquet.reason.txt",
    ]
    assert "not readable as parquet" in (inbox / "rejected" / "broken.parquet.reason.txt").read_text()

    rows = quantbot("backtest", "catalog-query", "--format", "json").json()
    made = sorted((row["month"], row["run_type"], row["status"], row["dataset_calls_count"]) for row in rows)
    assert made == [
        (month, kind, "completed", calls) for month, calls in zip(MONTHS, (3, 1), strict=True) for kind in KINDS
    ]
    with dg.DagsterInstance.get() as instance:
        assert {run.status for run in instance.get_runs()} == {dg.DagsterRunStatus.SUCCESS}
        checked = {
            (evaluation.asset_check_key.to_user_string(), evaluation.passed)
            for run in instance.get_runs()
            for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
            if entry.dagster_event is not None and (evaluation := entry.dagster_event.asset_check_evaluation_data)
        }
    assert {
        ("truth/paths:contract", True),
        ("results/walk_forward:contract", True),
        ("catalog/runs:catalog_health", True),
    } <= checked
    assert {passed for name, passed in checked if not name.endswith("free_disk")} == {True}


def active() -> bool:
    """Whether a Dagster run is going on."""
    unfinished = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
    with dg.DagsterInstance.get() as instance:
        return instance.get_runs_count(dg.RunsFilter(statuses=unfinished)) > 0
