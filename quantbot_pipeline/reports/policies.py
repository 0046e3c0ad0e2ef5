"""What each replayed policy earned over months: one row per policy, from its trades.

Belongs here: the statistics of trades that may come from several runs. Which trades count is in `trades`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from quantbot_pipeline.artifacts.schemas import TRADES
from quantbot_pipeline.catalog.catalog import Catalog
from quantbot_pipeline.reports.trades import replayed_trades
from quantbot_pipeline.runs.manifest import read_manifest
from quantbot_pipeline.runs.verify import read_artifact

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


def policies_of_runs(run_dirs: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the same of some runs alone; those without a summary replayed no policy."""
    found = []
    for run_dir in run_dirs:
        manifest = read_manifest(run_dir)
        if {"summary", "trades"} <= manifest.artifacts.keys():
            rows = read_artifact(run_dir, manifest, "trades")
            found.append(rows.append_column("month", pa.repeat(pa.scalar(manifest.month), rows.num_rows)))
    return summed_up(pa.concat_tables(found)) if found else []


def summed_up(trades: pa.Table) -> list[dict[str, Any]]:
    """Return a row per policy over rows of `trades` with a column `month`: POLICY_COLUMNS, the highest mean first.

    es95_bps: the mean of the worst twentieth. stressed_avg_return_bps: trades that end with the data taken as a total loss.
    """
    empty = TRADES.append(pa.field("month", pa.string())).empty_table()
    with duckdb.connect(config={"threads": 1}) as con:  # sums in one order: the same bits at every call
        con.register("trades", trades if trades.num_rows else empty)
        return (
            con.sql(
                """SELECT policy_id, count(DISTINCT month) AS months, count(*) AS trades, count(DISTINCT caller_name) AS callers,
                          list_avg(list_sort(list(realized_return_bps))) AS avg_return_bps,
                          median(realized_return_bps) AS median_return_bps,
                          quantile_cont(realized_return_bps, 0.25) AS p25_return_bps,
                          quantile_cont(realized_return_bps, 0.75) AS p75_return_bps,
                          avg((realized_return_bps < 0)::INT) AS loss_rate, avg(stop_out::INT) AS stop_out_rate,
                          list_avg(list_sort(list(realized_return_bps))[: greatest(1, count(*) // 20)]) AS es95_bps,
                          avg((exit_reason = 'data_end')::INT) AS data_end_share,
                          list_avg(list_sort(list(if(exit_reason = 'data_end', -10000.0::DOUBLE, realized_return_bps))))
                              AS stressed_avg_return_bps,
                          avg(time_exposed_ms) / 3.6e6 AS avg_hours
                   FROM trades GROUP BY policy_id ORDER BY avg_return_bps DESC, policy_id"""
            )
            .to_arrow_table()
            .to_pylist()
        )
