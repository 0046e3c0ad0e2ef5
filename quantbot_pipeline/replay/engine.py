"""The compiled engine: windows, truth metrics and every policy's exit for many calls on one set of candles, in one pass.

Belongs here: the only place where candles are walked. Path-only runs, policy backtests, the search and the V1 baseline
all call `replay`. Rules: docs/semantics.md; algorithm (block sweep): docs/benchmarks.md.

Per call the window is streamed once in blocks of 32 candles (highs and lows only). Every distinct threshold of all
policies is found once: the candle that first touches it, the fill there, and the extremes before it. A policy is then
the earliest of its events, and that one candle is replayed step by step as the rules say.
Floating-point expressions are those of the contract (`p0*(1-s)`, `M*(1-trail)`, …), so results equal a plain loop's bits.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from quantbot_pipeline.replay.policies import CompiledPolicies, compile_policies

BLOCK = 32
NEVER = np.int32(2_147_483_647)

REASONS = (
    "time_stop",
    "stop_loss",
    "hard_stop",
    "trailing_stop",
    "take_profit",
    "ladder_complete",
    "horizon",
    "data_end",
)
TIME_STOP, STOP_LOSS, HARD_STOP, TRAILING, TAKE_PROFIT, LADDER, HORIZON, DATA_END = range(8)

STATUSES = ("included", "no_candles", "no_entry", "no_window", "low_coverage")
INCLUDED, NO_CANDLES, NO_ENTRY, NO_WINDOW, LOW_COVERAGE = range(5)


class Rules(NamedTuple):
    """What holds for every call and policy of a replay; times in ms, `entry_close` and `optimistic` as flags."""

    interval_ms: int = 300_000
    latency_ms: int = 60_000
    entry_close: bool = False
    horizon_ms: int = 172_800_000
    max_entry_delay_ms: int = 3_600_000
    min_coverage: float = 0.0
    optimistic: bool = False
    stop_slippage_bps: float = 0.0


class Candles(NamedTuple):
    """Valid candles of any number of tokens, each token's rows contiguous and ascending in time; shapes (N,)."""

    ts: npt.NDArray[np.int64]
    open: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    close: npt.NDArray[np.float64]


class Truth(NamedTuple):
    """Per call, shape (C,). Times are int64 ms, -1 where there is none; NaN where a float has no value."""

    status: npt.NDArray[np.uint8]
    p0: npt.NDArray[np.float64]
    entry_ts: npt.NDArray[np.int64]
    candles: npt.NDArray[np.int64]
    observed: npt.NDArray[np.int64]
    censored: npt.NDArray[np.uint8]
    peak: npt.NDArray[np.float64]  # a price: the highest high, or the entry price
    t_peak: npt.NDArray[np.int64]
    t_multiple: npt.NDArray[np.int64]  # (C, 3): 2x, 3x, 4x
    dd_bps: npt.NDArray[np.float64]
    dd_to_2x_bps: npt.NDArray[np.float64]
    t_activity: npt.NDArray[np.int64]


class Outcomes(NamedTuple):
    """Per call and policy, shape (C, P). `mae_bps` in basis points of the entry price, `exit_ts` in UTC ms."""

    exit_ts: npt.NDArray[np.int64]
    exit_px: npt.NDArray[np.float64]
    reason: npt.NDArray[np.uint8]
    fills: npt.NDArray[np.uint16]
    mae_bps: npt.NDArray[np.float64]

    def of_policies(self, chosen: slice) -> "Outcomes":
        """The outcomes of some policies only."""
        return Outcomes(*(np.ascontiguousarray(array[:, chosen]) for array in self))  # type: ignore[arg-type]

    def of_chosen(self, rows: npt.NDArray[np.int64], column: npt.NDArray[np.int64]) -> "Outcomes":
        """One policy per call, shape (len(rows), 1)."""
        return Outcomes(*(array[rows, column][:, None] for array in self))  # type: ignore[arg-type]


def concatenate(truths: Sequence[Truth], outcomes: Sequence[Outcomes]) -> tuple[Truth, Outcomes]:
    """Several replays with the same policies as one."""
    joined = Truth(*(np.concatenate(parts) for parts in zip(*truths, strict=True)))
    return joined, Outcomes(*(np.concatenate(parts) for parts in zip(*outcomes, strict=True)))


