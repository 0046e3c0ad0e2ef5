"""Schedules, sensors and the switch: each decision as a pure function, and each definition on a real instance."""

import ast
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from quantbot_pipeline.definitions import build_defs
from quantbot_pipeline.ingest.inbox import take_in
from quantbot_pipeline.ingest.touched import note_begin
from quantbot_pipeline.orchestration import partitions, schedules, sensors
from quantbot_pipeline.orchestration.jobs import everything_config
from quantbot_pipeline.orchestration.resources import Lab
from quantbot_pipeline_tests.conftest import Quantbot
from quantbot_pipeline_tests.support.builders import Row, call, write_csv
from quantbot_pipeline_tests.support.labs import environment


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as made:
        yield made


@pytest.mark.parametrize(
    ("now", "refreshed"),
    [
        ("2024-03-02T03:00:00+00:00", ("2024-02", "2024-03")),
        ("2024-01-01T00:00:00+00:00", ("2023-12", "2024-01")),
        ("2024-03-04T04:00:00+00:00", ("2024-02", "2024-03")),
        ("2024-03-05T04:00:00+00:00", ("2024-03", "2024-03")),
        ("2024-02-29T23:59:59+00:00", ("2024-02", "2024-02")),
        ("2024-03-01T01:00:00+02:00", ("2024-02", "2024-02")),  # 29 February, 23:00 UTC
    ],
)
def test_the_months_of_a_moment(now: str, refreshed: tuple[str, str]) -> None:
    moment = datetime.fromisoformat(now)
    assert schedules.months_to_refresh(moment.astimezone(UTC)) == refreshed


@pytest.mark.parametrize(
    ("calls", "candles", "expected"),
    [
        (set(), set(), []),
        ({"2024-02"}, set(), ["2024-02", "2024-04"]),
        (set(), {"2024-02"}, ["2024-01", "2024-02", "2024-04"]),
        ({"2024-04"}, {"2024-04"}, ["2024-04"]),
        (set(), {"2025-01"}, []),
    ],
)
def test_new_inputs_rerun_what_they_can_change(calls: set[str], candles: set[str], expected: list[str]) -> None:
    assert sensors.months_to_rerun(calls, candles, ["2024-01", "2024-02", "2024-04"]) == expected


def test_the_schedules_ask_for_their_months(instance: dg.DagsterInstance) -> None:
    defs = build_defs()
    open_month, everything = (defs.resolve_job_def(name) for name in ("open_month", "everything"))
    at = datetime(2024, 3, 2, 3, tzinfo=UTC)
    context = dg.build_schedule_context(instance=instance, scheduled_execution_time=at)
    daily = schedules.open_month_daily(context)
    assert isinstance(daily, dg.RunRequest)
    assert (daily.tags[partitions.RANGE_START], daily.tags[partitions.RANGE_END]) == ("2024-02", "2024-03")
    assert dg.validate_run_config(open_month, daily.run_config)
    assert dg.validate_run_config(everything, everything_config())


def test_the_catalog_schedule_skips_while_there_is_nothing_new(instance: dg.DagsterInstance, home: Path) -> None:
    lab = Lab(home=str(home))
    context = dg.build_schedule_context(instance=instance, scheduled_execution_time=datetime(2024, 3, 2, tzinfo=UTC))
    assert isinstance(schedules.catalog_every_five_minutes(context, lab=lab), dg.SkipReason)
    (home / "runs" / "2024-01" / "run_id=x").mkdir(parents=True)
    asked = schedules.catalog_every_five_minutes(context, lab=lab)
    assert isinstance(asked, list)
    found = list(sensors.uncataloged_runs(dg.build_sensor_context(instance=instance), lab=lab))
    for requests in (asked, found):
        assert isinstance(requests, list)
        (request,) = requests
        assert isinstance(request, dg.RunRequest)
        assert (request.tags[partitions.RANGE_START], request.tags[partitions.RANGE_END]) == ("2024-01", "2024-01")


