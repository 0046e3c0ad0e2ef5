"""What the searches found, as tables for people: a caller's frontier, and the walk-forward of all callers."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from quantbot_pipeline.artifacts.schemas import TRADES
from quantbot_pipeline.catalog.catalog import Catalog, newest_runs_with
from quantbot_pipeline.duck import database_of
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.reports.aggregates import NEEDED, statistics_by
from quantbot_pipeline.reports.remarks import load_newest, read_each, with_months
from quantbot_pipeline.reports.verdicts import verdicts_for
from quantbot_pipeline.runs.manifest import read_manifest
from quantbot_pipeline.vocabulary import IN_SAMPLE, OUT_OF_SAMPLE

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
    "distinct_mints",
    "data_end_share",
    "stressed_avg_return_bps",
    "is_pareto",
    "violations",
    "sample",
    "verdict",
)
PROMISED = "in_sample_median_return_bps"
# Columns of the walk-forward that need the test trades: which statistic of them each is.
OF_TRADES = {
    "in_sample_median_of_medians_bps": PROMISED,
    "out_of_sample_median_bps": "median_return_bps",
    "out_of_sample_es95_bps": "es95_bps",
    "data_end_share": "data_end_share",
    "stressed_avg_bps": "stressed_avg_return_bps",
}
WALK_FORWARD_COLUMNS = (
    "caller_name",
    "scheme",
    "months",
    "months_traded",
    "trades",
    "in_sample_avg_bps",
    "in_sample_median_of_medians_bps",
    "out_of_sample_avg_bps",
    "out_of_sample_median_bps",
    "hold_avg_bps",
    "pooled_avg_bps",
    "out_of_sample_es95_bps",
    "data_end_share",
    "stressed_avg_bps",
    "sample",
    "verdict",
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

    Each was chosen on the calls it is shown of: `sample` says so. `verdict` is what the evidence says of the caller.
    Raises InputError when the caller has no frontier.
    """
    rows = load_newest(catalog, "frontier", interval=interval, month=month, strategy_id=strategy_id)
    with database_of(rows=rows) as con:
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
    verdicts = verdicts_for(catalog, (row["month"] for row in found), interval)
    return [row | {"sample": IN_SAMPLE, "verdict": verdicts.of(row["caller_name"], row["month"])} for row in found]


def walk_forward(catalog: Catalog, interval: str | None = None) -> list[dict[str, Any]]:
    """Per caller and scheme over all months: in-sample promise, out-of-sample result, holding, pooled choice; in bps.

    Out-of-sample means, medians and shortfall are of the test trades of all months together. In-sample figures are those
    that stood behind each test trade: the mean of monthly means over the trades, and the median of monthly medians. `verdict`
    is what the evidence of the newest month, or of the last before it, says of the caller.
    """
    rows = load_newest(catalog, "walk_forward", interval=interval)
    judged = judge_choices(rows, tested_trades(catalog, interval))
    return with_verdicts(judged, latest_verdicts(catalog, rows, interval))


def latest_verdicts(catalog: Catalog, rows: pa.Table, interval: str | None = None) -> dict[str, str]:
    """Return the callers' verdicts as of the newest month of some rows."""
    newest = pc.max(rows["month"]).as_py()
    found = verdicts_for(catalog, [] if newest is None else [newest], interval)
    return found.by_caller[-1] if found.by_caller else {}


def with_verdicts(rows: Sequence[dict[str, Any]], verdicts: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return rows with the verdict of each one's caller; None where there is none."""
    return [row | {"verdict": verdicts.get(row["caller_name"])} for row in rows]


# Of the test trades, what `judge_choices` needs.
TESTED = ("run_id", "caller_name", "scheme", *NEEDED)


def tested_trades(catalog: Catalog, interval: str | None = None, columns: Sequence[str] = TESTED) -> pa.Table:
    """Return the test trades of the walk-forward runs behind the report, with `month`; runs of earlier versions hold none."""
    run_dirs = newest_runs_with(catalog, "walk_forward", interval=interval)
    with_trades = [d for d in run_dirs if "trades" in read_manifest(catalog.runs.open(d)).artifacts]
    schema = pa.schema([TRADES.field(name) for name in columns])
    return with_months(schema, read_each(catalog, with_trades, "trades", columns))


def judge_choices(rows: pa.Table, trades: pa.Table) -> list[dict[str, Any]]:
    """Return the walk-forward report of these rows of `walk_forward` and the test trades of the same runs.

    What needs the trades is null where those of a run are missing.
    """
    known = _of_trades(rows, trades)
    with database_of(rows=rows) as con:
        found = (
            con.sql(
                """SELECT caller_name, scheme, count(*) AS months, count(policy_id) AS months_traded,
                          sum(out_of_sample_trades)::BIGINT AS trades,
                          sum(in_sample_avg_return_bps * out_of_sample_trades) / nullif(sum(out_of_sample_trades), 0)
                              AS in_sample_avg_bps,
                          sum(out_of_sample_avg_return_bps * out_of_sample_trades)
                              / nullif(sum(out_of_sample_trades), 0) AS out_of_sample_avg_bps,
                          sum(hold_avg_return_bps * hold_trades) FILTER (out_of_sample_trades > 0)
                              / nullif(sum(out_of_sample_trades), 0) AS hold_avg_bps,
                          sum(pooled_avg_return_bps * pooled_trades) FILTER (out_of_sample_trades > 0)
                              / nullif(sum(pooled_trades) FILTER (out_of_sample_trades > 0), 0) AS pooled_avg_bps
                   FROM rows GROUP BY 1, 2 ORDER BY caller_name <> '__all__', caller_name, scheme"""
            )
            .to_arrow_table()
            .to_pylist()
        )
    return [_judged(row, known.get((row["caller_name"], row["scheme"]))) for row in found]


def _judged(row: dict[str, Any], of_trades: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a row of the report; what needs the trades is null unless all of them are there."""
    whole = of_trades if of_trades is not None and of_trades["trades_count"] == row["trades"] else {}
    more = row | {name: whole.get(stat) for name, stat in OF_TRADES.items()} | {"sample": OUT_OF_SAMPLE}
    return {name: more[name] for name in WALK_FORWARD_COLUMNS if name != "verdict"}


def _of_trades(rows: pa.Table, trades: pa.Table) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the statistics of each caller's and scheme's test trades, and the median promise that stood behind them."""
    keys = ["run_id", "caller_name", "scheme"]
    of_row = dict(
        zip(zip(*(rows[key].to_pylist() for key in keys), strict=True), rows[PROMISED].to_pylist(), strict=True)
    )
    promised: dict[tuple[str, str], list[float]] = {}
    kept = [key in of_row for key in zip(*(trades[key].to_pylist() for key in keys), strict=True)]
    trades = trades.filter(pa.array(kept, pa.bool_()))
    for run_id, caller, scheme in zip(*(trades[key].to_pylist() for key in keys), strict=True):
        value = of_row[run_id, caller, scheme]
        if value is not None:
            promised.setdefault((caller, scheme), []).append(value)
    names = [name for name in OF_TRADES.values() if name != PROMISED]
    return {
        (row["caller_name"], row["scheme"]): row
        | {PROMISED: median(values) if (values := promised.get((row["caller_name"], row["scheme"]))) else None}
        for row in statistics_by(trades, ["caller_name", "scheme"], names)
    }
