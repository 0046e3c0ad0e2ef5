"""`price_spike`: a candle whose high or low stands alone between its neighbours. Source: docs/anomalies.md."""

import math
from collections.abc import Iterator

import numpy as np

from quantbot_pipeline.anomalies.findings import LOOK_BACK_MS, MINT, Finding, Floats, Series, Span, steps_of, times, utc

KIND = "price_spike"
FACTOR = 1.5  # beyond both neighbours
SIGMAS = 12.0
NEIGHBOURS = 6  # intervals within which both neighbours must open
STEPS = 288  # behind sigma
LEAST_STEPS = 24  # with fewer nothing is said
LEAST_SIGMA = 5e-4
TO_SIGMA = 1.4826  # of a median absolute step, were the steps normal


def price_spikes(candles: Series, span: Span) -> Iterator[Finding]:
    """Yield the candles above (below) both neighbours by the factor 1.5 and by 12 sigma.

    The candle after the spike makes it known, so that it belongs to that candle's month.
    """
    if len(candles.ts) < 3:
        return
    near = np.diff(candles.ts) <= NEIGHBOURS * span.interval_ms
    up = candles.high[1:-1] / np.maximum(candles.high[:-2], candles.high[2:])
    down = np.minimum(candles.low[:-2], candles.low[2:]) / candles.low[1:-1]
    factor = np.maximum(up, down)
    rows = np.flatnonzero((factor >= FACTOR) & near[:-1] & near[1:] & (candles.ts[2:] >= span.start)) + 1
    if not len(rows):
        return
    steps = np.abs(steps_of(candles.close))
    for row in rows.tolist():
        sigma = sigma_before(candles, steps, row)
        score, limit = math.log(factor[row - 1]), max(math.log(FACTOR), SIGMAS * sigma)
        if score >= limit:  # never, where sigma is not known
            yield _finding(candles, span, row, bool(up[row - 1] >= down[row - 1]), score, limit, sigma)


def sigma_before(candles: Series, steps: Floats, row: int) -> float:
    """Return the usual step before a candle: scaled median of 288 absolute steps, with two floors; NaN with fewer than 24.

    steps: absolute, as `steps_of` gives them. The second floor is the first quartile of the steps that are not 0, of 7 days: a
    price that mostly stands still has a median of 0.
    """
    # Step k leads to candle k + 1; that to the candle itself is left out.
    before = steps[max(0, row - 1 - STEPS) : row - 1]
    if len(before) < LEAST_STEPS:
        return math.nan
    week = steps[max(0, int(np.searchsorted(candles.ts, candles.ts[row] - LOOK_BACK_MS))) : row - 1]
    moving = week[week > 0]
    quartile = float(np.quantile(moving, 0.25)) if len(moving) else 0.0
    return max(LEAST_SIGMA, quartile, TO_SIGMA * float(np.median(before)))


def _finding(candles: Series, span: Span, row: int, up: bool, score: float, limit: float, sigma: float) -> Finding:
    ts, factor = int(candles.ts[row]), math.exp(score)
    if up:
        what, price, edges = "high", candles.high, max(candles.high[row - 1], candles.high[row + 1])
        words = f"is {times(factor)} times both neighbours' highs"
    else:
        what, price, edges = "low", candles.low, min(candles.low[row - 1], candles.low[row + 1])
        words = f"is both neighbours' lows divided by {times(factor)}"
    return Finding(
        KIND,
        MINT,
        candles.mint,
        ts,
        ts + span.interval_ms,
        score,
        limit,
        f"The {what} of the candle of {utc(ts)} UTC {words}.",
        {"side": what, "price": float(price[row]), "neighbours": float(edges), "sigma": sigma},
        tokens=(candles.mint,),
    )
