"""What the checks say of run directories, as Dagster's results: the same for a check and for a run that fails on its way.

Belongs here: results over months, their numbers and tables. Does not: which runs are looked at; that is in `checks`.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from quantbot_pipeline.specs import Key, outputs

if TYPE_CHECKING:
    from quantbot_pipeline.home import Home
    from quantbot_pipeline.runs.manifest import RunDirectory

PATHS, WALK = dg.AssetKey(["truth", "paths"]), dg.AssetKey(["results", "walk_forward"])
CALIBRATION = dg.AssetKey(["model", "calibration"])
WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR
MAX_ROWS = 50  # of a table in the UI


def evaluations(home: "Home", made: Mapping[Key, dict[str, "RunDirectory"]]) -> Iterator[dg.AssetCheckEvaluation]:
    """What the checks say of the months that a failing run did make, for the run to log: Dagster skips its checks.

    `made` is {asset: {month: run directory}}.
    """
    results = [
        (dg.AssetKey(list(key)), "contract", True, result)
        for key, result in zip(made, judge_contracts(made), strict=True)
    ]
    for key, artifact in ((PATHS, "paths"), (WALK, "walk_forward")):
        if (run_dirs := made.get((key.path[0], key.path[1]))) is None:
            continue
        if key == PATHS:
            results.append((key, "input_quality", True, judge_quality(home, run_dirs)))
        results.append((key, "regression", False, judge_regression(home, artifact, run_dirs)))
    if (run_dirs := made.get((CALIBRATION.path[0], CALIBRATION.path[1]))) is not None:
        results.append((CALIBRATION, "calibration", False, judge_calibration(run_dirs)))
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


def judge_contracts(made: Mapping[Key, dict[str, "RunDirectory"]]) -> Iterator[dg.AssetCheckResult]:
    """One result per asset of `made`; each run is read once for all of them."""
    from quantbot_pipeline.runs.inspection import Inspection, inspect_run

    known = outputs()
    artifacts = [known[key].artifact for key in made]
    inspected: dict[RunDirectory, Inspection] = {}
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


def judge_quality(home: "Home", run_dirs: Mapping[str, "RunDirectory"]) -> dg.AssetCheckResult:
    """Judge the inputs of every month by the limits of the settings."""
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
        if found := shortcomings(quality, home.settings):
            faults[month] = found
    limits = {
        name: getattr(home.settings, name) for name in ("max_excluded_share", "min_mean_coverage", "max_rejected_share")
    }
    severity = ERROR if home.settings.quality_blocks else WARN
    return _by_month(list(run_dirs), faults, rows, severity, "inputs within the limits", limits)


def judge_regression(home: "Home", artifact: str, run_dirs: Mapping[str, "RunDirectory"]) -> dg.AssetCheckResult:
    """Judge every month, and pass or fail by the newest: an old month that was bad is no news."""
    from quantbot_pipeline.monitoring.regression import judge, load_readings

    readings = load_readings(home.catalog, artifact, run_dirs)
    judged = [month for month in run_dirs if month in readings]
    verdicts = [verdict for month in judged for verdict in judge(readings, month)]
    rows = [v._asdict() | {"z": None if v.z is None else max(-99.0, min(99.0, round(v.z, 2)))} for v in verdicts]
    if not judged:
        return dg.AssetCheckResult(
            passed=True, description="too few calls or trades to judge", metadata={"months_checked": 0, "months": []}
        )
    newest = [verdict for verdict in verdicts if verdict.month == judged[-1]]
    worse = [v for v in newest if v.z is not None and v.z < home.settings.regression_min_z]
    faults = {
        judged[-1]: [
            f"{v.metric} of {v.subject} is {v.value:.4g}, usually {v.usual:.4g} (robust z {v.z:.1f})" for v in worse
        ]
    }
    known = all(v.z is not None for v in newest)
    good = "not below the six months before" if known else "too little history (3 of the six months before are needed)"
    extra: dict[str, Any] = {"min_z": home.settings.regression_min_z, "subject": newest[0].subject}
    extra |= {f"z_{row['metric']}": row["z"] for row in rows if row["month"] == judged[-1] and row["z"] is not None}
    return _by_month(judged[-1:], faults if worse else {}, rows, WARN, good, extra)


def judge_calibration(run_dirs: Mapping[str, "RunDirectory"]) -> dg.AssetCheckResult:
    """Judge whether predicted chances come true, target by target; pass or fail by the newest month: it is to date."""
    from quantbot_pipeline.errors import IntegrityError
    from quantbot_pipeline.monitoring.calibration import HIGH, LOW, MIN_OUTCOMES, read_slopes, sentence

    if not run_dirs:
        return _by_month([], {}, [], WARN, "")
    month, run_dir = list(run_dirs.items())[-1]
    try:
        rows = read_slopes(run_dir)
    except IntegrityError as e:
        return _by_month([month], {month: [str(e)]}, [], WARN, "")
    faults = [sentence(row) for row in rows if row["is_off"]]
    good = f"no slope is shown to leave {LOW} to {HIGH}" if rows else f"no target has {MIN_OUTCOMES} outcomes yet"
    extra = {f"slope_{row['target']}": row["slope"] for row in rows}
    return _by_month([month], {month: faults} if faults else {}, rows, WARN, good, extra)


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
            **table_of("by_month", rows),
        },
    )


def _list(faults: Mapping[str, list[str]], limit: int = 5) -> str:
    """The first months with their first faults; empty without any."""
    listed = [f"{month}: {'; '.join(faults[month][:3])}" for month in sorted(faults)]
    more = f" (and {len(listed) - limit} more months)" if len(listed) > limit else ""
    return ". ".join(listed[:limit]) + more


def table_of(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
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
