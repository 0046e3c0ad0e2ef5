"""What the searches found: each caller's frontier, the best policies, the pooled statistics, and the V1 accounts.

A frontier has a row per caller and policy, too many to carry all of them for hundreds of callers: then a caller keeps its
best ranks, its Pareto set and an even sample of the rest, of its newest months. Tables are never thinned.
"""

from itertools import pairwise
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from quantbot_pipeline.catalog.catalog import Catalog, newest_runs_with
from quantbot_pipeline.duck import database_of
from quantbot_pipeline.replay.capital import MAX_POSITIONS, MIN_SIZE, START_CAPITAL
from quantbot_pipeline.reports.dashboard.policies import PolicyKey
from quantbot_pipeline.reports.page.encode import Columns, Index, columns
from quantbot_pipeline.reports.remarks import load_newest, read_each
from quantbot_pipeline.reports.verdicts import verdicts_for
from quantbot_pipeline.vocabulary import IN_SAMPLE

POINTS = 60_000  # scatter points on the page: about 35 bytes each
CURVE_POINTS = 40_000  # points of equity curves
POINT_MONTHS = 12
POOLED_MONTHS = 6
BEST_RANKS = 20  # always kept
MIN_POINTS = 120  # per caller and month, before older months are left out
# Digits of what is drawn or compared in bulk; the tables of best policies and accounts are exact.
_POINT_DIGITS = {
    "objective_score": 0,
    "avg_return_bps": 0,
    "median_return_bps": 0,
    "stop_out_rate": 4,
    "p95_drawdown_bps": 0,
}
_BEST = (
    "meets_constraints",
    "objective_score",
    "avg_return_bps",
    "median_return_bps",
    "stop_out_rate",
    "p95_drawdown_bps",
    "trades",
    "data_end_share",
    "stressed_avg_return_bps",
    "is_pareto",
)
_POOLED = (
    "rank",
    "meets_constraints",
    "trades",
    "objective_score",
    "avg_return_bps",
    "median_return_bps",
    "stop_out_rate",
    "loss_rate",
    "es95_bps",
    "p95_drawdown_bps",
    "stressed_avg_return_bps",
    "data_end_share",
    "avg_time_exposed_ms",
    "avg_tail_capture",
)
_POOLED_DIGITS = {
    name: 6 if name.endswith(("_rate", "_share")) or name == "avg_tail_capture" else 2 for name in _POOLED[3:]
}
_READ = tuple(dict.fromkeys(("caller_name", "policy_id", "policy_params", "violations", *_BEST, *_POOLED)))


def frontier_section(
    catalog: Catalog, callers: Index[str], policies: Index[PolicyKey], violations: Index[str]
) -> dict[str, Any]:
    """Frontiers of the newest grid search of each month: scatter points, best rows, and all callers pooled."""
    points: list[dict[str, Any]] = []
    best: list[pa.Table] = []
    pooled: dict[str, Columns] = {}
    left = POINTS
    run_dirs = newest_runs_with(catalog, "frontier", strategy_id="grid-search")
    for i, (manifest, table) in enumerate(read_each(catalog, run_dirs[::-1], "frontier", _READ)):
        if i >= POINT_MONTHS:  # of older months only the best rows are shown
            table = table.filter(pc.equal(table["rank"], 1))
        coded = _coded(table, callers, policies, violations)
        limit = _points_per_caller(
            pc.count_distinct(coded["caller"]).as_py(), min(len(run_dirs), POINT_MONTHS) - i, left
        )
        with database_of(rows=coded) as con:
            best.append(_best_rows(con, manifest.month))
            if i < POOLED_MONTHS:
                pooled[manifest.month] = _pooled_rows(con)
            if limit:
                groups = _points(con, manifest.month, limit)
                left -= sum(len(group["policy"]) for group in groups)
                points += groups
    newest_first = columns(pa.concat_tables(best)) if best else {}
    return {"points": points, "best": newest_first | _said(catalog, newest_first, callers), "pooled": pooled}


def _said(catalog: Catalog, best: Columns, callers: Index[str]) -> Columns:
    """Return the columns that say of each best row on what it was chosen, and its caller's verdict as of its month."""
    months = best.get("month", [])
    verdicts = verdicts_for(catalog, months)
    named = [callers.values[caller] for caller in best.get("caller", [])]
    return {
        "sample": [IN_SAMPLE] * len(months),
        "verdict": [verdicts.of(name, month) for name, month in zip(named, months, strict=True)],
    }


def _coded(table: pa.Table, callers: Index[str], policies: Index[PolicyKey], violations: Index[str]) -> pa.Table:
    """The frontier with positions instead of texts."""
    ids = table["policy_id"].combine_chunks().dictionary_encode()
    _, first = np.unique(ids.indices.to_numpy(), return_index=True)
    params = table["policy_params"].take(pa.array(first)).to_pylist()
    keys = zip(ids.dictionary.to_pylist(), params, strict=True)
    positions = np.array([policies.of(key) for key in keys], dtype=np.int64)
    coded = {
        "caller": callers.of_each(table["caller_name"]),
        "policy": positions[ids.indices.to_numpy()] if len(ids) else positions,
        "violations": violations.of_each(table["violations"]),
    }
    numbers = table.drop_columns(["caller_name", "policy_id", "policy_params", "violations"])
    return pa.table({**coded, **{name: numbers[name] for name in numbers.column_names}})


