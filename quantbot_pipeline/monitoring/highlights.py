"""The few numbers and rows of an artifact that its month shows in the Dagster UI. Only verdicts rank callers."""

import math
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from quantbot_pipeline.evidence.wording import standing
from quantbot_pipeline.vocabulary import ALL_CALLERS, BETTER, BLEND, MUCH_ENDED, SEVERITIES, TO_DATE

# What the UI calls the rows that an artifact shows: what they are, not who is best.
TABLES = {
    "paths": "highest_peaks",
    "trades": "highest_returns",
    "summary": "policies",
    "frontier": "first_in_sample",
    "walk_forward": "choices_out_of_sample",
    "tuned": "tuned_against_the_grid",
    "evidence": "verdicts",
    "model_report": "verdicts",
    "anomalies": "worst",
}
# Columns that are never cut: a policy whose id is cut cannot be asked for.
WHOLE = ("policy_id",)
# Of the columns of these tables.
SHORT_NAMES = {
    "objective_score": "score",
    "trades_count": "trades",
    "data_end_share": "ended",
    "stressed_avg_return_bps": "stressed_bps",
    "realized_return_bps": "return_bps",
    "meets_constraints": "feasible",
    "out_of_sample_trades": "trades",
    "out_of_sample_avg_return_bps": "avg_return_bps",
    "calls_needed": "needed",
    "promise_bps": "promise",
    "out_of_sample_bps": "earned",
    "grid_bps": "grid",
    "e_value": "e",
    "e_threshold": "threshold",
}


def columns_of(artifact: str) -> list[str] | None:
    """The columns that `highlights` looks at; None: all. A month can have millions of trades."""
    return _COLUMNS.get(artifact) if artifact in _HIGHLIGHTS else []


def highlights(artifact: str, table: pa.Table, limit: int = 10) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """(numbers that plot over months, rows of a small table); an artifact without rows has no rows to show, and only the
    numbers that are 0 then.
    """
    build = _HIGHLIGHTS.get(artifact)
    numbers, rows = build(table, limit) if build and table.num_rows else (dict(_WITHOUT_ROWS.get(artifact, {})), [])
    return {name: value for name, value in numbers.items() if value is not None and math.isfinite(value)}, rows


def _mean(column: pa.ChunkedArray) -> float:
    return float(pc.mean(column.cast(pa.float64())).as_py())


def _median(column: pa.ChunkedArray) -> float:
    return float(pc.quantile(column, 0.5)[0].as_py())


def _top(table: pa.Table, by: str, columns: list[str], limit: int, *, first: str | None = None) -> list[dict[str, Any]]:
    """The first rows by a column; few columns, because a table wider than the UI's page is cut."""
    keys = [(name, "descending") for name in (first, by) if name]
    order = pc.sort_indices(table, sort_keys=keys)[:limit]
    return _shown(table.select(columns).take(order).to_pylist())


def _shown(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {SHORT_NAMES.get(name, name): value if name in WHOLE else _short(value) for name, value in row.items()}
        for row in rows
    ]


def _short(value: Any) -> Any:
    """What fits beside others in a narrow table; the whole value is in the artifact."""
    if isinstance(value, str) and len(value) > 24:
        return f"{value[:15]}…{value[-8:]}"
    return round(value, 4) if isinstance(value, float) else value


