"""Fetched candles in Dagster: months, metadata, failures, and a schedule that asks nobody unless told of whom."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from quantbot_pipeline.definitions import build_defs
from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.orchestration import partitions, schedules
from quantbot_pipeline.orchestration.resources import Lab
from quantbot_pipeline_tests.support.builders import call, solana_address, write_jsonl
from quantbot_pipeline_tests.support.hosts import Hosts, status

KEY = dg.AssetKey(["inputs", "fetched_candles"])
SECRET = "secret-key-of-the-test"


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    made = Hosts()
    for name, value in {
        "BIRDEYE_URL": made.url,
        "BIRDEYE_KEY": SECRET,
        "FETCH_PER_MINUTE": "60000",
        "FETCH_BACKOFF_S": "0.01",
        "FETCH_SOURCE": "birdeye",
    }.items():
        monkeypatch.setenv(f"QUANTBOT_{name}", value)
    yield made
    made.close()


def test_a_range_of_months_is_fetched_month_by_month_and_a_failure_says_no_key(tmp_path: Path, hosts: Hosts) -> None:
    lab = Lab(home=str(tmp_path / "home"))
    calls = [call(solana_address(1), "2024-01-05"), call(solana_address(2), "2024-02-05")]
    ingest_calls([write_jsonl(tmp_path / "calls.jsonl", calls)], lab.open().calls)
    job = build_defs({"lab": lab}).resolve_job_def("fetch_candles")
    tags = partitions.range_tags(["2024-01", "2024-02"])
    with dg.instance_for_test() as instance:
        hosts.faults = [None, status(403, SECRET.encode())]
        failed = job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)
        assert not failed.success
        assert SECRET not in "".join(event.message or "" for event in failed.all_events)
        assert job.execute_in_process(instance=instance, tags=tags).success
        assert len(hosts.asked) == 3, "the first month was kept"
        events = instance.fetch_materializations(KEY, limit=10).records
        latest = {
            e.asset_materialization.partition: e.asset_materialization for e in events[::-1] if e.asset_materialization
        }
    assert set(latest) == {"2024-01", "2024-02"}
    assert [latest[month].metadata["requests"].value for month in ("2024-01", "2024-02")] == [0, 1]
    assert latest["2024-02"].metadata["source"].value == "birdeye, 5m"


def test_the_schedule_asks_only_whom_the_setting_names(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    at = datetime(2024, 3, 2, 3, tzinfo=UTC)
    with dg.instance_for_test() as instance:
        context = dg.build_schedule_context(instance=instance, scheduled_execution_time=at)
        request = schedules.fetch_daily(context, lab=Lab())
        assert isinstance(request, dg.RunRequest)
        assert (request.tags[partitions.RANGE_START], request.tags[partitions.RANGE_END]) == ("2024-02", "2024-03")
        monkeypatch.delenv("QUANTBOT_FETCH_SOURCE")
        assert isinstance(schedules.fetch_daily(context, lab=Lab()), dg.SkipReason)
    assert schedules.fetch_daily.default_status == dg.DefaultScheduleStatus.STOPPED
