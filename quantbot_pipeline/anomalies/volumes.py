"""`wash_volume`: much volume that hardly moves the price. Source: docs/anomalies.md."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from quantbot_pipeline.anomalies.findings import LOOK_BACK_MS, MINT, Finding, Floats, Ints, Series, Span, times, utc

KIND = "wash_volume"
CANDLES = 12
FACTOR = 8.0  # of the median volume of the 7 days before
MADS = 8.0  # of ln(volume / range), above its median
TO_SIGMA = 1.4826
LEAST_RANGE = 1e-4  # a logarithm: a price that stands still has no range
LEAST_BLOCKS = 48  # of 12 intervals behind a median
SLACK = 6  # intervals that may be missing among 12 candles


def wash_volumes(candles: Series, span: Span) -> Iterator[Finding]:
    """Yield stretches in which 12 candles in a row have 8 times the usual volume, and too little range for it.

    Usual is what the blocks of 12 intervals (an hour of 5m) of the 7 days before say, each by its volume a candle. Stretches
    that overlap are one finding. The last candle of 12 makes it known.
    """
    if len(candles.ts) < CANDLES:
        return
    blocks = _blocks(candles, span)
    sums = np.convolve(candles.volume, np.ones(CANDLES), "valid")  # NaN where a volume is not known
    begins, last = candles.ts[: len(sums)], candles.ts[CANDLES - 1 :]
    block = begins // (CANDLES * span.interval_ms) - blocks.first
    compact = last - begins < (CANDLES + SLACK) * span.interval_ms
    asked = np.flatnonzero(compact & (last >= span.start))
    usual = np.full(len(sums), np.nan)
    usual[asked] = _usual(blocks.volume, block[asked], span)[0]
    loud = asked[(sums[asked] >= FACTOR * usual[asked]) & (usual[asked] > 0)]
    middle, mad = _usual(blocks.pressure, block[loud], span)
    limits, scores = middle + MADS * TO_SIGMA * mad, _pressures(candles, loud, sums[loud])
    hit = scores >= limits
    yield from _stretches(candles, span, _Hits(loud[hit], scores[hit], limits[hit], sums[loud[hit]], usual[loud[hit]]))


class _Blocks(NamedTuple):
    """Blocks of 12 intervals on their grid, from `first` on, shapes (B,): volume of 12 candles, ln of volume over range.

    NaN where a block has no candle, or a volume that is not known; the pressure of no volume is NaN too.
    """

    first: int
    volume: Floats
    pressure: Floats


class _Hits(NamedTuple):
    """First rows of 12 candles that are loud and still, with their figures, shapes (H,)."""

    row: Ints
    score: Floats
    limit: Floats
    volume: Floats
    usual: Floats


def _blocks(candles: Series, span: Span) -> _Blocks:
    block = candles.ts // (CANDLES * span.interval_ms)
    starts = np.flatnonzero(np.diff(block, prepend=block[0] - 1))
    counts = np.diff(starts, append=len(candles.ts))
    first, at = int(block[0]), block[starts] - block[0]
    volume, pressure = np.full((2, int(at[-1]) + 1), np.nan)
    volume[at] = np.add.reduceat(candles.volume, starts) / counts * CANDLES
    reach = np.log(np.maximum.reduceat(candles.high, starts) / np.minimum.reduceat(candles.low, starts))
    some = volume[at] > 0
    pressure[at[some]] = np.log(volume[at[some]]) - np.log(np.maximum(reach[some], LEAST_RANGE))
    return _Blocks(first, volume, pressure)


def _usual(values: Floats, block: Ints, span: Span) -> tuple[Floats, Floats]:
    """Return median and MAD of the values of the 7 days before each of these blocks, shape of `block`; NaN with fewer than 48.

    Equal blocks are looked at once.
    """
    week = LOOK_BACK_MS // (CANDLES * span.interval_ms)
    asked, back = np.unique(block, return_inverse=True)
    padded = np.concatenate([np.full(week, np.nan), values])
    windows = np.sort(np.lib.stride_tricks.sliding_window_view(padded, week)[asked], axis=1)  # NaN goes last
    counts = (~np.isnan(windows)).sum(axis=1)
    middle = _middle(windows, counts)
    apart = np.sort(np.abs(windows - middle[:, None]), axis=1)
    few = counts < LEAST_BLOCKS
    return np.where(few, np.nan, middle)[back], np.where(few, np.nan, _middle(apart, counts))[back]


def _middle(ordered: Floats, counts: Ints) -> Floats:
    """Return the median of the first `counts` values of each ascending row."""
    row = np.arange(len(ordered))
    low, high = np.maximum(counts - 1, 0) // 2, np.minimum(counts // 2, ordered.shape[1] - 1)
    made: Floats = (ordered[row, low] + ordered[row, high]) / 2
    return made


def _pressures(candles: Series, rows: Ints, volumes: Floats) -> Floats:
    """Return ln of volume over range of the 12 candles from each row on."""
    all_rows = rows[:, None] + np.arange(CANDLES)
    reach = np.log(candles.high[all_rows].max(axis=1) / candles.low[all_rows].min(axis=1))
    made: Floats = np.log(volumes) - np.log(np.maximum(reach, LEAST_RANGE))
    return made


def _stretches(candles: Series, span: Span, hits: _Hits) -> Iterator[Finding]:
    """Yield one finding for windows of 12 candles that overlap, with the figures of the loudest."""
    if not len(hits.row):
        return
    for mine in np.split(np.arange(len(hits.row)), np.flatnonzero(np.diff(hits.row) >= CANDLES) + 1):
        best = mine[np.argmax(hits.score[mine] - hits.limit[mine])]
        volume, usual = float(hits.volume[best]), float(hits.usual[best])
        begin = int(candles.ts[hits.row[mine[0]]])
        end = int(candles.ts[hits.row[mine[-1]] + CANDLES - 1]) + span.interval_ms
        yield Finding(
            KIND,
            MINT,
            candles.mint,
            begin,
            end,
            float(hits.score[best]),
            float(hits.limit[best]),
            f"The token traded {times(volume / usual)} times its usual volume around {utc(begin)} UTC, and its price moved too little for that.",
            {"volume": volume, "usual_volume": usual},
            tokens=(candles.mint,),
        )
