"""`time_shift`: a token that follows the market at another time: its candles bear a wrong one. Source: docs/anomalies.md."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from quantbot_pipeline.anomalies.findings import DAY_MS, MINT, Finding, Floats, Series, Span, steps_of

KIND = "time_shift"
WEEK_MS = 7 * DAY_MS
WEEKS = 2  # of a month that must say the same
LEAST_R = 0.25
SIGMAS = 6.0  # above lag 0; of a correlation of n steps, 1 / sqrt(n)
CUT = 4.0  # standard deviations at which a step is cut
FARTHEST_MS = 14 * 3_600_000  # no time zone is farther from UTC
LEAST_OTHERS = 4  # tokens beside the token itself, behind a market step
LEAST_SHARE = 0.5  # of a week's steps that must be known
ROWS = 64  # of a week whose medians are taken at a time


class Steps(NamedTuple):
    """The steps of a token in the month: position on the month's grid of candles (int32) and log step (float32), shapes (K,)."""

    at: "np.ndarray[tuple[int], np.dtype[np.int32]]"
    step: "np.ndarray[tuple[int], np.dtype[np.float32]]"


def month_steps(candles: Series, span: Span) -> Steps:
    """Return the steps between neighbours on the grid, of the candles of the month."""
    first = int(np.searchsorted(candles.ts, span.start))
    ts = candles.ts[first:]
    kept = np.flatnonzero(np.diff(ts) == span.interval_ms)
    steps = steps_of(candles.close[first:])[kept] if len(kept) else np.empty(0)
    return Steps(((ts[kept + 1] - span.start) // span.interval_ms).astype(np.int32), steps.astype(np.float32))


def time_shifts(steps: Mapping[str, Steps], span: Span) -> Iterator[Finding]:
    """Yield tokens whose steps follow the median step of the others at one lag other than 0 in two weeks of the month.

    In such a week the correlation at that lag is 0.25 or more and 6 standard deviations above the one at lag 0. The weeks are
    four of 7 days from the month's first day on.
    """
    steps = dict(sorted(steps.items()))
    size = WEEK_MS // span.interval_ms
    farthest = min(FARTHEST_MS // span.interval_ms, size // 2)
    said: dict[str, list[tuple[int, float, float, int]]] = {mint: [] for mint in steps}
    for week in range(4):
        if (week + 1) * size > (span.end - span.start) // span.interval_ms:
            break
        known, matrix = _week_of(steps, week * size, size)
        others = _median_of_others(matrix)
        for mint, own, market in zip(known, matrix.T, others.T, strict=True):
            found = _shift(own, market, farthest)
            if found is not None:
                said[mint].append(found)
    for mint in steps:
        lags = Counter(lag for lag, *_ in said[mint])
        for lag, weeks in sorted(lags.items()):
            if weeks >= WEEKS:
                yield _finding(mint, lag, [week for week in said[mint] if week[0] == lag], span)


def _week_of(steps: Mapping[str, Steps], first: int, size: int) -> tuple[list[str], Floats]:
    """Return the tokens of which half a week's steps are known, and the steps, shape (size, tokens); NaN where there is none.

    Each step is cut at 4 standard deviations. Of ten thousand tokens most trade for a day or two: they have no column.
    """
    found = {}
    for mint, own in steps.items():
        rows = slice(*np.searchsorted(own.at, [first, first + size]).tolist())
        if rows.stop - rows.start >= LEAST_SHARE * size:
            found[mint] = Steps(own.at[rows] - first, own.step[rows])
    matrix = np.full((size, len(found)), np.nan)
    for column, (at, step) in enumerate(found.values()):
        values = step.astype(np.float64)
        limit = CUT * float(values.std())
        matrix[at, column] = np.clip(values, -limit, limit)
    return list(found), matrix


def _median_of_others(matrix: Floats) -> Floats:
    """Return the median of each row without each of its values, shape (size, tokens); NaN with fewer than 4 others."""
    others = np.empty_like(matrix)
    # Rows one after the other need little memory beside the matrix, and stay in the caches.
    for first in range(0, len(matrix), ROWS):
        others[first : first + ROWS] = _median_of_others_in(matrix[first : first + ROWS])
    return others


def _median_of_others_in(matrix: Floats) -> Floats:
    """The same of a few rows, sorted once: to leave one value out moves the middle by half a place."""
    size, tokens = matrix.shape
    if not tokens:
        return matrix
    order = np.argsort(matrix, axis=1, kind="stable")  # NaN goes last
    ordered = np.take_along_axis(matrix, order, axis=1)
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.broadcast_to(np.arange(tokens), order.shape), axis=1)
    known = ~np.isnan(matrix)
    count = known.sum(axis=1, keepdims=True) - known  # of others
    low, high = np.maximum(count - 1, 0) // 2, count // 2
    low, high = low + (known & (rank <= low)), high + (known & (rank <= high))  # skip the token's own place
    rows, last = np.arange(size)[:, None], tokens - 1
    middle = (ordered[rows, np.minimum(low, last)] + ordered[rows, np.minimum(high, last)]) / 2
    return np.where(count >= LEAST_OTHERS, middle, np.nan)


def _shift(own: Floats, market: Floats, farthest: int) -> tuple[int, float, float, int] | None:
    """Return (lag, its correlation, that at lag 0, steps) of one week where another lag is clearly better; else None.

    A lag above 0: the token comes later than the market.
    """
    both = ~np.isnan(own) & ~np.isnan(market)
    n = int(both.sum())
    if n < LEAST_SHARE * len(own):
        return None
    x, y = (np.where(np.isnan(a), 0.0, a - np.nanmean(a)) for a in (own, market))
    scale = math.sqrt(float(x @ x) * float(y @ y))
    if scale == 0:
        return None
    width = 1 << (len(x) + farthest - 1).bit_length()
    r = np.fft.irfft(np.fft.rfft(x, width) * np.conj(np.fft.rfft(y, width)), width) / scale
    lags = np.r_[-farthest:0, 1 : farthest + 1]
    best = int(lags[np.argmax(r[lags])])
    if r[best] >= LEAST_R and (r[best] - r[0]) * math.sqrt(n) >= SIGMAS:
        return best, float(r[best]), float(r[0]), n
    return None


def _finding(mint: str, lag: int, weeks: list[tuple[int, float, float, int]], span: Span) -> Finding:
    minutes = lag * span.interval_ms // 60_000
    r, zero = (float(np.mean([week[i] for week in weeks])) for i in (1, 2))
    return Finding(
        KIND,
        MINT,
        mint,
        span.start,
        span.end,
        r,
        LEAST_R,
        f"The token follows the market {abs(minutes)} minutes {'late' if lag > 0 else 'early'} in {len(weeks)} weeks of the month: "
        "its candles bear a wrong time.",
        {"lag_ms": lag * span.interval_ms, "weeks": len(weeks), "correlation_at_0": zero},
        tokens=(mint,),
    )
