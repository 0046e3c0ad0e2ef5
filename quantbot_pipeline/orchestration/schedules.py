"""Schedules: when the months are backtested without being asked. All are stopped until `quantbot automation on`.

Times are UTC and staggered, so that the closed month, the open month and the dashboard do not wait for each other.
"""

from datetime import UTC, datetime

import dagster as dg

from quantbot_pipeline.months import contiguous, month_of, months_before
from quantbot_pipeline.orchestration.closings import look
from quantbot_pipeline.orchestration.jobs import OPEN_MONTH, OPEN_MONTH_KINDS, everything_config
from quantbot_pipeline.orchestration.partitions import month_partitions, range_tags
from quantbot_pipeline.orchestration.resources import Lab
from quantbot_pipeline.orchestration.sensors import months_to_sync, sync_requests
from quantbot_pipeline.specs import KINDS


def open_month(now: datetime) -> str:
    """The month of `now`, in UTC."""
    return month_of(int(now.astimezone(UTC).timestamp() * 1000))


def months_to_refresh(now: datetime) -> tuple[str, str]:
    """(first, last) month whose windows may still be filling: until the 4th the month before is one of them."""
    return months_before(open_month(now), 1 if now.day <= 4 else 0), open_month(now)


def _tick(context: dg.ScheduleEvaluationContext) -> datetime:
    return context.scheduled_execution_time.astimezone(UTC)


@dg.schedule(
    cron_schedule="0 * * * *",
    job_name="everything",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Everything for each month that has ended, once its last windows have closed: on the 3rd at 04:00 UTC, or at the first full hour after any downtime. A closing that failed is asked for again the next day.",
)
def closed_month(context: dg.ScheduleEvaluationContext, lab: Lab) -> list[dg.RunRequest] | dg.SkipReason:
    now, home = _tick(context), lab.open()
    known = month_partitions(home.settings.first_partition).get_partition_keys(current_time=now)
    due = look(context.instance, home, int(now.timestamp() * 1000), known)
    if not due:
        return dg.SkipReason("every month that has ended is closed")
    return [
        dg.RunRequest(
            run_key=f"closed-{stretch[0]}-{stretch[-1]}-{now:%Y-%m-%d}",
            run_config=everything_config(),
            tags=range_tags(stretch),
        )
        for stretch in contiguous(due)
    ]


@dg.schedule(
    cron_schedule="0 4 * * *",
    job_name=OPEN_MONTH,
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Truth, policies, frontier and anomalies of the running month, every day at 04:00 UTC; in its first days of the month before too, whose last windows are still filling. Months whose inputs did not change are kept.",
)
def open_month_daily(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    now = _tick(context)
    first, last = months_to_refresh(now)
    return dg.RunRequest(
        run_key=f"open-{now:%Y-%m-%d}",
        run_config=everything_config([KINDS[kind].op.name for kind in OPEN_MONTH_KINDS]),
        tags=range_tags([first, last]),
    )


@dg.schedule(
    cron_schedule="15 4 1 * *",
    job_name="model",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="The models of the month that begins, on the 1st at 04:15 UTC: they serve calls to come, so they are made before there is one.",
)
def month_begins(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    now = _tick(context)
    return dg.RunRequest(
        run_key=f"models-{open_month(now)}",
        run_config=everything_config([KINDS["model"].op.name]),
        tags=range_tags([open_month(now)]),
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


@dg.schedule(
    cron_schedule="0 3 * * *",
    job_name="fetch_candles",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Fetch the candles that the running month's calls still miss, every day at 03:00 UTC, an hour before they are backtested; skipped while QUANTBOT_FETCH_SOURCE names no source. In a month's first days the month before too.",
)
def fetch_daily(context: dg.ScheduleEvaluationContext, lab: Lab) -> dg.RunRequest | dg.SkipReason:
    if not lab.settings().fetch_source:
        return dg.SkipReason(
            "QUANTBOT_FETCH_SOURCE names no source; nothing is asked of the network unless somebody says of whom"
        )
    now = _tick(context)
    first, last = months_to_refresh(now)
    return dg.RunRequest(run_key=f"fetch-{now:%Y-%m-%d}", tags=range_tags([first, last]))


@dg.schedule(
    cron_schedule="10 * * * *",
    job_name="replicate",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Copy the committed runs that a place of QUANTBOT_REPLICAS lacks, every hour; skipped, without a run, while none lacks any, and while QUANTBOT_REPLICAS names no place.",
)
def replicate_hourly(context: dg.ScheduleEvaluationContext, lab: Lab) -> list[dg.RunRequest] | dg.SkipReason:
    from quantbot_pipeline.monitoring.replicas import months_lacking

    home, now = lab.open(), _tick(context)
    if not home.settings.replicas:
        return dg.SkipReason("QUANTBOT_REPLICAS names no place; the runs are copied nowhere")
    known = month_partitions(home.settings.first_partition).get_partition_keys(current_time=now)
    due = [month for month in months_lacking(home, unknown=open_month(now)) if month in known]
    if not due:
        return dg.SkipReason("every committed run is at every replica")
    return sync_requests(due, f"replicate-{now.isoformat()}")


def build_schedules() -> list[dg.ScheduleDefinition]:
    """Return every schedule."""
    return [
        closed_month,
        open_month_daily,
        month_begins,
        catalog_every_five_minutes,
        dashboard_daily,
        fetch_daily,
        replicate_hourly,
    ]
