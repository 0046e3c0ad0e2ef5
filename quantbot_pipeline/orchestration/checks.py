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

from quantbot_pipeline.orchestration.assets.backtests import BACKTEST, OUTPUTS, V1, WALK_FORWARD, Key
from quantbot_pipeline.orchestration.partitions import months_of
from quantbot_pipeline.orchestration.resources import Lab
from quantbot_pipeline.settings import Settings

PATHS, WALK = dg.AssetKey(["truth", "paths"]), dg.AssetKey(["results", "walk_forward"])
CATALOG = dg.AssetKey(["catalog", "runs"])
# Two assets keep the same artifact; on its own a check finds the right run by the search that made it.
STRATEGIES: dict[Key, str] = {("results", "frontier"): "grid-search", ("results", "v1_frontier"): "v1-baseline"}
WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR
MAX_ROWS = 50  # of a table in the UI


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
    return _check_quality(settings, _run_dirs(context, settings, _materialized(context), PATHS, "paths"))


@dg.asset_check(
    asset=PATHS,
    name="regression",
    description="The 2x, 3x and 4x hit rates of the newest month are not far below those of the six months before it (robust z).",
)
def paths_regression(context: dg.AssetCheckExecutionContext, lab: Lab) -> dg.AssetCheckResult:
    settings = lab.settings()
    return _check_regression(settings, "paths", _run_dirs(context, settings, _materialized(context), PATHS, "paths"))


@dg.asset_check(
    asset=WALK,
    name="regression",
    description="The best out-of-sample median of the newest month is not far below that of the six months before it (robust z).",
)
def walk_forward_regression(context: dg.AssetCheckExecutionContext, lab: Lab) -> dg.AssetCheckResult:
    settings = lab.settings()
    run_dirs = _run_dirs(context, settings, _materialized(context), WALK, "walk_forward")
    return _check_regression(settings, "walk_forward", run_dirs)


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
        metadata=numbers | _table("faulty", [{"fault": text} for text in health.faults]),
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
            **_table("runs", [{"path": path, "reason": reason} for path, reason in found.items()]),
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


def evaluations(settings: Settings, made: Mapping[Key, dict[str, Path]]) -> Iterator[dg.AssetCheckEvaluation]:
    """What the checks say of the months that a failing run did make, for the run to log: Dagster skips its checks.

    `made` is {asset: {month: run directory}}.
    """
    results = [
        (dg.AssetKey(list(key)), "contract", True, result)
        for key, result in zip(made, _judge_contracts(made, OUTPUTS), strict=True)
    ]
    for key, artifact in ((PATHS, "paths"), (WALK, "walk_forward")):
        if (run_dirs := made.get((key.path[0], key.path[1]))) is None:
            continue
        if key == PATHS:
            results.append((key, "input_quality", True, _check_quality(settings, run_dirs)))
        results.append((key, "regression", False, _check_regression(settings, artifact, run_dirs)))
    for key, name, blocking, result in results:
        yield dg.AssetCheckEvaluation(
            asset_key=key,
            check_name=name,
            passed=result.passed,
            metadata=result.metadata,
            severity=result.severity,
            description=result.description,
            blocking=blocking,
        )


def _check_contracts(
    context: dg.AssetCheckExecutionContext, settings: Settings, outputs: Mapping[Key, tuple[str, str]]
) -> Iterator[dg.AssetCheckResult]:
    """One result per selected asset."""
    materialized, selected = _materialized(context), context.selected_asset_check_keys
    yield from _judge_contracts(
        {
            key: _run_dirs(context, settings, materialized, dg.AssetKey(list(key)), artifact, STRATEGIES.get(key))
            for key, (artifact, _) in outputs.items()
            if dg.AssetCheckKey(dg.AssetKey(list(key)), "contract") in selected
        },
        outputs,
    )


def _judge_contracts(
    made: Mapping[Key, dict[str, Path]], outputs: Mapping[Key, tuple[str, str]]
) -> Iterator[dg.AssetCheckResult]:
    """One result per asset of `made`; each run is read once for all of them."""
    from quantbot_pipeline.runs.inspection import Inspection, inspect_run

    artifacts = [outputs[key][0] for key in made]
    inspected: dict[Path, Inspection] = {}
    for (key, run_dirs), artifact in zip(made.items(), artifacts, strict=True):
        for run_dir in set(run_dirs.values()) - inspected.keys():
            inspected[run_dir] = inspect_run(run_dir, artifacts)
        faults = {month: f for month, d in run_dirs.items() if (f := inspected[d].faults[artifact])}
        rows = [
            {"month": month, "rows": inspected[d].rows[artifact], "faults": len(faults.get(month, [])), "run": d.name}
            for month, d in run_dirs.items()
        ]
        good = "schema, invariants and checksums hold"
        yield _by_month(list(run_dirs), faults, rows, ERROR, good, asset_key=dg.AssetKey(list(key)))


