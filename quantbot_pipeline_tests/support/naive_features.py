"""Feature set 1 in plain Python: every column as the sentence in docs/models.md says it, one call at a time, slowly.

Belongs here: the definition that the fast code is held against. Does not: stores, runs, arrays.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import NamedTuple

HOUR, DAY = 3_600_000, 86_400_000
Value = float | int | None


class Bar(NamedTuple):
    """A candle with its volume; None: unknown."""

    ts: int
    open: float
    high: float
    low: float
    close: float
    volume: float | None


class Made(NamedTuple):
    """A call."""

    call_id: str
    caller: str
    mint: str
    alert: int


def recent_calls(call: Made, calls: Sequence[Made]) -> dict[str, Value]:
    """The five columns of earlier calls."""
    t = call.alert
    earlier = [c for c in calls if c.alert < t]
    last_day = [c for c in earlier if c.alert >= t - DAY]
    own = [c for c in earlier if c.caller == call.caller]
    followed = [
        any(c.mint == mine.mint and c.caller != mine.caller and c.alert < mine.alert for c in earlier) for mine in own
    ]
    return {
        "caller_calls_24h": sum(c.caller == call.caller for c in last_day),
        "mint_calls_24h": sum(c.mint == call.mint for c in last_day),
        "calls_24h": len(last_day),
        "mint_callers_1h": len({c.caller for c in last_day if c.mint == call.mint and c.alert >= t - HOUR}),
        "caller_follow_share": sum(followed) / len(own) if own else None,
    }


def span(bars: Sequence[Bar], t: int, length: int, interval_ms: int) -> list[Bar]:
    """The candles that closed by t and opened at most `length` before it."""
    return [bar for bar in bars if bar.ts >= t - length and bar.ts + interval_ms <= t]


def steps(bars: Sequence[Bar]) -> list[float]:
    """Logarithms of close over the close before, of the first candle over its open."""
    if not bars:
        return []
    first = math.log(bars[0].close / bars[0].open)
    return [first, *(math.log(b.close / a.close) for a, b in pairwise(bars))]


def change(bars: Sequence[Bar]) -> float | None:
    return math.log(bars[-1].close / bars[0].open) if bars else None


def volatility(bars: Sequence[Bar]) -> float | None:
    return math.sqrt(math.fsum(step * step for step in steps(bars))) if bars else None


def prices(bars: Sequence[Bar], t: int, interval_ms: int) -> dict[str, Value]:
    """The twelve columns of the token's own candles."""
    day, four, hour = (span(bars, t, length, interval_ms) for length in (DAY, 4 * HOUR, HOUR))
    traded = None if any(b.volume is None for b in day) else math.fsum(b.volume or 0.0 for b in day)
    return {
        "candles_24h": len(day),
        "stale_ms": t - (day[-1].ts + interval_ms) if day else None,
        "ret_1h": change(hour),
        "ret_4h": change(four),
        "ret_24h": change(day),
        "from_high_24h": math.log(day[-1].close / max(b.high for b in day)) if day else None,
        "from_low_24h": math.log(day[-1].close / min(b.low for b in day)) if day else None,
        "rv_4h": volatility(four),
        "rv_24h": volatility(day),
        "max_up_24h": max(steps(day)) if day else None,
        "up_share_24h": sum(b.close > b.open for b in day) / len(day) if day else None,
        "volume_share_1h": math.fsum(b.volume or 0.0 for b in hour) / traded if traded else None,
    }


def market(call: Made, candles: Mapping[str, Sequence[Bar]], interval_ms: int) -> dict[str, Value]:
    """The four columns of the candles of all other tokens at the last full hour."""
    h = call.alert // HOUR * HOUR
    others = [
        bars
        for mint, bars in candles.items()
        if mint != call.mint and any(h - HOUR < b.ts + interval_ms <= h for b in bars)
    ]

    def middle(of: Sequence[float | None]) -> float | None:
        values = [value for value in of if value is not None]
        return median(values) if values else None

    return {
        "market_tokens": len(others),
        "market_ret_1h": middle([change(span(bars, h, HOUR, interval_ms)) for bars in others]),
        "market_ret_24h": middle([change(span(bars, h, DAY, interval_ms)) for bars in others]),
        "market_rv_24h": middle([volatility(span(bars, h, DAY, interval_ms)) for bars in others]),
    }


def from_candles(call: Made, candles: Mapping[str, Sequence[Bar]], interval_ms: int) -> dict[str, Value]:
    """The seventeen columns of candles."""
    own = prices(candles.get(call.mint, []), call.alert, interval_ms)
    others = market(call, candles, interval_ms)
    ours, theirs = own["ret_24h"], others["market_ret_24h"]
    excess = None if ours is None or theirs is None else ours - theirs
    return own | others | {"excess_ret_24h": excess}


def features(
    call: Made, calls: Sequence[Made], candles: Mapping[str, Sequence[Bar]], interval_ms: int
) -> dict[str, Value]:
    """All 22 columns of a call."""
    return recent_calls(call, calls) | from_candles(call, candles, interval_ms)
