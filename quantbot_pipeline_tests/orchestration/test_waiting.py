"""Slots of the dead are freed within a minute, and who waits too long is told of, once."""

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, PARENT_RUN_ID_TAG

from quantbot_pipeline.durable import locked
from quantbot_pipeline.home import Home
from quantbot_pipeline.orchestration import waiting
from quantbot_pipeline.orchestration.launch import EARLIER, LOCATION, open_instance
from quantbot_pipeline.orchestration.waiting import free_slots, is_repeated, waiting_longer_than
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.support.builders import call, write_csv
from quantbot_pipeline_tests.support.servers import REPOSITORY, Server, quantbot_ui

POOL = "catalog_writer"
MINUTE_S = 60.0
FREED = """
  # The slots of its pools (catalog_writer, input_writer) are free again so long after its end, at the next look.
  free_slots_after_run_end_seconds: 15"""
QUEUE = """# A run that was asked for leaves the queue within a second.
run_queue:
  dequeue_interval_seconds: 1

"""
KEPT = """# Dagster's own SQLite storage, with its connections kept open; under a Dagster that it does not know it is the plain one.
storage:
  custom:
    module: quantbot_pipeline.orchestration.local.storage
    class: LocalStorage
    config:
      base_dir:
        env: DAGSTER_HOME

"""
LAUNCH = """mutation ($p: ExecutionParams!) { launchRun(executionParams: $p) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""


@dg.op
def nothing() -> None: ...


@dg.job
def job() -> None:
    nothing()


def made(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, **tags: str) -> dg.DagsterRun:
    return instance.create_run_for_job(job, status=status, tags=tags)


def holders(instance: dg.DagsterInstance, pool: str = POOL) -> set[str]:
    return set(instance.event_log_storage.get_concurrency_info(pool).active_run_ids)


def claim(instance: dg.DagsterInstance, run_id: str) -> bool:
    storage = instance.event_log_storage
    storage.initialize_concurrency_limit_to_default(POOL)
    return storage.claim_concurrency_slot(POOL, run_id, "step").is_claimed


def test_a_slot_of_a_run_that_is_over_is_freed_for_who_waits(instance: dg.DagsterInstance) -> None:
    dead, next_one = made(instance, dg.DagsterRunStatus.STARTED), made(instance, dg.DagsterRunStatus.STARTED)
    assert claim(instance, dead.run_id)
    assert not claim(instance, next_one.run_id)
    assert free_slots(instance, time.time() + MINUTE_S) == [], "it lives, as far as anybody knows"
    instance.report_run_failed(dead)
    assert free_slots(instance) == [], "who ends by itself frees its slot in a moment"
    assert free_slots(instance, time.time() + waiting.REST_S) == [dead.run_id]
    assert claim(instance, next_one.run_id)
    assert holders(instance) == {next_one.run_id}


def test_a_slot_of_a_run_that_was_deleted_is_freed(instance: dg.DagsterInstance) -> None:
    assert claim(instance, "00000000-0000-0000-0000-000000000000")
    assert free_slots(instance) == ["00000000-0000-0000-0000-000000000000"]
    assert holders(instance) == set()


def test_who_waits_longer_than_the_limit_is_found_with_what_holds_it_up(instance: dg.DagsterInstance) -> None:
    now = time.time()
    assert list(waiting_longer_than(instance, 60, now + 100)) == []
    holder, step = made(instance, dg.DagsterRunStatus.STARTED), made(instance, dg.DagsterRunStatus.STARTED)
    assert claim(instance, holder.run_id)
    assert not claim(instance, step.run_id)
    queued = made(instance, dg.DagsterRunStatus.NOT_STARTED)
    assert list(waiting_longer_than(instance, 60, now + 30)) == []
    found = {w.run.run_id: w for w in waiting_longer_than(instance, 60, now + 100)}
    assert found.keys() == {step.run_id, queued.run_id}
    assert all(abs(w.since - now) < 20 for w in found.values())
    assert found[queued.run_id].reason == f"run {holder.run_id} holds the pool {POOL}"
    assert found[step.run_id].reason == f"step waits for the pool {POOL}, held by run {holder.run_id}"


def test_a_repetition_is_known_by_either_of_its_tags(instance: dg.DagsterInstance) -> None:
    noted = made(instance, dg.DagsterRunStatus.FAILURE, **{AUTO_RETRY_RUN_ID_TAG: "another"})
    created = made(instance, dg.DagsterRunStatus.FAILURE)
    assert is_repeated(instance, noted)
    assert not is_repeated(instance, created)
    made(instance, dg.DagsterRunStatus.NOT_STARTED, **{PARENT_RUN_ID_TAG: created.run_id})
    assert is_repeated(instance, created)


def earlier() -> str:
    """The dagster.yaml that homes were given before slots were freed."""
    present = (REPOSITORY / "dagster.yaml").read_text()
    for part in (FREED, KEPT, QUEUE):
        assert part in present
        present = present.replace(part, "")
    return present


def test_an_earlier_dagster_yaml_is_brought_up_to_date_and_an_edited_one_is_kept(home: Path) -> None:
    file, present = home / "dagster.yaml", (REPOSITORY / "dagster.yaml").read_text()
    for before, after in ((earlier(), present), (earlier() + "# mine\n", earlier() + "# mine\n")):
        file.write_text(before)
        with open_instance(Home(Settings(home=home))) as instance:
            assert bool(instance.run_monitoring_settings.get("free_slots_after_run_end_seconds")) == (after == present)
        assert file.read_text() == after
    assert len(EARLIER) == 7, "a dagster.yaml that changes joins those of before"


# --- with a real daemon ------------------------------------------------------------------------------------------------------


def launch(server: Server, job_name: str) -> str:
    selector = {"repositoryName": "__repository__", "repositoryLocationName": LOCATION, "pipelineName": job_name}
    tags = [{"key": f"dagster/asset_partition_range_{end}", "value": "2024-01"} for end in ("start", "end")]
    metadata = {"tags": tags if job_name == "catalog_sync" else []}
    params = {"selector": selector, "runConfigData": {}, "mode": "default", "executionMetadata": metadata}
    launched = server.ask(LAUNCH, p=params)["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    return str(launched["run"]["runId"])


def worker(instance: dg.DagsterInstance, run_id: str) -> int:
    events = instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    metadata = [e.dagster_event.engine_event_data.metadata for e in events if e.dagster_event]
    return next(int(str(m["pid"].value)) for m in reversed(metadata) if "pid" in m)


def ended(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus | None:
    run = instance.get_run_by_id(run_id)
    return run.status if run is not None and run.is_finished else None


def one_death(home: Path, yaml: str, job_name: str, pool: str, lock: Path, everything: bool) -> float:
    """How long the slot was held after its worker (or everything) was killed in its step; the next run of the job must succeed."""
    (home / "dagster.yaml").write_text(yaml)
    server = quantbot_ui(home)
    try:
        server.wait("code location", server.locations)
        with open_instance(Home(Settings(home=home))) as instance:
            with locked(lock, 10):  # the step begins, and cannot end
                run_id = launch(server, job_name)
                server.wait("slot", lambda: run_id in holders(instance, pool))
                pid = worker(instance, run_id)
                if everything:
                    os.killpg(server.process.pid, signal.SIGKILL)
                    server.process.wait()
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                if everything:
                    server = quantbot_ui(home)
                    server.wait("code location", server.locations)
            clock = time.monotonic()
            server.wait("free slot", lambda: run_id not in holders(instance, pool), 2 * MINUTE_S)
            took = time.monotonic() - clock
            again = launch(server, job_name)
            assert server.wait("next run", lambda: ended(instance, again)) == dg.DagsterRunStatus.SUCCESS
            assert ended(instance, run_id) == dg.DagsterRunStatus.FAILURE
            return took
    finally:
        server.stop()


@pytest.mark.torture
def test_a_sync_that_is_killed_frees_its_slot_within_a_minute(home: Path) -> None:
    """In a home whose dagster.yaml was edited, and frees nothing."""
    lock = home / "data" / ".backtest_catalog.duckdb.lock"
    assert one_death(home, earlier() + QUEUE, "catalog_sync", POOL, lock, everything=False) < MINUTE_S


@pytest.mark.torture
@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("job_name", ["catalog_sync", "ingest_inbox"])
def test_slots_are_freed_within_a_minute(home: Path, job_name: str, everything: bool, edited: bool) -> None:
    """Killed alone and with all the rest, in both pools, in homes made before (brought up to date) and in edited ones."""
    lab, pool, lock = Home(Settings(home=home)), POOL, home / "data" / ".backtest_catalog.duckdb.lock"
    if job_name == "ingest_inbox":
        pool, lock = "input_writer", lab.calls.path.with_name(f".{lab.calls.path.name}.lock")
        write_csv(lab.settings.inbox_dir / "calls.csv", [call("mint", "2024-01-03T06:02", "alice", call_id="new")])
    yaml = earlier() + (QUEUE if edited else "")
    took = one_death(home, yaml, job_name, pool, lock, everything)
    print(f"{job_name}, {'all' if everything else 'the worker'} killed: free after {took:.0f} s", flush=True)
    assert took < MINUTE_S
    shutil.rmtree(lab.settings.inbox_dir, ignore_errors=True)
