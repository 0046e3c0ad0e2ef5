"""Trades and their aggregates: returns after costs, stop-outs, tail capture; quantiles, shortfall and the growth score.

Belongs here: everything computed from `engine.Outcomes`, for the policy backtest and for the search alike. Sources: docs/semantics.md,
"Policies" (trades) and "Aggregates".
"""

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba.extending import register_jitable

from quantbot_pipeline.replay.engine import DATA_END, HARD_STOP, REASONS, STOP_LOSS, TRAILING, Outcomes, Truth
from quantbot_pipeline.replay.truth import included_rows

MIN_TAIL_PEAK = 1.25
STAKE = 0.04  # the share of an account that one call is given in the growth score


class Trades(NamedTuple):
    """Per included call and policy, shape (C, P), in basis points and ms; `tail_capture` is NaN where undefined."""

    gross_bps: npt.NDArray[np.float64]
    realized_bps: npt.NDArray[np.float64]
    stop_out: npt.NDArray[np.bool_]
    exposed_ms: npt.NDArray[np.int64]
    tail_capture: npt.NDArray[np.float64]


def cost_per_side(taker_fee_bps: float, slippage_bps: float) -> float:
    """`c`, the fraction paid at the entry and again at the exit."""
    return (taker_fee_bps + slippage_bps) / 10_000


@register_jitable
def gross_return_bps(exit_px, p0):
    """Return before costs; for arrays and, inside the aggregation, for scalars."""
    return (exit_px / p0 - 1) * 10_000


@register_jitable
def realized_return_bps(exit_px, p0, c):
    """Return after costs `c` on both sides."""
    return (exit_px * (1 - c) / (p0 * (1 + c)) - 1) * 10_000


@register_jitable
def is_stop_out(reason, gross_bps):
    """A protective or give-back exit at a loss."""
    return ((reason == STOP_LOSS) | (reason == HARD_STOP) | (reason == TRAILING)) & (gross_bps < -1e-6)


