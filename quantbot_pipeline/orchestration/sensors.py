"""Sensors: new files in the inbox, months they touched, committed runs that the catalog does not know yet.

A sensor here is a few lines around a pure decision (`settled`, `months_to_rerun`, `why_not_yet`) or a cheap look (`due_months`), which
have tests of their own. All are stopped until `quantbot automation on`.
"""

import json
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import dagster as dg

from quantbot_pipeline.ingest.inbox import scan, settled
from quantbot_pipeline.months import contiguous, months_before
from quantbot_pipeline.orchestration.assets.inputs import INBOX_KEY, has_told
from quantbot_pipeline.orchestration.closings import UNFINISHED
from quantbot_pipeline.orchestration.jobs import everything_config
from quantbot_pipeline.orchestration.partitions import month_partitions, months_of, range_tags
from quantbot_pipeline.orchestration.resources import Lab
from quantbot_pipeline.orchestration.waiting import is_repeated
from quantbot_pipeline.specs import EVERYTHING

if TYPE_CHECKING:
    from quantbot_pipeline.home import Home

STOPPED = dg.DefaultSensorStatus.STOPPED
SENSOR_TAG = "dagster/sensor_name"
AGAIN_S = 86_400.0  # as a closing that failed: what fails for a reason would fail every hour
MAX_FAILED = 20  # runs looked back at
REST_S = 300.0  # what fails at once would otherwise fail every few seconds until somebody comes


def build_sensors(interval_s: int) -> list[dg.SensorDefinition]:
    """Return the sensors, each of which looks every `interval_s` seconds."""
    return [
        dg.sensor(job_name=job, minimum_interval_seconds=interval_s, default_status=STOPPED, description=description)(
            look
        )
        for look, job, description in (
            (
                inbox_files,
                "ingest_inbox",
                "Files in data/inbox/ that have not changed since the last look are ingested; a copy still going on waits.",
            ),
            (
                touched_months,
                EVERYTHING,
                "Months whose inputs the inbox changed are backtested again, and the later ones that learn from them; what is unchanged is kept.",
            ),
            (
                uncataloged_runs,
                "catalog_sync",
                "Committed runs that the catalog does not know yet are registered, in the months that changed.",
            ),
        )
    ]


def inbox_files(context: dg.SensorEvaluationContext, lab: Lab) -> dg.SensorResult:
    """Ask for the files whose copy is complete."""
    before = json.loads(context.cursor) if context.cursor else {}
    now = scan(lab.settings().inbox_dir)
    ready = settled(before, now) or untold_files(lab.open(), context.instance)
    cursor = json.dumps(now, sort_keys=True)
    if not ready:
        return dg.SensorResult(skip_reason=f"{len(now)} files wait, none complete yet", cursor=cursor)
    if busy := why_not_yet(_newest_run(context, "ingest_inbox"), time.time()):
        return dg.SensorResult(skip_reason=busy, cursor=cursor)
    # No run key: files that a failed run left behind must be tried again.
    request = dg.RunRequest(run_config={"ops": {"inputs__inbox": {"config": {"files": ready}}}})
    return dg.SensorResult(run_requests=[request], cursor=cursor)


def untold_files(home: "Home", instance: dg.DagsterInstance) -> list[str]:
    """Return the files of a run that ended before it said which months it had changed; a further run says it instead."""
    from quantbot_pipeline.ingest.touched import forget, read_note

    note = read_note(home)
    if note is None:
        return []
    run = instance.get_run_by_id(note.run)
    if run is not None and run.status in UNFINISHED:
        return []
    if has_told(instance, note.run):
        forget(home)
        return []
    return note.files


def touched_months(context: dg.SensorEvaluationContext, lab: Lab) -> dg.SensorResult:
    """Ask for the months that the last ingests changed."""
    from quantbot_pipeline.market.calls import month_statistics

    after = int(context.cursor) if context.cursor else 0
    records = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=INBOX_KEY, after_storage_id=after), limit=100, ascending=True
    ).records
    if not records:
        requests = again_requests(context.instance, time.time())
        return dg.SensorResult(run_requests=requests, skip_reason=None if requests else "nothing ingested")
    calls: set[str] = set()
    candles: set[str] = set()
    for record in records:
        metadata = record.asset_materialization.metadata if record.asset_materialization else {}
        calls |= set(metadata["call_months"].value) if "call_months" in metadata else set()  # type: ignore[arg-type]
        candles |= set(metadata["candle_months"].value) if "candle_months" in metadata else set()  # type: ignore[arg-type]
    last = records[-1].storage_id
    home = lab.open()
    known = set(month_partitions(home.settings.first_partition).get_partition_keys())
    if outside := sorted((calls | candles) - known):
        context.log.warning(
            f"{', '.join(outside)} changed, but lie outside the month partitions (QUANTBOT_PARTITIONS_START sets the first)"
        )
    with_calls = [month for month in month_statistics(home.calls) if month in known]
    requests = [
        dg.RunRequest(
            run_key=f"inbox-{last}-{stretch[0]}",
            run_config=everything_config(),
            tags=range_tags(stretch),
        )
        for stretch in contiguous(months_to_rerun(calls, candles, with_calls))
    ]
    return dg.SensorResult(run_requests=requests, cursor=str(last))


