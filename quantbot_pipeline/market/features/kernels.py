"""The compiled loops over candles behind the features: one call at a time, one token and hour of the market at a time.

Belongs here: arithmetic over decoded candles. Does not: which candles and calls meet. A span of a call with alert time t is the
candles with `ts >= t - length` that closed by t. A step is the logarithm of a close over the close before, of the first candle
over its open.
"""

import math

import numpy as np

from quantbot_pipeline.compiled import compiled
from quantbot_pipeline.replay.kernel import first_at_or_after
from quantbot_pipeline.replay.statistics import at_or_below, quantile, select

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
# Columns of the values of a call, in the order of `names.PRICES`.
(
    CANDLES,
    STALE,
    RET_1H,
    RET_4H,
    RET_24H,
    FROM_HIGH,
    FROM_LOW,
    RV_4H,
    RV_24H,
    MAX_UP,
    UP_SHARE,
    VOLUME_SHARE,
) = range(12)

_kernel = compiled(error_model="numpy")


@_kernel
def _volatility(opened, close, first, end):
    """The root of the sum of squared steps of candles `[first, end)`, and the largest step."""
    step = math.log(close[first] / opened[first])
    total, most = step * step, step
    for i in range(first + 1, end):
        step = math.log(close[i] / close[i - 1])
        total += step * step
        most = max(most, step)
    return math.sqrt(total), most


@_kernel
def price_values(ts, opened, high, low, close, volume, lo, hi, alert, interval_ms, out):
    """Write the values of calls whose tokens have candles `[lo[i], hi[i])`: one row of `out` (n, 12, float64) a call.

    volume: NaN where unknown. NaN in `out` is null.
    """
    for i in range(len(alert)):
        t, row = alert[i], out[i]
        row[:] = np.nan
        end = first_at_or_after(ts, lo[i], hi[i], t - interval_ms + 1)
        day = first_at_or_after(ts, lo[i], end, t - DAY_MS)
        row[CANDLES] = end - day
        if day == end:
            continue
        four = first_at_or_after(ts, day, end, t - 4 * HOUR_MS)
        hour = first_at_or_after(ts, four, end, t - HOUR_MS)
        last = close[end - 1]
        row[STALE] = t - (ts[end - 1] + interval_ms)
        row[RET_24H] = math.log(last / opened[day])
        row[RV_24H], row[MAX_UP] = _volatility(opened, close, day, end)
        if four < end:
            row[RET_4H] = math.log(last / opened[four])
            row[RV_4H] = _volatility(opened, close, four, end)[0]
        if hour < end:
            row[RET_1H] = math.log(last / opened[hour])
        top, bottom, ups, traded, lately = high[day], low[day], 0, 0.0, 0.0
        for k in range(day, end):
            top, bottom = max(top, high[k]), min(bottom, low[k])
            ups += close[k] > opened[k]
            traded += volume[k]
            if k >= hour:
                lately += volume[k]
        row[FROM_HIGH], row[FROM_LOW] = math.log(last / top), math.log(last / bottom)
        row[UP_SHARE] = ups / (end - day)
        if 0.0 < traded < np.inf:
            row[VOLUME_SHARE] = lately / traded


@_kernel
def _sum(values, first, end):
    """The sum of `values[first:end]` in four lanes, in an order that the machine does not decide: lanes vectorize."""
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    whole = first + (end - first) // 4 * 4
    for i in range(first, whole, 4):
        a += values[i]
        b += values[i + 1]
        c += values[i + 2]
        d += values[i + 3]
    for i in range(whole, end):
        a += values[i]
    return (a + b) + (c + d)


@_kernel
def _living(ts, offsets, hours, interval_ms):
    """How many pairs of a token and an hour there are in which a candle of the token closed."""
    pairs = 0
    for token in range(len(offsets) - 1):
        end = offsets[token]
        for hour in hours:
            while end < offsets[token + 1] and ts[end] + interval_ms <= hour:
                end += 1
            pairs += end > offsets[token] and ts[end - 1] + interval_ms > hour - HOUR_MS
    return pairs


@_kernel
def market_values(ts, opened, close, offsets, hours, interval_ms):
    """Return (hour, token, values) of each pair in which a candle of the token closed in `(hour - 1 h, hour]`.

    Token i has candles `[offsets[i], offsets[i+1])`. hours: ascending UTC ms; hour and token are positions (int64). values (n, 3):
    ret_1h (NaN without), ret_24h, rv_24h as a call at that hour would have them.
    """
    pairs = _living(ts, offsets, hours, interval_ms)
    at, whose, values = np.empty(pairs, np.int64), np.empty(pairs, np.int64), np.empty((pairs, 3))
    n = 0
    longest = 0
    for token in range(len(offsets) - 1):
        longest = max(longest, offsets[token + 1] - offsets[token])
    squares = np.empty(longest)
    for token in range(len(offsets) - 1):
        lo, hi = offsets[token], offsets[token + 1]
        for i in range(lo + 1, hi):
            step = math.log(close[i] / close[i - 1])
            squares[i - lo] = step * step
        day = hour = end = lo
        for h in range(len(hours)):
            now = hours[h]
            while end < hi and ts[end] + interval_ms <= now:
                end += 1
            if end == lo or ts[end - 1] + interval_ms <= now - HOUR_MS:
                continue
            while ts[day] < now - DAY_MS:
                day += 1
            while hour < end and ts[hour] < now - HOUR_MS:
                hour += 1
            last = close[end - 1]
            own = math.log(close[day] / opened[day])
            at[n], whose[n] = h, token
            values[n, 0] = math.log(last / opened[hour]) if hour < end else np.nan
            values[n, 1] = math.log(last / opened[day])
            values[n, 2] = math.sqrt(own * own + _sum(squares, day + 1 - lo, end - lo))
            n += 1
    return at, whose, values


@_kernel
def market_medians(hour, own, starts, whose, values, out):
    """Write what calls see of the market: how many other tokens are in it, and the medians of their values (n, 4).

    hour[i]: position of the call's hour; own[i]: code of its token, or -1. Pairs `[starts[h], starts[h+1])` are those of hour h: token
    whose[k] has values[k] (as of `market_values`). A median of nothing is NaN.
    """
    kept = np.empty(len(whose))
    for i in range(len(hour)):
        first, end = starts[hour[i]], starts[hour[i] + 1]
        others = 0
        for k in range(first, end):
            others += whose[k] != own[i]
        out[i, 0] = others
        for column in range(3):
            n = 0
            for k in range(first, end):
                if whose[k] != own[i] and not math.isnan(values[k, column]):
                    kept[n] = values[k, column]
                    n += 1
            out[i, 1 + column] = quantile(kept, 0.5, n, select(kept, at_or_below(0.5, n), 0, n)) if n else np.nan
