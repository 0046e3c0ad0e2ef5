"""Returns after costs, and the statistics of many trades: quantiles, shortfall, stop-outs, tail capture, the growth score.

Belongs here: the formula of every return and aggregate, for the policy backtest and the search alike. Source: docs/semantics.md,
"Policies" (trades) and "Aggregates".
"""

import numpy as np
import numpy.typing as npt
from numba.extending import register_jitable

from quantbot_pipeline.compiled import compiled
from quantbot_pipeline.replay.results import Outcomes, Truth
from quantbot_pipeline.vocabulary import DATA_END, HARD_STOP, STOP_LOSS, TRAILING

MIN_TAIL_PEAK = 1.25
STAKE = 0.04  # the share of an account that one call is given in the growth score


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
    "data_end_share",
    "median_max_adverse_excursion_bps",
    "p25_return_bps",
    "p75_return_bps",
    "p90_return_bps",
    "avg_max_adverse_excursion_bps",
    "median_time_exposed_ms",
    "median_tail_capture",
)
# Their positions, by which the kernels write them and the search reads them.
(
    AVG_RETURN,
    MEDIAN_RETURN,
    STOP_OUT_RATE,
    LOSS_RATE,
    ES95,
    P95_DRAWDOWN,
    STRESSED_AVG_RETURN,
    AVG_TIME_EXPOSED,
    AVG_TAIL_CAPTURE,
    GROWTH_SCORE,
    DATA_END_SHARE,
    MEDIAN_EXCURSION,
    P25_RETURN,
    P75_RETURN,
    P90_RETURN,
    AVG_EXCURSION,
    MEDIAN_TIME_EXPOSED,
    MEDIAN_TAIL_CAPTURE,
) = range(len(STATS))
RANKING_STATS = MEDIAN_EXCURSION  # the first so many are what the search needs; every further one costs more selections


def aggregate(
    truth: Truth,
    outcomes: Outcomes,
    groups: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    c: float,
    *,
    stats: int = len(STATS),
) -> npt.NDArray[np.float64]:
    """The first `stats` of STATS for every (group of calls, policy), shape (G, P, stats); NaN where undefined.

    groups: rows of included calls, group after group; ends: (G,) where each group ends in it.
    """
    which = np.ascontiguousarray(outcomes.which)  # one layout, one compiled version
    result = np.full((len(ends), which.shape[1], stats), np.nan)
    calls, members = _in_order_of_groups(groups)
    leader = _leaders(which, groups, ends)
    first, distinct, exits = outcomes.first[calls], outcomes.distinct[calls], outcomes.exits
    derived = np.empty((distinct.sum(), FACTS))
    _derive(
        truth.p0,
        truth.entry_ts,
        truth.peak,
        exits.ts,
        exits.px,
        exits.reason,
        exits.mae_bps,
        calls,
        first,
        distinct,
        c,
        derived,
    )
    base = np.cumsum(distinct) - distinct
    _aggregate(derived, base[members], which, groups, ends, leader, result)
    return np.take_along_axis(result, leader[:, :, None], axis=1)


