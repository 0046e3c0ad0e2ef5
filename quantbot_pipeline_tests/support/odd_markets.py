"""Small made-up markets, and every kind of oddity planted in them.

Prices follow a common factor and their own noise; volume rises with the size of the step. Each planter changes one token and
returns it anew.
"""

from collections.abc import Callable, Sequence

import numpy as np

from quantbot_pipeline.anomalies.findings import DAY_MS, LOOK_BACK_MS, Finding, Floats, Series, Span
from quantbot_pipeline.anomalies.survey import Survey

START = 1_704_067_200_000  # 2024-01-01
MINUTES_5 = 300_000


def span_of(days: float, interval_ms: int = MINUTES_5) -> Span:
    """Return a span of so many days from 2024-01-01 on."""
    return Span(START, START + int(days * DAY_MS), interval_ms)


def factor_of(rng: np.random.Generator, span: Span) -> Floats:
    """Return the steps of the market, one per candle of the span and of the 7 days before."""
    return rng.standard_t(4, (span.end - span.start + LOOK_BACK_MS) // span.interval_ms) * 0.003


def token(
    rng: np.random.Generator, span: Span, mint: str, factor: Floats | None = None, holes: float = 0.0, beta: float = 1.0
) -> Series:
    """Return a token's candles over the span and the 7 days before; a share of them is missing at random."""
    ts = np.arange(span.start - LOOK_BACK_MS, span.end, span.interval_ms)
    own = rng.standard_t(4, len(ts)) * 0.003
    steps = own if factor is None else own + beta * factor
    close = np.exp(np.cumsum(steps) + rng.normal())
    opened = np.concatenate([[close[0]], close[:-1]])
    wick = np.exp(np.abs(rng.normal(0, 0.001, (2, len(ts)))))
    high, low = np.maximum(opened, close) * wick[0], np.minimum(opened, close) / wick[1]
    volume = np.exp(rng.normal(7, 0.7, len(ts))) * (1 + 200 * np.abs(steps))
    made = Series(mint, ts, opened, high, low, close, volume)
    return kept(made, rng.random(len(ts)) >= holes) if holes else made


def market(rng: np.random.Generator, span: Span, tokens: int, holes: float = 0.0) -> list[Series]:
    """Return tokens that share a factor."""
    factor = factor_of(rng, span)
    return [token(rng, span, f"mint{i:02d}", factor, holes) for i in range(tokens)]


def found_in(candles: Sequence[Series], span: Span) -> list[Finding]:
    """Return what a survey finds in these tokens."""
    survey = Survey(span)
    for own in candles:
        survey.add(own)
    return survey.findings()


def kept(candles: Series, rows: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> Series:
    """Return some of the candles."""
    return _priced(candles._replace(ts=candles.ts[rows], volume=candles.volume[rows]), lambda column: column[rows])


def _priced(candles: Series, change: Callable[[Floats], Floats]) -> Series:
    """Return the candles with each of the four prices changed."""
    opened, high, low, close = (change(column.copy()) for column in candles[2:6])
    return candles._replace(open=opened, high=high, low=low, close=close)


def before(candles: Series, ts: int) -> Series:
    """Return the candles before a time."""
    return kept(candles, candles.ts < ts)


def spiked(candles: Series, row: int, factor: float, low: bool = False) -> Series:
    """Move one high (or low) away from both neighbours by a factor."""
    high, lows = candles.high.copy(), candles.low.copy()
    around = slice(max(0, row - 1), row + 2)
    if low:
        lows[row] = candles.low[around].min() / factor
    else:
        high[row] = candles.high[around].max() * factor
    return candles._replace(high=high, low=lows)


def in_another_unit(candles: Series, row: int, factor: float) -> Series:
    """Multiply all prices from a row on."""
    return _priced(candles, lambda column: np.concatenate([column[:row], column[row:] * factor]))


def standing_still(candles: Series, row: int, count: int) -> Series:
    """Let the price stand at the last close for so many candles, with volume."""
    price = candles.close[row - 1]
    return _priced(candles, lambda column: np.concatenate([column[:row], np.full(count, price), column[row + count :]]))


def with_hole(candles: Series, row: int, count: int) -> Series:
    """Leave out so many candles."""
    rows = np.ones(len(candles.ts), bool)
    rows[row : row + count] = False
    return kept(candles, rows)


def washed(candles: Series, row: int, factor: float, count: int = 12) -> Series:
    """Multiply the volume of some candles and let them keep within half of one candle's usual range."""
    price, volume = candles.close[row - 1], candles.volume.copy()
    volume[row : row + count] *= factor
    high, low = candles.high.copy(), candles.low.copy()
    still = standing_still(candles, row, count)
    high[row : row + count], low[row : row + count] = price * 1.0005, price * 0.9995
    return still._replace(high=high, low=low, volume=volume)


def copied(candles: Series, mint: str, price: float) -> Series:
    """Return the same prices in another unit under another mint."""
    return _priced(candles, lambda column: column * price)._replace(mint=mint)


def first_days(own: Series, span: Span, days: int) -> Series:
    """The token, if it stopped trading so many days after the month's begin."""
    return kept(own, own.ts < span.start + days * DAY_MS)


def shifted(candles: Series, ms: int, span: Span) -> Series:
    """Move all times; what leaves the data is cut."""
    moved = candles._replace(ts=candles.ts + ms)
    return kept(moved, (moved.ts >= span.start - LOOK_BACK_MS) & (moved.ts < span.end))


def coarser(candles: Series, interval_ms: int) -> Series:
    """Return the candles of a longer interval that these make."""
    begin = candles.ts // interval_ms * interval_ms
    starts = np.flatnonzero(np.diff(begin, prepend=-1))
    ends = np.append(starts[1:], len(begin)) - 1
    return Series(
        candles.mint,
        begin[starts],
        candles.open[starts],
        np.maximum.reduceat(candles.high, starts),
        np.minimum.reduceat(candles.low, starts),
        candles.close[ends],
        np.add.reduceat(candles.volume, starts),
    )