def _points_per_caller(callers: int, months: int, left: int) -> int:
    """How many of `left` points a caller gets in a month with `months` of the newest still to draw; 0: it is left out."""
    if not callers or months < 1:
        return 0  # every call was excluded, or the month is too old
    limit = min(max(MIN_POINTS, left // (callers * months)), left // callers)
    if left == POINTS:  # the newest month with callers is drawn whatever it costs
        return max(BEST_RANKS, limit)
    return limit if limit >= MIN_POINTS else 0


def _best_rows(con: duckdb.DuckDBPyConnection, month: str) -> pa.Table:
    return con.sql(
        f"""SELECT caller, $month AS month, policy, violations, {", ".join(_BEST)} FROM rows
            WHERE rank = 1 ORDER BY objective_score DESC, caller""",
        params={"month": month},
    ).to_arrow_table()


def _pooled_rows(con: duckdb.DuckDBPyConnection) -> Columns:
    table = con.sql(
        f"SELECT policy, violations, is_pareto, {', '.join(_POOLED)} FROM rows WHERE caller = 0 ORDER BY rank"
    ).to_arrow_table()
    return columns(table, _POOLED_DIGITS)


def _points(con: duckdb.DuckDBPyConnection, month: str, limit: int) -> list[dict[str, Any]]:
    """One dict per caller: its points as columns, by rank, and how many policies there were."""
    found = con.sql(
        """WITH sized AS (SELECT *, count(*) OVER (PARTITION BY caller) AS policies FROM rows),
           kept AS (SELECT * FROM sized QUALIFY row_number() OVER (PARTITION BY caller ORDER BY
               CASE WHEN rank <= $best THEN 0 WHEN is_pareto THEN 1 WHEN rank % ceil(2.0 * policies / $limit)::BIGINT = 0 THEN 2
               ELSE 3 END, rank) <= $limit)
           SELECT caller, policies, trades, policy, rank, is_pareto::INT AS is_pareto, violations, objective_score,
                  avg_return_bps, median_return_bps, stop_out_rate, p95_drawdown_bps
           FROM kept ORDER BY caller, rank""",
        params={"best": BEST_RANKS, "limit": limit},
    ).to_arrow_table()
    caller = found["caller"].to_numpy()
    starts = np.flatnonzero(np.diff(caller, prepend=-1)).tolist()
    groups = []
    for start, end in pairwise([*starts, len(caller)]):
        part = found.slice(start, end - start)
        first = {name: part[name][0].as_py() for name in ("caller", "policies", "trades")}
        groups.append({**first, "month": month, **columns(part.drop_columns(list(first)), _POINT_DIGITS)})
    return groups


def v1_section(catalog: Catalog, callers: Index[str], policies: Index[PolicyKey]) -> dict[str, Any]:
    """The best V1 account of each caller and month, and its equity curve, thinned to what a line can show."""
    rows = load_newest(catalog, "frontier", strategy_id="v1-baseline")
    with database_of(rows=rows) as con:
        best = con.sql(
            """SELECT caller_name, policy_id, policy_params, month, meets_constraints, objective_score AS final_capital,
                      trades, stop_out_rate, avg_return_bps, median_return_bps, flags, skipped_max_positions,
                      skipped_below_min_size
               FROM rows WHERE rank = 1 ORDER BY month DESC, final_capital DESC, caller_name"""
        ).to_arrow_table()
    keys = zip(best["policy_id"].to_pylist(), best["policy_params"].to_pylist(), strict=True)
    return {
        "capital": START_CAPITAL,
        "max_positions": MAX_POSITIONS,
        "min_size": MIN_SIZE,
        "best": {
            "caller": callers.of_each(best["caller_name"]).tolist(),
            "policy": [policies.of(key) for key in keys],
            **columns(best.drop_columns(["caller_name", "policy_id", "policy_params"])),
        },
        "equity": _curves(load_newest(catalog, "equity"), callers),
    }


def _curves(equity: pa.Table, callers: Index[str]) -> list[dict[str, Any]]:
    """One dict per caller and month: minutes since the first event, and equity after each kept event."""
    if not equity.num_rows:
        return []
    # Rows of an account are in order of its events, which its times alone do not tell.
    numbered = equity.append_column("event_no", pa.array(np.arange(equity.num_rows)))
    with database_of(equity=numbered) as con:
        ((groups,),) = con.execute("SELECT count(DISTINCT (caller_name, month)) FROM equity").fetchall()
        found = con.sql(
            """WITH sized AS (SELECT *, row_number() OVER (PARTITION BY month, caller_name ORDER BY event_no) AS n,
                         count(*) OVER (PARTITION BY month, caller_name) AS events,
                         min(ts_ms) OVER (PARTITION BY month, caller_name) AS start_ts_ms FROM equity)
               SELECT caller_name, month, start_ts_ms, list((ts_ms - start_ts_ms) // 60000 ORDER BY event_no) AS minutes,
                      list(round(equity, 2) ORDER BY event_no) AS equity
               FROM sized WHERE n = 1 OR n = events OR n % ceil(events / $limit)::BIGINT = 0
               GROUP BY 1, 2, 3 ORDER BY month DESC, caller_name""",
            params={"limit": float(max(8, CURVE_POINTS // groups))},
        ).to_arrow_table()
    kept = columns(found.drop_columns(["caller_name"]))
    caller = callers.of_each(found["caller_name"]).tolist()
    return [{"caller": caller[i], **{name: values[i] for name, values in kept.items()}} for i in range(found.num_rows)]
