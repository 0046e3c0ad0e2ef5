"""The best and the worst calls, with their trades and, where the store still has them, their candles.

What was predicted of them stands beside them with its verdict, and what was odd around them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from quantbot_pipeline.reports.dashboard.anomalies import odd_around
from quantbot_pipeline.reports.dashboard.policies import PolicyKey, levels_of
from quantbot_pipeline.reports.page.candles import read_windows, span_of_call
from quantbot_pipeline.reports.page.encode import Columns, Index, columns

EACH = 8  # best and worst calls
MAX_CANDLES = 200  # per chart: neighbours are merged beyond that


class Beside(NamedTuple):
    """What else is known of calls: a function that gives {call id: predictions} of some calls, and all rows of anomalies."""

    predicted: Callable[[list[dict[str, Any]]], dict[str, list[dict[str, Any]]]]
    odd: Sequence[dict[str, Any]]


def calls_section(
    con: duckdb.DuckDBPyConnection,
    paths: pa.Table,
    candles_dir: Path,
    callers: Index[str],
    policies: Index[PolicyKey],
    beside: Beside,
) -> list[dict[str, Any]]:
    """The calls with the highest peaks and those with the deepest drawdowns; `con` holds the table `replayed`.

    Of calls that bought the same token at the same time one stands for all: their pictures are the same.
    """
    con.register("paths", paths)
    picked = con.sql(
        """WITH once AS (FROM paths QUALIFY row_number() OVER (PARTITION BY mint, entry_ts_ms ORDER BY call_id) = 1),
           high AS (SELECT *, 'best' AS which FROM once ORDER BY peak_multiple DESC, call_id LIMIT $n),
           deep AS (SELECT *, 'worst' AS which FROM once WHERE call_id NOT IN (SELECT call_id FROM high)
                    ORDER BY dd_bps, call_id LIMIT $n)
           SELECT which, call_id, caller_name, mint, chain, interval, month, alert_ts_ms, entry_ts_ms, p0, peak_multiple,
                  dd_bps, t_peak_ms, t_2x_ms, t_3x_ms, t_4x_ms, observed_ms, censored
           FROM (FROM high UNION ALL FROM deep) ORDER BY which, if(which = 'best', -peak_multiple, dd_bps), call_id""",
        params={"n": EACH},
    ).to_arrow_table()
    rows = picked.to_pylist()
    candles = read_windows(candles_dir, [span_of_call(row) for row in rows], MAX_CANDLES)
    levels: dict[int, list[tuple[str, float]]] = {}
    predicted = beside.predicted(rows)
    for row, drawn in zip(rows, candles, strict=True):
        row["predictions"] = predicted.get(row["call_id"], [])
        row["odd"] = odd_around(row, beside.odd)
        row["caller"] = callers.of(row.pop("caller_name"))
        row["trades"] = _trades(con, row["call_id"])
        row["candles"] = drawn
        for policy in row["trades"]["policy"]:
            levels.setdefault(policy, levels_of(policies.values[policy]))
        row["levels"] = {policy: levels[policy] for policy in row["trades"]["policy"]}
    return rows


def _trades(con: duckdb.DuckDBPyConnection, call_id: str) -> Columns:
    table = con.sql(
        """SELECT policy, exit_ts_ms, exit_px / entry_px AS exit_multiple, exit_reason, r AS realized_return_bps
           FROM replayed WHERE call_id = ? ORDER BY realized_return_bps DESC, policy""",
        params=[call_id],
    ).to_arrow_table()
    return columns(table)
