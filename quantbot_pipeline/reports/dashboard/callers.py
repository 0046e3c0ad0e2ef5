"""Callers: the leaderboard with its verdicts, and for each caller distributions, months and walk-forward choices."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quantbot_pipeline.duck import database_of
from quantbot_pipeline.evidence.intervals import wilson
from quantbot_pipeline.reports.dashboard.policies import PolicyKey
from quantbot_pipeline.reports.leaderboard import COLUMNS, in_order, trends, what_followed
from quantbot_pipeline.reports.page.encode import Columns, Index, columns, histogram, of_rows
from quantbot_pipeline.reports.searches import judge_choices
from quantbot_pipeline.reports.verdicts import Verdicts

SCHEME = "anchored"  # the choice shown beside the verdict, which judges it; the walk-forward page shows both
HITS = (2, 3, 4)
PEAK_EDGES = tuple(2.0 ** (k / 2) for k in range(1, 9))  # bins as wide as each other: half a doubling
DRAWDOWN_EDGES_BPS = (-9_000.0, -8_000.0, -7_000.0, -6_000.0, -5_000.0, -4_000.0, -3_000.0, -2_000.0, -1_000.0)
FIRST_MINUTES = (5.0, 15.0, 30.0, 60.0, 120.0, 240.0, 480.0, 720.0, 1_440.0, 2_880.0)
CHOICE_ROWS = 12_000  # of callers' months; the newest stay
CHOSEN = ("policy", "policy_month", "in_sample_median_bps", "out_of_sample_median_bps", "out_of_sample_trades")


def callers_section(
    verdicts: Verdicts,
    paths: pa.Table,
    first: pa.Table,
    walk_forward: pa.Table,
    trades: pa.Table,
    callers: Index[str],
    policies: Index[PolicyKey],
) -> dict[str, Any]:
    """The leaderboard and everything the caller pages need but the frontiers; rows refer to `callers` by position."""
    judged = judge_choices(walk_forward, trades)
    choices = _choices(walk_forward, judged, policies)
    rows = []
    for row in in_order(verdicts, what_followed(paths, first), trends(walk_forward)):
        chosen = choices.get(row["caller_name"], dict.fromkeys(CHOSEN))
        rows.append({"caller": callers.of(row["caller_name"]), **row, **_intervals(row), **chosen})
    names = ("caller", *COLUMNS[1:], *(f"hit_{k}x_interval" for k in HITS), *CHOSEN)
    return {
        "scheme": SCHEME,
        "leaderboard": of_rows(rows, names),
        "distributions": _distributions(paths, callers),
        "months": _months(paths, callers),
        "walk_forward": _walk_forward(judged, callers),
        "choices": _monthly_choices(walk_forward, callers, policies),
    }


def _intervals(row: dict[str, Any]) -> dict[str, Any]:
    """Return the intervals of a caller's rates; null where no run measured its calls."""
    calls = row["calls"]
    found = {k: None if calls is None else wilson(round(row[f"hit_{k}x_rate"] * calls), calls) for k in HITS}
    return {f"hit_{k}x_interval": interval for k, interval in found.items()}


def _choices(
    walk_forward: pa.Table, rows: list[dict[str, Any]], policies: Index[PolicyKey]
) -> dict[str, dict[str, Any]]:
    """{caller: newest choice of the scheme, and medians over the test trades}."""
    judged = {row["caller_name"]: row for row in rows if row["scheme"] == SCHEME}
    with database_of(rows=walk_forward) as con:
        newest = con.execute(
            """SELECT caller_name, month, policy_id, policy_params FROM rows WHERE scheme = ?
               QUALIFY row_number() OVER (PARTITION BY caller_name ORDER BY month DESC) = 1
               ORDER BY caller_name""",
            [SCHEME],
        ).fetchall()
    return {
        name: {
            "policy": None if policy_id is None else policies.of((policy_id, params)),
            "policy_month": month,
            "in_sample_median_bps": judged[name]["in_sample_median_of_medians_bps"],
            "out_of_sample_median_bps": judged[name]["out_of_sample_median_bps"],
            "out_of_sample_trades": judged[name]["trades"],
        }
        for name, month, policy_id, params in newest
    }


