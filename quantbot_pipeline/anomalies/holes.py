"""`outage` and `gap`: candles that are missing, on half of the market at once or on one token. Source: docs/anomalies.md."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from quantbot_pipeline.anomalies.findings import DAY_MS, MARKET, MINT, WHOLE_MARKET, Finding, Ints, Series, Span, utc

OUTAGE, GAP = "outage", "gap"
LEAST_MISSING = 6  # candles of a hole of an outage; a gap has more
LEAST_TOKENS = 5
SHARE = 0.5  # of the tokens then alive
EXPECTED = 0.01  # so few holes as long are to be expected of a month


class Holes(NamedTuple):
    """Where a token has no candle: `[begin, end)` in UTC ms, shapes (H,), ascending; and its first and last candle."""

    mint: str
    first: int
    last: int
    begin: Ints
    end: Ints

    def missing(self, interval_ms: int) -> Ints:
        """Return how many candles are missing in each hole, shape (H,)."""
        return (self.end - self.begin) // interval_ms

    def is_alive(self, ts: int) -> bool:
        """Whether the token had a candle in the day before a time."""
        if not self.first < ts <= self.last + DAY_MS:
            return False
        long = (self.end - self.begin) >= DAY_MS
        return not bool(np.any(long & (self.begin + DAY_MS <= ts) & (ts <= self.end)))


class Outage(NamedTuple):
    """Holes of many tokens that begin within one candle, from `begin` on; `back`: when enough of them were over, UTC ms."""

    begin: int
    back: int
    tokens: tuple[str, ...]
    alive: int
    needed: int


def holes_of(candles: Series, span: Span) -> Holes:
    """Return the holes of a series that are over: a candle follows."""
    far = np.flatnonzero(np.diff(candles.ts) > span.interval_ms)
    first, last = (int(candles.ts[0]), int(candles.ts[-1])) if len(candles.ts) else (span.end, span.end)
    return Holes(candles.mint, first, last, candles.ts[far] + span.interval_ms, candles.ts[far + 1])


def find_outages(holes: Sequence[Holes], span: Span) -> list[Outage]:
    """Return holes of 6 candles or more that begin within one candle on half of the tokens then alive, at least 5.

    Ascending by their begin. Of windows of two candles that overlap, the one with the most tokens counts.
    """
    long = [h.missing(span.interval_ms) >= LEAST_MISSING for h in holes]
    begin = np.concatenate([np.empty(0, np.int64), *(h.begin[rows] for h, rows in zip(holes, long, strict=True))])
    end = np.concatenate([np.empty(0, np.int64), *(h.end[rows] for h, rows in zip(holes, long, strict=True))])
    token = np.repeat(np.arange(len(holes)), [int(rows.sum()) for rows in long])
    order = np.argsort(begin, kind="stable")
    begin, end, token = begin[order], end[order], token[order]
    until = np.searchsorted(begin, begin + span.interval_ms, side="right")
    counts = until - np.searchsorted(begin, begin)
    found: list[Outage] = []
    for at in sorted(np.flatnonzero(counts >= LEAST_TOKENS).tolist(), key=lambda at: (-counts[at], begin[at])):
        anchor = int(begin[at])
        if any(abs(anchor - other.begin) <= 2 * span.interval_ms for other in found):
            continue
        mine = slice(int(np.searchsorted(begin, anchor)), int(until[at]))
        alive = sum(h.is_alive(anchor) for h in holes)
        needed = max(LEAST_TOKENS, math.ceil(SHARE * alive))
        if len(set(token[mine].tolist())) >= needed:
            back = int(np.sort(end[mine])[needed - 1])
            names = tuple(sorted({holes[i].mint for i in token[mine].tolist()}))
            found.append(Outage(anchor, back, names, alive, needed))
    return sorted(found)


def outages(found: Sequence[Outage], span: Span) -> Iterator[Finding]:
    """Yield the outages of the month: those that so many tokens had left behind them in it that they count."""
    for outage in found:
        if outage.back < span.start:
            continue
        candles = (outage.back - outage.begin) // span.interval_ms
        yield Finding(
            OUTAGE,
            MARKET,
            WHOLE_MARKET,
            outage.begin,
            outage.back,
            float(len(outage.tokens)),
            float(outage.needed),
            f"{len(outage.tokens)} of {outage.alive} tokens have no candle for {candles} intervals from {utc(outage.begin)} UTC on.",
            {"tokens": len(outage.tokens), "alive": outage.alive, "missing": candles},
            tokens=outage.tokens,
        )


def gaps(holes: Holes, found: Sequence[Outage], span: Span) -> Iterator[Finding]:
    """Yield holes of more than 6 candles that the token's shorter holes of the month do not explain; outages are left out.

    A hole belongs to the month in which it ends.
    """
    ours = holes.end >= span.start
    for outage in found:
        if holes.mint in outage.tokens:
            ours &= ~((holes.begin >= outage.begin) & (holes.begin <= outage.begin + span.interval_ms))
    begin, end = holes.begin[ours], holes.end[ours]
    missing = holes.missing(span.interval_ms)[ours]
    for row in np.flatnonzero(missing > LEAST_MISSING).tolist():
        shorter = missing[missing < missing[row]]
        mean = float(shorter.mean()) if len(shorter) else 1.0
        limit = longest(mean, len(missing))
        if missing[row] > limit:
            yield Finding(
                GAP,
                MINT,
                holes.mint,
                int(begin[row]),
                int(end[row]),
                float(missing[row]),
                limit,
                f"{missing[row]} candles in a row are missing from {utc(int(begin[row]))} UTC on; this token's other holes are shorter.",
                {"missing": int(missing[row]), "holes": len(missing), "mean_of_shorter": mean},
                tokens=(holes.mint,),
            )


def longest(mean: float, holes: int) -> float:
    """Return the length past which fewer than 0.01 of so many holes are expected, geometric with this mean; 6 at least.

    Of holes of at least one candle, a share `(1 - 1/mean)^(n - 1)` has n or more.
    """
    if mean <= 1:
        return float(LEAST_MISSING)
    return max(float(LEAST_MISSING), 1 + math.log(EXPECTED / holes) / math.log1p(-1 / mean))
