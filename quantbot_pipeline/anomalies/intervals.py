"""`interval_mismatch`: candles that differ from the finer ones of the same token. Source: docs/anomalies.md."""

from collections.abc import Iterator

import numpy as np

from quantbot_pipeline.anomalies.findings import MINT, Finding, Floats, Ints, Series, Span

KIND = "interval_mismatch"
LEAST = 100  # candles whose finer candles are all there
SHARE = 0.05  # of them
TOLERANCE = 0.01  # of a price
PRICES = ("open", "high", "low", "close")


def interval_mismatches(
    coarse: Series, fine: Series, coarse_ms: int, fine_ms: int, names: tuple[str, str], span: Span
) -> Iterator[Finding]:
    """Yield the token's month if over 5 % of at least 100 coarse candles differ by more than 1 % from what the fine ones make.

    coarse, fine: the month's candles of one token; coarse_ms: a multiple of fine_ms; names: the two intervals in words. A
    coarse candle counts if all its fine candles are there.
    """
    made, begins = _joined(fine, coarse_ms, fine_ms)
    _, mine, theirs = np.intersect1d(coarse.ts, begins, assume_unique=True, return_indices=True)
    if len(mine) < LEAST:
        return
    given = np.stack([getattr(coarse, name)[mine] for name in PRICES])
    apart = np.abs(made[:, theirs] / given - 1) > TOLERANCE
    differ = apart.any(axis=0)
    share = float(differ.mean())
    if share <= SHARE:
        return
    named = [name for name, rows in zip(PRICES, apart, strict=True) if rows.any()]
    ts = coarse.ts[mine[differ]]
    yield Finding(
        KIND,
        MINT,
        coarse.mint,
        int(ts[0]),
        int(ts[-1]) + coarse_ms,
        share,
        SHARE,
        f"{share:.0%} of {len(mine)} candles of {names[0]} differ by more than 1 % from what the candles of {names[1]} make.",
        {"coarse": names[0], "fine": names[1], "compared": len(mine), "differ": int(differ.sum()), "prices": named},
        tokens=(coarse.mint,),
    )


def _joined(fine: Series, coarse_ms: int, fine_ms: int) -> tuple[Floats, Ints]:
    """Return (open, high, low, close as shape (4, B); times) of the coarse candles whose fine candles are all there."""
    begin = fine.ts // coarse_ms * coarse_ms
    starts = np.flatnonzero(np.diff(begin, prepend=-1))
    counts = np.diff(starts, append=len(begin))
    if not len(starts):
        return np.empty((4, 0)), begin
    made = np.stack(
        [
            fine.open[starts],
            np.maximum.reduceat(fine.high, starts),
            np.minimum.reduceat(fine.low, starts),
            fine.close[starts + counts - 1],
        ]
    )
    whole = counts == coarse_ms // fine_ms
    return made[:, whole], begin[starts][whole]