def tail_capture(gross_bps: npt.NDArray, peak_multiple: npt.NDArray) -> npt.NDArray[np.float64]:
    """The share of the way to the peak that was kept, in [0, 1]; NaN below a peak of 1.25."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.clip(gross_bps / ((peak_multiple - 1) * 10_000), 0.0, 1.0)
    return np.where(peak_multiple < MIN_TAIL_PEAK, np.nan, share)


def trades_of(truth: Truth, outcomes: Outcomes, c: float) -> Trades:
    """Returns and flags of every (included call, policy)."""
    rows = included_rows(truth)
    p0 = truth.p0[rows, None]
    gross = gross_return_bps(outcomes.exit_px[rows], p0)
    return Trades(
        gross_bps=gross,
        realized_bps=realized_return_bps(outcomes.exit_px[rows], p0, c),
        stop_out=is_stop_out(outcomes.reason[rows], gross),
        exposed_ms=outcomes.exit_ts[rows] - truth.entry_ts[rows, None],
        tail_capture=tail_capture(gross, truth.peak[rows, None] / p0),
    )


def trades_table(
    calls: pa.Table,
    truth: Truth,
    outcomes: Outcomes,
    policy_ids: list[str],
    c: float,
    other_order: Outcomes | None = None,
) -> pa.Table:
    """One row per (policy, included call), policies in the given order; columns as the `trades` artifact without `run_id`.

    `other_order` holds the optimistic outcomes when both orders inside a candle were replayed: it fills
    `optimistic_return_bps` and `ambiguous`.
    """
    rows = included_rows(truth)
    trades = trades_of(truth, outcomes, c)
    kept = calls.take(pa.array(rows))
    n, p = len(rows), len(policy_ids)

    def flat(matrix: npt.NDArray) -> npt.NDArray:
        return np.ascontiguousarray(matrix.T).reshape(-1)

    def repeated(values: npt.NDArray) -> npt.NDArray:
        return np.tile(values, p)

    def text(values: pa.ChunkedArray) -> pa.ChunkedArray:
        return pa.chunked_array(values.chunks * p, type=values.type)

    capture = flat(trades.tail_capture)
    ambiguous = optimistic = pa.nulls(n * p)
    if other_order is not None:
        other = trades_of(truth, other_order, c)
        optimistic = pa.array(flat(other.realized_bps))
        differ = (
            (other_order.exit_px[rows] != outcomes.exit_px[rows])
            | (other_order.exit_ts[rows] != outcomes.exit_ts[rows])
            | (other_order.reason[rows] != outcomes.reason[rows])
        )
        ambiguous = pa.array(flat(differ))
    return pa.table(
        {
            "policy_id": pa.array(policy_ids, pa.string()).take(pa.array(np.repeat(np.arange(p), n))),
            "call_id": text(kept["call_id"]),
            "entry_ts_ms": repeated(truth.entry_ts[rows]),
            "entry_px": repeated(truth.p0[rows]),
            "exit_ts_ms": flat(outcomes.exit_ts[rows]),
            "exit_px": flat(outcomes.exit_px[rows]),
            "exit_reason": pa.array(REASONS).take(pa.array(flat(outcomes.reason[rows]))),
            "realized_return_bps": flat(trades.realized_bps),
            "stop_out": flat(trades.stop_out),
            "max_adverse_excursion_bps": flat(outcomes.mae_bps[rows]),
            "time_exposed_ms": flat(trades.exposed_ms),
            "tail_capture": pa.array(capture, mask=np.isnan(capture)),
            "caller_name": text(kept["caller_name"]),
            "gross_return_bps": flat(trades.gross_bps),
            "fills": flat(outcomes.fills[rows]).astype(np.int64),
            "optimistic_return_bps": optimistic.cast(pa.float64()),
            "ambiguous": ambiguous.cast(pa.bool_()),
        }
    )


def best_trades_table(
    calls: pa.Table, truth: Truth, outcomes: Outcomes, policy_ids: list[str], first: dict[str, int], c: float
) -> pa.Table:
    """The trades of each caller's policy `first[caller]` on the caller's own included calls, in call order."""
    rows = included_rows(truth)
    column = np.array([first[name] for name in calls["caller_name"].take(pa.array(rows)).to_pylist()], dtype=np.int64)
    chosen = outcomes.of_chosen(rows, column)
    picked = Truth(*(array[rows] for array in truth))  # type: ignore[arg-type]
    table = trades_table(calls.take(pa.array(rows)), picked, chosen, [""], c)
    ids = pa.array(policy_ids, pa.string()).take(pa.array(column))
    return table.set_column(table.schema.get_field_index("policy_id"), "policy_id", ids)


# --- aggregates -------------------------------------------------------------------------------------------------------

STATS = (
    "avg_return_bps",
    "median_return_bps",
    "stop_out_rate",
    "loss_rate",
    "es95_bps",
    "p95_drawdown_bps",
    "stressed_avg_return_bps",
    "avg_time_exposed_ms",
    "avg_tail_capture",
    "growth_score",
    "median_max_adverse_excursion_bps",
    "p25_return_bps",
    "p75_return_bps",
    "p90_return_bps",
    "avg_max_adverse_excursion_bps",
    "median_time_exposed_ms",
    "median_tail_capture",
)
RANKING_STATS = 11  # the first so many are what the search needs; the rest costs more selections


def aggregate(
    truth: Truth,
    outcomes: Outcomes,
    groups: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    c: float,
    *,
    stats: int = len(STATS),
) -> npt.NDArray[np.float64]:
    """Statistics of every (group of calls, policy), shape (G, P, len(STATS)); NaN where undefined or not asked for.

    groups: rows of included calls, group after group; ends: (G,) where each group ends in it.
    """
    result = np.full((len(ends), outcomes.exit_px.shape[1], len(STATS)), np.nan)
    _aggregate(
        truth.p0, truth.entry_ts, truth.peak, outcomes.exit_ts, outcomes.exit_px, outcomes.reason, outcomes.mae_bps,
        groups, ends, c, stats > RANKING_STATS, result,
    )  # fmt: skip
    return result


_kernel = numba.njit(nogil=True, cache=True, error_model="numpy")

TILE = 8  # policies gathered together: one cache line of doubles


@_kernel
def _aggregate(p0, entry_ts, peak, exit_ts, exit_px, reason, mae, groups, ends, c, everything, result):
    largest = 0
    start = 0
    for end in ends:
        largest = max(largest, end - start)
        start = end
    returns, drawdown = np.empty((TILE, largest)), np.empty((TILE, largest))
    exposed, capture = np.empty((TILE, largest)), np.empty((TILE, largest))
    start = 0
    policies = exit_px.shape[1]
    for g in range(len(ends)):
        n = ends[g] - start
        for first in range(0, policies if n > 0 else 0, TILE):
            width = min(TILE, policies - first)
            stops, losses, captures = np.zeros(TILE), np.zeros(TILE), np.zeros(TILE, np.int64)
            total, stressed, growth = np.zeros(TILE), np.zeros(TILE), np.zeros(TILE)
            total_ms, total_mae, total_capture = np.zeros(TILE), np.zeros(TILE), np.zeros(TILE)
            for i in range(n):
                row = groups[start + i]
                entry, multiple = p0[row], peak[row] / p0[row]
                for j in range(width):
                    p = first + j
                    gross = gross_return_bps(exit_px[row, p], entry)
                    realized = realized_return_bps(exit_px[row, p], entry, c)
                    why = reason[row, p]
                    returns[j, i] = realized
                    drawdown[j, i] = mae[row, p]
                    total[j] += realized
                    total_mae[j] += mae[row, p]
                    stressed[j] += -10_000.0 if why == DATA_END else realized
                    growth[j] += np.log(1 + STAKE * (realized / 10_000))
                    held = float(exit_ts[row, p] - entry_ts[row])
                    total_ms[j] += held
                    exposed[j, i] = held
                    losses[j] += realized < 0
                    stops[j] += is_stop_out(why, gross)
                    if multiple >= MIN_TAIL_PEAK:
                        share = min(max(gross / ((multiple - 1) * 10_000), 0.0), 1.0)
                        capture[j, captures[j]] = share
                        total_capture[j] += share
                        captures[j] += 1
            for j in range(width):
                out = result[g, first + j]
                values, dd = returns[j, :n], drawdown[j, :n]
                worst = max(1, n // 20)
                out[0] = total[j] / n
                out[1] = _quantile(values, 0.5)
                out[2], out[3] = stops[j] / n, losses[j] / n
                _select(values, worst - 1)
                tail = 0.0
                for i in range(worst):
                    tail += values[i]
                out[4] = tail / worst
                out[5] = _quantile(dd, 0.05)
                out[6] = stressed[j] / n
                out[7] = total_ms[j] / n
                if captures[j]:
                    out[8] = total_capture[j] / captures[j]
                out[9] = 10_000 / STAKE * (growth[j] / n)
                out[10] = _quantile(dd, 0.5)
                if everything:
                    out[11], out[12] = _quantile(values, 0.25), _quantile(values, 0.75)
                    out[13] = _quantile(values, 0.9)
                    out[14] = total_mae[j] / n
                    out[15] = _quantile(exposed[j, :n], 0.5)
                    if captures[j]:
                        out[16] = _quantile(capture[j, : captures[j]], 0.5)
        start = ends[g]


@_kernel
def _quantile(values, q):
    """Linear interpolation between order statistics, as numpy's default; reorders `values`."""
    at = q * (len(values) - 1)
    k = int(np.floor(at))
    _select(values, k)
    below, weight = values[k], at - k
    if weight == 0:
        return below
    above = values[k + 1]
    for i in range(k + 2, len(values)):
        above = values[i] if values[i] < above else above
    return below + (above - below) * weight if weight < 0.5 else above - (above - below) * (1 - weight)


@_kernel
def _select(values, k):
    """Quickselect in place: afterwards `values[k]` is the k-th smallest and nothing before it is larger."""
    lo, hi = 0, len(values) - 1
    while lo < hi:
        pivot = values[(lo + hi) >> 1]
        i, j = lo, hi
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if k <= j:
            hi = j
        elif k >= i:
            lo = i
        else:
            return
