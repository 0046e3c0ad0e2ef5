"""Asset checks: what must be true of what was made, and what somebody should look at. The judging is done elsewhere.

`contract` (blocking) stops whatever is downstream of an artifact that breaks its own rules. `input_quality` and `regression`
tell of months that are odd; `catalog_health`, `quarantine_empty` and `free_disk` of a lab that is not well. A check looks at the
runs behind the months that its Dagster run materialized; started on its own, at the newest cataloged run of every month.
"""

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from quantbot_pipeline.orchestration.assets.backtests import BACKTEST, V1, WALK_FORWARD, Key
from quantbot_pipeline.orchestration.judging import (
    PATHS,
    WALK,
    WARN,
    judge_contracts,
    judge_quality,
    judge_regression,
    table_of,
)
from quantbot_pipeline.orchestration.partitions import months_of
from quantbot_pipeline.orchestration.resources import Lab
from quantbot_pipeline.settings import Settings

CATALOG = dg.AssetKey(["catalog", "runs"])
# Two assets keep the same artifact; on its own a check finds the right run by the search that made it.
STRATEGIES: dict[Key, str] = {("results", "frontier"): "grid-search", ("results", "v1_frontier"): "v1-baseline"}


def _contracts(outputs: Mapping[Key, tuple[str, str]]) -> list[dg.AssetCheckSpec]:
    return [
        dg.AssetCheckSpec(
            "contract",
            asset=list(key),
            blocking=True,
            description=f"The run's bytes are those committed, and {artifact} has its schema and keeps its invariants; "
            "otherwise nothing downstream is made.",
        )
        for key, (artifact, _) in outputs.items()
    ]


@dg.multi_asset_check(name="backtest_contract", specs=_contracts(BACKTEST), can_subset=True)
def backtest_contract(context: dg.AssetCheckExecutionContext, lab: Lab) -> Iterator[dg.AssetCheckResult]:
    yield from _check_contracts(context, lab.settings(), BACKTEST)


@dg.multi_asset_check(name="v1_contract", specs=_contracts(V1), can_subset=True)
def v1_contract(context: dg.AssetCheckExecutionContext, lab: Lab) -> Iterator[dg.AssetCheckResult]:
    yield from _check_contracts(context, lab.settings(), V1)


@dg.multi_asset_check(name="walk_forward_contract", specs=_contracts(WALK_FORWARD), can_subset=True)
def walk_forward_contract(context: dg.AssetCheckExecutionContext, lab: Lab) -> Iterator[dg.AssetCheckResult]:
    yield from _check_contracts(context, lab.settings(), WALK_FORWARD)


@dg.asset_check(
    asset=PATHS,
    blocking=True,
    description="Calls without a window, gaps in the windows and rejected candles stay within the limits of the settings. "
    "A warning; it stops what is downstream if QUANTBOT_QUALITY_BLOCKS is set.",
)
def input_quality(context: dg.AssetCheckExecutionContext, lab: Lab) -> dg.AssetCheckResult:
    settings = lab.settings()
    return judge_quality(settings, _run_dirs(context, settings, _materialized(context), PATHS, "paths"))


@dg.asset_check(
    asset=PATHS,
    name="regression",
    description="The 2x, 3x and 4x hit rates of the newest month are not far below those of the six months before it (robust z).",
)
def paths_regression(context: dg.AssetCheckExecutionContext, lab: Lab) -> dg.AssetCheckResult:
    settings = lab.settings()
    return judge_regression(settings, "paths", _run_dirs(context, settings, _materialized(context), PATHS, "paths"))


@dg.asset_check(
    asset=WALK,
    name="regression",
    description="The best out-of-sample median of the newest month is not far below that of the six months before it (robust z).",
)
def walk_forward_regression(context: dg.AssetCheckExecutionContext, lab: Lab) -> dg.AssetCheckResult:
    settings = lab.settings()
    run_dirs = _run_dirs(context, settings, _materialized(context), WALK, "walk_forward")
    return judge_regression(settings, "walk_forward", run_dirs)


@dg.asset_check(
    asset=CATALOG,
    description="Every committed run is cataloged; every cataloged file is there with its size, a sample with its checksum.",
)
def catalog_health(lab: Lab) -> dg.AssetCheckResult:
    from quantbot_pipeline.monitoring.health import inspect_catalog

    settings, now = lab.settings(), time.time()
    if not settings.catalog_db.exists():
        return dg.AssetCheckResult(passed=True, description="no catalog yet")
    health = inspect_catalog(
        settings.runs_dir,
        settings.catalog_db,
        now_s=now,
        max_lag_s=settings.catalog_max_lag_s,
        sample_files=settings.catalog_sample_files,
        day=f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d}",
    )
    numbers: dict[str, Any] = {**health._asdict(), "faults": len(health.faults)}
    summary = f"{health.runs} runs, {health.files} files, {health.sampled_files} of them verified by checksum"
    return dg.AssetCheckResult(
        passed=not health.faults,
        description=f"{len(health.faults)} faults: {health.faults[0]}" if health.faults else summary,
        metadata=numbers | table_of("faulty", [{"fault": text} for text in health.faults]),
    )


