"""The few numbers and the best rows of an artifact that its month shows in the Dagster UI."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def highlights(artifact: str, table: pa.Table, limit: int = 10) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """(numbers that plot over months, best rows as a small table); both empty for an artifact without rows."""
    build = {"paths": _paths, "trades": _trades, "summary": _summary}.get(artifact)
    return build(table, limit) if build and table.num_rows else ({}, [])


def _mean(column: pa.ChunkedArray) -> float:
    return float(pc.mean(column.cast(pa.float64())).as_py())


def _median(column: pa.ChunkedArray) -> float:
    return float(pc.quantile(column, 0.5)[0].as_py())


def _top(table: pa.Table, by: str, columns: list[str], limit: int) -> list[dict[str, Any]]:
    order = pc.sort_indices(table, sort_keys=[(by, "descending")])[:limit]
    return [
        {k: round(v, 4) if isinstance(v, float) else str(v)[:80] if isinstance(v, str) else v for k, v in row.items()}
        for row in table.select(columns).take(order).to_pylist()
    ]


def _paths(table: pa.Table, limit: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
    numbers = {f"hit_{k}x_rate": _mean(table[f"hit_{k}x"]) for k in (2, 3, 4)}
    numbers["median_peak_multiple"] = _median(table["peak_multiple"])
    numbers["median_dd_bps"] = _median(table["dd_bps"])
    return numbers, _top(table, "peak_multiple", ["caller_name", "mint", "peak_multiple", "dd_bps"], limit)


def _trades(table: pa.Table, limit: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
    numbers = {
        "median_return_bps": _median(table["realized_return_bps"]),
        "mean_return_bps": _mean(table["realized_return_bps"]),
        "stop_out_rate": _mean(table["stop_out"]),
    }
    columns = ["policy_id", "caller_name", "realized_return_bps", "exit_reason"]
    return numbers, _top(table, "realized_return_bps", columns, limit)


def _summary(table: pa.Table, limit: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
    best = pc.max(table["median_return_bps"]).as_py()
    columns = ["policy_id", "trades_count", "avg_return_bps", "median_return_bps", "stop_out_rate"]
    numbers = {} if best is None else {"best_median_return_bps": best}
    return numbers, _top(table, "avg_return_bps", columns, limit)