def test_the_dashboard_is_written_every_day(instance: dg.DagsterInstance) -> None:
    # First: a context that nobody closes leaves Dagster the storage of an instance that may be gone any moment.
    assert {
        key.to_user_string()
        for key in build_defs().resolve_job_def("write_dashboard").asset_layer.executable_asset_keys
    } == {"reports/dashboard"}
    context = dg.build_schedule_context(
        instance=instance, scheduled_execution_time=datetime(2024, 3, 2, 4, 30, tzinfo=UTC)
    )
    (request,) = schedules.dashboard_daily.evaluate_tick(context).run_requests or []
    assert request.run_config == {}
    assert (schedules.dashboard_daily.cron_schedule, schedules.dashboard_daily.job_name) == (
        "30 4 * * *",
        "write_dashboard",
    )


@pytest.mark.parametrize(
    ("status", "ago_s", "again"),
    [
        (dg.DagsterRunStatus.QUEUED, 1e6, False),
        (dg.DagsterRunStatus.STARTED, 1e6, False),
        (dg.DagsterRunStatus.SUCCESS, 0, True),
        (dg.DagsterRunStatus.FAILURE, sensors.REST_S - 1, False),
        (dg.DagsterRunStatus.FAILURE, sensors.REST_S, True),
        (dg.DagsterRunStatus.CANCELED, 0, True),
    ],
)
def test_a_job_is_started_again_when_it_is_over_and_has_not_just_failed(
    status: dg.DagsterRunStatus, ago_s: float, again: bool
) -> None:
    assert (sensors.why_not_yet((status, 5e6 - ago_s), now=5e6) is None) == again
    assert sensors.why_not_yet(None, now=5e6) is None


@pytest.mark.parametrize(
    "status", [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS]
)
def test_sensors_look_at_the_newest_run_of_their_job(
    instance: dg.DagsterInstance, home: Path, status: dg.DagsterRunStatus
) -> None:
    lab, over = Lab(home=str(home)), status == dg.DagsterRunStatus.SUCCESS
    for job in ("catalog_sync", "ingest_inbox"):
        for each in (dg.DagsterRunStatus.SUCCESS, status):
            instance.run_storage.add_run(dg.DagsterRun(job_name=job, run_id=str(uuid.uuid4()), status=each))
    (home / "runs" / "2024-01" / "run_id=x").mkdir(parents=True)
    (found,) = sensors.uncataloged_runs(dg.build_sensor_context(instance=instance), lab=lab)
    assert isinstance(found, dg.RunRequest) == over
    write_csv(home / "data/inbox/calls.csv", [call("m", "2024-01-05")])
    first = sensors.inbox_files(dg.build_sensor_context(instance=instance), lab=lab)
    second = sensors.inbox_files(dg.build_sensor_context(instance=instance, cursor=first.cursor), lab=lab)
    assert bool(second.run_requests) == over


