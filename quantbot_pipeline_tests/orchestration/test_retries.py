"""A failure that the daemon did not see is said again until it does, and no other."""

from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, PARENT_RUN_ID_TAG, WILL_RETRY_TAG

from quantbot_pipeline.orchestration.retries import AT_MOST, PATIENCE, SINCE, say_again


@dg.op
def nothing() -> None: ...


@dg.job
def job() -> None:
    nothing()


def failed(instance: dg.DagsterInstance, **tags: str) -> dg.DagsterRun:
    """A run that Dagster marks as failed: it decides by the instance's settings whether it will repeat it."""
    run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags=tags)
    instance.report_run_failed(run)
    found = instance.get_run_by_id(run.run_id)
    assert found is not None and found.status == dg.DagsterRunStatus.FAILURE
    return found


def later(by: timedelta) -> datetime:
    return datetime.now(UTC) + by


def failures(instance: dg.DagsterInstance, run: dg.DagsterRun) -> int:
    return len(instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE))


def test_an_overlooked_failure_is_said_again_but_not_without_end(instance: dg.DagsterInstance) -> None:
    run = failed(instance, **{"dagster/max_retries": "1"})
    assert run.tags[WILL_RETRY_TAG] == "true"
    assert say_again(instance) == [], "Dagster may still be about to repeat it"
    soon = later(PATIENCE)
    assert say_again(instance, soon) == [run.run_id]
    assert failures(instance, run) == 2
    for _ in range(AT_MOST + 1):
        soon = later(2 * PATIENCE)
        say_again(instance, soon)
    assert failures(instance, run) == AT_MOST
    assert say_again(instance, later(2 * SINCE)) == []


def test_what_is_repeated_or_never_will_be_is_left_alone(instance: dg.DagsterInstance) -> None:
    repeated = failed(instance, **{"dagster/max_retries": "1"})
    instance.add_run_tags(repeated.run_id, {AUTO_RETRY_RUN_ID_TAG: "another"})
    created = failed(instance, **{"dagster/max_retries": "1"})  # the daemon died before it could note its number
    instance.create_run_for_job(job, tags={PARENT_RUN_ID_TAG: created.run_id})
    final = failed(instance, **{"dagster/max_retries": "0"})
    assert final.tags.get(WILL_RETRY_TAG) != "true"
    assert say_again(instance, later(2 * PATIENCE)) == []
