"""The compiled engine: windows, truth metrics and every policy's exit for many calls on one set of candles, in one pass.

Belongs here: the only place where candles are walked. Path-only runs, policy backtests, the search and the V1 baseline
all call `replay`. Rules: docs/semantics.md; algorithm (block sweep): docs/benchmarks.md.

Per call the window is streamed once in blocks of 32 candles (highs and lows only). Every distinct threshold of all
policies is found once: the candle that first touches it, and the extremes before it. Each such event is priced once. A
policy is then the earliest of its events; only where several fall into one candle is that candle replayed step by step.
Floating-point expressions are those of the contract (`p0*(1-s)`, `M*(1-trail)`, …), so results equal a plain loop's bits.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.compiled import compiled, is_kept
from quantbot_pipeline.replay.compile import CompiledPolicies, compile_policies
from quantbot_pipeline.replay.results import (
    Candles,
    Exits,
    Outcomes,
    Rules,
    Truth,
    empty_outcomes,
    empty_truth,
)
from quantbot_pipeline.vocabulary import (
    DATA_END,
    HORIZON,
    INCLUDED,
    LADDER,
    LOW_COVERAGE,
    NO_CANDLES,
    NO_ENTRY,
    NO_WINDOW,
    STOP_LOSS,
    TAKE_PROFIT,
    TIME_STOP,
    TRAILING,
)

BLOCK = 32
NEVER = np.int32(2_147_483_647)


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
) -> Exits:
    """Replay K calls, write their results into `rows` of `truth` and `outcomes` and return their exits, for `with_exits`.

    alert_ts: (K,) UTC ms. lo, hi: (K,) the token's slice `[lo, hi)` of `candles`. rows: (K,) distinct output rows.
    Releases the GIL, so that threads can replay disjoint rows at once; the result does not depend on their order.
    """
    # Decoded Parquet is read-only memory; seeing everything as such keeps the kernel to one compiled specialisation.
    frozen = Candles(*(_read_only(array) for array in candles))
    made = _replay_calls(
        frozen, alert_ts, lo, hi, rows, rules, policies, truth, outcomes.first, outcomes.distinct, outcomes.which
    )
    return Exits(*made)


def raised_and_broken(
    candles: Candles,
    alert_ts: npt.NDArray[np.int64],
    lo: npt.NDArray[np.int64],
    hi: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    rules: Rules,
    policies: CompiledPolicies,
    truth: Truth,
    outcomes: Outcomes,
    exits: Exits,
    found: npt.NDArray[np.bool_],
) -> None:
    """Mark in `found` (C, P) the trades in one candle of which a trailing stop may have risen and been broken.

    Such a candle does not tell whether its high came before its low. The arguments are those of `replay`, and the `exits`
    that it returned. A give-back is not marked: the close shows that the price passed the risen level.
    """
    frozen = Candles(*(_read_only(array) for array in candles))
    _raised_calls(
        frozen, alert_ts, lo, hi, rows, rules, policies, truth.status, exits, outcomes.first, outcomes.which, found
    )


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def must_compile() -> bool:
    """Whether `warm_up` has to compile the kernel, because no earlier process kept its machine code."""
    return not is_kept(_replay_calls)


def warm_up() -> None:
    """Compile the kernel, or load it from the cache, by replaying nothing: about ten seconds the first time ever."""
    nothing, none = np.empty(0, dtype=np.int64), np.empty(0)
    candles = Candles(nothing, none, none, none, none)
    empty = compile_policies([])
    replay(candles, nothing, nothing, nothing, nothing, Rules(), empty, empty_truth(0), empty_outcomes(0, 0))


_kernel = compiled(error_model="numpy")


class _Events(NamedTuple):
    """What can end a position in the call at hand, one entry per event slot of `CompiledPolicies`.

    at: index of the candle, NEVER if none. top, bottom: highest high and lowest low (or entry price) before that candle.
    px, ts, mae_bps, reason: the exit of a policy that has no other event in that candle.
    """

    at: npt.NDArray[np.int32]
    top: npt.NDArray[np.float64]
    bottom: npt.NDArray[np.float64]
    px: npt.NDArray[np.float64]
    ts: npt.NDArray[np.int64]
    mae_bps: npt.NDArray[np.float64]
    reason: npt.NDArray[np.uint8]


class _Blocks(NamedTuple):
    """Extremes of a window by blocks of candles: highest high and lowest low (or entry price) before block b, and its own low.

    `*_bits` are the same memory as integers: positive doubles are ordered as their bits are, and integers vectorize.
    """

    top: npt.NDArray[np.float64]
    bottom: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    top_bits: npt.NDArray[np.int64]
    bottom_bits: npt.NDArray[np.int64]
    low_bits: npt.NDArray[np.int64]


class _Unsettled(NamedTuple):
    """Policies whose last candle must be replayed step by step, and an event of theirs in it."""

    policy: npt.NDArray[np.uint32]
    event: npt.NDArray[np.uint32]


class _Window(NamedTuple):
    """The candles of one window and what holds for all its policies."""

    ts: npt.NDArray[np.int64]
    open: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    close: npt.NDArray[np.float64]
    p0: float
    entry_ts: int
    censored: bool


@_kernel
def _replay_calls(candles, alert_ts, lo, hi, rows, rules, policies, truth, first, distinct, which):
    n_down, n_up = len(policies.down), len(policies.up)
    slots = n_down + n_up + len(policies.hold) + len(policies.pair_keep) + 1
    events = _Events(
        np.empty(slots, np.int32),
        np.empty(slots),
        np.empty(slots),
        np.empty(slots),
        np.empty(slots, np.int64),
        np.empty(slots),
        np.empty(slots, np.uint8),
    )
    # Levels in the order of their event slots: stops, then multiples; the other slots have none.
    level = np.empty(n_down + n_up)
    key, number = np.empty(slots, np.int64), np.empty(2 * slots, np.int32)
    n_policies = len(policies.stop)
    unsettled = _Unsettled(np.empty(n_policies, np.uint32), np.empty(n_policies, np.uint32))
    exits = _exit_room(len(rows) * min(n_policies, 32) + n_policies)
    used = 0
    blocks = _room(128)
    units = rules.horizon_ms // rules.interval_ms

    for k in range(len(alert_ts)):
        row = rows[k]
        status, begin, end, p0, entry_ts = _window(candles, lo[k], hi[k], alert_ts[k], rules)
        if status == INCLUDED and (end - begin) / units < rules.min_coverage:
            status = LOW_COVERAGE
        truth.status[row] = status
        if status in (INCLUDED, LOW_COVERAGE):
            truth.p0[row] = p0
            truth.entry_ts[row] = entry_ts
            truth.candles[row] = end - begin
        if status != INCLUDED:
            continue
        observed = candles.ts[end - 1] + rules.interval_ms - entry_ts
        censored = observed < rules.horizon_ms - rules.interval_ms
        window = _Window(
            candles.ts[begin:end],
            candles.open[begin:end],
            candles.high[begin:end],
            candles.low[begin:end],
            candles.close[begin:end],
            p0,
            entry_ts,
            censored,
        )
        truth.observed[row] = observed
        truth.censored[row] = censored
        if (end - begin) // BLOCK + 2 > len(blocks.top):
            blocks = _room((end - begin) // BLOCK + 2)
        for d in range(n_down):
            level[d] = p0 * policies.down[d]
        for u in range(n_up):
            level[n_down + u] = p0 * policies.up[u]
        events.at[:] = NEVER
        peak_block = _touch_levels(window, level, n_down, blocks, events)
        _write_truth(window, rules, policies, n_down, blocks, peak_block, events, truth, row)
        if n_policies:
            if used + n_policies > len(exits.ts):
                exits = _more_room(exits, used, 2 * used + n_policies)
            _find_holds(window, rules, policies, n_down + n_up, blocks, events)
            _find_trails(window, policies, level, n_down, blocks, events)
            _price_events(window, rules, policies, level, n_down, events)
            first[row] = used
            used, conflicts = _settle_policies(policies, events, key, number, unsettled, exits, used, which[row])
            used = _settle_conflicts(
                window,
                rules,
                policies,
                level,
                n_down,
                events,
                unsettled,
                conflicts,
                exits,
                used,
                which[row],
                first[row],
            )
            distinct[row] = used - first[row]
    return (
        exits.ts[:used].copy(),
        exits.px[:used].copy(),
        exits.reason[:used].copy(),
        exits.fills[:used].copy(),
        exits.mae_bps[:used].copy(),
    )


@_kernel
def _exit_room(size):
    return Exits(
        np.empty(size, np.int64), np.empty(size), np.empty(size, np.uint8), np.empty(size, np.uint16), np.empty(size)
    )


@_kernel
def _more_room(exits, used, size):
    more = _exit_room(size)
    more.ts[:used], more.px[:used], more.reason[:used] = exits.ts[:used], exits.px[:used], exits.reason[:used]
    more.fills[:used], more.mae_bps[:used] = exits.fills[:used], exits.mae_bps[:used]
    return more


@_kernel
def _window(candles, lo, hi, alert_ts, rules):
    """(status, first, end, p0, entry_ts): the window is candles [first, end)."""
    if lo >= hi:
        return NO_CANDLES, lo, lo, 0.0, np.int64(0)
    e = first_at_or_after(candles.ts, lo, hi, alert_ts + rules.latency_ms)
    if e >= hi or candles.ts[e] - alert_ts > rules.max_entry_delay_ms:
        return NO_ENTRY, lo, lo, 0.0, np.int64(0)
    if rules.entry_close:
        p0, entry_ts, first = candles.close[e], candles.ts[e] + rules.interval_ms, e + 1
    else:
        p0, entry_ts, first = candles.open[e], candles.ts[e], e
    end = first_at_or_after(candles.ts, first, hi, entry_ts + rules.horizon_ms - rules.interval_ms + 1)
    return (INCLUDED if end > first else NO_WINDOW), first, end, p0, entry_ts


@_kernel
def first_at_or_after(ts, lo, hi, when):
    """Index of the first candle in [lo, hi) with ts >= when; hi if none."""
    while lo < hi:
        mid = (lo + hi) >> 1
        if ts[mid] < when:
            lo = mid + 1
        else:
            hi = mid
    return lo


@_kernel
def _room(blocks):
    top, bottom, low = np.empty(blocks, np.int64), np.empty(blocks, np.int64), np.empty(blocks, np.int64)
    return _Blocks(top.view(np.float64), bottom.view(np.float64), low.view(np.float64), top, bottom, low)


@_kernel
def _touch_levels(window, level, n_down, blocks, events):
    """One streaming pass: block extremes, running extremes, the first touch of every level; returns the peak's block or -1."""
    high, low, level_bits = window.high.view(np.int64), window.low.view(np.int64), level.view(np.int64)
    n = len(high)
    blocks.top[0], blocks.bottom[0] = window.p0, window.p0
    running_top, running_bottom = blocks.top_bits[0], blocks.bottom_bits[0]
    down, up = 0, n_down  # the next level of each kind that is not reached; both kinds end with one that never is
    next_down, next_up = level_bits[down], level_bits[up]
    peak_block = -1
    for b in range((n + BLOCK - 1) // BLOCK):
        start, stop = b * BLOCK, min((b + 1) * BLOCK, n)
        top, bottom = high[start], low[start]
        if stop - start == BLOCK:
            for j in range(BLOCK):
                top, bottom = max(top, high[start + j]), min(bottom, low[start + j])
        else:
            for j in range(start, stop):
                top, bottom = max(top, high[j]), min(bottom, low[j])
        blocks.low_bits[b] = bottom
        if bottom <= next_down or top >= next_up:
            block_top, block_bottom = running_top, running_bottom
            for j in range(start, stop):
                if low[j] <= next_down or high[j] >= next_up:
                    blocks.top_bits[b], blocks.bottom_bits[b] = block_top, block_bottom
                    while low[j] <= next_down:
                        events.at[down], events.top[down], events.bottom[down] = j, blocks.top[b], blocks.bottom[b]
                        down += 1
                        next_down = level_bits[down]
                    while high[j] >= next_up:
                        events.at[up], events.top[up], events.bottom[up] = j, blocks.top[b], blocks.bottom[b]
                        up += 1
                        next_up = level_bits[up]
                    if bottom > next_down and top < next_up:
                        break
                block_top, block_bottom = max(block_top, high[j]), min(block_bottom, low[j])
        blocks.top_bits[b], blocks.bottom_bits[b] = running_top, running_bottom
        if top > running_top:
            running_top, peak_block = top, b
        running_bottom = min(running_bottom, bottom)
    blocks.top_bits[b + 1], blocks.bottom_bits[b + 1] = running_top, running_bottom
    return peak_block


@_kernel
def _write_truth(window, rules, policies, first_up, blocks, peak_block, events, truth, row):
    ts, high, p0 = window.ts, window.high, window.p0
    last = (len(ts) + BLOCK - 1) // BLOCK
    truth.peak[row] = blocks.top[last]
    if peak_block >= 0:
        j = peak_block * BLOCK
        while high[j] != blocks.top[last]:
            j += 1
        truth.t_peak[row] = ts[j] + rules.interval_ms
    truth.dd_bps[row] = (blocks.bottom[last] / p0 - 1) * 10_000
    for m in range(3):
        at = events.at[policies.truth[m]]
        if at != NEVER:
            truth.t_multiple[row, m] = ts[at] + rules.interval_ms
    double = policies.truth[0]
    at = events.at[double]
    if at != NEVER:
        truth.dd_to_2x_bps[row] = (min(events.bottom[double], window.low[at]) / p0 - 1) * 10_000
    at = min(events.at[policies.truth[3]], events.at[policies.truth[4]])
    if at != NEVER:
        truth.t_activity[row] = ts[at] + rules.interval_ms


@_kernel
def _find_holds(window, rules, policies, first_hold, blocks, events):
    """The first candle that closes at or after each deadline, and, in the last slot, the window's last candle."""
    n = len(window.ts)
    for h in range(len(policies.hold)):
        at = first_at_or_after(window.ts, 0, n, window.entry_ts + policies.hold[h] - rules.interval_ms)
        if at < n:
            slot = first_hold + h
            events.at[slot] = at
            events.top[slot], events.bottom[slot] = _extremes_before(window, blocks, at)
    last = len(events.at) - 1
    events.at[last] = n - 1
    events.top[last], events.bottom[last] = _extremes_before(window, blocks, n - 1)


@_kernel
def _extremes_before(window, blocks, i):
    """Highest high and lowest low (or entry price) over the window candles before candle i."""
    b = i // BLOCK
    top, bottom = blocks.top[b], blocks.bottom[b]
    for j in range(b * BLOCK, i):
        top = window.high[j] if window.high[j] > top else top
        bottom = window.low[j] if window.low[j] < bottom else bottom
    return top, bottom


@_kernel
def _find_trails(window, policies, level, n_down, blocks, events):
    """The first candle that breaks `M*(1-trail)` of each trailing pair or gives back to it."""
    first_pair = n_down + len(policies.up) + len(policies.hold)
    for q in range(len(policies.pair_up)):
        activation = level[policies.pair_up[q]]
        start = 0 if activation <= window.p0 else events.at[policies.pair_up[q]]
        if q > 0 and policies.pair_up[q - 1] == policies.pair_up[q]:
            start = events.at[first_pair + q - 1]  # a wider trail cannot fire before a tighter one
        if start != NEVER:
            _find_trail(window, activation, policies.pair_keep[q], start, blocks, events, first_pair + q)


@_kernel
def _find_trail(window, activation, keep, start, blocks, events, slot):
    high, low, close = window.high, window.low, window.close
    n = len(high)
    # A block can hold the event only if its low reaches the level of its highest maximum (a product rounds monotonely,
    # and close >= low).
    for b in range(start // BLOCK, (n + BLOCK - 1) // BLOCK):
        if blocks.low[b] > blocks.top[b + 1] * keep:
            continue
        before, bottom = blocks.top[b], blocks.bottom[b]
        for j in range(b * BLOCK, min((b + 1) * BLOCK, n)):
            top = high[j] if high[j] > before else before
            if j >= start and (
                (before >= activation and low[j] <= before * keep) or (top >= activation and close[j] <= top * keep)
            ):
                events.at[slot], events.top[slot], events.bottom[slot] = j, before, bottom
                return
            before = top
            bottom = low[j] if low[j] < bottom else bottom


@_kernel
def _price_events(window, rules, policies, level, n_down, events):
    """The exit at every event, where a policy has no other event in the same candle: then only its own level decides."""
    first_hold = n_down + len(policies.up)
    first_pair = first_hold + len(policies.hold)
    last = len(events.at) - 1
    slip = 1 - rules.stop_slippage_bps / 10_000
    for e in range(last + 1):
        i = events.at[e]
        if i == NEVER:
            continue
        o, low, close, opened = window.open[i], window.low[i], window.close[i], window.ts[i]
        at_open, worst = False, low
        reason = np.uint8(HORIZON)
        if e < n_down:
            reason, at_open = np.uint8(STOP_LOSS), o <= level[e]
            px = (o if at_open else level[e]) * slip
            worst = px
        elif e < first_hold:
            reason, at_open = np.uint8(TAKE_PROFIT), o >= level[e]
            px = o if at_open else level[e]
        elif e < first_pair:
            reason, at_open = np.uint8(TIME_STOP), opened >= window.entry_ts + policies.hold[e - first_hold]
            px = o if at_open else close
        elif e < last:
            q = e - first_pair
            before, keep = events.top[e], policies.pair_keep[q]
            reason = np.uint8(TRAILING)
            if before >= level[policies.pair_up[q]] and low <= before * keep:
                at_open = o <= before * keep
                px = (o if at_open else before * keep) * slip
                worst = px
            else:
                px = max(before, window.high[i]) * keep * slip
        else:
            px = close
            reason = np.uint8(DATA_END) if window.censored else np.uint8(HORIZON)
        if at_open:
            worst = px
        events.px[e], events.reason[e] = px, reason
        events.ts[e] = opened if at_open else opened + rules.interval_ms
        events.mae_bps[e] = (min(events.bottom[e], worst) / window.p0 - 1) * 10_000


@_kernel
def _settle_policies(policies, events, key, number, unsettled, exits, used, which):
    """The exit of every policy whose last candle holds one of its events only; returns how many exits are used now.

    The others are listed in `unsettled`: how many is returned second.
    """
    at = events.at
    slots = len(at)
    last = slots - 1
    for s in range(slots):  # the earliest event and its slot in one comparison
        key[s] = (np.int64(at[s]) << 32) | s
    number[:] = -1  # of the exit at an event, once a policy takes it; stops a second time as hard stops
    begin, count = used, 0
    for p in range(len(policies.stop)):
        stop, take, hold, trail = policies.stop[p], policies.take[p], policies.hold_slot[p], policies.trail[p]
        earliest = min(min(key[stop], key[take]), min(min(key[hold], key[trail]), key[last]))
        e, i = np.uint32(earliest), earliest >> 32
        together = (at[stop] == i) + (at[take] == i) + (at[hold] == i) + (at[trail] == i)
        remainder, proceeds, fills = 1.0, 0.0, 0
        if at[policies.rung[p]] <= i or policies.trail_hi[p] - policies.trail_lo[p] > 1:
            for r in range(policies.trail_lo[p] + 1, policies.trail_hi[p]):  # a combo may have more than one
                other = policies.trails[r]
                together = 0 if at[other] < i else together
                e, i = (other, at[other]) if at[other] <= i else (e, i)
                together += at[other] == i
            rung, rung_hi = policies.rung_lo[p], policies.rung_hi[p]
            if rung < rung_hi and at[policies.rung_up[rung]] <= i:
                completes = at[policies.complete[p]] < i
                if completes:
                    e, i, together = policies.complete[p], at[policies.complete[p]], 1
                until = i + completes
                while rung < rung_hi and remainder > 0 and at[policies.rung_up[rung]] < until:
                    slot = policies.rung_up[rung]
                    remainder, proceeds = _sell(remainder, proceeds, policies.rung_fraction[rung], events.px[slot])
                    fills += 1
                    rung += 1
                together += 2 * (not completes and rung < rung_hi and at[policies.rung_up[rung]] == i)
        if together > 1:
            unsettled.policy[count], unsettled.event[count] = p, e
            count += 1
            continue
        hard = e == stop and policies.stop_reason[p] != events.reason[e]
        at_hard = np.uint64(e + slots * hard)
        n = number[at_hard]
        if n < 0 or fills > 0:
            n = used - begin
            if fills == 0:
                number[at_hard] = n
            exits.ts[used] = events.ts[e]
            exits.px[used] = proceeds + remainder * events.px[e]
            exits.reason[used] = (
                np.uint8(LADDER) if remainder == 0 else policies.stop_reason[p] if hard else events.reason[e]
            )
            exits.fills[used] = fills + (remainder > 0)
            exits.mae_bps[used] = events.mae_bps[e]
            if fills > 0:
                n = _same_exit(exits, used, begin) - begin
            used += n == used - begin
        which[p] = n
    return used, count


@_kernel
def _settle_conflicts(window, rules, policies, level, n_down, events, unsettled, count, exits, used, which, begin):
    """The exit in the last candle of each unsettled policy, step by step as the rules say: it touches several of its levels."""
    slip = 1 - rules.stop_slippage_bps / 10_000
    first_hold = n_down + len(policies.up)
    first_pair = first_hold + len(policies.hold)
    for u in range(count):
        p, e = unsettled.policy[u], unsettled.event[u]
        i = events.at[e]
        remainder, proceeds, fills = 1.0, 0.0, 0
        rung, rung_hi = policies.rung_lo[p], policies.rung_hi[p]
        while rung < rung_hi and events.at[policies.rung_up[rung]] < i:
            slot = policies.rung_up[rung]
            remainder, proceeds = _sell(remainder, proceeds, policies.rung_fraction[rung], events.px[slot])
            fills += 1
            rung += 1
        m_high, m_low = events.top[e], events.bottom[e]
        o, high, low, close, opened = window.open[i], window.high[i], window.low[i], window.close[i], window.ts[i]
        deadline = window.entry_ts + policies.hold[policies.hold_slot[p] - first_hold]
        take = level[policies.take[p]]
        protection, reason_below = level[policies.stop[p]], policies.stop_reason[p]
        trail_lo, trail_hi = policies.trail_lo[p], policies.trail_hi[p]
        for r in range(trail_lo, trail_hi):
            q = policies.trails[r] - first_pair
            if m_high >= level[policies.pair_up[q]] and m_high * policies.pair_keep[q] > protection:
                protection, reason_below = m_high * policies.pair_keep[q], np.uint8(TRAILING)

        at_open, px, worst = True, 0.0, low
        reason = np.uint8(HORIZON)
        if opened >= deadline:
            px, reason = o, np.uint8(TIME_STOP)
        elif o <= protection:
            px, reason = o * slip, reason_below
        elif o >= take:
            px, reason = o, np.uint8(TAKE_PROFIT)
        else:
            while rung < rung_hi and remainder > 0 and level[policies.rung_up[rung]] <= o:
                remainder, proceeds = _sell(remainder, proceeds, policies.rung_fraction[rung], o)
                fills += 1
                rung += 1
            if remainder == 0:
                px, reason = o, np.uint8(LADDER)
            else:
                at_open = False
        if at_open:
            worst = px
        elif not rules.optimistic and low <= protection:
            px, reason = protection * slip, reason_below
            worst = px
        else:
            taken = high >= take
            while rung < rung_hi and remainder > 0:
                price = level[policies.rung_up[rung]]
                if price > high or (taken and price >= take):
                    break
                remainder, proceeds = _sell(remainder, proceeds, policies.rung_fraction[rung], price)
                fills += 1
                rung += 1
            if remainder == 0:
                reason = np.uint8(LADDER)
            elif taken:
                px, reason = take, np.uint8(TAKE_PROFIT)
            elif low <= protection:
                px, reason = protection * slip, reason_below
                worst = px
            else:
                top = high if high > m_high else m_high
                giveback = -1.0
                for r in range(trail_lo, trail_hi):
                    q = policies.trails[r] - first_pair
                    if top >= level[policies.pair_up[q]] and top * policies.pair_keep[q] > giveback:
                        giveback = top * policies.pair_keep[q]
                if close <= giveback:
                    px, reason = giveback * slip, np.uint8(TRAILING)
                elif opened + rules.interval_ms >= deadline:
                    px, reason = close, np.uint8(TIME_STOP)
                else:
                    px, reason = close, np.uint8(DATA_END) if window.censored else np.uint8(HORIZON)
        if remainder > 0:
            proceeds += remainder * px
            fills += 1
        exits.ts[used] = opened if at_open else opened + rules.interval_ms
        exits.px[used], exits.reason[used], exits.fills[used] = proceeds, reason, fills
        exits.mae_bps[used] = (min(m_low, worst) / window.p0 - 1) * 10_000
        same = _same_exit(exits, used, begin)
        which[p] = same - begin
        used += same == used
    return used


@_kernel
def _raised_calls(candles, alert_ts, lo, hi, rows, rules, policies, status, exits, first, which, found):
    first_pair = len(policies.down) + len(policies.up) + len(policies.hold)
    for k in range(len(alert_ts)):
        row = rows[k]
        if status[row] != INCLUDED:
            continue
        _, begin, end, p0, _ = _window(candles, lo[k], hi[k], alert_ts[k], rules)
        for p in range(which.shape[1]):
            if policies.trail_lo[p] < policies.trail_hi[p]:
                x = first[row] + which[row, p]
                found[row, p] = _is_raised(
                    candles, begin, end, p0, rules, policies, p, first_pair, exits.ts[x], exits.reason[x]
                )


@_kernel
def _is_raised(candles, begin, end, p0, rules, policies, p, first_pair, exit_ts, reason):
    before = p0
    for j in range(begin, end):
        if exit_ts <= candles.ts[j]:
            return False
        high, low, close = candles.high[j], candles.low[j], candles.close[j]
        top = max(before, high)
        level, risen = p0 * policies.down[policies.stop[p]], -1.0
        for r in range(policies.trail_lo[p], policies.trail_hi[p]):
            q = policies.trails[r] - first_pair
            activation, keep = p0 * policies.up[policies.pair_up[q] - len(policies.down)], policies.pair_keep[q]
            level = max(level, before * keep) if before >= activation else level
            risen = max(risen, top * keep) if top >= activation else risen
        gave_back = (
            exit_ts == candles.ts[j] + rules.interval_ms and reason == TRAILING and low > level and close <= risen
        )
        if risen > level and low <= risen and not gave_back:
            return True
        before = top
    return False


# Exits looked at for one that is the same: policies that differ in what did not matter often follow each other.
RECENT = 8


@_kernel
def _same_exit(exits, n, begin):
    """One of the exits just before exit n (not before `begin`) that equals it; n if there is none."""
    for x in range(n - 1, max(begin, n - RECENT) - 1, -1):
        if (
            exits.px[x] == exits.px[n]
            and exits.ts[x] == exits.ts[n]
            and exits.mae_bps[x] == exits.mae_bps[n]
            and exits.reason[x] == exits.reason[n]
            and exits.fills[x] == exits.fills[n]
        ):
            return x
    return n


@_kernel
def _sell(remainder, proceeds, fraction, price):
    """Fill one ladder level; returns the new remainder (zero when nothing worth mentioning is left) and proceeds."""
    part = min(fraction, remainder)
    remainder -= part
    return (remainder if remainder > 1e-12 else 0.0), proceeds + part * price
