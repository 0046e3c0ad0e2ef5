"""Asset checks: what must be true of what was made, and what somebody should look at. The judging is done elsewhere.

`contract` (blocking) stops whatever is downstream of an artifact that breaks its own rules. `input_quality` and `regression`
tell of months that are odd; `catalog_health`, `quarantine_empty`, `free_disk` and `replica_lag` of a lab that is not well. A check looks at the
runs behind the months that its Dagster run materialized; started on its own, at the newest cataloged run of every month.
"""

import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import dagster as dg

from quantbot_pipeline.orchestration.assets.catalog import CATALOG
from quantbot_pipeline.orchestration.assets.replicas import REPLICAS
from quantbot_pipeline.orchestration.judging import (
    CALIBRATION,
    ODD,
    PATHS,
    WALK,
    WARN,
    judge_anomalies,
    judge_calibration,
    judge_contracts,
    judge_quality,
    judge_regression,
    table_of,
)
from quantbot_pipeline.orchestration.partitions import months_of
from quantbot_pipeline.orchestration.resources import Lab
from quantbot_pipeline.orchestration.stopping import stop_if_canceled
from quantbot_pipeline.specs import ANOMALIES as ODD_OUTPUT
from quantbot_pipeline.specs import CALIBRATION as CALIBRATION_OUTPUT
from quantbot_pipeline.specs import PATHS as PATHS_OUTPUT
from quantbot_pipeline.specs import WALK_FORWARD as WALK_OUTPUT
from quantbot_pipeline.specs import Op, Output, ops, outputs_of, strategy_of

if TYPE_CHECKING:
    from quantbot_pipeline.home import Home
    from quantbot_pipeline.runs.manifest import RunDirectory


def build_checks() -> list[Any]:
    """Return every check: a contract per step of `specs`, then those of inputs, results, catalog and disk."""
    return [
        *(_contract_of(op, list(outputs_of(kinds).values())) for op, kinds in ops().items()),
        input_quality,
        paths_regression,
        walk_forward_regression,
        anomalies,
        calibration,
        catalog_health,
        quarantine_empty,
        free_disk,
        replica_lag,
    ]


def _contract_of(op: Op, made: Sequence[Output]) -> dg.AssetChecksDefinition:
    """Return the contract of all outputs of a step; the chosen ones are judged together, each run read once."""
    specs = [
        dg.AssetCheckSpec(
            "contract",
            asset=list(output.key),
            blocking=True,
            description=f"The run's bytes are those committed, and {output.artifact} has its schema and keeps its "
            "invariants; otherwise nothing downstream is made.",
        )
        for output in made
    ]

    @dg.multi_asset_check(name=op.check, specs=specs, can_subset=True)
    def contract(context: dg.AssetCheckExecutionContext, lab: Lab) -> Iterator[dg.AssetCheckResult]:
        stop_if_canceled(context)
        home, selected = lab.open(), context.selected_asset_check_keys
        materialized = _materialized(context, home)
        yield from judge_contracts(
            {
                output.key: _run_dirs(context, home, materialized, output)
                for output in made
                if dg.AssetCheckKey(dg.AssetKey(list(output.key)), "contract") in selected
            }
        )

    return contract


@dg.asset_check(
    asset=PATHS,
    blocking=True,
    description="Calls without a window, gaps in the windows and rejected candles stay within the limits of the settings. "
    "A warning; it stops what is downstream if QUANTBOT_QUALITY_BLOCKS is set.",
)
def input_quality(context: dg.AssetCheckExecutionContext, lab: Lab) -> dg.AssetCheckResult:
    return judge_quality(*_looked_at(context, lab, PATHS_OUTPUT))


@dg.asset_check(
    asset=PATHS,
    name="regression",
    description="The 2x, 3x and 4x hit rates of the newest month are not far below those of the six months before it (robust z).",
)
def paths_regression(context: dg.AssetCheckExecutionContext, lab: Lab) -> dg.AssetCheckResult:
    home, run_dirs = _looked_at(context, lab, PATHS_OUTPUT)
    return judge_regression(home, "paths", run_dirs)


@dg.asset_check(
    asset=WALK,
    name="regression",
    description="The highest out-of-sample median of the newest month is not far below that of the six months before it (robust z).",
)
def walk_forward_regression(context: dg.AssetCheckExecutionContext, lab: Lab) -> dg.AssetCheckResult:
    home, run_dirs = _looked_at(context, lab, WALK_OUTPUT)
    return judge_regression(home, "walk_forward", run_dirs)


@dg.asset_check(
    asset=ODD,
    blocking=True,
    description="Nothing odd makes the numbers of a call wrong: no row of the severity error. "
    "A warning; nothing is concluded from such a month if QUANTBOT_QUALITY_BLOCKS is set.",
)
def anomalies(context: dg.AssetCheckExecutionContext, lab: Lab) -> dg.AssetCheckResult:
    return judge_anomalies(*_looked_at(context, lab, ODD_OUTPUT))


@dg.asset_check(
    asset=CALIBRATION,
    description="Chances that were predicted come true as often as they say: the 95 % interval of no target's calibration slope "
    "lies outside 0.6 to 1.6, once it has 100 outcomes.",
)
def calibration(context: dg.AssetCheckExecutionContext, lab: Lab) -> dg.AssetCheckResult:
    return judge_calibration(_looked_at(context, lab, CALIBRATION_OUTPUT)[1])


