"""Launching jobs in this process, in the same instance as the UI: what the command line calls.

Belongs here: the home's Dagster instance, one in-process run per stretch of months, and what a finished run says. Does not:
printing, exit statuses.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import dagster as dg

# `execute_in_process` makes a run without an origin (dagster#17707, dagster#19458): the web UI neither lists such a run under its
# job nor re-executes it. These are the steps of `execute_in_process`, with an origin.
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run

# The origin of a run: only classes of the core name a code location that this process does not serve.
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin

from quantbot_pipeline.config import BacktestConfig
from quantbot_pipeline.durable import MEND_DISK, locked
from quantbot_pipeline.errors import InputError, QuantbotError, StoreError
from quantbot_pipeline.interrupts import asked, noticed, put_off, stop_if_asked
from quantbot_pipeline.months import contiguous
from quantbot_pipeline.orchestration.assets.backtests import LaunchConfig
from quantbot_pipeline.orchestration.partitions import range_tags

if TYPE_CHECKING:
    from quantbot_pipeline.home import Home

LOCATION = "quantbot_pipeline.definitions"  # the code location's module, and its name in every deployment
LAUNCHED_TAG = "quantbot/launched"
MAX_RETRIES_TAG = "dagster/max_retries"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
CHECK_FAILED = "blocking asset check"
# SHA-256 of every dagster.yaml that homes were given before. Whoever has edited the file keeps it.
EARLIER = {
    "24d294a3434fda655bc6bf9d039560bfe98375d59d1cbc30e99d2ad657532526",
    "488afaea95b0f953e61732585b2134cb3b2ac23a50085fc6cf063ad6a55c6adf",
    "4f7d539ef81243f92becbe3e7246fe0ece850da36258252285f0348d88f3b4d2",
    "c7f46c72687a69b5ce27a33f194e141caca2b14ebc552eff54eddbb696b4f87b",
    "db345e56858cb577ad24aa28410b3454085c502e1fe328138d0581f7d39c7348",
    "de310d851b838967a70151361b9cebb6a16b6b9cf49f719233437d8a2559d5b0",
    "f33ee313210da444d215ba67ff8f63a0c434ef33262ef257e12dfcd0672c5b88",
}
MIN_FREE_BYTES = 10_000_000  # a month and Dagster's account of it take about 0.5 MB


class Launched(NamedTuple):
    """What a launch committed, one object per run and by month (failed ones too), and what went wrong, if anything."""

    runs: list[dict[str, Any]]
    failure: str | None


def launch(
    defs: dg.Definitions,
    served: dg.Definitions,
    job_name: str,
    ops: Sequence[str],
    config: BacktestConfig,
    home: "Home",
    months: Sequence[str],
    *,
    only_changed: bool,
) -> Launched:
    """Run a recipe's job over ascending `months`; raises InputError when the input is at fault and nothing was made.

    One Dagster run per stretch of months, as Dagster itself launches a backfill: months in a gap cost nothing.
    `defs` do the work in this home; `served` are those that the web UI loads, and compares the runs with.
    """
    run_config = dg.RunConfig(
        ops=dict.fromkeys(ops, LaunchConfig(**config.model_dump(), only_changed=only_changed)),
        loggers={"console": {"config": {"log_level": "CRITICAL"}}},
    )
    runs: list[dict[str, Any]] = []
    failures: list[QuantbotError] = []
    _require_space(home.path)
    with noticed(), state_errors(), open_instance(home) as instance, _progress(len(months) * len(ops), job_name):
        for stretch in contiguous(list(months)):
            result = _execute(defs, served, job_name, run_config, instance, range_tags(stretch))
            stop_if_asked()  # whatever Dagster makes of it
            runs += _committed(home, instance, result.run_id)
            failures += [failure] if (failure := _failure(result)) else []
    text = "; ".join(map(str, failures))
    if failures and not runs and all(isinstance(failure, InputError) for failure in failures):
        raise InputError(text)
    return Launched(runs, text or None)


def _execute(
    defs: dg.Definitions,
    served: dg.Definitions,
    job_name: str,
    config: dg.RunConfig,
    instance: dg.DagsterInstance,
    tags: dict[str, str],
) -> dg.JobExecutionResult:
    """Run a job in this process, as a run that the web UI lists under the job and can re-execute.

    Nobody repeats the run: whoever typed the command sees it fail.
    """
    job = defs.resolve_job_def(job_name).as_ephemeral_job(resource_defs={}, input_values={})
    origin = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(LOCATION), defs.get_repository_def().name)
    run_id = str(uuid.uuid4())
    try:
        run = instance.create_run_for_job(
            # With another snapshot the run's page would warn that the job has changed.
            served.resolve_job_def(job_name),
            run_id=run_id,
            run_config=config.to_config_dict(),
            tags={**job.run_tags, **tags, **launched_tag(), MAX_RETRIES_TAG: "0"},
            remote_job_origin=origin.get_job_origin(job_name),
        )
        return execute_run(InMemoryJob(job), run, instance)
    finally:
        if asked():
            _end(instance, run_id)


def _end(instance: dg.DagsterInstance, run_id: str) -> None:
    """Mark a run as canceled that a request to stop has left between its steps: to Dagster it would still be at work."""
    with put_off():
        left = instance.get_run_by_id(run_id)
        if left is not None and not left.is_finished:
            instance.report_run_canceled(left, "Interrupted in the shell.")


def launched_tag() -> dict[str, str]:
    """The tag of a run that is launched now: this boot of the machine, and the seconds since; none where that is unknown."""
    try:
        return {LAUNCHED_TAG: f"{BOOT_ID.read_text().strip()} {time.clock_gettime(time.CLOCK_BOOTTIME):.2f}"}
    except (OSError, AttributeError):
        return {}


def _require_space(folder: Path) -> None:
    """Stop before anything is begun on a disk where it could not be finished."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free
    if free < MIN_FREE_BYTES:
        raise StoreError(f"{folder}: only {free / 1e6:.1f} MB free on its disk; {MEND_DISK}")


