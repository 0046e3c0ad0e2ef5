"""Replicas in Dagster: a month is copied to every place, its metadata is the lag, a check tells of what waits; without a place nothing happens."""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from quantbot_pipeline.definitions import build_defs
from quantbot_pipeline.orchestration import partitions, schedules
from quantbot_pipeline.orchestration.resources import Lab
from quantbot_pipeline_tests.support.builders import commit_run

KEY = dg.AssetKey(["replicas", "runs"])
CHECK = dg.AssetCheckKey(KEY, "replica_lag")
AT = datetime(2024, 3, 2, 3, 10, tzinfo=UTC)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A home with a run in each of two months, and two replicas."""
    home = tmp_path / "home"
    for month in ("2024-01", "2024-02"):
        commit_run(home / "runs", month)
    monkeypatch.setenv("QUANTBOT_REPLICAS", f"file://{tmp_path}/near, file://{tmp_path}/far")
    monkeypatch.setenv("QUANTBOT_PARTITIONS_START", "2024-01")
    return Lab(home=str(home))


def judged(lab: Lab, instance: dg.DagsterInstance) -> Any:
    """What the check says."""
    done = (
        build_defs({"lab": lab})
        .resolve_implicit_global_asset_job_def()
        .get_subset(asset_selection=set(), asset_check_selection={CHECK})
        .execute_in_process(instance=instance)
    )
    return done.get_asset_check_evaluations()[0]


def test_months_are_copied_to_every_place_and_their_metadata_is_the_lag(lab: Lab, tmp_path: Path) -> None:
    job = build_defs({"lab": lab}).resolve_job_def("replicate")
    with dg.instance_for_test() as instance:
        before = judged(lab, instance)
        assert not before.passed and "2 runs missing, the oldest for" in before.description
        assert job.execute_in_process(instance=instance, tags=partitions.range_tags(["2024-01", "2024-02"])).success
        records = instance.fetch_materializations(KEY, limit=10).records
        made = {m.partition: m.metadata for one in records if (m := one.asset_materialization)}
        assert made.keys() == {"2024-01", "2024-02"}
        numbers = {
            name: made["2024-02"][name].value for name in ("replicas", "copied", "missing", "differing", "lag_s")
        }
        assert numbers == {"replicas": 2, "copied": 2, "missing": 0, "differing": 0, "lag_s": 0.0}
        assert judged(lab, instance).passed
        (changed,) = (tmp_path / "far").glob("2024-01/*/truth/paths.parquet")
        changed.write_bytes(b"PAR1")
        after = judged(lab, instance)
        assert not after.passed and "truth/paths.parquet: 4 bytes" in after.description and "far" in after.description
    assert len(list((tmp_path / "near").glob("*/run_id=*/_SUCCESS"))) == 2


def test_a_place_that_cannot_be_written_fails_the_run_and_the_other_gets_its_copies(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "near").mkdir()
    (tmp_path / "near/2024-01").symlink_to(tmp_path / "nowhere")
    job = build_defs({"lab": lab}).resolve_job_def("replicate")
    with dg.instance_for_test() as instance:
        done = job.execute_in_process(instance=instance, tags=partitions.range_tags(["2024-01"]), raise_on_error=False)
    assert not done.success
    assert "mount its disk" in "".join(str(event.event_specific_data) for event in done.all_events if event.is_failure)
    assert len(list((tmp_path / "far").glob("2024-01/run_id=*/_SUCCESS"))) == 1


def asked(tick: Any) -> tuple[str, str]:
    """The first and the last month of the one run that a schedule asks for."""
    (request,) = tick
    return request.tags[partitions.RANGE_START], request.tags[partitions.RANGE_END]


def test_the_schedule_asks_for_the_months_that_some_place_lacks(lab: Lab, tmp_path: Path) -> None:
    with dg.instance_for_test() as instance:
        context = dg.build_schedule_context(instance=instance, scheduled_execution_time=AT)
        assert asked(schedules.replicate_hourly(context, lab=lab)) == ("2024-01", "2024-02")
        shutil.copytree(tmp_path / "home/runs", tmp_path / "near")
        shutil.copytree(tmp_path / "home/runs/2024-02", tmp_path / "far/2024-02")
        assert asked(schedules.replicate_hourly(context, lab=lab)) == ("2024-01", "2024-01")
        shutil.copytree(tmp_path / "home/runs/2024-01", tmp_path / "far/2024-01")
        assert isinstance(schedules.replicate_hourly(context, lab=lab), dg.SkipReason)
    assert schedules.replicate_hourly.default_status == dg.DefaultScheduleStatus.STOPPED


def test_without_a_place_nothing_is_done_and_it_is_said(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QUANTBOT_REPLICAS")
    with dg.instance_for_test() as instance:
        context = dg.build_schedule_context(instance=instance, scheduled_execution_time=AT)
        skipped = schedules.replicate_hourly(context, lab=lab)
        assert isinstance(skipped, dg.SkipReason) and "names no place" in str(skipped.skip_message)
        evaluation = judged(lab, instance)
        assert evaluation.passed and evaluation.description == "QUANTBOT_REPLICAS names no place"
        job = build_defs({"lab": lab}).resolve_job_def("replicate")
        assert job.execute_in_process(instance=instance, tags=partitions.range_tags(["2024-01"])).success
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]