def _distributions(paths: pa.Table, callers: Index[str]) -> dict[str, Any]:
    """Counts by caller: peaks, drawdowns, and calls that had reached 2x, 3x, 4x so many minutes after the alert."""
    group = callers.of_each(paths["caller_name"])
    n = len(callers.values)
    alert = paths["alert_ts_ms"].to_numpy()
    minutes = {k: (paths[f"t_{k}x_ms"].to_numpy(zero_copy_only=False) - alert) / 60_000 for k in HITS}
    edges = _minute_edges(max((float(np.nanmax(m)) for m in minutes.values() if np.isfinite(m).any()), default=0.0))
    reached = {f"reached_{k}x": _reached(group, minutes[k], edges, n) for k in HITS}
    return {
        "peak_edges": PEAK_EDGES,
        "drawdown_edges_bps": DRAWDOWN_EDGES_BPS,
        "minutes": edges,
        "peaks": histogram(group, paths["peak_multiple"].to_numpy(), PEAK_EDGES, n).tolist(),
        "drawdowns": histogram(group, paths["dd_bps"].to_numpy(), DRAWDOWN_EDGES_BPS, n).tolist(),
        **reached,
    }


def _minute_edges(longest: float) -> tuple[float, ...]:
    """Times at which the curve is read, doubling until the last hit is covered."""
    edges = list(FIRST_MINUTES)
    while edges[-1] < longest:
        edges.append(edges[-1] * 2)
    return tuple(edges)


def _reached(
    group: npt.NDArray[np.int64], minutes: npt.NDArray[np.float64], edges: tuple[float, ...], n: int
) -> list[list[int]]:
    hit = np.isfinite(minutes)
    # A hit exactly at an edge has been reached by then: bins are closed on the right here.
    counts = np.zeros((n, len(edges) + 1), dtype=np.int64)
    np.add.at(counts, (group[hit], np.searchsorted(edges, minutes[hit], side="left")), 1)
    return np.cumsum(counts[:, :-1], axis=1).tolist()


def _months(paths: pa.Table, callers: Index[str]) -> Columns:
    with database_of(paths=paths) as con:
        table = con.sql(
            """SELECT caller_name, month, count(*) AS calls, sum(hit_2x::INT)::BIGINT AS hits_2x,
                      avg(hit_2x::INT) AS hit_2x_rate, median(peak_multiple) AS median_peak_multiple,
                      median(dd_bps) AS median_dd_bps
               FROM paths GROUP BY 1, 2 ORDER BY 1, 2"""
        ).to_arrow_table()
    hits, calls = table["hits_2x"].to_pylist(), table["calls"].to_pylist()
    kept = columns(table.drop_columns(["caller_name", "hits_2x"]))
    intervals = [wilson(h, n) for h, n in zip(hits, calls, strict=True)]
    return {"caller": callers.of_each(table["caller_name"]).tolist(), **kept, "hit_2x_interval": intervals}


def _walk_forward(rows: list[dict[str, Any]], callers: Index[str]) -> Columns:
    names = [name for name in rows[0] if name != "caller_name"] if rows else []
    return {"caller": [callers.of(row["caller_name"]) for row in rows], **of_rows(rows, names)}


def _monthly_choices(walk_forward: pa.Table, callers: Index[str], policies: Index[PolicyKey]) -> Columns:
    """Every caller's choice month by month, both schemes."""
    with database_of(rows=walk_forward) as con:
        table = con.sql(
            """SELECT caller_name, policy_id, policy_params, month, scheme, pooled, train_calls, test_calls,
                      out_of_sample_trades, in_sample_avg_return_bps, in_sample_median_return_bps,
                      out_of_sample_avg_return_bps, out_of_sample_median_return_bps, hold_avg_return_bps,
                      pooled_avg_return_bps
               FROM rows ORDER BY month DESC, scheme, caller_name LIMIT ?""",
            params=[CHOICE_ROWS],
        ).to_arrow_table()
    pairs = zip(table["policy_id"].to_pylist(), table["policy_params"].to_pylist(), strict=True)
    return {
        "caller": callers.of_each(table["caller_name"]).tolist(),
        "policy": [None if policy_id is None else policies.of((policy_id, params)) for policy_id, params in pairs],
        **columns(table.drop_columns(["caller_name", "policy_id", "policy_params"])),
    }