@contextlib.contextmanager
def state_errors() -> Iterator[None]:
    """Raises StoreError when Dagster cannot write its own state."""
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except DBAPIError as e:
        raise StoreError(f"{os.environ['DAGSTER_HOME']}: Dagster's state: {e.orig}; {MEND_DISK}") from None


def open_instance(home: "Home") -> dg.DagsterInstance:
    """The Dagster instance of the home directory: the same one that `quantbot ui` shows."""
    prepare_instance(home)
    # Two first uses at once would both create the instance's tables.
    with locked(home.settings.data_dir / ".dagster-init.lock", -1):
        return dg.DagsterInstance.get()


def prepare_instance(home: "Home") -> None:
    """Point DAGSTER_HOME to the home (unless it is set) and give it a dagster.yaml if it has none or an earlier one of ours."""
    home.settings.data_dir.mkdir(parents=True, exist_ok=True)
    if home.calls.path.exists() and not home.settings.first_month_file.exists():
        from quantbot_pipeline.market.calls import earliest_call_ms, note_first_month, reading_calls

        with reading_calls(home.calls) as con:  # a home made earlier has no such note
            note_first_month(home.calls, earliest_call_ms(con))
    folder = Path(os.environ.setdefault("DAGSTER_HOME", str(home.path)))
    if not folder.is_absolute() or not folder.is_dir():
        raise InputError(
            f"DAGSTER_HOME={folder}: not an absolute path of an existing directory; create it, or unset it"
        )
    file = folder / "dagster.yaml"
    if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest() in EARLIER:
        template = resources.files("quantbot_pipeline.orchestration.local") / "dagster.yaml"
        temporary = folder / f".dagster.yaml.{os.getpid()}"  # another first use must not read half a file
        temporary.write_bytes(template.read_bytes())
        temporary.replace(file)


