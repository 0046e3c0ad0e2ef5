"""A tear sheet: the numbers of one caller's walk-forward choices, or of one policy on its calls, as plain values and as frames.

Belongs here: which trades and months go into which formula. Does not: the formulas (`numbers`, `luck`), reading (`gather`), HTML.
"""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from quantbot_pipeline.evidence.clusters import DAY_MS, day_interval
from quantbot_pipeline.evidence.wording import judgement, printable
from quantbot_pipeline.months import month_range, month_start_ms, next_month
from quantbot_pipeline.replay.statistics import STAKE
from quantbot_pipeline.reports.aggregates import statistics_by
from quantbot_pipeline.reports.searches import judge_choices
from quantbot_pipeline.reports.tearsheet import luck, numbers
from quantbot_pipeline.reports.tearsheet.gather import Gathered
from quantbot_pipeline.reports.tearsheet.meaning import FIGURES
from quantbot_pipeline.vocabulary import ALL_CALLERS

BPS = 10_000
Row = dict[str, Any]
OF_TRADES = (
    "avg_return_bps",
    "median_return_bps",
    "es95_bps",
    "data_end_share",
    "stressed_avg_return_bps",
    "avg_time_exposed_ms",
)
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
BINS_A_DOUBLE = 4  # of the histogram: equal steps of the logarithm of what became of 1
MOST, LEAST = 4.0, -4.0  # doubles beyond which returns share the last bin


class TearSheet(NamedTuple):
    """verdict: the first sentence. figures: {name: value} as `meaning.FIGURES` defines. Times are UTC ms, returns fractions or bps."""

    caller: str
    policy_id: str | None
    scheme: str
    verdict: str
    figures: dict[str, float | int | None]
    days: pa.Table
    months: list[Row]
    trades: pa.Table
    bins: list[Row]
    quantiles: dict[str, float]
    gathered: Gathered


def figure_rows(sheet: TearSheet) -> list[Row]:
    """Return every figure with its unit and meaning, in the order of the page."""
    return [
        {"figure": f.name, "value": _float(sheet.figures[f.name]), "unit": f.unit, "meaning": f.meaning}
        for f in FIGURES
    ]


def sheet_of(gathered: Gathered) -> TearSheet:
    """Compute the sheet."""
    trades = gathered.trades
    entry, exit_, returns = _arrays(trades)
    made = numbers.account(entry, exit_, returns, STAKE)
    months = list(month_range(gathered.months[0], gathered.months[-1]))
    rows, control = _months(gathered, months, made)
    days = _days(gathered, made)
    named = _figures(gathered, made, days, rows, control)
    return TearSheet(
        caller=gathered.caller,
        policy_id=gathered.policy_id,
        scheme=gathered.scheme,
        verdict=first_sentence(gathered, named),
        figures={figure.name: named[figure.name] for figure in FIGURES},
        days=days,
        months=rows,
        trades=trades,
        bins=_bins(returns),
        quantiles={f"{q:.0%}": float(np.quantile(returns, q)) * BPS for q in QUANTILES} if len(returns) else {},
        gathered=gathered,
    )


def first_sentence(gathered: Gathered, figures: Row) -> str:
    """Return what leads the sheet: the verdict of the caller or, of a policy named by hand, that none judges it."""
    verdict = (
        "All callers pooled have no verdict."
        if gathered.caller == ALL_CALLERS
        else judgement(gathered.caller, gathered.evidence, gathered.verdicts.month)
    )
    if gathered.policy_id is None:
        return verdict
    mean = figures["expectancy_bps"]
    earned = (
        "It traded nothing."
        if mean is None
        else f"It earned {mean:,.0f} bps a trade over {figures['trades']:,} trades."
    )
    return f"{verdict} That is of the caller. Nothing judges policy {printable(gathered.policy_id)}, which was named by hand. {earned}"


def _arrays(trades: pa.Table) -> tuple[numbers.Ints, numbers.Ints, numbers.Floats]:
    returns = trades["realized_return_bps"].to_numpy() / BPS
    return trades["entry_ts_ms"].to_numpy(), trades["exit_ts_ms"].to_numpy(), returns


def _days(gathered: Gathered, made: numbers.Account) -> pa.Table:
    """Return equity, drawdown and band at the end of each UTC day from the first entry to the last exit."""
    entry, _, returns = _arrays(gathered.trades)
    if not len(entry):
        ends = np.empty(0, np.int64)
    else:
        first, last = int(entry.min()) // DAY_MS + 1, int(made.closed[-1]) // DAY_MS + 1
        ends = np.arange(first, last + 1, dtype=np.int64) * DAY_MS
    equity = numbers.before(made, ends)
    low, high = luck.band(
        entry, returns, STAKE, ends, f"band|{gathered.caller}|{gathered.policy_id or gathered.scheme}"
    )
    return pa.table(
        {"day_ts_ms": ends - DAY_MS, "equity": equity, "drawdown": numbers.drawdowns(equity), "low": low, "high": high}
    )