def again_requests(instance: dg.DagsterInstance, now: float) -> list[dg.RunRequest]:
    """Ask again for touched months whose run has failed and was not repeated, a day after it."""
    broken = broken_off(instance, now - AGAIN_S)
    return [
        dg.RunRequest(
            run_key=f"again-{broken[stretch[0]]}-{stretch[0]}", run_config=everything_config(), tags=range_tags(stretch)
        )
        for stretch in contiguous(sorted(broken))
    ]


def broken_off(instance: dg.DagsterInstance, until: float) -> dict[str, str]:
    """{month: run} of touched months whose newest run of everything failed, and was over at `until` (seconds since 1970)."""
    asked_here = {SENSOR_TAG: touched_months.__name__}
    failed = dg.RunsFilter(job_name=EVERYTHING, statuses=[dg.DagsterRunStatus.FAILURE], tags=asked_here)
    oldest = [record.create_timestamp for record in instance.get_run_records(failed, limit=MAX_FAILED)][-1:]
    if not oldest:
        return {}
    newest: dict[str, dg.DagsterRun | None] = {}
    since = dg.RunsFilter(job_name=EVERYTHING, created_after=oldest[0] - timedelta(seconds=1))
    for record in instance.get_run_records(since):
        run, ended = record.dagster_run, record.end_time
        is_lost = (
            run.status == dg.DagsterRunStatus.FAILURE and SENSOR_TAG in run.tags and not is_repeated(instance, run)
        )
        for month in months_of(run.tags):
            newest.setdefault(month, run if is_lost and ended is not None and ended <= until else None)
    return {month: run.run_id for month, run in newest.items() if run is not None}


def months_to_rerun(calls: set[str], candles: set[str], with_calls: Sequence[str]) -> list[str]:
    """Months with calls from the first one that new inputs can change: windows reach back a month, and walk-forward
    learns from all earlier months."""
    touched = calls | {months_before(month, 1) for month in candles} | candles
    return [month for month in with_calls if touched and month >= min(touched)]


def uncataloged_runs(context: dg.SensorEvaluationContext, lab: Lab) -> list[dg.RunRequest] | dg.SkipReason:
    """Ask for the months that hold a run that the catalog does not know."""
    due = months_to_sync(lab.open())
    if not due:
        return dg.SkipReason("every committed run is in the catalog")
    if busy := why_not_yet(_newest_run(context, "catalog_sync"), time.time()):
        return dg.SkipReason(busy)
    return sync_requests(due)


def months_to_sync(home: "Home") -> list[str]:
    """Return the months to ask a sync for: those whose directory differs from what the last sync saw; no run is read.

    A month before the first partition cannot be asked for. Any sync takes such months along, so the first partition stands in.
    """
    from quantbot_pipeline.catalog.last_sync import due_months

    due = due_months(home.catalog)
    known = month_partitions(home.settings.first_partition).get_partition_keys()
    return [month for month in due if month in known] or (list(known[:1]) if due else [])


def sync_requests(months: Sequence[str], run_key: str | None = None) -> list[dg.RunRequest]:
    """Return one request per stretch of months: a range is one run."""
    return [
        dg.RunRequest(run_key=run_key and f"{run_key}-{stretch[0]}", tags=range_tags(stretch))
        for stretch in contiguous(list(months))
    ]


def why_not_yet(newest: tuple[dg.DagsterRunStatus, float] | None, now: float) -> str | None:
    """Why a job whose newest run has this status since this time should not be started again; None if it should."""
    if newest is None:
        return None
    status, since = newest
    if status in UNFINISHED:
        return "the last run is still going on"
    if status == dg.DagsterRunStatus.FAILURE and now - since < REST_S:
        return f"the last run failed; tried again {REST_S:.0f} s after it"
    return None


def _newest_run(context: dg.SensorEvaluationContext, job_name: str) -> tuple[dg.DagsterRunStatus, float] | None:
    """The status of the job's newest run, and since when."""
    for record in context.instance.get_run_records(dg.RunsFilter(job_name=job_name), limit=1):
        return record.dagster_run.status, record.end_time or record.update_timestamp.timestamp()
    return None
