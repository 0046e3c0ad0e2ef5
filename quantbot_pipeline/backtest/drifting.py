"""What models predicted of the last months against what came of it, as the newest runs of these months tell.

Belongs here: which runs are read, and their losses. Does not: what drift is; see `anomalies.drift`.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from quantbot_pipeline.anomalies.drift import MONTHS, prediction_drift
from quantbot_pipeline.anomalies.findings import Finding
from quantbot_pipeline.config import BacktestConfig
from quantbot_pipeline.home import Home
from quantbot_pipeline.months import month_start_ms, months_before, next_month
from quantbot_pipeline.runs.manifest import RunDirectory, RunManifest
from quantbot_pipeline.runs.verify import read_artifact

ARTIFACT = "predictions"
ALIKE = ("interval", "entry", "latency_ms", "horizon_ms")  # what runs must share with this one
COLUMNS = ("target", "alert_ts_ms", "value", "base_value", "outcome", "outcome_known_ts_ms")


def predictions_behind(home: Home, month: str, config: BacktestConfig) -> list[tuple[RunDirectory, RunManifest]]:
    """Return the newest runs with predictions of the three months that end with this one; none unless each month has one."""
    wanted = {name: getattr(config, name) for name in ALIKE}
    found = []
    for back in range(MONTHS - 1, -1, -1):
        runs = [
            pair
            for pair in home.runs.completed(months_before(month, back) if back else month)
            if ARTIFACT in pair[1].artifacts and wanted.items() <= pair[1].parameters.items()
        ]
        if not runs:
            return []
        found.append(max(runs, key=lambda pair: (pair[1].created_at, pair[1].run_id)))
    return found


def drift_inputs(home: Home, month: str, config: BacktestConfig) -> list[str]:
    """Return what changes when the predictions do that are looked at."""
    return [str(made.artifacts[ARTIFACT].content_sha256) for _, made in predictions_behind(home, month, config)]


def drift_findings(home: Home, month: str, config: BacktestConfig) -> Iterator[Finding]:
    """Yield the targets whose predictions were worse than the base rate in the last three months.

    Outcomes count that were known by the end of the month. Raises IntegrityError when a file is not what was committed.
    """
    from quantbot_pipeline.models.metrics import blocks_of, losses, mean_with_z
    from quantbot_pipeline.models.targets import parse_target

    begin, end = month_start_ms(months_before(month, MONTHS - 1)), month_start_ms(next_month(month))
    by_target: dict[str, list[dict[str, Any]]] = {}
    for run_dir, made in predictions_behind(home, month, config):
        for row in read_artifact(run_dir, made, ARTIFACT, COLUMNS).to_pylist():
            if row["outcome"] is not None and (row["outcome_known_ts_ms"] or end) <= end:
                by_target.setdefault(row["target"], []).append(row)
    for target, rows in sorted(by_target.items()):
        outcome, value, base = (
            np.array([row[name] for row in rows], float) for name in ("outcome", "value", "base_value")
        )
        amount = parse_target(target).is_amount
        excess = losses(outcome, value, is_amount=amount) - losses(outcome, base, is_amount=amount)
        alert = np.array([row["alert_ts_ms"] for row in rows], np.int64)
        mean, z = mean_with_z(excess, blocks_of(alert, config.horizon_ms))
        found = prediction_drift(target, mean, z, len(rows), begin, end)
        if found is not None:
            yield found
