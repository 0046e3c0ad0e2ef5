"""What waits in Dagster's queue, and what a run that is over still keeps from it.

A worker that is killed keeps the slot of its step's pool: whoever needs the pool would wait for ever. Dagster frees such slots if
`free_slots_after_run_end_seconds` is in dagster.yaml. Homes made before lack it, and an edited file stays as it is.

Belongs here: slots of the dead, runs that wait too long, repetitions that were promised. Does not: who is told.
"""

import time
from collections.abc import Iterator
from typing import NamedTuple

import dagster as dg

QUEUED = (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING)
OVER = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
CATALOG_WRITER, INPUT_WRITER = "catalog_writer", "input_writer"  # the pools
PARENT_RUN = "dagster/parent_run_id"  # of a repetition: the run that it repeats
REPEATED_BY = "dagster/auto_retry_run_id"  # of a run: its repetition
WILL_RETRY = "dagster/will_retry"  # of a failed run: whether Dagster means to repeat it
REST_S = 10.0  # a run that ends by itself frees its slots a moment after its end


class Waiting(NamedTuple):
    """A run that has not begun, or a step of it, since when (seconds since 1970), and what holds it up, if that is known."""

    run: dg.DagsterRun
    since: float
    reason: str


def free_slots(instance: dg.DagsterInstance, now: float | None = None) -> list[str]:
    """Free the slots of runs that are over or gone; return the ids of the runs."""
    storage, now = instance.event_log_storage, time.time() if now is None else now
    if not storage.supports_global_concurrency_limits:
        return []
    infos = storage.get_concurrency_infos(sorted(storage.get_concurrency_keys()))
    holders = {id_ for info in infos.values() for id_ in info.active_run_ids} | storage.get_concurrency_run_ids()
    if not holders:
        return []
    records = {r.dagster_run.run_id: r for r in instance.get_run_records(dg.RunsFilter(run_ids=sorted(holders)))}
    freed = []
    for run_id in sorted(holders):
        record = records.get(run_id)
        ended = record and (record.end_time or record.update_timestamp.timestamp())
        if record is None or (record.dagster_run.status in OVER and now - (ended or now) >= REST_S):
            storage.free_concurrency_slots_for_run(run_id)
            freed.append(run_id)
    return freed


def waiting_longer_than(instance: dg.DagsterInstance, limit_s: float, now: float) -> Iterator[Waiting]:
    """Find runs that have not begun within the limit, and begun ones of which a step has waited so long for its pool."""
    storage = instance.event_log_storage
    infos = (
        storage.get_concurrency_infos(sorted(storage.get_concurrency_keys()))
        if storage.supports_global_concurrency_limits
        else {}
    )
    held = {pool: sorted(info.active_run_ids) for pool, info in infos.items() if info.active_run_ids}
    reason = "; ".join(f"run {', '.join(ids)} holds the pool {pool}" for pool, ids in sorted(held.items()))
    seen = set()
    for record in instance.get_run_records(dg.RunsFilter(statuses=list(QUEUED))):
        since = record.create_timestamp.timestamp()
        if now - since > limit_s:
            seen.add(record.dagster_run.run_id)
            yield Waiting(record.dagster_run, since, reason)
    for pool, info in infos.items():
        for step in info.pending_steps:
            since = step.enqueued_timestamp.timestamp()
            if step.assigned_timestamp is not None or now - since <= limit_s or step.run_id in seen:
                continue
            run = instance.get_run_by_id(step.run_id)
            if run is not None and run.status not in OVER:
                seen.add(step.run_id)
                ids = ", ".join(held.get(pool, [])) or "nobody"
                yield Waiting(run, since, f"{step.step_key} waits for the pool {pool}, held by run {ids}")


def is_repeated(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether a repetition of this run was made; a daemon that dies may not have noted its number."""
    return REPEATED_BY in run.tags or instance.get_runs_count(dg.RunsFilter(tags={PARENT_RUN: run.run_id})) > 0
