"""The caller leaderboard: what followed each caller's calls, over the newest run of every month."""

from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from quantbot_pipeline.artifacts.schemas import FRONTIER
from quantbot_pipeline.catalog.catalog import Catalog, newest_runs_with
from quantbot_pipeline.reports.remarks import load_newest, read_each

COLUMNS = (
    "caller_name",
    "calls",
    "mints",
    "hit_2x_rate",
    "hit_3x_rate",
    "hit_4x_rate",
    "median_peak_multiple",
    "median_dd_bps",
    "median_min_to_2x",
    "data_end_share",
    "stressed_avg_return_bps",
)


def leaderboard(catalog: Catalog, interval: str | None = None) -> list[dict[str, Any]]:
    """One row per caller, best 2x rate first; rates in [0, 1], drawdown in bps, time from alert to 2x in minutes."""
    return rank_callers(load_newest(catalog, "paths", interval=interval), first_policies(catalog, interval))


def first_policies(catalog: Catalog, interval: str | None = None) -> pa.Table:
    """Return each caller's first policy of each month's newest search: caller_name, trades, stressed_avg_return_bps.

    A search has hundreds of policies for each caller, so only these rows of a month are kept.
    """
    columns = ("caller_name", "trades", "stressed_avg_return_bps", "rank")
    run_dirs = newest_runs_with(catalog, "frontier", interval=interval, strategy_id="grid-search")
    empty = pa.schema([FRONTIER.field(name) for name in columns]).empty_table()
    found = [table.filter(pc.equal(table["rank"], 1)) for _, table in read_each(catalog, run_dirs, "frontier", columns)]
    return pa.concat_tables([empty, *found]).drop_columns(["rank"])


def rank_callers(paths: pa.Table, first: pa.Table) -> list[dict[str, Any]]:
    """Return the leaderboard of these rows of the artifact `paths` and these first policies.

    data_end_share: of the calls whose candles end before the window does. stressed_avg_return_bps: the mean return of the
    caller's first policy of each month, such trades valued at a total loss; null without a search.
    """
    with duckdb.connect(config={"threads": 1}) as con:  # sums in one order: the same bits at every call
        con.register("newest_paths", paths)
        con.register("first_policies", first)
        return (
            con.sql(
                """WITH best AS (
                       SELECT caller_name, sum(stressed_avg_return_bps * trades) / sum(trades) AS stressed
                       FROM first_policies GROUP BY 1)
                   SELECT caller_name, count(*) AS calls, count(DISTINCT mint) AS mints, avg(hit_2x::INT) AS hit_2x_rate,
                          avg(hit_3x::INT) AS hit_3x_rate, avg(hit_4x::INT) AS hit_4x_rate,
                          median(peak_multiple) AS median_peak_multiple, median(dd_bps) AS median_dd_bps,
                          median((t_2x_ms - alert_ts_ms) / 60000.0) AS median_min_to_2x,
                          avg(censored::INT) AS data_end_share, any_value(stressed) AS stressed_avg_return_bps
                   FROM newest_paths LEFT JOIN best USING (caller_name) GROUP BY 1 ORDER BY hit_2x_rate DESC, calls DESC, caller_name"""
            )
            .to_arrow_table()
            .to_pylist()
        )