def test_how_often_sensors_look_is_a_setting(tmp_path: Path) -> None:
    code = """
from quantbot_pipeline.definitions import defs
print({sensor.name: sensor.minimum_interval_seconds for sensor in defs.sensors})
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(tmp_path, QUANTBOT_SENSOR_INTERVAL_S="7"), cwd=tmp_path,
        capture_output=True, text=True, check=True,
    )  # fmt: skip  # a table: what belongs together stands on one line
    looks = {"inbox_files": 7, "touched_months": 7, "uncataloged_runs": 7, "arriving_calls": 14, "alerts_sensor": 14}
    assert ast.literal_eval(done.stdout) == looks


def test_the_inbox_sensor_waits_for_a_complete_copy(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    lab = Lab(home=str(tmp_path))
    path = write_csv(tmp_path / "data/inbox/calls.csv", [call("m", "2024-01-05")])
    first = sensors.inbox_files(dg.build_sensor_context(instance=instance), lab=lab)
    assert not first.run_requests
    os.utime(path, ns=(time.time_ns(), time.time_ns()))  # the copy goes on
    second = sensors.inbox_files(dg.build_sensor_context(instance=instance, cursor=first.cursor), lab=lab)
    assert not second.run_requests
    third = sensors.inbox_files(dg.build_sensor_context(instance=instance, cursor=second.cursor), lab=lab)
    assert [r.run_config["ops"]["inputs__inbox"]["config"] for r in third.run_requests or ()] == [
        {"files": ["calls.csv"]}
    ]


def test_an_ingested_file_leads_to_a_run_of_its_months(home: Path, instance: dg.DagsterInstance) -> None:
    lab = Lab(home=str(home))
    defs = build_defs({"lab": lab})
    write_csv(home / "data/inbox/more.csv", [call("new", "2024-02-10T10:00:00", "carol")])
    (home / "data/inbox/bad.csv").write_text("nothing,of,use\n1,2,3\n")
    done = defs.resolve_job_def("ingest_inbox").execute_in_process(instance=instance)
    metadata = done.asset_materializations_for_node("inputs__inbox")[0].metadata
    assert metadata["call_months"].value == ["2024-02"]
    assert metadata["rejected_files"].value == 1
    tick = sensors.touched_months(dg.build_sensor_context(instance=instance), lab=lab)
    assert next(r.tags[partitions.RANGE_START] for r in tick.run_requests or ()) == "2024-02"
    again = sensors.touched_months(dg.build_sensor_context(instance=instance, cursor=tick.cursor), lab=lab)
    assert not again.run_requests


def test_a_liquidity_that_a_stored_call_learns_touches_its_month(home: Path, instance: dg.DagsterInstance) -> None:
    job = build_defs({"lab": Lab(home=str(home))}).resolve_job_def("ingest_inbox")
    row = call("new", "2024-02-10T10:00:00", "carol")
    for name, rows in (("plain.csv", [row]), ("told.csv", [row | {"liquidity_usd": 5000.0}])):
        write_csv(home / "data/inbox" / name, rows)
        metadata = (
            job.execute_in_process(instance=instance).asset_materializations_for_node("inputs__inbox")[0].metadata
        )
        assert metadata["call_months"].value == ["2024-02"], name


@pytest.mark.parametrize(
    "row",
    [
        call("new", "2024-02-10T10:00:00", "carol"),
        call("2024-02-token-0", "2024-02-03T06:02", "alice", call_id="2024-02-0") | {"liquidity_usd": 5000.0},
    ],
    ids=["new call", "liquidity of a stored call"],
)
def test_months_of_an_ingest_that_was_killed_before_its_report_are_told_by_the_next(
    row: Row, home: Path, instance: dg.DagsterInstance
) -> None:
    lab = Lab(home=str(home))
    opened, job = lab.open(), build_defs({"lab": lab}).resolve_job_def("ingest_inbox")
    write_csv(home / "data/inbox/more.csv", [row])
    (home / "data/inbox/bad.csv").write_text("nothing,of,use\n1,2,3\n")
    run_id = str(uuid.uuid4())
    note_begin(opened, run_id, ["bad.csv", "more.csv"], lambda _: False)
    taken = take_in(opened, ["bad.csv", "more.csv"])  # and there its worker dies
    assert taken.ingested == {"more.csv": 1}
    instance.run_storage.add_run(
        dg.DagsterRun(job_name="ingest_inbox", run_id=run_id, status=dg.DagsterRunStatus.FAILURE)
    )
    assert sensors.untold_files(opened, instance) == ["bad.csv", "more.csv"]
    done = job.execute_in_process(instance=instance)
    told = done.asset_materializations_for_node("inputs__inbox")[0].metadata
    assert told["call_months"].value == ["2024-02"]
    assert told["rejected"].value == taken.rejected
    assert sensors.untold_files(opened, instance) == []
    done = job.execute_in_process(instance=instance)
    assert done.asset_materializations_for_node("inputs__inbox")[0].metadata["call_months"].value == []


@pytest.mark.parametrize(
    ("runs", "again"),
    [
        ([("2024-01", "2024-02", "FAILURE", "touched_months")], {"2024-01": 0, "2024-02": 0}),
        ([("2024-01", "2024-02", "FAILURE", None)], {}),
        ([("2024-01", "2024-02", "CANCELED", "touched_months")], {}),
        (
            [
                ("2024-01", "2024-02", "FAILURE", "touched_months"),
                ("2024-02", "2024-02", "SUCCESS", None),
            ],
            {"2024-01": 0},
        ),
        (
            [
                ("2024-01", "2024-02", "FAILURE", "touched_months"),
                ("2024-01", "2024-01", "FAILURE", "touched_months"),
                ("2024-02", "2024-02", "STARTED", "touched_months"),
            ],
            {"2024-01": 1},
        ),
    ],
)
def test_touched_months_whose_run_failed_are_asked_for_again(
    instance: dg.DagsterInstance, runs: list[tuple[str, str, str, str | None]], again: dict[str, int]
) -> None:
    ids = []
    for first, last, status, sensor in runs:
        tags = partitions.range_tags([first, last]) | ({sensors.SENSOR_TAG: sensor} if sensor else {})
        run = instance.create_run_for_job(build_defs().resolve_job_def("everything"), tags=tags)
        ids.append(run.run_id)
        if status == "FAILURE":
            instance.report_run_failed(run)
        elif status == "CANCELED":
            instance.report_run_canceled(run)
        elif status == "SUCCESS":
            instance.report_dagster_event(success_of(run), run.run_id)
    now = time.time()
    assert sensors.broken_off(instance, now + 1) == {month: ids[number] for month, number in again.items()}
    assert sensors.broken_off(instance, now - sensors.AGAIN_S) == {}
    requests = sensors.again_requests(instance, now + sensors.AGAIN_S + 1)
    asked = [month for request in requests for month in partitions.months_of(request.tags)]
    assert asked == sorted(again)


def success_of(run: dg.DagsterRun) -> dg.DagsterEvent:
    return dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, run.job_name)


def test_everything_starts_stopped() -> None:
    defs = build_defs()
    assert {s.default_status for s in defs.schedules or []} == {dg.DefaultScheduleStatus.STOPPED}
    assert {s.default_status for s in defs.sensors or []} == {dg.DefaultSensorStatus.STOPPED}
    described = [*(defs.schedules or []), *(defs.sensors or [])]
    assert all(len(d.description or "") > 40 for d in described)


def test_the_switch_turns_all_on_and_off(quantbot: Quantbot) -> None:
    def status(*arguments: str) -> set[str]:
        done = quantbot("automation", *arguments, "--format", "json")
        assert done.status == 0, done.err
        return {row["now"] for row in done.json()}

    assert status("status") == {"off"}
    assert status("on", "--dry-run") == {"on"}
    assert status("status") == {"off"}
    assert status("on") == {"on"}
    assert status("off") == {"off"}


def test_the_service_units_are_valid(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    verify = ["systemd-analyze", "verify"]
    try:
        subprocess.run(["systemd-analyze", "--version"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("systemd-analyze is not installed")
    for unit in sorted((root / "deploy/systemd").glob("*.service")):
        # An installed unit names a real program; here the checkout's own stands in.
        local = tmp_path / unit.name
        local.write_text(unit.read_text().replace("/opt/quantbot/.venv", str(Path(sys.prefix))))
        done = subprocess.run([*verify, str(local)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_service_units_can_keep_the_compiled_engine() -> None:
    """They see the checkout and every home read-only: without a writable NUMBA_CACHE_DIR numba refuses to compile."""
    units = sorted((Path(__file__).resolve().parents[2] / "deploy/systemd").glob("*.service"))
    assert len(units) == 2
    for unit in units:
        lines = unit.read_text().splitlines()
        assert "ProtectSystem=strict" in lines
        (cache,) = [line.removeprefix("CacheDirectory=") for line in lines if line.startswith("CacheDirectory=")]
        assert f"Environment=NUMBA_CACHE_DIR=/var/cache/{cache}" in lines, unit.name
