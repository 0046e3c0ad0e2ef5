"""What the searches found, as tables for people: a caller's frontier, and the walk-forward of all callers."""

from typing import Any

import duckdb
import pyarrow as pa

from quantbot_pipeline.catalog.catalog import Catalog
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.reports.remarks import load_newest

FRONTIER_COLUMNS = (
    "month",
    "caller_name",
    "rank",
    "policy_id",
    "meets_constraints",
    "objective_score",
    "avg_return_bps",
    "median_return_bps",
    "stop_out_rate",
    "p95_drawdown_bps",
    "trades",
    "is_pareto",
    "violations",
)
WALK_FORWARD_COLUMNS = (
    "caller_name",
    "scheme",
    "months",
    "months_traded",
    "trades",
    "in_sample_avg_bps",
    "in_sample_median_bps",
    "out_of_sample_avg_bps",
    "out_of_sample_median_bps",
    "hold_avg_bps",
    "pooled_avg_bps",
)


def frontier(
    catalog: Catalog,
    *,
    caller: str | None = None,
    month: str | None = None,
    interval: str | None = None,
    strategy_id: str = "grid-search",
    limit: int = 20,
) -> list[dict[str, Any]]:
    """The best `limit` policies of a caller (of every caller without one), newest run of each month, by month and rank.

    Raises InputError when the caller has no frontier.
    """
    rows = load_newest(catalog, "frontier", interval=interval, month=month, strategy_id=strategy_id)
    with duckdb.connect() as con:
        con.register("rows", rows)
        found = (
            con.sql(
                """SELECT month, * EXCLUDE (month) FROM rows WHERE ($caller::VARCHAR IS NULL OR caller_name = $caller)
                   AND rank <= $limit ORDER BY month, caller_name, rank""",
                params={"caller": caller, "limit": limit},
            )
            .to_arrow_table()
            .to_pylist()
        )
        if not found and caller is not None:
            names = [n for (n,) in con.execute("SELECT DISTINCT caller_name FROM rows ORDER BY 1 LIMIT 12").fetchall()]
            where = (f"in {month}" if month else "in any month") + (f" on {interval} candles" if interval else "")
            known = f"callers there: {', '.join(names)}" if names else "run `quantbot backtest optimize` and sync"
            raise InputError(f"no frontier of caller {caller!r} {where}; {known}")
    return found


def walk_forward(catalog: Catalog, interval: str | None = None) -> list[dict[str, Any]]:
    """Per caller and scheme over all months: in-sample promise, out-of-sample result, holding, pooled choice; in bps.

    Means over months are weighted by trades; medians are of the monthly medians of months that traded.
    """
    return judge_choices(load_newest(catalog, "walk_forward", interval=interval))


def judge_choices(rows: pa.Table) -> list[dict[str, Any]]:
    """The walk-forward report of these rows of the `walk_forward` artifact."""
    with duckdb.connect() as con:
        con.register("rows", rows)
        return (
            con.sql(
                """SELECT caller_name, scheme, count(*) AS months, count(policy_id) AS months_traded,
                          sum(out_of_sample_trades)::BIGINT AS trades,
                          sum(in_sample_avg_return_bps * out_of_sample_trades) / nullif(sum(out_of_sample_trades), 0)
                              AS in_sample_avg_bps,
                          median(in_sample_median_return_bps) FILTER (out_of_sample_trades > 0)
                              AS in_sample_median_bps,
                          sum(out_of_sample_avg_return_bps * out_of_sample_trades) / nullif(sum(out_of_sample_trades), 0)
                              AS out_of_sample_avg_bps,
                          median(out_of_sample_median_return_bps) FILTER (out_of_sample_trades > 0)
                              AS out_of_sample_median_bps,
                          sum(hold_avg_return_bps * hold_trades) FILTER (out_of_sample_trades > 0)
                              / nullif(sum(out_of_sample_trades), 0) AS hold_avg_bps,
                          sum(pooled_avg_return_bps * pooled_trades) FILTER (out_of_sample_trades > 0)
                              / nullif(sum(pooled_trades) FILTER (out_of_sample_trades > 0), 0) AS pooled_avg_bps
                   FROM rows GROUP BY 1, 2 ORDER BY caller_name <> '__all__', caller_name, scheme"""
            )
            .to_arrow_table()
            .to_pylist()
        )