@contextlib.contextmanager
def _progress(total: int, title: str) -> Iterator[None]:
    """A progress bar on a terminal, fed by the log lines of finished months; nothing elsewhere.

    It writes to a duplicate of the terminal: Dagster sends standard error to a file while a step is at work.
    """
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}")),
        *(TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()),
    )
    started = time.monotonic()
    terminal = os.fdopen(os.dup(sys.stderr.fileno()), "w")
    with terminal, Progress(*columns, console=Console(file=terminal)) as bar:
        task = bar.add_task(title, total=total, rate="")

        class Advance(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if month := getattr(record, "month", None):
                    done = bar.tasks[task].completed + 1
                    rate = f"{60 * done / (time.monotonic() - started):.3g}/min"
                    bar.update(task, completed=done, description=f"{title} {month}", rate=rate, refresh=True)

        logger, handler = logging.getLogger("quantbot_pipeline.backtest"), Advance()
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)


def _committed(home: "Home", instance: dg.DagsterInstance, run_id: str) -> list[dict[str, Any]]:
    """One object per run that the Dagster run committed (or kept unchanged), by month; failed ones too.

    From the event log: the result of a run does not hold the months that were reported before it failed.
    """
    from quantbot_pipeline.runs.manifest import read_manifest

    kept: dict[str, bool] = {}
    wanted = {dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.STEP_FAILURE}
    for event in (entry.dagster_event for entry in instance.all_logs(run_id, of_type=wanted)):
        if event is None:
            continue
        if event.is_step_materialization:
            metadata = event.step_materialization_data.materialization.metadata
            if "run_dir" in metadata:
                kept[str(metadata["run_dir"].value)] = bool(metadata["unchanged"].value)
        elif event.is_step_failure and (data := event.step_failure_data.user_failure_data) is not None:
            failed: Any = data.metadata.get("failed_run_dirs")
            kept |= dict.fromkeys(failed.value if failed else [], False)
    found = []
    for folder, unchanged in kept.items():
        manifest = read_manifest(home.runs.at(folder))
        found.append(
            {
                "run_id": manifest.run_id,
                "run_type": manifest.run_type,
                "month": manifest.month,
                "status": manifest.status,
                "calls": manifest.dataset.calls_count,
                "excluded": manifest.dataset.calls_excluded,
                "run_dir": folder,
                "artifacts": {name: entry.rows for name, entry in manifest.artifacts.items()},
                "unchanged": unchanged,
            }
        )
    return sorted(found, key=lambda run: run["month"])


def _failure(result: dg.JobExecutionResult) -> QuantbotError | None:
    """What went wrong; an InputError when it is the user's input."""
    if result.success:
        return None
    failures = [_step_failure(event.step_failure_data) for event in result.all_events if event.is_step_failure]
    if judged := _blocking_checks(result):
        failures = [failure for failure in failures if CHECK_FAILED not in str(failure)] + judged
    kind = InputError if all(isinstance(failure, InputError) for failure in failures) else QuantbotError
    return kind("; ".join(dict.fromkeys(map(str, failures)))) if failures else QuantbotError("the Dagster run failed")


def _blocking_checks(result: dg.JobExecutionResult) -> list[QuantbotError]:
    """What the blocking checks that failed have to say; Dagster's own error gives their number and names."""
    found = [e.asset_check_evaluation_data for e in result.all_events if e.event_type_value == "ASSET_CHECK_EVALUATION"]
    failed = [one for one in found if one.blocking and not one.passed and one.severity == dg.AssetCheckSeverity.ERROR]
    return [QuantbotError(f"{one.check_name} of {one.asset_key.to_user_string()}: {one.description}") for one in failed]


def _step_failure(data: Any) -> QuantbotError:
    """Raises KeyboardInterrupt for what Dagster made of one."""
    if data.user_failure_data is not None:
        kind = InputError if "input_error" in data.user_failure_data.metadata else QuantbotError
        return kind(data.user_failure_data.description or "failed")
    error = data.error
    while error is not None and error.cause is not None:  # Dagster wraps what an asset raised
        error = error.cause
    if error is not None and error.cls_name in ("DagsterExecutionInterruptedError", "KeyboardInterrupt"):
        raise KeyboardInterrupt
    return QuantbotError("failed" if error is None else error.message.strip())