def _paths(table: pa.Table, limit: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
    numbers = {f"hit_{k}x_rate": _mean(table[f"hit_{k}x"]) for k in (2, 3, 4)}
    numbers["median_peak_multiple"] = _median(table["peak_multiple"])
    numbers["median_dd_bps"] = _median(table["dd_bps"])
    numbers["data_end_share"] = _mean(table["censored"])
    return numbers, _top(table, "peak_multiple", ["caller_name", "peak_multiple", "dd_bps", "mint"], limit)


def _trades(table: pa.Table, limit: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
    numbers = {
        "median_return_bps": _median(table["realized_return_bps"]),
        "mean_return_bps": _mean(table["realized_return_bps"]),
        "stop_out_rate": _mean(table["stop_out"]),
        "data_end_share": _mean(pc.equal(table["exit_reason"], "data_end")),
    }
    columns = ["caller_name", "realized_return_bps", "exit_reason", "policy_id"]
    return numbers, _top(table, "realized_return_bps", columns, limit)


def _summary(table: pa.Table, limit: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
    best = pc.max(table["median_return_bps"]).as_py()
    columns = ["trades_count", "avg_return_bps", "data_end_share", "stressed_avg_return_bps", "policy_id"]
    numbers = {} if best is None else {"best_median_return_bps": best}
    return numbers, _top(table, "avg_return_bps", columns, limit)


def _frontier(table: pa.Table, limit: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
    first = table.filter(pc.equal(table["rank"], 1))
    callers = first.filter(pc.not_equal(first["caller_name"], ALL_CALLERS))
    numbers = {
        "callers": callers.num_rows,
        "feasible_callers": pc.sum(callers["meets_constraints"]).as_py() or 0,
    }
    numbers["callers_data_end"] = pc.sum(pc.greater(callers["data_end_share"], MUCH_ENDED)).as_py() or 0
    measures = ("objective_score", "median_return_bps", "stop_out_rate", "data_end_share", "stressed_avg_return_bps")
    pooled = first.filter(pc.equal(first["caller_name"], ALL_CALLERS)).select(measures).to_pylist()
    numbers |= {f"all_{name}": value for row in pooled for name, value in row.items()}
    columns = ["caller_name", "trades", "objective_score", "meets_constraints", "policy_id"]
    return numbers, _top(callers, "objective_score", columns, limit, first="meets_constraints")


def _walk_forward(table: pa.Table, limit: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
    anchored = table.filter(pc.equal(table["scheme"], "anchored"))
    pooled = pc.equal(anchored["caller_name"], ALL_CALLERS)
    measures = (
        "in_sample_avg_return_bps",
        "out_of_sample_avg_return_bps",
        "hold_avg_return_bps",
        "out_of_sample_trades",
        "out_of_sample_data_end_share",
        "out_of_sample_stressed_avg_return_bps",
    )
    numbers = {
        f"all_{name}": value
        for row in anchored.filter(pooled).select(measures).to_pylist()
        for name, value in row.items()
    }
    traded = anchored.filter(pc.and_(pc.invert(pooled), pc.greater(anchored["out_of_sample_trades"], 0)))
    columns = ["caller_name", "out_of_sample_trades", "out_of_sample_avg_return_bps"]
    return numbers, _top(traded, "out_of_sample_avg_return_bps", columns, limit)


def _tuned(table: pa.Table, limit: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """The verdict to date comes first: no promise is shown without it."""
    anchored = table.filter(pc.equal(table["scheme"], "anchored"))
    measures = ("promise_bps", "plateau_bps", "out_of_sample_bps", "grid_bps", "unleaned_bps", "hold_bps")
    to_date = ("difference_z", "leaning_z", "hold_z")
    pooled = anchored.filter(pc.equal(anchored["caller_name"], ALL_CALLERS)).select([*measures, *to_date]).to_pylist()
    numbers = {f"all_{name}" if name in measures else name: value for row in pooled for name, value in row.items()}
    callers = anchored.filter(pc.not_equal(anchored["caller_name"], ALL_CALLERS))
    columns = ["verdict", "caller_name", "promise_bps", "out_of_sample_bps", "grid_bps"]
    return numbers, _top(callers, "out_of_sample_bps", columns, limit)


def _evidence(table: pa.Table, limit: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
    numbers = {
        "claimed": float(pc.sum(pc.equal(table["verdict"], "evidence")).as_py()),
        "tested": float(pc.sum(table["tested"]).as_py()),
        "largest_e": float(pc.max(table["e_value"]).as_py()),
    }
    columns = ("caller_name", "verdict", "calls_needed", "e_value", "e_threshold", "units")
    rows = [{name: row[name] for name in columns} for row in sorted(table.to_pylist(), key=standing)[:limit]]
    return numbers, _shown([row | {"e_value": float(f"{row['e_value']:.4g}")} for row in rows])


def _equity(table: pa.Table, limit: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
    grouped = table.filter(pc.equal(table["caller_name"], ALL_CALLERS))["equity"]
    numbers = {"accounts": pc.count_distinct(table["caller_name"]).as_py()}
    return (numbers | {"grouped_final_equity": grouped[-1].as_py()} if len(grouped) else numbers), []


def _model_report(table: pa.Table, limit: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
    to_date = pc.and_(pc.equal(table["model"], BLEND), pc.equal(table["scope"], TO_DATE))
    rows = table.filter(to_date).to_pylist()
    measures = ("gain_over_base", "gain_over_base_z", "auc", "calibration_slope", "taken_return_bps")
    numbers = {f"{row['target']}_{name}": row[name] for row in rows for name in measures}
    numbers["better"] = float(sum(row["verdict"] == BETTER for row in rows))
    shown = [
        {
            "target": row["target"],
            "verdict": row["verdict"],
            "money": row["money_verdict"],
            "gain": _short(row["gain_over_base"]),
            "z": None if row["gain_over_base_z"] is None else round(row["gain_over_base_z"], 1),
            "months": row["test_months"],
        }
        for row in rows
    ]
    return numbers, shown[:limit]


def _anomalies(table: pa.Table, limit: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
    found = Counter(table["severity"].to_pylist())
    numbers = {f"{severity}_rows": float(found[severity]) for severity in SEVERITIES}
    numbers["calls_touched"] = float(pc.max(table["calls_touched"]).as_py())
    columns = ("severity", "kind", "subject", "calls_touched")
    worst = {severity: rank for rank, severity in enumerate(SEVERITIES)}
    rows = sorted(
        table.select(columns).to_pylist(),
        key=lambda row: (worst.get(row["severity"], len(worst)), -row["calls_touched"], row["subject"]),
    )
    return numbers, _shown(rows[:limit])


_COLUMNS = {
    "paths": ["caller_name", "mint", "hit_2x", "hit_3x", "hit_4x", "peak_multiple", "dd_bps", "censored"],
    "trades": ["policy_id", "caller_name", "realized_return_bps", "stop_out", "exit_reason"],
}
# A month without anomalies is a point of the plot, too.
_WITHOUT_ROWS = {"anomalies": {f"{severity}_rows": 0.0 for severity in SEVERITIES} | {"calls_touched": 0.0}}
_HIGHLIGHTS = {
    "paths": _paths,
    "trades": _trades,
    "summary": _summary,
    "frontier": _frontier,
    "walk_forward": _walk_forward,
    "tuned": _tuned,
    "equity": _equity,
    "evidence": _evidence,
    "model_report": _model_report,
    "anomalies": _anomalies,
}
