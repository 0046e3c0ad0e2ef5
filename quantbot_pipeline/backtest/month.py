"""One month, one kind of run, one configuration: make the run and commit it.

Assets, the Python API and tests all call `run_month`. If anything fails, the failure is committed.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from quantbot_pipeline.backtest.features import day_before, known_to_models
from quantbot_pipeline.backtest.inputs import (
    MonthInputs,
    bounds_of,
    earlier_months,
    joint_hash,
    known_in,
    load_month,
    month_to_come,
)
from quantbot_pipeline.backtest.provenance import git_provenance, parameters_of, versions
from quantbot_pipeline.backtest.record import Record
from quantbot_pipeline.backtest.remembered import ReplayCache
from quantbot_pipeline.backtest.run import Run
from quantbot_pipeline.backtest.surveying import surveyed
from quantbot_pipeline.config import BacktestConfig
from quantbot_pipeline.durable import disk_errors
from quantbot_pipeline.errors import InputError, IntegrityError, QuantbotError
from quantbot_pipeline.home import Home
from quantbot_pipeline.interrupts import stop_if_asked
from quantbot_pipeline.market.features.calls import call_features
from quantbot_pipeline.months import iso_ms, iso_now
from quantbot_pipeline.runs.content import content_sha256
from quantbot_pipeline.runs.manifest import DagsterRef, Dataset, RunDirectory, RunManifest, SchemaVersion
from quantbot_pipeline.runs.verify import check_run
from quantbot_pipeline.specs import KINDS, RunKind

log = logging.getLogger(__name__)


class RunFailedError(QuantbotError):
    """A month whose run was committed as failed."""

    def __init__(self, month: str, message: str, run_dir: RunDirectory) -> None:
        super().__init__(f"{month}: {message}")
        self.month, self.run_dir = month, run_dir


class MonthResult(NamedTuple):
    """A committed run, and whether it was found unchanged instead of made."""

    run_dir: RunDirectory
    manifest: RunManifest
    reused: bool = False


class _Plan(NamedTuple):
    """What is known before anything is replayed: inputs of this and of earlier months, features, and what identifies the run."""

    kind: RunKind
    month: str
    bounds: tuple[int, int]
    inputs: MonthInputs
    earlier: list[MonthInputs]
    features: Callable[[], Iterator[pa.Table]] | None
    parameters: dict[str, Any]
    fingerprint: str


def run_month(
    home: Home,
    kind: str,
    month: str,
    config: BacktestConfig,
    *,
    only_changed: bool = False,
    dagster: DagsterRef | None = None,
    cache: ReplayCache | None = None,
) -> MonthResult | None:
    """Make and commit the run of one month; return None when the month has no calls.

    kind: a name of `specs.KINDS`. With `only_changed` a completed run with the same inputs, code and configuration is returned
    instead of a new one. Raises InputError for wrong inputs (nothing is committed), RunFailedError after a failure was
    committed, StoreError when not even that could be written.
    """
    config.parsed_policies()
    record = Record()
    with ExitStack() as stores:  # the features stay in a DuckDB until they are written
        with record.phase("plan"):
            plan = _plan(home, KINDS[kind], month, config, stores)
        if plan is None:
            return None
        if only_changed and (found := find_unchanged(home, plan)):
            log.info("%s: unchanged, %d calls", month, plan.inputs.calls.num_rows, extra={"month": month})
            return found
        return _make(home, plan, config, record, dagster or DagsterRef(), {} if cache is None else cache)


def _plan(home: Home, kind: RunKind, month: str, config: BacktestConfig, stores: ExitStack) -> _Plan | None:
    bounds = bounds_of(month, config)
    inputs = load_month(home, month, config, bounds)
    if inputs is None and not kind.predicts:
        return None
    earlier = earlier_months(home, month, config) if kind.learns else []
    if inputs is None:
        if not earlier:
            return None
        inputs = month_to_come(home, month, bounds)
    if kind.surveys:
        inputs, *earlier = (known_in(home, m, config, month) for m in (inputs, *earlier))
    features = None
    if "features" in kind.artifacts:
        features = stores.enter_context(call_features(home.calls, *bounds))
    fingerprint = joint_hash(
        *(m.with_liquidity if kind.weighs_size else m.fingerprint for m in (inputs, *earlier)),
        *([content_sha256(features()), day_before(home, month, config.interval)] if features else []),
        *(known_to_models(home, month, [m.month for m in earlier], config) if kind.predicts else []),
        *(surveyed(home, config, inputs, earlier) if kind.surveys else []),
    )
    parameters = parameters_of(kind, config, bounds, month)
    return _Plan(kind, month, bounds, inputs, earlier, features, parameters, fingerprint)


def _make(
    home: Home, plan: _Plan, config: BacktestConfig, record: Record, dagster: DagsterRef, cache: ReplayCache
) -> MonthResult:
    """Write the artifacts and commit them, or the failure."""
    calls, folder = plan.inputs.calls.num_rows, home.runs.folder
    home.runs.sweep()
    with disk_errors(folder), home.runs.begin(plan.month) as staged:
        record.say(f"run {staged.run_id}: {plan.kind.name} {plan.month}, {calls} calls")
        run = Run(home, config, plan.inputs, plan.earlier, plan.features, staged, record, cache)
        failure = _attempt(plan, run)
        record.write_errors(staged)
        record.say("failed" if failure else "completed")
        logs = staged.write_logs("\n".join(record.out) + "\n", "".join(record.err))
        manifest = _manifest(plan, run, dagster, logs, failure)
        run_dir = staged.commit(manifest)
    if failure:
        raise RunFailedError(plan.month, failure, run_dir)
    log.info("%s: %d calls, %d excluded", plan.month, calls, run.excluded or 0, extra={"month": plan.month})
    return MonthResult(run_dir, manifest)


def _attempt(plan: _Plan, run: Run) -> str | None:
    """Write what the recipe makes; return what went wrong, if anything."""
    try:
        with disk_errors(run.home.runs.folder), np.errstate(over="ignore"):  # an artifact refuses what overflowed
            run.staged.write("alerts", plan.inputs.calls)
            if broken := next((m.broken for m in (plan.inputs, *plan.earlier) if m.broken), None):
                raise InputError(broken)
            import_module(plan.kind.recipe).make(run)
    except Exception as e:
        stop_if_asked()  # DuckDB makes an error of a request to stop, and that is no failure of the month
        failure = str(e) if isinstance(e, QuantbotError) else f"{type(e).__name__}: {e}"
        run.record.report("error", "execution", failure)
        return failure
    return None


def _manifest(plan: _Plan, run: Run, dagster: DagsterRef, logs: dict[str, str], failure: str | None) -> RunManifest:
    commit, branch, dirty = git_provenance()
    start, end = plan.bounds
    return RunManifest(
        run_id=run.staged.run_id,
        run_type=plan.kind.run_type,
        month=plan.month,
        created_at=iso_now(),
        started_at=run.record.started_at,
        completed_at=iso_now(),
        status="failed" if failure else "completed",
        git_commit=commit,
        git_branch=branch,
        git_dirty=dirty,
        dataset=Dataset(
            from_=iso_ms(start),
            to=iso_ms(end - 1),
            interval=run.config.interval,
            calls_count=plan.inputs.calls.num_rows,
            calls_excluded=run.excluded or 0,
            fingerprint=plan.fingerprint,
        ),
        parameters=plan.parameters,
        schema_version=SchemaVersion(),
        artifacts=run.staged.artifacts,
        timing=run.record.total(),
        logs=logs,
        dagster=dagster,
        versions=versions(),
        error=failure,
    )


def find_unchanged(home: Home, plan: _Plan) -> MonthResult | None:
    """Return the newest completed run with this configuration, these inputs and the present code, every byte verified."""
    wanted = (plan.kind.run_type, plan.parameters["config_hash"], plan.fingerprint, versions()["code"])
    completed = sorted(home.runs.completed(plan.month), key=lambda pair: pair[1].created_at, reverse=True)
    for run_dir, made in completed:
        identity = (
            made.run_type,
            made.parameters.get("config_hash"),
            made.dataset.fingerprint,
            made.versions.get("code"),
        )
        if identity == wanted and _is_sound(run_dir):
            return MonthResult(run_dir, made, reused=True)
    return None


def _is_sound(run_dir: RunDirectory) -> bool:
    try:
        check_run(run_dir)
    except IntegrityError as e:
        log.warning("%s; made again", e)
        return False
    return True
