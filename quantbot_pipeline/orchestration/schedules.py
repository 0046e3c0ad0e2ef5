"""Schedules: when the months are backtested without being asked. All are stopped until `quantbot automation on`.

Times are UTC and staggered, so that the closed month, the open month and the dashboard do not wait for each other.
"""

from datetime import UTC, datetime

import dagster as dg

from quantbot_pipeline.months import month_of, months_before
from quantbot_pipeline.orchestration.jobs import everything_config
from quantbot_pipeline.orchestration.partitions import range_tags
from quantbot_pipeline.orchestration.resources import Lab
from quantbot_pipeline.orchestration.sensors import months_to_sync, sync_requests
from quantbot_pipeline.specs import KINDS


def month_to_close(now: datetime) -> str:
    """The month before `now`: its calls are complete."""
    return months_before(open_month(now), 1)


def open_month(now: datetime) -> str:
    """The month of `now`, in UTC."""
    return month_of(int(now.astimezone(UTC).timestamp() * 1000))


def months_to_refresh(now: datetime) -> tuple[str, str]:
    """(first, last) month whose windows may still be filling: until the 4th the month before is one of them."""
    return (month_to_close(now) if now.day <= 4 else open_month(now)), open_month(now)


def _tick(context: dg.ScheduleEvaluationContext) -> datetime:
    return context.scheduled_execution_time.astimezone(UTC)


@dg.schedule(
    cron_schedule="0 3 2 * *",
    job_name="everything",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Everything for the month that has just ended, on the 2nd at 03:00 UTC. Windows of its last hours are still open then; the daily run completes them.",
)
def closed_month(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    month = month_to_close(_tick(context))
    return dg.RunRequest(run_key=f"closed-{month}", partition_key=month, run_config=everything_config())


@dg.schedule(
    cron_schedule="0 4 * * *",
    job_name="full",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Truth, policies and frontier of the running month, every day at 04:00 UTC; in its first days of the month before too, whose last windows are still filling. Months whose inputs did not change are kept.",
)
def open_month_daily(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    now = _tick(context)
    first, last = months_to_refresh(now)
    return dg.RunRequest(
        run_key=f"open-{now:%Y-%m-%d}",
        run_config=everything_config([KINDS["full"].op.name]),
        tags=range_tags([first, last]),
    )


@dg.schedule(
    cron_schedule="*/5 * * * *",
    job_name="catalog_sync",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Register the committed runs of the months that changed, every five minutes; skipped, without a run, while there is nothing new.",
)
def catalog_every_five_minutes(context: dg.ScheduleEvaluationContext, lab: Lab) -> list[dg.RunRequest] | dg.SkipReason:
    due = months_to_sync(lab.open())
    if not due:
        return dg.SkipReason("every committed run is in the catalog")
    return sync_requests(due, f"catalog-{_tick(context).isoformat()}")


# After the day's work: the open month's run is done long before, and its runs are cataloged within minutes.
dashboard_daily = dg.ScheduleDefinition(
    name="dashboard_daily",
    cron_schedule="30 4 * * *",
    job_name="write_dashboard",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Write the dashboard anew every day at 04:30 UTC, after the day's runs are cataloged.",
)


def build_schedules() -> list[dg.ScheduleDefinition]:
    """Return every schedule."""
    return [closed_month, open_month_daily, catalog_every_five_minutes, dashboard_daily]
