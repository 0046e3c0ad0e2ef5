"""`flat_line`: trades are told of and the price does not move: a feed that stands still. Source: docs/anomalies.md."""

from collections.abc import Iterator

import numpy as np

from quantbot_pipeline.anomalies.findings import MINT, Finding, Series, Span, utc

KIND = "flat_line"
CANDLES = 24
HOLES = 3  # missing candles that a run may have in one place


def flat_lines(candles: Series, span: Span) -> Iterator[Finding]:
    """Yield runs of 24 candles or more with open = high = low = close = last close and a volume that is known and not 0.

    A run belongs to every month in which it has a candle.
    """
    if len(candles.ts) <= CANDLES:
        return
    price = candles.close[1:]
    still = (price == candles.close[:-1]) & (candles.high[1:] == price) & (candles.low[1:] == price)
    traded = (candles.volume[1:] != 0) & ~np.isnan(candles.volume[1:])
    flat = still & (candles.open[1:] == price) & traded
    if int(flat.sum()) < CANDLES:
        return
    far = np.diff(candles.ts) > (HOLES + 1) * span.interval_ms
    run = np.cumsum(~flat | far)
    rows = np.flatnonzero(flat)
    _, first, counts = np.unique(run[rows], return_index=True, return_counts=True)
    for at, count in zip(first[counts >= CANDLES].tolist(), counts[counts >= CANDLES].tolist(), strict=True):
        begin, end = int(candles.ts[rows[at] + 1]), int(candles.ts[rows[at + count - 1] + 1]) + span.interval_ms
        if end > span.start:
            yield Finding(
                KIND,
                MINT,
                candles.mint,
                begin,
                end,
                float(count),
                float(CANDLES),
                f"The price did not move in {count} candles with volume in a row, from {utc(begin)} to {utc(end)} UTC.",
                {"candles": count, "price": float(price[rows[at]])},
                tokens=(candles.mint,),
            )
