"""Failed runs: those that Dagster need not repeat, and those that it would and has overlooked.

Whoever fails a run writes the event first and the run's status some milliseconds later. A daemon that reads both in between sees
an event of a run that has not failed, and never looks at it again: a backfill then waits for the repetition for ever. It looks
again when the failure is said again.
"""

from datetime import UTC, datetime, timedelta

import dagster as dg

from quantbot_pipeline.orchestration.waiting import WILL_RETRY, is_repeated

PATIENCE = timedelta(seconds=30)  # Dagster's daemon looks every few seconds
SINCE = timedelta(days=1)  # nobody waits for older ones
AT_MOST = 3  # times that a failure is said


OF_STEPS = "dagster/retry_on_asset_or_op_failure"  # of a run: whether it is repeated when its work fails


def never_again(context: dg.AssetExecutionContext) -> None:
    """Keep Dagster from repeating this run where it repeats failed work, as on a cluster: wrong input stays wrong."""
    if context.instance.run_retries_retry_on_asset_or_op_failure:
        context.instance.add_run_tags(context.run.run_id, {OF_STEPS: "false"})


def say_again(instance: dg.DagsterInstance, now: datetime | None = None) -> list[str]:
    """Report every overlooked failure once more; returns the ids of the runs."""
    now = now or datetime.now(UTC)
    waiting = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.FAILURE], tags={WILL_RETRY: "true"}, updated_after=now - SINCE
    )
    found = [run for run in instance.get_runs(waiting) if _is_overlooked(instance, run, now)]
    for run in found:
        instance.report_run_failed(run, "The run failed, and nothing has repeated it yet.")
    return [run.run_id for run in found]


def _is_overlooked(instance: dg.DagsterInstance, run: dg.DagsterRun, now: datetime) -> bool:
    if is_repeated(instance, run):
        return False
    said = [entry.timestamp for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)]
    return 0 < len(said) < AT_MOST and max(said) < (now - PATIENCE).timestamp()
