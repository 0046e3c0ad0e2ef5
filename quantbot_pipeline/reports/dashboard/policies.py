"""Replayed policies: what each earned over all calls, from the newest run of each month that replayed it."""

import json
from itertools import combinations
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quantbot_pipeline.catalog.catalog import Catalog, latest_runs_with
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.evidence.clusters import day_interval
from quantbot_pipeline.reports.aggregates import statistics_by
from quantbot_pipeline.reports.describe import describe, kind_of, price_levels
from quantbot_pipeline.reports.page.encode import Columns, Index, histogram, of_rows
from quantbot_pipeline.reports.remarks import read_each

Floats = npt.NDArray[np.float64]
PolicyKey = tuple[str, str | None]  # (policy_id, policy_params): a name given by hand may stand for two policies

MAX_POLICIES = 60  # replayed ones, newest first: what a person can compare
# Bins as wide as each other: a quarter of a doubling of what became of 1.
RETURN_EDGES_BPS = tuple((2.0 ** (k / 4) - 1) * 10_000 for k in range(-6, 9))
_TRADES = (
    "policy_id",
    "call_id",
    "exit_ts_ms",
    "exit_px",
    "exit_reason",
    "entry_px",
    "entry_ts_ms",
    "realized_return_bps",
    "stop_out",
    "max_adverse_excursion_bps",
    "time_exposed_ms",
    "tail_capture",
)
STATISTICS = (
    "avg_return_bps",
    "median_return_bps",
    "p25_return_bps",
    "p75_return_bps",
    "p90_return_bps",
    "stop_out_rate",
    "loss_rate",
    "es95_bps",
    "p95_drawdown_bps",
    "stressed_avg_return_bps",
    "avg_time_exposed_ms",
    "avg_tail_capture",
)
PAIRED = ("a", "b", "calls", "avg_a_bps", "avg_b_bps", "difference_bps", "low_bps", "high_bps")
MONTHLY = ("avg_return_bps", "median_return_bps", "stop_out_rate")


def load_replayed(con: duckdb.DuckDBPyConnection, catalog: Catalog, policies: Index[PolicyKey]) -> set[tuple[int, str]]:
    """Fill the table `replayed` of `con`: every trade of every replayed policy, one run per (policy, month).

    Returns the (policy, configuration) pairs behind it, so that the page can say where settings were mixed.
    """
    con.execute(
        """CREATE TABLE replayed (policy BIGINT, month VARCHAR, call_id VARCHAR, exit_ts_ms BIGINT, exit_px DOUBLE,
           exit_reason VARCHAR, entry_px DOUBLE, entry_ts_ms BIGINT, r DOUBLE, stop_out BOOLEAN, max_adverse_excursion_bps DOUBLE,
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
        """INSERT INTO replayed SELECT policy, ?, call_id, exit_ts_ms, exit_px, exit_reason, entry_px, entry_ts_ms,
           realized_return_bps, stop_out, max_adverse_excursion_bps, time_exposed_ms, tail_capture
           FROM trades JOIN chosen USING (policy_id)""",
        [manifest.month],
    )
    con.unregister("trades")


def replayed_section(con: duckdb.DuckDBPyConnection, settings: set[tuple[int, str]]) -> dict[str, Any]:
    """Statistics of each replayed policy, over all months and month by month, and the distribution of its returns."""
    trades = con.sql(
        "SELECT * EXCLUDE r, r AS realized_return_bps FROM replayed ORDER BY policy, month, call_id"
    ).to_arrow_table()
    overall = statistics_by(trades, ["policy"], STATISTICS)
    order = np.array([row["policy"] for row in overall], np.int64)
    counts = histogram(
        np.searchsorted(order, trades["policy"].to_numpy()),
        trades["realized_return_bps"].to_numpy(),
        RETURN_EDGES_BPS,
        len(order),
    )
    configs = [len({config for policy, config in settings if policy == one}) for one in order.tolist()]
    return {
        "overall": {**of_rows(overall, ("policy", "trades_count", *STATISTICS)), "configurations": configs},
        "months": of_rows(
            statistics_by(trades, ["policy", "month"], MONTHLY), ("policy", "month", "trades_count", *MONTHLY)
        ),
        "return_edges_bps": RETURN_EDGES_BPS,
        "returns": counts.tolist(),
        "pairs": of_rows(_pairs(trades), PAIRED),
    }


def _pairs(trades: pa.Table) -> list[dict[str, Any]]:
    """Return what two policies returned on the calls that both have: means, and the mean difference b less a with its interval."""
    call = trades["call_id"].combine_chunks().dictionary_encode()
    at = call.indices.to_numpy()
    policy, returns = trades["policy"].to_numpy(), trades["realized_return_bps"].to_numpy()
    entry = np.zeros(len(call.dictionary), np.int64)
    entry[at] = trades["entry_ts_ms"].to_numpy()
    of = {}
    for one in np.unique(policy).tolist():
        of[one] = np.full(len(entry), np.nan)
        of[one][at[policy == one]] = returns[policy == one]
    return [_pair(a, b, of[a], of[b], entry) for a, b in combinations(of, 2)]


def _pair(a: int, b: int, x: Floats, y: Floats, entry: npt.NDArray[np.int64]) -> dict[str, Any]:
    both = np.isfinite(x) & np.isfinite(y)
    found: dict[str, Any] = dict.fromkeys(PAIRED) | {"a": a, "b": b, "calls": int(both.sum())}
    if not both.any():
        return found
    apart = (y - x)[both]
    low, high = day_interval(entry[both], apart) or (None, None)
    return found | {
        "avg_a_bps": float(x[both].mean()),
        "avg_b_bps": float(y[both].mean()),
        "difference_bps": float(apart.mean()),
        "low_bps": low,
        "high_bps": high,
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