def _check_quality(settings: Settings, run_dirs: Mapping[str, Path]) -> dg.AssetCheckResult:
    from quantbot_pipeline.errors import IntegrityError
    from quantbot_pipeline.monitoring.quality import read_quality, shortcomings

    rows, faults = [], {}
    for month, run_dir in run_dirs.items():
        try:
            quality = read_quality(run_dir)
        except IntegrityError as e:
            faults[month] = [str(e)]
            continue
        rows.append({"month": month, **quality._asdict()})
        if found := shortcomings(quality, settings):
            faults[month] = found
    limits = {
        name: getattr(settings, name) for name in ("max_excluded_share", "min_mean_coverage", "max_rejected_share")
    }
    severity = ERROR if settings.quality_blocks else WARN
    return _by_month(list(run_dirs), faults, rows, severity, "inputs within the limits", limits)


def _check_regression(settings: Settings, artifact: str, run_dirs: Mapping[str, Path]) -> dg.AssetCheckResult:
    """Judge every month, and pass or fail by the newest: an old month that was bad is no news."""
    from quantbot_pipeline.monitoring.regression import judge, load_readings

    readings = load_readings(settings.catalog_db, settings.runs_dir, artifact, run_dirs)
    judged = [month for month in run_dirs if month in readings]
    verdicts = [verdict for month in judged for verdict in judge(readings, month)]
    rows = [v._asdict() | {"z": None if v.z is None else max(-99.0, min(99.0, round(v.z, 2)))} for v in verdicts]
    if not judged:
        return dg.AssetCheckResult(
            passed=True, description="too few calls or trades to judge", metadata={"months_checked": 0, "months": []}
        )
    newest = [verdict for verdict in verdicts if verdict.month == judged[-1]]
    worse = [v for v in newest if v.z is not None and v.z < settings.regression_min_z]
    faults = {
        judged[-1]: [
            f"{v.metric} of {v.subject} is {v.value:.4g}, usually {v.usual:.4g} (robust z {v.z:.1f})" for v in worse
        ]
    }
    known = all(v.z is not None for v in newest)
    good = "not below the six months before" if known else "too little history (3 of the six months before are needed)"
    extra: dict[str, Any] = {"min_z": settings.regression_min_z, "subject": newest[0].subject}
    extra |= {f"z_{row['metric']}": row["z"] for row in rows if row["month"] == judged[-1] and row["z"] is not None}
    return _by_month(judged[-1:], faults if worse else {}, rows, WARN, good, extra)


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


def _by_month(
    months: list[str],
    faults: Mapping[str, list[str]],
    rows: list[dict[str, Any]],
    severity: dg.AssetCheckSeverity,
    good: str,
    extra: Mapping[str, Any] | None = None,
    asset_key: dg.AssetKey | None = None,
) -> dg.AssetCheckResult:
    """A result over months: the numbers as a table, and `failed_months`, by which an alert knows what is over."""
    over = f"{months[0]} to {months[-1]}" if len(months) > 1 else "".join(months)
    passed = f"{over}: {good}" if months else "nothing to check: no month with calls"
    return dg.AssetCheckResult(
        asset_key=asset_key,
        passed=not faults,
        severity=severity,
        description=_list(faults) or passed,
        metadata={
            "months_checked": len(months),
            "months_at_fault": len(faults),
            "months": dg.MetadataValue.json(months),
            "failed_months": dg.MetadataValue.json({month: list(texts) for month, texts in faults.items()}),
            **(extra or {}),
            **_table("by_month", rows),
        },
    )


def _list(faults: Mapping[str, list[str]], limit: int = 5) -> str:
    """The first months with their first faults; empty without any."""
    listed = [f"{month}: {'; '.join(faults[month][:3])}" for month in sorted(faults)]
    more = f" (and {len(listed) - limit} more months)" if len(listed) > limit else ""
    return ". ".join(listed[:limit]) + more


def _table(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A table for the UI, its last rows if there are too many; nothing without rows."""
    if not rows:
        return {}
    records = [
        dg.TableRecord({k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()})
        for row in rows[-MAX_ROWS:]
    ]
    columns = [dg.TableColumn(k, _TYPES.get(type(v), "string")) for k, v in rows[-1].items()]
    return {name: dg.MetadataValue.table(records, dg.TableSchema(columns))}


_TYPES = {int: "int", float: "float", bool: "bool"}
