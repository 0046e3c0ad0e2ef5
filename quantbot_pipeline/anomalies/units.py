"""`unit_change`: the price of a token goes on in another unit. Source: docs/anomalies.md."""

import math
from collections.abc import Iterator

import numpy as np

from quantbot_pipeline.anomalies.findings import MINT, Finding, Series, Span, times, utc

KIND = "unit_change"
FACTOR = 4.0  # of open over the last close
SIDE = 24  # candles before and after, whose medians must agree
AGREEMENT = 0.35  # of the log jump
TENTH = math.log(1.023)  # how near to a power of ten


def unit_changes(candles: Series, span: Span) -> Iterator[Finding]:
    """Yield opens beyond 4 times the last close (or a quarter of it) after which the price stays where it jumped to.

    The 24th candle from the jump on makes it known, so that it belongs to that candle's month.
    """
    n = len(candles.ts)
    if n < 2 * SIDE:
        return
    factor = candles.open[1:] / candles.close[:-1]
    rows = np.flatnonzero((factor >= FACTOR) | (factor <= 1 / FACTOR)) + 1
    for row in rows.tolist():
        if row < SIDE or row + SIDE > n or candles.ts[row + SIDE - 1] < span.start:
            continue
        jump = math.log(factor[row - 1])
        before, after = (float(np.median(part)) for part in np.split(candles.close[row - SIDE : row + SIDE], [SIDE]))
        if abs(math.log(after / before) - jump) <= AGREEMENT * abs(jump):
            yield _finding(candles, row, jump, before, after)


def power_of_ten(jump: float) -> int:
    """Return k where a log jump is that of 10^k within 2.3 %; 0 where it is none."""
    k = round(jump / math.log(10))
    return k if abs(jump - k * math.log(10)) <= TENTH else 0


def _finding(candles: Series, row: int, jump: float, before: float, after: float) -> Finding:
    ts, power = int(candles.ts[row]), power_of_ten(jump)
    which = f"a power of ten (10^{power})" if power else "no power of ten"
    return Finding(
        KIND,
        MINT,
        candles.mint,
        int(candles.ts[row - 1]),
        ts,
        abs(jump),
        math.log(FACTOR),
        f"The price opens at {times(math.exp(jump))} times the last close at {utc(ts)} UTC and stays there; the factor is {which}.",
        {"factor": math.exp(jump), "power_of_ten": power, "median_before": before, "median_after": after},
        tokens=(candles.mint,),
    )
