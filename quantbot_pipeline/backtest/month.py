"""One month, one kind of run, one configuration: make the run and commit it.

Assets, the command line, the Python API and tests all call `run_month`. If anything fails, the failure is committed.
"""

import logging
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np

from quantbot_pipeline.backtest.inputs import bounds_of, duckdb_limit, earlier_months, joint_hash, load_month
from quantbot_pipeline.backtest.provenance import git_provenance, parameters_of, versions
from quantbot_pipeline.backtest.record import Record
from quantbot_pipeline.backtest.run import ReplayCache, Run
from quantbot_pipeline.config import CONTENTS, RUN_TYPES, BacktestConfig, Recipe
from quantbot_pipeline.durable import disk_errors
from quantbot_pipeline.errors import InputError, IntegrityError, QuantbotError
from quantbot_pipeline.market.features import call_features
from quantbot_pipeline.months import iso_ms, iso_now
from quantbot_pipeline.runs.commit import StagedRun
from quantbot_pipeline.runs.content import content_sha256
from quantbot_pipeline.runs.manifest import DagsterRef, Dataset, RunManifest, SchemaVersion
from quantbot_pipeline.runs.store import completed_runs, sweep_staging
from quantbot_pipeline.runs.verify import check_run
from quantbot_pipeline.settings import Settings

log = logging.getLogger(__name__)

RECIPES: dict[Recipe, str] = {
    "path-only": "truth",
    "policy": "policy",
    "optimization": "search",
    "full": "full",
    "v1-baseline": "v1_baseline",
    "walk-forward": "walk_forward",
}


class RunFailedError(QuantbotError):
    """A month whose run was committed as failed."""

    def __init__(self, month: str, message: str, run_dir: Path) -> None:
        super().__init__(f"{month}: {message}")
        self.month, self.run_dir = month, run_dir


class MonthResult(NamedTuple):
    """A committed run, and whether it was found unchanged instead of made."""

    run_dir: Path
    manifest: RunManifest
    reused: bool = False


def run_month(
    settings: Settings,
    recipe: Recipe,
    month: str,
    config: BacktestConfig,
    *,
    only_changed: bool = False,
    dagster: DagsterRef | None = None,
    cache: ReplayCache | None = None,
) -> MonthResult | None:
    """Make and commit the run of one month; None when the month has no calls.

    With `only_changed` a completed run with the same inputs, code and configuration is returned instead of a new one.
    Raises InputError for wrong inputs (nothing is committed), RunFailedError after a failure was committed, StoreError when
    not even that could be written.
    """
    config.parsed_policies()
    with ExitStack() as stores:  # the features stay in a DuckDB until they are written
        return _run_month(settings, recipe, month, config, only_changed, dagster, cache, stores)


def _run_month(
    settings: Settings,
    recipe: Recipe,
    month: str,
    config: BacktestConfig,
    only_changed: bool,
    dagster: DagsterRef | None,
    cache: ReplayCache | None,
    stores: ExitStack,
) -> MonthResult | None:
    recorder = Record()
    with recorder.phase("plan"):
        bounds = bounds_of(month, config)
        inputs = load_month(settings, month, config, bounds)
        if inputs is None:
            return None
        earlier = earlier_months(settings, month, config) if recipe == "walk-forward" else []
        features = None
        if "features" in CONTENTS[recipe]:
            opened = call_features(settings.alerts_db, *bounds, memory_limit=duckdb_limit(settings))
            features = stores.enter_context(opened)
        fingerprint = joint_hash(
            inputs.fingerprint, *(m.fingerprint for m in earlier), *([content_sha256(features())] if features else [])
        )
    parameters = parameters_of(recipe, config, bounds, month)
    calls = inputs.calls.num_rows
    if only_changed and (found := find_unchanged(settings, recipe, month, parameters["config_hash"], fingerprint)):
        log.info("%s: unchanged, %d calls", month, calls, extra={"month": month})
        return found
    sweep_staging(settings.runs_dir, settings.staging_max_age_s)
    with disk_errors(settings.runs_dir), StagedRun(settings.runs_dir, month) as staged:
        recorder.say(f"run {staged.run_id}: {recipe} {month}, {calls} calls")
        run = Run(settings, config, inputs, earlier, features, staged, recorder, {} if cache is None else cache)
        failure = None
        try:
            with disk_errors(settings.runs_dir), np.errstate(over="ignore"):  # an artifact refuses what overflowed
                staged.write("alerts", inputs.calls)
                if broken := next((m.broken for m in (inputs, *earlier) if m.broken), None):
                    raise InputError(broken)
                import_module(f"quantbot_pipeline.backtest.recipes.{RECIPES[recipe]}").make(run)
        except Exception as e:
            failure = str(e) if isinstance(e, QuantbotError) else f"{type(e).__name__}: {e}"
            recorder.report("error", "execution", failure)
        recorder.write_errors(staged)
        recorder.say("failed" if failure else "completed")
        logs = staged.write_logs("\n".join(recorder.out) + "\n", "".join(recorder.err))
        commit, branch, dirty = git_provenance()
        start, end = bounds
        manifest = RunManifest(
            run_id=staged.run_id,
            run_type=RUN_TYPES[recipe],
            month=month,
            created_at=iso_now(),
            started_at=recorder.started_at,
            completed_at=iso_now(),
            status="failed" if failure else "completed",
            git_commit=commit,
            git_branch=branch,
            git_dirty=dirty,
            dataset=Dataset(
                from_=iso_ms(start),
                to=iso_ms(end - 1),
                interval=config.interval,
                calls_count=calls,
                calls_excluded=run.excluded or 0,
                fingerprint=fingerprint,
            ),
            parameters=parameters,
            schema_version=SchemaVersion(),
            artifacts=staged.artifacts,
            timing=recorder.total(),
            logs=logs,
            dagster=dagster or DagsterRef(),
            versions=versions(),
            error=failure,
        )
        run_dir = staged.commit(manifest)
    if failure:
        raise RunFailedError(month, failure, run_dir)
    log.info("%s: %d calls, %d excluded", month, calls, run.excluded or 0, extra={"month": month})
    return MonthResult(run_dir, manifest)


def find_unchanged(
    settings: Settings, recipe: Recipe, month: str, config_hash: str, fingerprint: str
) -> MonthResult | None:
    """The newest completed run of the month with this configuration, these inputs and the present code, every byte verified."""
    code = versions()["code"]
    for run_dir, manifest in sorted(completed_runs(settings, month), key=lambda pair: pair[1].created_at, reverse=True):
        wanted = (RUN_TYPES[recipe], config_hash, fingerprint, code)
        made = (
            manifest.run_type,
            manifest.parameters.get("config_hash"),
            manifest.dataset.fingerprint,
            manifest.versions.get("code"),
        )
        if made == wanted and _is_sound(run_dir):
            return MonthResult(run_dir, manifest, reused=True)
    return None


def _is_sound(run_dir: Path) -> bool:
    try:
        check_run(run_dir)
    except IntegrityError as e:
        log.warning("%s; made again", e)
        return False
    return True