@dg.asset_check(asset=CATALOG, description="No run directory had to be set aside because it cannot be trusted.")
def quarantine_empty(lab: Lab) -> dg.AssetCheckResult:
    from quantbot_pipeline.monitoring.health import quarantined

    settings = lab.settings()
    found = quarantined(settings.runs_dir, settings.catalog_db, now_s=time.time(), max_lag_s=settings.catalog_max_lag_s)
    return dg.AssetCheckResult(
        passed=not found,
        severity=WARN,
        description=f"{len(found)} in quarantine: {next(iter(found.values()))}" if found else "nothing in quarantine",
        metadata={
            "quarantined": len(found),
            **table_of("runs", [{"path": path, "reason": reason} for path, reason in found.items()]),
        },
    )


@dg.asset_check(asset=CATALOG, description="The disk of the home has room (QUANTBOT_MIN_FREE_GB).")
def free_disk(lab: Lab) -> dg.AssetCheckResult:
    from quantbot_pipeline.monitoring.health import free_gb

    settings = lab.settings()
    free = free_gb(settings.home)
    return dg.AssetCheckResult(
        passed=free >= settings.min_free_gb,
        severity=WARN,
        description=f"{free:.1f} GB free at {settings.home}, the limit is {settings.min_free_gb:g} GB",
        metadata={"free_gb": round(free, 3), "min_free_gb": settings.min_free_gb},
    )


all_checks = [
    backtest_contract,
    v1_contract,
    walk_forward_contract,
    input_quality,
    paths_regression,
    walk_forward_regression,
    catalog_health,
    quarantine_empty,
    free_disk,
]


def _check_contracts(
    context: dg.AssetCheckExecutionContext, settings: Settings, outputs: Mapping[Key, tuple[str, str]]
) -> Iterator[dg.AssetCheckResult]:
    """One result per selected asset."""
    materialized, selected = _materialized(context), context.selected_asset_check_keys
    yield from judge_contracts(
        {
            key: _run_dirs(context, settings, materialized, dg.AssetKey(list(key)), artifact, STRATEGIES.get(key))
            for key, (artifact, _) in outputs.items()
            if dg.AssetCheckKey(dg.AssetKey(list(key)), "contract") in selected
        },
        outputs,
    )


def _run_dirs(
    context: dg.AssetCheckExecutionContext,
    settings: Settings,
    materialized: Mapping[dg.AssetKey, dict[str, Path]],
    key: dg.AssetKey,
    artifact: str,
    strategy_id: str | None = None,
) -> dict[str, Path]:
    """{month: run directory} to look at, ascending."""
    reported = materialized.get(key)
    if reported is not None:
        return dict(sorted(reported.items()))
    return _newest(settings, artifact, strategy_id, months_of(context.run.tags))


def _materialized(context: dg.AssetCheckExecutionContext) -> dict[dg.AssetKey, dict[str, Path]]:
    """{asset: {month: run directory}} as this Dagster run reported them; months without calls have none.

    A repeated run that begins at its failed check counts with the run that it repeats: there the asset was made.
    """
    run: dg.DagsterRun | None = context.run
    found: dict[dg.AssetKey, dict[str, Path]] = {}
    while run is not None:
        own: dict[dg.AssetKey, dict[str, Path]] = {}
        for entry in context.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
            event = entry.dagster_event
            if event is None or event.asset_key is None:
                continue
            run_dirs = own.setdefault(event.asset_key, {})
            metadata = event.step_materialization_data.materialization.metadata
            if event.partition is not None and "run_dir" in metadata:
                run_dirs[event.partition] = Path(str(metadata["run_dir"].value))
        found = own | found
        run = context.instance.get_run_by_id(run.parent_run_id) if run.parent_run_id else None
    return found


def _newest(settings: Settings, artifact: str, strategy_id: str | None, months: list[str]) -> dict[str, Path]:
    """The newest cataloged run of each month, or of these months; none without a catalog."""
    from quantbot_pipeline.catalog.catalog import newest_runs_with

    if not settings.catalog_db.exists():
        return {}
    found = newest_runs_with(settings.catalog_db, artifact, strategy_id=strategy_id)
    return {
        month: settings.runs_dir / run_dir
        for month, run_dir in ((run_dir.split("/")[0], run_dir) for run_dir in found)
        if not months or month in months
    }
