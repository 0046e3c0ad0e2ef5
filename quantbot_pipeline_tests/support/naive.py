"""The oracle: docs/semantics.md as plain Python, candle by candle, to be read beside the page.

Belongs here: nothing but the sections "Entry", "Truth layer" and "Policies" of the contract, in its order and with its
words. No table, no search, no shortcut, nothing shared with the engine but the record of `Rules`: what is slow here is
obviously right, and the engine has to give the same bits. Policies are the dictionaries that a user writes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from quantbot_pipeline.replay.results import Rules

Step = Literal["open", "inside", "give_back", "close"]


class Candle(NamedTuple):
    """A valid candle; `ts` is its open time in UTC ms."""

    ts: int
    open: float
    high: float
    low: float
    close: float


class Window(NamedTuple):
    """What a call sees; where `status` is not `included`, nothing else is set. `first` indexes the candles."""

    status: str
    p0: float = 0.0
    entry_ts: int = -1
    first: int = -1
    candles: Sequence[Candle] = ()
    coverage: float = 0.0
    observed: int = -1
    censored: bool = False


class Truth(NamedTuple):
    """The truth layer of one included call; None where the contract says null."""

    peak: float
    t_peak: int | None
    t_2x: int | None
    t_3x: int | None
    t_4x: int | None
    dd_bps: float
    dd_to_2x_bps: float | None
    t_activity: int | None


class Trade(NamedTuple):
    """One policy on one call. `candle` (index into the window) and `step` say where it ended: the tests count them."""

    exit_ts: int
    exit_px: float
    reason: str
    fills: int
    mae_bps: float
    candle: int
    step: Step


# --- Entry ------------------------------------------------------------------------------------------------------------


def naive_window(candles: Sequence[Candle], alert_ts: int, rules: Rules) -> Window:
    """The entry and the window of a call on its token's valid candles, or the first test that excludes it."""
    if not candles:
        return Window("no_candles")
    e = 0
    while e < len(candles) and candles[e].ts < alert_ts + rules.latency_ms:
        e += 1
    if e == len(candles) or candles[e].ts - alert_ts > rules.max_entry_delay_ms:
        return Window("no_entry")
    if rules.entry_close:
        p0, entry_ts, first = candles[e].close, candles[e].ts + rules.interval_ms, e + 1
    else:
        p0, entry_ts, first = candles[e].open, candles[e].ts, e
    window = [c for c in candles[first:] if c.ts + rules.interval_ms <= entry_ts + rules.horizon_ms]
    if not window:
        return Window("no_window")
    coverage = len(window) / (rules.horizon_ms // rules.interval_ms)
    if coverage < rules.min_coverage:
        return Window("low_coverage")
    observed = window[-1].ts + rules.interval_ms - entry_ts
    censored = observed < rules.horizon_ms - rules.interval_ms
    return Window("included", p0, entry_ts, first, window, coverage, observed, censored)


# --- Truth layer ------------------------------------------------------------------------------------------------------


def naive_truth(window: Window, rules: Rules, activity_move_pct: float = 0.10) -> Truth:
    """What the price did in the window, whatever a policy would have made of it."""
    p0 = window.p0
    top = max(c.high for c in window.candles)

    def first_close(condition: Sequence[bool]) -> int | None:
        """Close time of the first candle for which the condition holds."""
        for candle, holds in zip(window.candles, condition, strict=True):
            if holds:
                return candle.ts + rules.interval_ms
        return None

    t_2x = first_close([c.high >= 2 * p0 for c in window.candles])
    dd_to_2x_bps = None
    if t_2x is not None:
        dd_to_2x_bps = _below(p0, [c.low for c in window.candles if c.ts + rules.interval_ms <= t_2x])
    return Truth(
        peak=max(p0, top) / p0,
        t_peak=first_close([c.high == top for c in window.candles]) if top > p0 else None,
        t_2x=t_2x,
        t_3x=first_close([c.high >= 3 * p0 for c in window.candles]),
        t_4x=first_close([c.high >= 4 * p0 for c in window.candles]),
        dd_bps=_below(p0, [c.low for c in window.candles]),
        dd_to_2x_bps=dd_to_2x_bps,
        t_activity=first_close(
            [c.high >= p0 * (1 + activity_move_pct) or c.low <= p0 * (1 - activity_move_pct) for c in window.candles]
        ),
    )


def _below(p0: float, prices: Sequence[float]) -> float:
    return (min([p0, *prices]) / p0 - 1) * 10_000


# --- Policies ---------------------------------------------------------------------------------------------------------


class _Trail(NamedTuple):
    activation: float
    trail_pct: float


class _Rung(NamedTuple):
    price: float
    fraction: float


class _Compiled(NamedTuple):
    """A policy for one entry price: levels are prices."""

    stop: float | None
    stop_reason: str
    take: float | None
    trails: Sequence[_Trail]
    ladder: Sequence[_Rung]
    deadline: int | None


def _compile(policy: Mapping[str, Any], p0: float, entry_ts: int) -> _Compiled:
    """One stop level (the highest), one take-profit level (the lowest), one hold (the smallest), the rest as it is."""
    parts = policy["policies"] if policy["kind"] == "combo" else [policy]
    plain_stops = [p0 * (1 - r["stop_pct"]) for r in parts if r.get("stop_pct") is not None]
    hard_stops = [p0 * (1 - r["hard_stop_pct"]) for r in parts if r.get("hard_stop_pct") is not None]
    takes = [p0 * (1 + r["take_profit_pct"]) for r in parts if r.get("take_profit_pct") is not None]
    holds = [int(r["max_hold_ms"]) for r in parts if r["kind"] == "time_stop"]
    trails = [_Trail(p0 * (1 + r["activation_pct"]), r["trail_pct"]) for r in parts if r["kind"] == "trailing_stop"]
    levels = [level for r in parts if r["kind"] == "ladder" for level in r["levels"]]
    levels.sort(key=lambda level: level["multiple"])
    stop = max(plain_stops + hard_stops, default=None)
    return _Compiled(
        stop=stop,
        stop_reason="stop_loss" if stop in plain_stops else "hard_stop",
        take=min(takes, default=None),
        trails=trails,
        ladder=[_Rung(p0 * level["multiple"], level["fraction"]) for level in levels],
        deadline=entry_ts + min(holds) if holds else None,
    )


def _trailing(compiled: _Compiled, running_max: float) -> float | None:
    """The highest level of the trailing rules that this maximum has activated."""
    active = [running_max * (1 - t.trail_pct) for t in compiled.trails if running_max >= t.activation]
    return max(active, default=None)


def _protective(compiled: _Compiled, running_max: float) -> tuple[float | None, str]:
    """`L` and the reason of leaving there: a tie of stop and trailing level goes to the stop."""
    trailing = _trailing(compiled, running_max)
    if compiled.stop is None or (trailing is not None and trailing > compiled.stop):
        return trailing, "trailing_stop"
    return compiled.stop, compiled.stop_reason


class _Position:
    """Size 1, sold in fills; the proceeds are summed in the order of the fills."""

    def __init__(self, ladder: Sequence[_Rung]) -> None:
        self.remainder = 1.0
        self.proceeds = 0.0
        self.fills = 0
        self.last_price = 0.0
        self.unfilled = list(ladder)

    def sell(self, fraction: float, price: float) -> None:
        """One fill of `min(fraction, remainder)`; a remainder `<= 1e-12` is zero."""
        sold = min(fraction, self.remainder)
        self.proceeds += sold * price
        self.remainder -= sold
        self.fills += 1
        self.last_price = price
        if self.remainder <= 1e-12:
            self.remainder = 0.0

    def sell_all(self, price: float) -> None:
        """The remainder leaves."""
        self.sell(self.remainder, price)

    def climb(self, reached: float, *, below: float = math.inf, price: float | None = None) -> None:
        """Fill each unfilled ladder level `<= reached` and `< below`, ascending, at `price` or else at its own."""
        while self.remainder > 0 and self.unfilled and self.unfilled[0].price <= reached:
            if self.unfilled[0].price >= below:
                return
            rung = self.unfilled.pop(0)
            self.sell(rung.fraction, rung.price if price is None else price)


def naive_trade(window: Window, policy: Mapping[str, Any], rules: Rules) -> Trade:
    """Replay one policy on an included call."""
    compiled = _compile(policy, window.p0, window.entry_ts)
    position = _Position(compiled.ladder)
    running_max = window.p0
    last = len(window.candles) - 1
    for i, candle in enumerate(window.candles):
        left = _replay_candle(position, compiled, candle, running_max, rules)
        if left is None and i == last:
            position.sell_all(candle.close)
            left = ("data_end" if window.censored else "horizon"), "close"
        if left is not None:
            reason, step = left
            at_open = step == "open"
            known = at_open or (step == "inside" and reason in ("trailing_stop", "hard_stop", "stop_loss"))
            lows = [c.low for c in window.candles[:i]]
            return Trade(
                exit_ts=candle.ts if at_open else candle.ts + rules.interval_ms,
                exit_px=position.proceeds,
                reason=reason,
                fills=position.fills,
                mae_bps=_below(window.p0, [*lows, position.last_price if known else candle.low]),
                candle=i,
                step=step,
            )
        running_max = max(running_max, candle.high)
    raise AssertionError("the last candle of a window closes every position")


def naive_raised(window: Window, policy: Mapping[str, Any], rules: Rules) -> bool:
    """Whether a candle of the open position has a low that a trailing stop reaches only after it rose with this candle's high."""
    trade, compiled = naive_trade(window, policy, rules), _compile(policy, window.p0, window.entry_ts)
    running_max = window.p0
    for i, candle in enumerate(window.candles[: trade.candle + 1]):
        level, _ = _protective(compiled, running_max)
        risen = _trailing(compiled, max(running_max, candle.high))
        known = i == trade.candle and trade.step in (
            "open",
            "give_back",
        )  # at the open nothing has risen; a close tells
        if not known and risen is not None and (level is None or risen > level) and candle.low <= risen:
            return True
        running_max = max(running_max, candle.high)
    return False


def _replay_candle(
    position: _Position, compiled: _Compiled, candle: Candle, running_max: float, rules: Rules
) -> tuple[str, Step] | None:
    """The four steps of one candle: reason and step if they emptied the position, else None."""
    level, protective = _protective(compiled, running_max)
    slipped = 1 - rules.stop_slippage_bps / 10_000

    # 1. OPEN: the first that applies takes the whole remainder; otherwise ladder levels fill.
    if compiled.deadline is not None and candle.ts >= compiled.deadline:
        position.sell_all(candle.open)
        return "time_stop", "open"
    if level is not None and candle.open <= level:
        position.sell_all(candle.open * slipped)
        return protective, "open"
    if compiled.take is not None and candle.open >= compiled.take:
        position.sell_all(candle.open)
        return "take_profit", "open"
    position.climb(candle.open, price=candle.open)
    if position.remainder == 0:
        return "ladder_complete", "open"

    # 2. INSIDE
    def a() -> tuple[str, Step] | None:
        if level is None or candle.low > level:
            return None
        position.sell_all(level * slipped)
        return protective, "inside"

    def b() -> tuple[str, Step] | None:
        if compiled.take is not None and candle.high >= compiled.take:
            position.climb(candle.high, below=compiled.take)
            if position.remainder > 0:
                position.sell_all(compiled.take)
                return "take_profit", "inside"
        else:
            position.climb(candle.high)
        return ("ladder_complete", "inside") if position.remainder == 0 else None

    for touch in (b, a) if rules.optimistic else (a, b):
        left = touch()
        if left is not None:
            return left

    # 3. GIVE-BACK: from the trailing rules alone, with this candle's high.
    risen = _trailing(compiled, max(running_max, candle.high))
    if risen is not None and candle.close <= risen:
        position.sell_all(risen * slipped)
        return "trailing_stop", "give_back"

    # 4. CLOSE; after the last candle of the window the caller closes what is left.
    if compiled.deadline is not None and candle.ts + rules.interval_ms >= compiled.deadline:
        position.sell_all(candle.close)
        return "time_stop", "close"
    return None