def _in_order_of_groups(groups: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """The distinct calls of all groups, and of every entry of `groups` the position of its call among them.

    They come in the order of their last group: callers follow the group of everybody, so theirs lie side by side in memory.
    """
    rows, last = np.unique(groups[::-1], return_index=True)
    order = np.argsort(-last)
    position = np.empty(len(order), dtype=np.uint64)
    position[order] = np.arange(len(order), dtype=np.uint64)
    return rows[order], position[np.searchsorted(rows, groups)]


def _leaders(
    which: npt.NDArray[np.integer], groups: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """(G, P): the first policy that leaves every call of the group by the same exit. Half of a grid often follows another."""
    policies = which.shape[1]
    own = np.tile(np.arange(policies), (len(ends), 1))  # not a view: one layout, one compiled version
    if policies < 2:
        return own
    digest = np.empty((len(ends), policies), dtype=np.uint32)
    _digests(which, groups, ends, digest)
    order = np.argsort(digest, axis=1, kind="stable")
    ordered = np.take_along_axis(digest, order, axis=1)
    begins = np.ones(order.shape, dtype=bool)
    begins[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    start = np.maximum.accumulate(np.where(begins, own, 0), axis=1)
    leader = np.empty(order.shape, dtype=np.int64)
    np.put_along_axis(leader, order, np.take_along_axis(order, start, axis=1), axis=1)
    _check_leaders(which, groups, ends, leader)
    return leader


_kernel = compiled(error_model="numpy")


@_kernel
def _digests(which, groups, ends, digest):
    start = 0
    for g in range(len(ends)):
        own = digest[g]
        own[:] = 0
        for i in range(start, ends[g]):
            row = which[groups[i]]
            for p in range(np.uint64(len(own))):
                own[p] = np.uint32(own[p] * np.uint32(0x9E3779B1)) + np.uint32(row[p]) + np.uint32(1)
        start = ends[g]


@_kernel
def _check_leaders(which, groups, ends, leader):
    """A policy whose digest equals another's by accident leads itself."""
    start = 0
    for g in range(len(ends)):
        led = np.flatnonzero(leader[g] != np.arange(leader.shape[1])).astype(np.uint32)
        by = leader[g][led].astype(np.uint32)
        differs = np.zeros(len(led), which.dtype)
        for i in range(start, ends[g]):
            row = which[groups[i]]
            for f in range(np.uint64(len(led))):
                differs[f] |= row[led[f]] ^ row[by[f]]
        leader[g][led[differs != 0]] = led[differs != 0]
        start = ends[g]


TILE_OUTCOMES = 1 << 17  # at once, 0.5 MB: they stay in cache
TILE_POLICIES = 8  # at least, however many calls: to read so many of each call costs little more than to read one
# What the aggregation needs to know of an exit lies side by side: these facts, and flags (a stop-out; the data ended; the
# peak is high enough for a tail capture).
FACTS = 5
REALIZED, DRAWDOWN, HELD, SHARE, FLAGS = range(FACTS)
STOPPED, ENDED, PEAKED = 1, 2, 4


@_kernel
def _derive(p0, entry_ts, peak, exit_ts, exit_px, reason, mae_bps, calls, first, count, c, derived):
    x = 0
    for i in range(len(calls)):
        row = calls[i]
        entry, entered, multiple = p0[row], entry_ts[row], peak[row] / p0[row]
        for e in range(first[i], first[i] + count[i]):
            gross = gross_return_bps(exit_px[e], entry)
            flags = STOPPED if is_stop_out(reason[e], gross) else 0
            flags |= ENDED if reason[e] == DATA_END else 0
            fact = derived[x]
            fact[REALIZED] = realized_return_bps(exit_px[e], entry, c)
            fact[DRAWDOWN] = mae_bps[e]
            fact[HELD] = float(exit_ts[e] - entered)
            fact[SHARE] = 0.0
            if multiple >= MIN_TAIL_PEAK:
                fact[SHARE] = min(max(gross / ((multiple - 1) * 10_000), 0.0), 1.0)
                flags |= PEAKED
            fact[FLAGS] = float(flags)
            x += 1


@_kernel
def _aggregate(derived, base, which, groups, ends, leader, result):
    # Outcomes lie call after call, statistics are of policies: for some policies at a time it is noted where the facts of
    # each call's exit are, policy after policy.
    largest, start = 0, 0
    for end in ends:
        largest, start = max(largest, end - start), end
    where = np.empty(max(TILE_POLICIES * largest, TILE_OUTCOMES), np.uint32)
    returns, excursions = np.empty(largest), np.empty(largest)
    exposed, captured = np.empty(largest), np.empty(largest)
    start = 0
    for g in range(len(ends)):
        n = ends[g] - start
        own = np.flatnonzero(leader[g] == np.arange(leader.shape[1])) if n else np.empty(0, np.int64)
        tile = max(TILE_POLICIES, TILE_OUTCOMES // max(1, n))
        for begin in range(0, len(own), tile):
            some = own[begin : begin + tile]
            for i in range(n):
                first, row = base[start + i], which[groups[start + i]]
                for j in range(np.uint64(len(some))):
                    where[j * np.uint64(n) + np.uint64(i)] = first + row[some[j]]
            for j in range(len(some)):
                fill_statistics(
                    derived, where[j * n : (j + 1) * n], returns, excursions, exposed, captured, result[g, some[j]]
                )
        start = ends[g]


@_kernel
def fill_statistics(derived, where, returns, excursions, exposed, captured, out):
    n = len(where)
    stops, losses, captures, ended = 0, 0, 0, 0
    total, stressed, total_ms, total_mae, total_capture = 0.0, 0.0, 0.0, 0.0, 0.0
    growth, product = 0.0, 1.0
    for i in range(np.uint64(n)):
        fact = derived[where[i]]
        value, flags = fact[REALIZED], int(fact[FLAGS])
        returns[i], excursions[i] = value, fact[DRAWDOWN]
        total += value
        total_mae += fact[DRAWDOWN]
        total_ms += fact[HELD]
        total_capture += fact[SHARE]
        stressed += -10_000.0 if flags & ENDED else value
        ended += (flags & ENDED) != 0
        losses += value < 0
        stops += (flags & STOPPED) != 0
        captures += (flags & PEAKED) != 0
        product *= 1 + STAKE * (value / 10_000)
        if not 1e-100 < product < 1e100:  # a logarithm costs as much as all the rest
            growth += np.log(product)
            product = 1.0
    growth += np.log(product)
    worst, middle, low = max(1, n // 20), at_or_below(0.5, n), at_or_below(0.05, n)
    sorted_to = select(returns, middle, 0, n)
    out[MEDIAN_RETURN] = quantile(returns, 0.5, n, sorted_to)
    select(returns, worst - 1, 0, middle)
    sorted_to = select(excursions, low, 0, n)
    out[P95_DRAWDOWN] = quantile(excursions, 0.05, n, sorted_to)
    tail = 0.0
    for i in range(worst):
        tail += returns[i]
    out[AVG_RETURN] = total / n
    out[STOP_OUT_RATE], out[LOSS_RATE] = stops / n, losses / n
    out[ES95] = tail / worst
    out[STRESSED_AVG_RETURN] = stressed / n
    out[AVG_TIME_EXPOSED] = total_ms / n
    if captures:
        out[AVG_TAIL_CAPTURE] = total_capture / captures
    out[GROWTH_SCORE] = 10_000 / STAKE * (growth / n)
    out[DATA_END_SHARE] = ended / n
    if len(out) <= RANKING_STATS:
        return
    out[MEDIAN_EXCURSION] = quantile(excursions, 0.5, n, select(excursions, middle, low + 1, n))
    if len(out) == RANKING_STATS + 1:
        return
    lower, upper, highest = at_or_below(0.25, n), at_or_below(0.75, n), at_or_below(0.9, n)
    out[P25_RETURN] = quantile(returns, 0.25, n, select(returns, lower, 0, middle))
    out[P75_RETURN] = quantile(returns, 0.75, n, select(returns, upper, middle + 1, n))
    out[P90_RETURN] = quantile(returns, 0.9, n, select(returns, highest, upper + 1, n))
    out[AVG_EXCURSION] = total_mae / n
    captures = 0
    for i in range(n):
        fact = derived[where[i]]
        exposed[i] = fact[HELD]
        if int(fact[FLAGS]) & PEAKED:
            captured[captures] = fact[SHARE]
            captures += 1
    out[MEDIAN_TIME_EXPOSED] = quantile(exposed, 0.5, n, select(exposed, middle, 0, n))
    if captures:
        half = select(captured, at_or_below(0.5, captures), 0, captures)
        out[MEDIAN_TAIL_CAPTURE] = quantile(captured, 0.5, captures, half)


@_kernel
def at_or_below(q, n):
    """The order statistic at or below the q-quantile of n values."""
    return int(np.floor(q * (n - 1)))


@_kernel
def quantile(values, q, n, sorted_to):
    """Linear interpolation between order statistics, as numpy's default; `sorted_to` as `select` at `at_or_below(q, n)` gave it."""
    k = at_or_below(q, n)
    below, weight = values[k], q * (n - 1) - k
    if weight == 0:
        return below
    above = values[k + 1]
    if k + 1 >= sorted_to:
        for i in range(np.uint64(k + 2), np.uint64(n)):
            above = values[i] if values[i] < above else above
    return below + (above - below) * weight if weight < 0.5 else above - (above - below) * (1 - weight)


SMALL = 16  # so few values are sorted by insertion


@_kernel
def select(values, k, lo, hi):
    """Quickselect in place: the k-th smallest comes to `values[k]`, nothing greater before it and nothing smaller behind.

    Known to hold already: nothing before `lo` is greater and nothing from `hi` on is smaller than what lies between.
    Returns where the run of values from k on ends that are in their final order.
    """
    while hi - lo > SMALL:
        pivot = _median(values[lo], values[(lo + hi) >> 1], values[hi - 1])
        n, m = hi - lo, _partition_below(values, lo, hi, pivot)
        if k < m:
            hi = m
        elif m - lo >= n // 8:
            lo = m
        else:  # few are smaller: the pivot may be the one price at which most calls were stopped
            lo = _partition_up_to(values, m, hi, pivot)
            if k < lo:
                return lo
    for i in range(lo + 1, hi):
        value = values[i]
        j = i - 1
        while j >= lo and values[j] > value:
            values[j + 1] = values[j]
            j -= 1
        values[j + 1] = value
    return hi


@_kernel
def _median(a, b, c):
    return max(min(a, b), min(max(a, b), c))


@_kernel
def _partition_below(values, lo, hi, pivot):
    """Bring what is < pivot to the front of [lo, hi); returns where it ends. No branch depends on a value."""
    end = np.uint64(lo)
    for i in range(np.uint64(lo), np.uint64(hi)):
        value = values[i]
        values[i] = values[end]
        values[end] = value
        end += np.uint64(value < pivot)
    return np.int64(end)


@_kernel
def _partition_up_to(values, lo, hi, pivot):
    """The same for what is <= pivot."""
    end = np.uint64(lo)
    for i in range(np.uint64(lo), np.uint64(hi)):
        value = values[i]
        values[i] = values[end]
        values[end] = value
        end += np.uint64(value <= pivot)
    return np.int64(end)