def empty_truth(calls: int) -> Truth:
    """Room for the truth of `calls` calls, all of them marked `no_candles` until replayed."""
    missing = np.full(calls, -1, dtype=np.int64)
    nan = np.full(calls, np.nan)
    return Truth(
        status=np.full(calls, NO_CANDLES, dtype=np.uint8),
        p0=nan.copy(),
        entry_ts=missing.copy(),
        candles=np.zeros(calls, dtype=np.int64),
        observed=missing.copy(),
        censored=np.zeros(calls, dtype=np.uint8),
        peak=nan.copy(),
        t_peak=missing.copy(),
        t_multiple=np.full((calls, 3), -1, dtype=np.int64),
        dd_bps=nan.copy(),
        dd_to_2x_bps=nan.copy(),
        t_activity=missing.copy(),
    )


def empty_outcomes(calls: int, policies: int) -> Outcomes:
    """Room for the outcomes of every policy on every call; rows of excluded calls stay unwritten."""
    shape = (calls, policies)
    return Outcomes(
        exit_ts=np.empty(shape, dtype=np.int64),
        exit_px=np.empty(shape),
        reason=np.empty(shape, dtype=np.uint8),
        fills=np.empty(shape, dtype=np.uint16),
        mae_bps=np.empty(shape),
    )


def replay(
    candles: Candles,
    alert_ts: npt.NDArray[np.int64],
    lo: npt.NDArray[np.int64],
    hi: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    rules: Rules,
    policies: CompiledPolicies,
    truth: Truth,
    outcomes: Outcomes,
) -> None:
    """Replay K calls and write their results into `rows` of `truth` and `outcomes`.

    alert_ts: (K,) UTC ms. lo, hi: (K,) the token's slice `[lo, hi)` of `candles`. rows: (K,) distinct output rows.
    Releases the GIL, so that threads can replay disjoint rows at once; the result does not depend on their order.
    """
    # Decoded Parquet is read-only memory; seeing everything as such keeps the kernel to one compiled specialisation.
    frozen = Candles(*(_read_only(array) for array in candles))
    _replay_calls(frozen, alert_ts, lo, hi, rows, rules, policies, truth, outcomes)


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def warm_up() -> None:
    """Compile the kernel, or load it from the cache, by replaying nothing: about ten seconds the first time ever."""
    nothing, none = np.empty(0, dtype=np.int64), np.empty(0)
    candles = Candles(nothing, none, none, none, none)
    empty = compile_policies([])
    replay(candles, nothing, nothing, nothing, nothing, Rules(), empty, empty_truth(0), empty_outcomes(0, 0))


_kernel = numba.njit(nogil=True, cache=True, error_model="numpy")
# min and max are exact under these two flags, as valid prices are finite and positive; they let LLVM vectorize.
_extreme = numba.njit(nogil=True, cache=True, fastmath={"nnan", "nsz"})


@_extreme
def _block_max(values, start, stop):
    top = values[start]
    for j in range(start + 1, stop):
        top = values[j] if values[j] > top else top
    return top


@_extreme
def _block_min(values, start, stop):
    bottom = values[start]
    for j in range(start + 1, stop):
        bottom = values[j] if values[j] < bottom else bottom
    return bottom


@_kernel
def _first_at_or_after(ts, lo, hi, when):
    """Index of the first candle in [lo, hi) with ts >= when; hi if none."""
    while lo < hi:
        mid = (lo + hi) >> 1
        if ts[mid] < when:
            lo = mid + 1
        else:
            hi = mid
    return lo