def _months(gathered: Gathered, months: list[str], made: numbers.Account) -> tuple[list[Row], luck.Control | None]:
    """Return a row per calendar month: the account, the trades, and what stands beside them as sums of returns."""
    ends = np.array([month_start_ms(next_month(m)) for m in months], np.int64)
    ends[-1] = np.iinfo(np.int64).max  # what closes after the last month counts in it
    grown = numbers.changes(numbers.before(made, ends))
    own, pools = _by_month(gathered.trades, months), _by_month(gathered.pool, months)
    name = f"random|{gathered.caller}|{gathered.policy_id or gathered.scheme}"
    total = float(sum(returns.sum() for returns in own))
    control = luck.random_control([len(returns) for returns in own], pools, total, name)
    beside = {row["month"]: row for row in gathered.choices.to_pylist()}
    rows: list[Row] = []
    summed, held = 0.0, 0.0
    for i, month in enumerate(months):
        row, returns = beside.get(month), own[i]
        summed += float(returns.sum())
        held += row["hold_avg_return_bps"] / BPS * row["hold_trades"] if row and len(returns) else 0.0
        rows.append(
            {
                "month": month,
                "account_return": float(grown[i]),
                "trades": len(returns),
                "avg_return_bps": float(returns.mean()) * BPS if len(returns) else None,
                "hold_avg_return_bps": row["hold_avg_return_bps"] if row and row["hold_trades"] else None,
                "pooled_avg_return_bps": row["pooled_avg_return_bps"] if row and row["pooled_trades"] else None,
                "policy_id": row["policy_id"] if row and gathered.policy_id is None else gathered.policy_id,
                "sum": summed,
                "hold_sum": held if beside else None,
                "random_low": None if control is None else float(control.low[i]),
                "random_middle": None if control is None else float(control.middle[i]),
                "random_high": None if control is None else float(control.high[i]),
            }
        )
    return rows, control


def _by_month(trades: pa.Table, months: list[str]) -> list[numbers.Floats]:
    month = np.array(trades["month"].to_pylist(), dtype=object)
    returns = trades["realized_return_bps"].to_numpy() / BPS
    return [returns[month == m] for m in months]


def _figures(
    gathered: Gathered, made: numbers.Account, days: pa.Table, months: list[Row], control: luck.Control | None
) -> Row:
    entry, exit_, returns = _arrays(gathered.trades)
    monthly = numbers.of_months(np.array([row["account_return"] for row in months]))
    of_trades = numbers.of_trades(returns)
    interval = day_interval(entry, returns) if len(returns) else None
    below = days["drawdown"].to_numpy()
    begin, end = (int(entry.min()), int(exit_.max())) if len(entry) else (0, 0)
    exposed = numbers.exposure(entry, exit_, begin, end)
    found = statistics_by(gathered.trades.append_column("one", pa.repeat(pa.scalar(1), len(entry))), ["one"], OF_TRADES)
    stats: Row = found[0] if found else dict.fromkeys(OF_TRADES)
    judged = judge_choices(gathered.choices, gathered.trades) if gathered.policy_id is None else []
    beside: Row = judged[0] if judged else {}
    mean = beside.get("out_of_sample_avg_bps", stats["avg_return_bps"])
    return {
        **{name: stats[name] for name in OF_TRADES},
        **monthly._asdict(),
        **of_trades._asdict(),
        "max_drawdown": float(below.min()) if len(below) else None,
        "longest_drawdown_days": numbers.longest_below(below),
        "trades": len(returns),
        "expectancy_bps": mean,
        "expectancy_low_bps": None if interval is None else interval[0] * BPS,
        "expectancy_high_bps": None if interval is None else interval[1] * BPS,
        "avg_win_bps": _bps(of_trades.avg_win),
        "avg_loss_bps": _bps(of_trades.avg_loss),
        "without_best_bps": _bps(of_trades.without_best),
        "exposure_share": None if exposed is None else exposed.share,
        "mean_open": None if exposed is None else exposed.mean_open,
        "most_open": None if exposed is None else exposed.most_open,
        "hold_avg_bps": beside.get("hold_avg_bps"),
        "pooled_avg_bps": beside.get("pooled_avg_bps"),
        "random_avg_bps": None if control is None else float(control.middle[-1]) / len(returns) * BPS,
        "beats_random": None if control is None else control.beaten,
    }


def _bps(value: float | None) -> float | None:
    return None if value is None else value * BPS


def _float(value: float | int | None) -> float | None:
    return None if value is None else float(value)


def _bins(returns: numbers.Floats) -> list[Row]:
    """Return the histogram of returns: bins of equal width in doublings of what became of 1; the outer ones hold the rest."""
    if not len(returns):
        return []
    doubled = np.log2(np.maximum(1 + returns, 2.0**LEAST))
    place = np.clip(np.floor(doubled * BINS_A_DOUBLE), LEAST * BINS_A_DOUBLE, MOST * BINS_A_DOUBLE).astype(np.int64)
    counts = np.bincount(place - place.min())
    return [
        {"low": 2.0 ** (at / BINS_A_DOUBLE) - 1, "high": 2.0 ** ((at + 1) / BINS_A_DOUBLE) - 1, "trades": int(n)}
        for at, n in zip(range(int(place.min()), int(place.max()) + 1), counts, strict=True)
    ]


def calls_of(sheet: TearSheet) -> pa.Table:
    """Return every included call of the caller with its trade, if it has one, in order of entry."""
    paths, trades = sheet.gathered.paths, sheet.trades
    columns = ["call_id", "policy_id", "exit_ts_ms", "exit_px", "exit_reason", "realized_return_bps"]
    kept = trades.select(columns).append_column("traded", pa.repeat(pa.scalar(True), trades.num_rows))
    joined = paths.drop_columns(["run_id"]).join(kept, "call_id", join_type="left outer", use_threads=False)
    joined = joined.sort_by([("entry_ts_ms", "ascending"), ("call_id", "ascending")])
    at = joined.schema.get_field_index("traded")
    return joined.set_column(at, "traded", pc.fill_null(joined["traded"], False))
