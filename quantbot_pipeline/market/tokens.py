"""All candles of a month, token by token, with their volumes: what is read by whoever looks at a whole month.

Belongs here: reading in the order of mints, and joining two such readings. Does not: the windows of calls; see `candle_reader`.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.market.candle_reader import month_groups

Floats = npt.NDArray[np.float64]


class TokenCandles(NamedTuple):
    """Candles of one token, ascending in time, shapes (N,). ts: UTC ms, int64. volume: NaN where unknown."""

    mint: str
    ts: npt.NDArray[np.int64]
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats

    def since(self, from_ms: int) -> "TokenCandles":
        """Return a copy of the candles from a time on, which lets go of the row group."""
        first = int(np.searchsorted(self.ts, from_ms))
        return TokenCandles(self.mint, self.ts[first:].copy(), *(array[first:].copy() for array in self[2:]))

    def followed_by(self, later: "TokenCandles") -> "TokenCandles":
        """Return these candles with later ones of the same token."""
        prices = (np.concatenate(pair) for pair in zip(self[2:], later[2:], strict=True))
        return TokenCandles(self.mint, np.concatenate([self.ts, later.ts]), *prices)


def tokens_of(store: Path, interval: str, month: str) -> Iterator[TokenCandles]:
    """Yield the tokens of a month, ascending by mint; nothing where there is no file.

    Raises InputError for a file that is not readable, not sorted, or has candles that no ingest would let in.
    """
    found = month_groups(store, interval, month)
    if found is None:
        return
    file, loads = found
    last: str | None = None
    for load in loads:
        group = load()
        for mint, begin, end in zip(group.mints, group.offsets[:-1].tolist(), group.offsets[1:].tolist(), strict=True):
            if last is not None and mint <= last:
                raise InputError(f"{file.path}: not sorted by mint; delete the file and ingest its candles again")
            yield TokenCandles(mint, *(array[begin:end] for array in group.arrays()))
            last = mint


def side_by_side(
    first: Iterable[TokenCandles], second: Iterable[TokenCandles]
) -> Iterator[tuple[TokenCandles | None, TokenCandles | None]]:
    """Yield the tokens of two readings, each mint once, ascending; None where a reading does not have it."""
    one, other = iter(first), iter(second)
    left, right = next(one, None), next(other, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left.mint < right.mint):
            yield left, None
            left = next(one, None)
        elif left is None or right.mint < left.mint:
            yield None, right
            right = next(other, None)
        else:
            yield left, right
            left, right = next(one, None), next(other, None)
