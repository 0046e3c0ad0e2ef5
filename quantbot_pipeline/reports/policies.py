"""What each replayed policy earned over months: one row per policy, from its trades.

Belongs here: the statistics of trades that may come from several runs. Which trades count is in `trades`.
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from quantbot_pipeline.artifacts.schemas import TRADES
from quantbot_pipeline.catalog.catalog import Catalog
from quantbot_pipeline.reports.aggregates import statistics_by
from quantbot_pipeline.reports.remarks import with_months
from quantbot_pipeline.reports.trades import replayed_trades
from quantbot_pipeline.runs.manifest import RunDirectory, read_manifest
from quantbot_pipeline.runs.verify import read_artifact

HOUR_MS = 3_600_000
POLICY_COLUMNS = (
    "policy_id",
    "months",
    "trades",
    "callers",
    "avg_return_bps",
    "median_return_bps",
    "p25_return_bps",
    "p75_return_bps",
    "loss_rate",
    "stop_out_rate",
    "es95_bps",
    "data_end_share",
    "stressed_avg_return_bps",
    "avg_hours",
)


def policies(catalog: Catalog, *, caller: str | None = None) -> list[dict[str, Any]]:
    """Return what each policy earned in the newest run of each month that replayed it, the highest mean return first.

    `caller` counts the calls of one caller alone.
    """
    return summed_up(replayed_trades(catalog, caller=caller)[0])


def policies_of_runs(run_dirs: Sequence[RunDirectory]) -> list[dict[str, Any]]:
    """Return the same of some runs alone; those without a summary replayed no policy."""
    made = [(run_dir, read_manifest(run_dir)) for run_dir in run_dirs]
    replayed = [(d, manifest) for d, manifest in made if {"summary", "trades"} <= manifest.artifacts.keys()]
    return summed_up(with_months(TRADES, ((m, read_artifact(d, m, "trades")) for d, m in replayed)))


def summed_up(trades: pa.Table) -> list[dict[str, Any]]:
    """Return a row per policy over rows of `trades` with a column `month`: POLICY_COLUMNS, the highest mean first.

    The statistics are those of `summary`, over all months at once. avg_hours: the mean time exposed.
    """
    spread = trades.group_by("policy_id").aggregate([("month", "count_distinct"), ("caller_name", "count_distinct")])
    reach = {row["policy_id"]: row for row in spread.to_pylist()}
    rows = []
    for row in statistics_by(trades, ["policy_id"]):
        months, callers = (reach[row["policy_id"]][f"{name}_count_distinct"] for name in ("month", "caller_name"))
        counted = {"months": months, "callers": callers, "trades": row["trades_count"]}
        found = row | counted | {"avg_hours": row["avg_time_exposed_ms"] / HOUR_MS}
        rows.append({name: found[name] for name in POLICY_COLUMNS})
    return sorted(rows, key=lambda row: (-row["avg_return_bps"], row["policy_id"]))
