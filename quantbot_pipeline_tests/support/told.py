"""Whether each failure of a lab was told once, and whether nothing waits.

What is promised of notices: a run that fails and is not repeated is told, with a link to it, once. While a cause (a step or a job, and a
month) is open, a further failure of it is counted and not told again within a day. A run that Dagster repeats is not told, and neither is
one that somebody ended.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import dagster as dg

from quantbot_pipeline.orchestration.notices_sensor import PROMISE_S
from quantbot_pipeline.orchestration.partitions import months_of
from quantbot_pipeline.orchestration.waiting import PARENT_RUN, is_repeated
from quantbot_pipeline_tests.support.week import pending

Ended = tuple[dg.DagsterRun, float]  # a run, and when it ended (seconds since 1970)
DAY_S = 86_400
LOOK_S = 5.0  # a run's end is stamped a little before the promise is seen


def assert_nothing_waits(instance: dg.DagsterInstance) -> None:
    """No run is under way or promised, and no pool has a slot that is held or waited for."""
    assert pending(instance) == []
    storage = instance.event_log_storage
    infos = storage.get_concurrency_infos(sorted(storage.get_concurrency_keys()))
    assert {pool: (info.active_run_ids, info.pending_steps) for pool, info in infos.items()} == {
        pool: (set(), []) for pool in infos
    }


def assert_each_failure_is_told_once(instance: dg.DagsterInstance, messages: Sequence[dict[str, Any]]) -> Counter[str]:
    """Compare what was told with the runs that failed and the file `broken.parquet`; return how many of each kind there were."""
    for message in messages:
        print("  told:", message["title"], "|", message["message"].splitlines()[0][:120])
    told = Counter(id_ for message in messages if _is_failed_run(message) for id_ in _runs_in(message))
    ended = sorted(
        ((record.dagster_run, record.end_time or 0) for record in instance.get_run_records()), key=lambda pair: pair[1]
    )
    failed = [run for run, _ in ended if run.status == dg.DagsterRunStatus.FAILURE]
    lost = [run for run in failed if not is_repeated(instance, run)]
    assert {id_: n for id_, n in told.items() if n > 1} == {}
    early = sorted(set(told) - {run.run_id for run in lost} - _repeated_late(instance, ended))
    assert not early, "\n".join(_told_of_a_repeated_run(instance, id_) for id_ in early)
    untold = [run for run in lost if run.run_id not in told]
    missing = [run for run in untold if not _is_open(run, ended, told)]
    assert not missing, "\n".join(_history(run, ended, told) for run in missing)
    (rejected,) = [message for message in messages if "rejected file" in message["title"]]
    assert "broken.parquet" in rejected["title"]
    counts = Counter(f"Dagster runs ended as {run.status.value}" for run, _ in ended)
    return counts + Counter({"failed for good": len(lost), "told at once": len(told), "notices": len(messages)})


def _is_failed_run(message: dict[str, Any]) -> bool:
    return str(message["title"]).startswith(("quantbot: failed run", "quantbot: failed catalog sync"))


def _runs_in(message: dict[str, Any]) -> set[str]:
    """The runs to which a message links."""
    return set(re.findall(r"/runs/([0-9a-f-]{36})", message["message"]))


def _is_open(one: dg.DagsterRun, ended: Sequence[Ended], told: Counter[str]) -> bool:
    """Whether the run's cause had been told within a day before, and nothing had ended it by then."""
    at = next(end for run, end in ended if run.run_id == one.run_id)
    months = set() if one.job_name == "catalog_sync" else set(months_of(one.tags))
    before = [(run, end) for run, end in ended if run.job_name == one.job_name and at - DAY_S <= end <= at]
    return any(
        earlier.run_id in told
        and (months & set(months_of(earlier.tags)) or not months)
        and not any(run.is_success and since < end < at and months <= set(months_of(run.tags)) for run, end in before)
        for earlier, since in before
    )


def _repeated_late(instance: dg.DagsterInstance, ended: Sequence[Ended]) -> set[str]:
    """The runs whose promised repetition was made when the time within which it was promised was over."""
    return {
        run.run_id
        for run, end in ended
        if run.status == dg.DagsterRunStatus.FAILURE
        and (made := _made_again(instance, run.run_id))
        and min(made) - end >= PROMISE_S - LOOK_S
    }


def _made_again(instance: dg.DagsterInstance, run_id: str) -> list[float]:
    """When the repetitions of a run were made (seconds since 1970)."""
    records = instance.get_run_records(dg.RunsFilter(tags={PARENT_RUN: run_id}))
    return [record.create_timestamp.timestamp() for record in records]


def _told_of_a_repeated_run(instance: dg.DagsterInstance, run_id: str) -> str:
    """What a person needs to see why somebody was told of a run that was not lost."""
    record = instance.get_run_record_by_id(run_id)
    if record is None:
        return f"somebody was told of {run_id}, which does not exist"
    run = record.dagster_run
    return f"somebody was told of {run.job_name} {run_id} {run.status.value}, ended {record.end_time}, again {_made_again(instance, run_id)}: {dict(run.tags)}"


def _history(one: dg.DagsterRun, ended: Sequence[Ended], told: Counter[str]) -> str:
    """Every run of the same job, in the order of their ends: what a person needs to see why nobody was told of one."""
    lines = [
        f"{'->' if run.run_id == one.run_id else '  '} {end:.0f} {run.status.value} {months_of(run.tags)} "
        f"{'told' if run.run_id in told else ''} {run.run_id[:8]}"
        for run, end in ended
        if run.job_name == one.job_name
    ]
    return "\n".join([f"nobody was told of {one.job_name} {one.run_id}:", *lines])