@dg.asset_check(
    asset=CATALOG,
    description="Every committed run is cataloged; every cataloged file is there with its size, a sample with its checksum.",
)
def catalog_health(context: dg.AssetCheckExecutionContext, lab: Lab) -> dg.AssetCheckResult:
    from quantbot_pipeline.monitoring.health import inspect_catalog

    stop_if_canceled(context)
    home, now = lab.open(), time.time()
    settings = home.settings
    if not home.catalog.is_there():
        return dg.AssetCheckResult(passed=True, description="no catalog yet")
    health = inspect_catalog(
        home.catalog,
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
def quarantine_empty(context: dg.AssetCheckExecutionContext, lab: Lab) -> dg.AssetCheckResult:
    from quantbot_pipeline.monitoring.health import quarantined

    stop_if_canceled(context)
    home = lab.open()
    found = quarantined(home.catalog, now_s=time.time(), max_lag_s=home.settings.catalog_max_lag_s)
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
def free_disk(context: dg.AssetCheckExecutionContext, lab: Lab) -> dg.AssetCheckResult:
    from quantbot_pipeline.monitoring.health import free_gb

    stop_if_canceled(context)
    settings = lab.settings()
    free = free_gb(settings.home)
    return dg.AssetCheckResult(
        passed=free >= settings.min_free_gb,
        severity=WARN,
        description=f"{free:.1f} GB free at {settings.home}, the limit is {settings.min_free_gb:g} GB",
        metadata={"free_gb": round(free, 3), "min_free_gb": settings.min_free_gb},
    )


@dg.asset_check(
    asset=REPLICAS,
    description="No committed run waits for longer than QUANTBOT_REPLICA_LAG_S to be copied to a place of QUANTBOT_REPLICAS, and none differs there.",
)
def replica_lag(context: dg.AssetCheckExecutionContext, lab: Lab) -> dg.AssetCheckResult:
    from quantbot_pipeline.monitoring.replicas import inspect_replicas

    stop_if_canceled(context)
    home = lab.open()
    if not home.settings.replicas:
        return dg.AssetCheckResult(passed=True, description="QUANTBOT_REPLICAS names no place")
    states = inspect_replicas(home, now_s=time.time())
    faults = [state.fault for state in states if state.fault]
    return dg.AssetCheckResult(
        passed=not faults,
        severity=WARN,
        description=faults[0] if faults else f"{len(states)} replicas have every run that should be there",
        metadata={
            "lag_s": max(state.lag_s for state in states),
            **table_of("replicas", [state._asdict() for state in states]),
        },
    )


def _looked_at(
    context: dg.AssetCheckExecutionContext, lab: Lab, output: Output
) -> tuple["Home", dict[str, "RunDirectory"]]:
    """Return the home, and {month: run directory} to look at; a run that is to stop begins no check."""
    stop_if_canceled(context)
    home = lab.open()
    return home, _run_dirs(context, home, _materialized(context, home), output)


def _run_dirs(
    context: dg.AssetCheckExecutionContext,
    home: "Home",
    materialized: Mapping[dg.AssetKey, dict[str, "RunDirectory"]],
    output: Output,
) -> dict[str, "RunDirectory"]:
    """Return {month: run directory} to look at, ascending."""
    reported = materialized.get(dg.AssetKey(list(output.key)))
    if reported is not None:
        return dict(sorted(reported.items()))
    return _newest(home, output.artifact, strategy_of(output.key), months_of(context.run.tags))


def _materialized(context: dg.AssetCheckExecutionContext, home: "Home") -> dict[dg.AssetKey, dict[str, "RunDirectory"]]:
    """{asset: {month: run directory}} as this Dagster run reported them; months without calls have none.

    A repeated run that begins at its failed check counts with the run that it repeats: there the asset was made.
    """
    run: dg.DagsterRun | None = context.run
    found: dict[dg.AssetKey, dict[str, RunDirectory]] = {}
    while run is not None:
        found = _reported(home, context.instance, run.run_id) | found
        run = context.instance.get_run_by_id(run.parent_run_id) if run.parent_run_id else None
    return found


class _Reports(NamedTuple):
    """What a Dagster run had reported up to a place in its log."""

    cursor: str | None
    run_dirs: dict[dg.AssetKey, dict[str, "RunDirectory"]]


# Of the runs that this process last asked for. Twelve checks of a backfill would each read all that the steps before reported.
_reports: OrderedDict[str, _Reports] = OrderedDict()
REPORTS_KEPT = 4


def _reported(home: "Home", instance: dg.DagsterInstance, run_id: str) -> dict[dg.AssetKey, dict[str, "RunDirectory"]]:
    """{asset: {month: run directory}} as one Dagster run reported them; only what is new in its log is read."""
    before = _reports.pop(run_id, _Reports(None, {}))
    run_dirs = {key: dict(of_months) for key, of_months in before.run_dirs.items()}
    new = instance.get_records_for_run(run_id, before.cursor, dg.DagsterEventType.ASSET_MATERIALIZATION)
    for record in new.records:
        event = record.event_log_entry.dagster_event
        if event is None or event.asset_key is None:
            continue
        of_months = run_dirs.setdefault(event.asset_key, {})
        metadata = event.step_materialization_data.materialization.metadata
        if event.partition is not None and "run_dir" in metadata:
            of_months[event.partition] = home.runs.at(str(metadata["run_dir"].value))
    _reports[run_id] = _Reports(new.cursor, run_dirs)
    while len(_reports) > REPORTS_KEPT:
        _reports.popitem(last=False)
    return run_dirs


def _newest(home: "Home", artifact: str, strategy_id: str | None, months: list[str]) -> dict[str, "RunDirectory"]:
    """The newest cataloged run of each month, or of these months; none without a catalog."""
    from quantbot_pipeline.catalog.catalog import newest_runs_with

    if not home.catalog.is_there():
        return {}
    found = newest_runs_with(home.catalog, artifact, strategy_id=strategy_id)
    return {
        month: home.runs.open(run_dir)
        for month, run_dir in ((run_dir.split("/")[0], run_dir) for run_dir in found)
        if not months or month in months
    }
