"""Replayed policies: what each earned over all calls, from the newest run of each month that replayed it."""

import json
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from quantbot_pipeline.catalog.catalog import Catalog, latest_runs_with
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.reports.describe import describe, kind_of, price_levels
from quantbot_pipeline.reports.page.encode import Columns, Index, columns, histogram, of_rows
from quantbot_pipeline.reports.remarks import read_each

PolicyKey = tuple[str, str | None]  # (policy_id, policy_params): a name given by hand may stand for two policies

MAX_POLICIES = 60  # replayed ones, newest first: what a person can compare
RETURN_EDGES_BPS = (-5_000.0, -2_500.0, -1_000.0, -500.0, 0.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0, 20_000.0)
_TRADES = (
    "policy_id",
    "call_id",
    "exit_ts_ms",
    "exit_px",
    "exit_reason",
    "entry_px",
    "realized_return_bps",
    "stop_out",
    "max_adverse_excursion_bps",
    "time_exposed_ms",
    "tail_capture",
)
# As in docs/semantics.md, "Aggregates": over all trades of a policy.
_STATS = """
    count(*) AS trades_count, avg(r) AS avg_return_bps, median(r) AS median_return_bps,
    quantile_cont(r, 0.25) AS p25_return_bps, quantile_cont(r, 0.75) AS p75_return_bps, quantile_cont(r, 0.9) AS p90_return_bps,
    avg(stop_out::INT) AS stop_out_rate, avg((r < 0)::INT) AS loss_rate,
    list_avg(list_slice(list_sort(list(r)), 1, greatest(1, count(*) // 20))) AS es95_bps,
    quantile_cont(max_adverse_excursion_bps, 0.05) AS p95_drawdown_bps,
    avg(CASE WHEN exit_reason = 'data_end' THEN -10000.0 ELSE r END) AS stressed_avg_return_bps,
    avg(time_exposed_ms) AS avg_time_exposed_ms, avg(tail_capture) AS avg_tail_capture
"""


def load_replayed(con: duckdb.DuckDBPyConnection, catalog: Catalog, policies: Index[PolicyKey]) -> set[tuple[int, str]]:
    """Fill the table `replayed` of `con`: every trade of every replayed policy, one run per (policy, month).

    Returns the (policy, configuration) pairs behind it, so that the page can say where settings were mixed.
    """
    con.execute(
        """CREATE TABLE replayed (policy BIGINT, month VARCHAR, call_id VARCHAR, exit_ts_ms BIGINT, exit_px DOUBLE,
           exit_reason VARCHAR, entry_px DOUBLE, r DOUBLE, stop_out BOOLEAN, max_adverse_excursion_bps DOUBLE,
           time_exposed_ms BIGINT, tail_capture DOUBLE)"""
    )
    claimed: set[tuple[int, str]] = set()
    settings: set[tuple[int, str]] = set()
    for run_dir in latest_runs_with(catalog, "summary"):
        manifest, summary = next(read_each(catalog, [run_dir], "summary", ["policy_id", "policy_params"]))
        keys = zip(summary["policy_id"].to_pylist(), summary["policy_params"].to_pylist(), strict=True)
        known = {policy for policy, _ in claimed}
        mine = {}
        for key in keys:
            if key[0] is None:
                continue
            policy = policies.of(key)
            if (policy, manifest.month) not in claimed and (policy in known or len(known) < MAX_POLICIES):
                mine[key[0]] = policy
                known.add(policy)
        if mine:
            claimed |= {(policy, manifest.month) for policy in mine.values()}
            settings |= {(policy, manifest.parameters["config_hash"]) for policy in mine.values()}
            _add_trades(con, catalog, run_dir, mine)
    return settings


def _add_trades(con: duckdb.DuckDBPyConnection, catalog: Catalog, run_dir: str, mine: dict[str, int]) -> None:
    manifest, trades = next(read_each(catalog, [run_dir], "trades", _TRADES))
    con.register("chosen", pa.table({"policy_id": list(mine), "policy": list(mine.values())}))
    con.register("trades", trades)
    con.execute(
        """INSERT INTO replayed SELECT policy, ?, call_id, exit_ts_ms, exit_px, exit_reason, entry_px,
           realized_return_bps, stop_out, max_adverse_excursion_bps, time_exposed_ms, tail_capture
           FROM trades JOIN chosen USING (policy_id)""",
        [manifest.month],
    )
    con.unregister("trades")


def replayed_section(con: duckdb.DuckDBPyConnection, settings: set[tuple[int, str]]) -> dict[str, Any]:
    """Statistics of each replayed policy, over all months and month by month, and the distribution of its returns."""
    overall = con.sql(f"SELECT policy, {_STATS} FROM replayed GROUP BY 1 ORDER BY 1").to_arrow_table()
    months = con.sql(
        """SELECT policy, month, count(*) AS trades_count, avg(r) AS avg_return_bps, median(r) AS median_return_bps,
                  avg(stop_out::INT) AS stop_out_rate FROM replayed GROUP BY 1, 2 ORDER BY 1, 2"""
    ).to_arrow_table()
    returns = con.sql("SELECT policy, r FROM replayed").to_arrow_table()
    order = overall["policy"].to_numpy()
    counts = histogram(
        np.searchsorted(order, returns["policy"].to_numpy()), returns["r"].to_numpy(), RETURN_EDGES_BPS, len(order)
    )
    configs = [len({config for policy, config in settings if policy == one}) for one in order.tolist()]
    return {
        "overall": {**columns(overall), "configurations": configs},
        "months": columns(months),
        "return_edges_bps": RETURN_EDGES_BPS,
        "returns": counts.tolist(),
    }


def policy_columns(policies: Index[PolicyKey]) -> Columns:
    """Every policy that the page mentions: id, parameters, kind, and words."""
    return of_rows([_described(key) for key in policies.values], ("policy_id", "params", "kind", "words"))


def _described(key: PolicyKey) -> dict[str, Any]:
    """A policy without parameters, or of a kind that a later version introduced, goes by its name."""
    policy_id, params = key
    try:
        kind, words = (kind_of(params), describe(params)) if params else ("unknown", policy_id)
    except InputError:
        return {"policy_id": policy_id, "params": None, "kind": "unknown", "words": policy_id}
    return {"policy_id": policy_id, "params": json.loads(params) if params else None, "kind": kind, "words": words}


def levels_of(key: PolicyKey) -> list[tuple[str, float]]:
    """The price levels of a policy as `describe.price_levels`; none for one that goes by its name."""
    described = _described(key)
    return [] if described["params"] is None else price_levels(str(key[1]))
