"""The alert sensor on a real instance, with a receiver that listens on this machine: what is found, sent, kept and over."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.launcher.base import WorkerStatus

from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.catalog.catalog import Catalog
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.config import BacktestConfig
from quantbot_pipeline.definitions import build_defs
from quantbot_pipeline.home import Home
from quantbot_pipeline.orchestration import notices_sensor, retries
from quantbot_pipeline.orchestration.resources import Lab
from quantbot_pipeline.runs.manifest import folder_of
from quantbot_pipeline.runs.store import LocalRuns
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.support.labs import MONTHS, start
from quantbot_pipeline_tests.support.receivers import Receiver

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
CATALOG = "data/backtest_catalog.duckdb"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


class Sensor:
    """The sensor as the daemon runs it: tick after tick, each with the cursor that the one before left."""

    def __init__(self, home: Path, instance: dg.DagsterInstance) -> None:
        self.home, self.instance = home, instance
        self.cursor: str | None = None

    def tick(self) -> str:
        """One look; returns its summary."""
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor)
        result = notices_sensor.notices(context, lab=Lab(home=str(self.home)))
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        return str(result.skip_reason.skip_message if result.skip_reason else "")


@pytest.fixture
def sensor(home: Path, instance: dg.DagsterInstance) -> Sensor:
    return Sensor(home, instance)


@dg.op
def work(context: dg.OpExecutionContext, config: dict[str, str]) -> None:
    """Fails for the reason that it is given."""
    if config:
        raise ValueError(config["reason"])


@dg.job
def working() -> None:
    work()


def execute(instance: dg.DagsterInstance, reason: str = "", month: str | None = None, **tags: str) -> str:
    """A cheap Dagster run of the job `working`; returns its id."""
    if month:
        tags["dagster/partition"] = month
    config = {"ops": {"work": {"config": {"reason": reason} if reason else {}}}, **QUIET}
    return working.execute_in_process(config, instance=instance, tags=tags, raise_on_error=False).run_id


def launch(home: Path, instance: dg.DagsterInstance, job: str, first: str = "", last: str = "") -> bool:
    """A job of the lab over a range of months."""
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last or first}
    made = build_defs({"lab": Lab(home=str(home))}).resolve_job_def(job)
    return made.execute_in_process(QUIET, instance=instance, tags=tags if first else {}, raise_on_error=False).success


def test_a_failed_run_is_sent_once_with_its_month_and_link_and_its_recovery(sensor: Sensor, receiver: Receiver) -> None:
    assert sensor.tick() == "0 new, 0 open, 0 to be sent"
    run_id = execute(sensor.instance, "the disk is full", "2024-02")
    assert sensor.tick() == "1 new, 1 open, 0 to be sent"
    (message,) = receiver.take()
    assert message["title"] == "quantbot: failed run, work in working, 2024-02"
    assert message["type"] == "failure"
    assert message["message"] == (
        f"ValueError: the disk is full\nmonth: 2024-02\nconcerns: work in working\nrun: http://127.0.0.1:3000/runs/{run_id}"
    )
    execute(sensor.instance, "the disk is full", "2024-02")
    execute(sensor.instance, "the disk is full", "2024-02")
    assert sensor.tick() == "0 new, 1 open, 0 to be sent"
    execute(sensor.instance, month="2024-01")  # another month
    assert sensor.tick() == "0 new, 1 open, 0 to be sent"
    execute(sensor.instance, month="2024-02")
    assert sensor.tick() == "1 new, 0 open, 0 to be sent"
    (message,) = receiver.take()
    assert message["title"] == "quantbot: recovered: failed run, work in working, 2024-02"
    assert message["type"] == "success"
    assert "3 times since" in message["message"]
    assert sensor.tick() == "0 new, 0 open, 0 to be sent"


def test_what_is_over_before_the_next_look_is_told_with_its_end(sensor: Sensor, receiver: Receiver) -> None:
    execute(sensor.instance, "once", "2024-02")
    execute(sensor.instance, month="2024-02")
    assert sensor.tick() == "2 new, 0 open, 0 to be sent"
    assert receiver.titles() == [
        "failed run, work in working, 2024-02",
        "recovered: failed run, work in working, 2024-02",
    ]
    execute(sensor.instance, month="2024-02")
    execute(sensor.instance, "again", "2024-02")
    sensor.tick()
    assert [message["message"].splitlines()[0] for message in receiver.take()] == ["ValueError: again"]


def test_a_run_that_dagster_retries_is_not_yet_a_failure(sensor: Sensor, receiver: Receiver) -> None:
    execute(sensor.instance, "killed", **{"dagster/will_retry": "true"})
    assert sensor.tick() == "0 new, 0 open, 0 to be sent"


def test_a_failure_that_dagster_has_overlooked_is_said_again(sensor: Sensor, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = execute(sensor.instance, "killed", **{"dagster/will_retry": "true"})
    monkeypatch.setattr(retries, "PATIENCE", timedelta(0))
    sensor.tick()
    assert len(sensor.instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE)) == 2


def test_a_repetition_that_was_promised_and_does_not_come_is_one_notice(
    sensor: Sensor, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(sensor.instance, "killed", "2024-02", **{"dagster/will_retry": "true"})
    repeated = execute(sensor.instance, "killed", "2024-03", **{"dagster/will_retry": "true"})
    execute(sensor.instance, month="2024-03", **{"dagster/parent_run_id": repeated})
    assert sensor.tick() == "0 new, 0 open, 0 to be sent"
    later = time.time() + notices_sensor.PROMISE_S
    monkeypatch.setattr(time, "time", lambda: later)
    assert sensor.tick() == "1 new, 1 open, 0 to be sent"
    assert receiver.titles() == ["failed run, work in working, 2024-02"]
    assert notices_sensor.Cursor.model_validate_json(sensor.cursor or "").promised == {}
    assert sensor.tick() == "0 new, 1 open, 0 to be sent"


def test_a_broken_promise_that_a_later_run_made_good_is_told_as_over(
    sensor: Sensor, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(sensor.instance, month="2024-02")
    execute(sensor.instance, "killed", "2024-02", **{"dagster/will_retry": "true"})
    execute(sensor.instance, month="2024-02")
    assert sensor.tick() == "0 new, 0 open, 0 to be sent"
    later = time.time() + notices_sensor.PROMISE_S
    monkeypatch.setattr(time, "time", lambda: later)
    assert sensor.tick() == "2 new, 0 open, 0 to be sent"
    assert receiver.titles() == [
        "failed run, work in working, 2024-02",
        "recovered: failed run, work in working, 2024-02",
    ]


def test_a_killed_command_is_one_notice(home: Path, receiver: Receiver) -> None:
    process = start(home, "backtest", "full", "--from", MONTHS[0], "--to", MONTHS[2])
    while not any((home / "runs" / ".staging").glob("*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    process.kill()
    process.communicate()
    with dg.DagsterInstance.get() as instance:
        sensor = Sensor(home, instance)
        assert sensor.tick() == "0 new, 0 open, 0 to be sent"
        (run,) = instance.get_runs()
        health = instance.run_launcher.check_run_worker_health(run)
        assert health.status == WorkerStatus.FAILED
        instance.report_run_failed(run, health.msg)  # as the daemon does at its next look
        assert [sensor.tick() for _ in range(3)] == [
            "1 new, 3 open, 0 to be sent",
            *["0 new, 3 open, 0 to be sent"] * 2,
        ]
        assert receiver.titles() == [f"failed run, full, {MONTHS[0]} to {MONTHS[2]}"]
        assert sensor.cursor is not None


def test_a_run_that_waits_too_long_is_one_notice_until_it_begins(
    sensor: Sensor, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    config: dict[str, Any] = {"ops": {"work": {"config": {}}}}
    run = sensor.instance.create_run_for_job(working, run_config=config, tags={"dagster/partition": "2024-02"})
    assert sensor.tick() == "0 new, 0 open, 0 to be sent"
    monkeypatch.setenv("QUANTBOT_MAX_QUEUED_S", "0")
    assert sensor.tick() == "1 new, 1 open, 0 to be sent"
    (message,) = receiver.take()
    assert message["title"] == "quantbot: waiting run, working, 2024-02"
    assert "the limit is 0 s (QUANTBOT_MAX_QUEUED_S)" in message["message"]
    assert message["message"].endswith(f"/runs/{run.run_id}")
    assert sensor.tick() == "0 new, 1 open, 0 to be sent"
    sensor.instance.report_run_canceled(run)
    assert sensor.tick() == "1 new, 0 open, 0 to be sent"
    assert receiver.titles() == ["recovered: waiting run, working, 2024-02"]


def test_a_failed_send_is_kept_over_a_restart_and_retried(home: Path, receiver: Receiver) -> None:
    receiver.down = True
    with dg.DagsterInstance.get() as instance:
        before = Sensor(home, instance)
        execute(instance, "lost?", "2024-02")
        assert before.tick() == "1 new, 1 open, 1 to be sent"
        assert before.tick() == "0 new, 1 open, 1 to be sent"
        assert receiver.url not in str(before.cursor)
    receiver.down = False
    with dg.DagsterInstance.get() as instance:
        after = Sensor(home, instance)
        after.cursor = before.cursor
        assert after.tick() == "0 new, 1 open, 0 to be sent"
        assert receiver.titles() == ["failed run, work in working, 2024-02"]
        after.tick()
        assert receiver.titles() == []


def test_without_urls_alerts_go_to_the_log_alone(sensor: Sensor, capsys: pytest.CaptureFixture[str]) -> None:
    execute(sensor.instance, "the disk is full", "2024-02")
    assert sensor.tick() == "1 new, 1 open, 0 to be sent"
    assert "quantbot: failed run, work in working, 2024-02\nValueError: the disk is full" in capsys.readouterr().err


def test_a_cursor_of_another_version_begins_anew(sensor: Sensor, receiver: Receiver) -> None:
    execute(sensor.instance, "no", "2024-02")
    sensor.cursor = '{"what": 1}'
    assert sensor.tick() == "1 new, 1 open, 0 to be sent"


def test_old_runs_are_no_news_even_when_something_touches_them(sensor: Sensor, receiver: Receiver) -> None:
    run_id = execute(sensor.instance, "long ago", "2024-02")
    sensor.cursor = notices_sensor.Cursor(since=time.time() + 7200).model_dump_json()
    sensor.instance.add_run_tags(run_id, {"note": "seen"})
    assert sensor.tick() == "0 new, 0 open, 0 to be sent"


def test_only_the_months_that_a_range_did_not_make_have_failed(
    sensor: Sensor, receiver: Receiver, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocker = home / "runs" / "2024-02"
    blocker.parent.mkdir()
    blocker.touch()  # a month that cannot be committed
    assert not launch(home, sensor.instance, "path_only", "2024-01", "2024-03")
    sensor.tick()
    (message,) = receiver.take()
    assert message["title"] == "quantbot: failed run, backtest in path_only, 2024-02"
    blocker.unlink()
    assert launch(home, sensor.instance, "full", "2024-02")  # the same work in another job
    sensor.tick()
    assert receiver.titles() == ["recovered: failed run, backtest in path_only, 2024-02"]


def test_a_failed_check_is_an_alert_of_its_own_for_its_months(
    sensor: Sensor, receiver: Receiver, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as strict:
        strict.setenv("QUANTBOT_MAX_EXCLUDED_SHARE", "0.1")  # one of May's six calls has no candles
        strict.setenv("QUANTBOT_QUALITY_BLOCKS", "1")
        assert not launch(home, sensor.instance, "path_only", "2024-03", "2024-05")
        sensor.tick()
    (message,) = receiver.take()  # that the run failed is the same cause
    assert message["title"] == "quantbot: failed check, truth/paths input_quality, 2024-05"
    assert message["message"].startswith("16.7% of the calls excluded (limit 10.0%)\nmonth: 2024-05")
    assert launch(home, sensor.instance, "path_only", "2024-03")
    assert sensor.tick() == "0 new, 1 open, 0 to be sent"
    assert launch(home, sensor.instance, "path_only", "2024-05")
    assert sensor.tick() == "1 new, 0 open, 0 to be sent"
    assert receiver.titles() == ["recovered: failed check, truth/paths input_quality, 2024-05"]


def test_a_regression_names_its_caller(sensor: Sensor, receiver: Receiver, home: Path) -> None:
    evaluation = dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(["results", "walk_forward"]),
        check_name="regression",
        passed=False,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"months": ["2024-03"], "failed_months": {"2024-03": ["fell"]}, "subject": "alice"},
    )
    ((cause, finding),) = notices_sensor._check_changes(evaluation, "link")
    assert finding is not None
    assert (finding.kind, finding.severity, finding.month) == ("performance_regression", "warning", "2024-03")
    assert finding.subject == "results/walk_forward regression, alice"
    assert cause == "check:results/walk_forward regression:2024-03"


def test_a_failed_catalog_sync_is_a_kind_of_its_own(sensor: Sensor, receiver: Receiver, home: Path) -> None:
    (home / "runs").touch()
    assert not launch(home, sensor.instance, "catalog_sync", "2024-01")
    sensor.tick()
    assert receiver.titles() == ["failed catalog sync, catalog__runs in catalog_sync, 2024-01"]
    (home / "runs").unlink()
    assert launch(home, sensor.instance, "catalog_sync", "2024-01")
    sensor.tick()
    assert receiver.titles() == ["recovered: failed catalog sync, catalog__runs in catalog_sync, 2024-01"]


def test_quarantine_and_disk_are_seen_at_every_look(
    sensor: Sensor, receiver: Receiver, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run_month(Home(Settings(home=home)), "path-only", "2024-01", BacktestConfig())
    assert result is not None
    run_dir = folder_of(result.run_dir)
    copy = run_dir.with_name("run_id=00000000-0000-4000-8000-000000000000")
    shutil.copytree(run_dir, copy)
    sync(Catalog(home / CATALOG, LocalRuns(home / "runs")))
    monkeypatch.setenv("QUANTBOT_MIN_FREE_GB", "1e9")
    assert sensor.tick() == "2 new, 2 open, 0 to be sent"
    quarantined, disk = receiver.take()
    assert quarantined["title"] == f"quantbot: quarantined run, 2024-01/{copy.name}, 2024-01"
    assert "run.json says run_id" in quarantined["message"]
    assert disk["title"] == f"quantbot: low disk, {home}"
    assert sensor.tick() == "0 new, 2 open, 0 to be sent"
    (home / CATALOG).rename(home / "catalog.aside")
    (home / CATALOG).write_bytes(b"not a catalog")
    assert sensor.tick() == "0 new, 2 open, 0 to be sent"  # nothing is known of the quarantine: it is not over
    (home / "catalog.aside").replace(home / CATALOG)
    shutil.rmtree(copy)
    sync(Catalog(home / CATALOG, LocalRuns(home / "runs")))
    monkeypatch.setenv("QUANTBOT_MIN_FREE_GB", "0")
    assert sensor.tick() == "2 new, 0 open, 0 to be sent"
    assert [title.split(",")[0] for title in receiver.titles()] == ["recovered: quarantined run", "recovered: low disk"]


def test_a_rejected_file_is_an_alert_until_it_is_gone(sensor: Sensor, receiver: Receiver, home: Path) -> None:
    bad = home / "data" / "inbox" / "bad.csv"
    bad.parent.mkdir(parents=True)
    bad.write_text("nothing,of,use\n1,2,3\n")
    assert launch(home, sensor.instance, "ingest_inbox")
    sensor.tick()
    (message,) = receiver.take()
    assert message["title"] == "quantbot: rejected file, bad.csv"
    assert "run: http://127.0.0.1:3000/runs/" in message["message"]
    assert sensor.tick() == "0 new, 1 open, 0 to be sent"
    (home / "data" / "inbox" / "rejected" / "bad.csv").unlink()
    sensor.tick()
    assert receiver.titles() == ["recovered: rejected file, bad.csv"]


def test_the_sensor_is_stopped_until_asked_and_loads_nothing_heavy(tmp_path: Path) -> None:
    made = notices_sensor.build_notices_sensor(30)
    assert (made.name, made.default_status) == ("alerts_sensor", dg.DefaultSensorStatus.STOPPED)
    assert made.minimum_interval_seconds == 30
    code = "import sys, quantbot_pipeline.orchestration.notices_sensor, quantbot_pipeline.orchestration.checks; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert loaded & {"apprise", "requests", "duckdb", "pyarrow", "pandas", "numba"} == set()