@_kernel
def _replay_calls(candles, alert_ts, lo, hi, rows, rules, policies, truth, outcomes):
    n_down, n_up, n_hold, n_pair = len(policies.down), len(policies.up), len(policies.hold), len(policies.pair_up)
    # Events: the candle index, and the minimum low and maximum high (and entry price) before it.
    down_at, down_min, down_max = np.empty(n_down, np.int32), np.empty(n_down), np.empty(n_down)
    up_at, up_min, up_max = np.empty(n_up, np.int32), np.empty(n_up), np.empty(n_up)
    hold_at, hold_min, hold_max = np.empty(n_hold, np.int32), np.empty(n_hold), np.empty(n_hold)
    pair_at, pair_min, pair_max = np.empty(n_pair, np.int32), np.empty(n_pair), np.empty(n_pair)
    up_fill = np.empty(n_up)
    down_px, up_px = np.empty(n_down), np.empty(n_up)
    room = 128
    max_before, min_before, block_low = np.empty(room + 1), np.empty(room + 1), np.empty(room + 1)
    units = rules.horizon_ms // rules.interval_ms
    slip = 1 - rules.stop_slippage_bps / 10_000

    for k in range(len(alert_ts)):
        row = rows[k]
        status, first, end, p0, entry_ts = _window(candles, lo[k], hi[k], alert_ts[k], rules)
        if status == INCLUDED and (end - first) / units < rules.min_coverage:
            status = LOW_COVERAGE
        truth.status[row] = status
        if status in (INCLUDED, LOW_COVERAGE):
            truth.p0[row] = p0
            truth.entry_ts[row] = entry_ts
            truth.candles[row] = end - first
        if status != INCLUDED:
            continue
        ts, open_, high, low, close = (
            candles.ts[first:end],
            candles.open[first:end],
            candles.high[first:end],
            candles.low[first:end],
            candles.close[first:end],
        )
        n = end - first
        observed = ts[n - 1] + rules.interval_ms - entry_ts
        censored = observed < rules.horizon_ms - rules.interval_ms

        # 1. One streaming pass: block extremes, running extremes, and the first touch of every level.
        blocks = (n + BLOCK - 1) // BLOCK
        if blocks > room:
            room = blocks
            max_before, min_before, block_low = np.empty(room + 1), np.empty(room + 1), np.empty(room + 1)
        for d in range(n_down):
            down_at[d] = NEVER
            down_px[d] = p0 * policies.down[d]
        for u in range(n_up):
            up_at[u] = NEVER
            up_px[u] = p0 * policies.up[u]
        running_max, running_min = p0, p0
        next_down, next_up = 0, 0
        peak_block = -1
        for b in range(blocks):
            start, stop = b * BLOCK, min((b + 1) * BLOCK, n)
            top, bottom = _block_max(high, start, stop), _block_min(low, start, stop)
            max_before[b], min_before[b], block_low[b] = running_max, running_min, bottom
            if bottom <= down_px[next_down] or top >= up_px[next_up]:
                m_high, m_low = running_max, running_min
                for j in range(start, stop):
                    while low[j] <= down_px[next_down]:
                        down_at[next_down], down_min[next_down], down_max[next_down] = j, m_low, m_high
                        next_down += 1
                    while high[j] >= up_px[next_up]:
                        up_at[next_up], up_min[next_up], up_max[next_up] = j, m_low, m_high
                        up_fill[next_up] = open_[j] if open_[j] >= up_px[next_up] else up_px[next_up]
                        next_up += 1
                    m_high = high[j] if high[j] > m_high else m_high
                    m_low = low[j] if low[j] < m_low else m_low
            if top > running_max:
                running_max, peak_block = top, b
            running_min = bottom if bottom < running_min else running_min
        max_before[blocks], min_before[blocks] = running_max, running_min

        # 2. Truth.
        truth.observed[row] = observed
        truth.censored[row] = censored
        truth.peak[row] = running_max
        if peak_block >= 0:
            j = peak_block * BLOCK
            while high[j] != running_max:
                j += 1
            truth.t_peak[row] = ts[j] + rules.interval_ms
        truth.dd_bps[row] = (running_min / p0 - 1) * 10_000
        for m in range(3):
            at = up_at[policies.truth[m]]
            if at != NEVER:
                truth.t_multiple[row, m] = ts[at] + rules.interval_ms
        at = up_at[policies.truth[0]]
        if at != NEVER:
            truth.dd_to_2x_bps[row] = (min(up_min[policies.truth[0]], low[at]) / p0 - 1) * 10_000
        at = min(up_at[policies.truth[3]], down_at[policies.truth[4]])
        if at != NEVER:
            truth.t_activity[row] = ts[at] + rules.interval_ms
        if len(policies.stop) == 0:
            continue

        # 3. Holds: the first candle that closes at or after the deadline.
        last_max, last_min = _extremes_before(high, low, max_before, min_before, n - 1)
        for h in range(n_hold):
            at = _first_at_or_after(ts, 0, n, entry_ts + policies.hold[h] - rules.interval_ms)
            if at >= n:
                hold_at[h] = NEVER
            else:
                hold_at[h] = at
                hold_max[h], hold_min[h] = _extremes_before(high, low, max_before, min_before, at)

        # 4. Trailing pairs: the first candle that breaks `M*(1-trail)` or gives back to it.
        for q in range(n_pair):
            act = policies.pair_up[q]
            keep = policies.pair_keep[q]
            start = 0 if up_px[act] <= p0 else int(up_at[act])
            if q > 0 and policies.pair_up[q - 1] == act:
                start = int(pair_at[q - 1])  # a wider trail cannot fire before a tighter one
            pair_at[q] = NEVER
            if start != NEVER:
                _find_trail(
                    q, start, n, keep, up_px[act], high, low, close, max_before, min_before, block_low, blocks,
                    pair_at, pair_min, pair_max,
                )  # fmt: skip

        # 5. Every policy: its earliest event, and that candle step by step.
        for p in range(len(policies.stop)):
            i, m_low, m_high = n - 1, last_min, last_max
            s, t, h, c = policies.stop[p], policies.take[p], policies.hold_slot[p], policies.complete[p]
            if down_at[s] < i:
                i, m_low, m_high = down_at[s], down_min[s], down_max[s]
            if up_at[t] < i:
                i, m_low, m_high = up_at[t], up_min[t], up_max[t]
            if up_at[c] < i:
                i, m_low, m_high = up_at[c], up_min[c], up_max[c]
            if hold_at[h] < i:
                i, m_low, m_high = hold_at[h], hold_min[h], hold_max[h]
            trail_lo, trail_hi = policies.trail_lo[p], policies.trail_hi[p]
            for r in range(trail_lo, trail_hi):
                q = policies.trails[r]
                if pair_at[q] < i:
                    i, m_low, m_high = pair_at[q], pair_min[q], pair_max[q]

            rung, rung_hi = policies.rung_lo[p], policies.rung_hi[p]
            remainder, proceeds, fills = 1.0, 0.0, 0
            while rung < rung_hi and up_at[policies.rung_up[rung]] < i:
                part = min(policies.rung_fraction[rung], remainder)
                proceeds += part * up_fill[policies.rung_up[rung]]
                remainder -= part
                fills += 1
                rung += 1

            o, candle_high, candle_low, candle_close, opened = open_[i], high[i], low[i], close[i], ts[i]
            deadline = entry_ts + policies.hold[h]
            take = up_px[t]
            level, level_reason = down_px[s], policies.stop_reason[p]
            for r in range(trail_lo, trail_hi):
                q = policies.trails[r]
                if m_high >= up_px[policies.pair_up[q]] and m_high * policies.pair_keep[q] > level:
                    level, level_reason = m_high * policies.pair_keep[q], np.uint8(TRAILING)

            at_open, px, worst = True, 0.0, candle_low
            reason = np.uint8(HORIZON)
            if opened >= deadline:
                px, reason = o, np.uint8(TIME_STOP)
            elif o <= level:
                px, reason = o * slip, level_reason
            elif o >= take:
                px, reason = o, np.uint8(TAKE_PROFIT)
            else:
                while rung < rung_hi and remainder > 0 and up_px[policies.rung_up[rung]] <= o:
                    remainder, proceeds = _sell(remainder, proceeds, policies.rung_fraction[rung], o)
                    fills += 1
                    rung += 1
                if remainder == 0:
                    px, reason = o, np.uint8(LADDER)
                else:
                    at_open = False
            if at_open:
                worst = px
            elif not rules.optimistic and candle_low <= level:
                px, reason = level * slip, level_reason
                worst = px
            else:
                taken = candle_high >= take
                while rung < rung_hi and remainder > 0:
                    price = up_px[policies.rung_up[rung]]
                    if price > candle_high or (taken and price >= take):
                        break
                    remainder, proceeds = _sell(remainder, proceeds, policies.rung_fraction[rung], price)
                    fills += 1
                    rung += 1
                if remainder == 0:
                    reason = np.uint8(LADDER)
                elif taken:
                    px, reason = take, np.uint8(TAKE_PROFIT)
                elif candle_low <= level:
                    px, reason = level * slip, level_reason
                    worst = px
                else:
                    top = candle_high if candle_high > m_high else m_high
                    giveback = -1.0
                    for r in range(trail_lo, trail_hi):
                        q = policies.trails[r]
                        if top >= up_px[policies.pair_up[q]] and top * policies.pair_keep[q] > giveback:
                            giveback = top * policies.pair_keep[q]
                    if candle_close <= giveback:
                        px, reason = giveback * slip, np.uint8(TRAILING)
                    elif opened + rules.interval_ms >= deadline:
                        px, reason = candle_close, np.uint8(TIME_STOP)
                    else:
                        px, reason = candle_close, np.uint8(DATA_END) if censored else np.uint8(HORIZON)
            if remainder > 0:
                proceeds += remainder * px
                fills += 1
            outcomes.exit_ts[row, p] = opened if at_open else opened + rules.interval_ms
            outcomes.exit_px[row, p] = proceeds
            outcomes.reason[row, p] = reason
            outcomes.fills[row, p] = fills
            outcomes.mae_bps[row, p] = (min(m_low, worst) / p0 - 1) * 10_000


@_kernel
def _window(candles, lo, hi, alert_ts, rules):
    """(status, first, end, p0, entry_ts): the window is candles [first, end)."""
    if lo >= hi:
        return NO_CANDLES, lo, lo, 0.0, np.int64(0)
    e = _first_at_or_after(candles.ts, lo, hi, alert_ts + rules.latency_ms)
    if e >= hi or candles.ts[e] - alert_ts > rules.max_entry_delay_ms:
        return NO_ENTRY, lo, lo, 0.0, np.int64(0)
    if rules.entry_close:
        p0, entry_ts, first = candles.close[e], candles.ts[e] + rules.interval_ms, e + 1
    else:
        p0, entry_ts, first = candles.open[e], candles.ts[e], e
    end = _first_at_or_after(candles.ts, first, hi, entry_ts + rules.horizon_ms - rules.interval_ms + 1)
    return (INCLUDED if end > first else NO_WINDOW), first, end, p0, entry_ts


@_kernel
def _extremes_before(high, low, max_before, min_before, i):
    """Maximum high and minimum low (and entry price) over the window candles before candle i."""
    b = i // BLOCK
    top, bottom = max_before[b], min_before[b]
    for j in range(b * BLOCK, i):
        top = high[j] if high[j] > top else top
        bottom = low[j] if low[j] < bottom else bottom
    return top, bottom


@_kernel
def _find_trail(
    q,
    start,
    n,
    keep,
    activation,
    high,
    low,
    close,
    max_before,
    min_before,
    block_low,
    blocks,
    pair_at,
    pair_min,
    pair_max,
):
    # A block can hold the event only if its low reaches the level of its highest maximum (a product rounds monotonely,
    # and close >= low).
    for b in range(start // BLOCK, blocks):
        if block_low[b] > max_before[b + 1] * keep:
            continue
        m_high, m_low = max_before[b], min_before[b]
        for j in range(b * BLOCK, min((b + 1) * BLOCK, n)):
            top = high[j] if high[j] > m_high else m_high
            if j >= start and (
                (m_high >= activation and low[j] <= m_high * keep) or (top >= activation and close[j] <= top * keep)
            ):
                pair_at[q], pair_min[q], pair_max[q] = j, m_low, m_high
                return
            m_high = top
            m_low = low[j] if low[j] < m_low else m_low


@_kernel
def _sell(remainder, proceeds, fraction, price):
    """Fill one ladder level; returns the new remainder (zero when nothing worth mentioning is left) and proceeds."""
    part = min(fraction, remainder)
    remainder -= part
    return (remainder if remainder > 1e-12 else 0.0), proceeds + part * price
