"""All candles of a month, token by token, with their volumes: what is read by whoever looks at a whole month.

Belongs here: reading in the order of mints, and joining two such readings. Does not: the windows of calls; see `candle_reader`.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.market.candle_files import HASH_KEY, SCHEMA, readable
from quantbot_pipeline.market.candle_footer import token_runs

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


def tokens_of(path: Path) -> Iterator[TokenCandles]:
    """Yield the tokens of a file of the store, ascending by mint; nothing where there is no file.

    Every page is held against its checksum. Raises InputError for a file that is not readable, not sorted, or has candles that
    no ingest would let in.
    """
    if not path.exists():
        return
    last: str | None = None
    with readable(path):
        file = pq.ParquetFile(path, read_dictionary=["mint"], pre_buffer=False, page_checksum_verification=True)
        for group in range(file.metadata.num_row_groups):
            table = file.read_row_group(group, use_threads=False).select(SCHEMA.names).combine_chunks()
            mints, offsets = token_runs(_one_array(table["mint"].unify_dictionaries()))
            arrays = [_one_array(table[name]).to_numpy(zero_copy_only=False) for name in SCHEMA.names[1:]]
            for mint, begin, end in zip(mints, offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
                if last is not None and mint <= last:
                    raise InputError(f"{path}: not sorted by mint; delete the file and ingest its candles again")
                token = TokenCandles(mint, *(array[begin:end] for array in arrays))
                _require_sound(token)
                yield token
                last = mint


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _require_sound(token: TokenCandles) -> None:
    """Raise ValueError where times do not ascend or prices are not prices: an ingest sees to it, another program may not."""
    ordered = bool(np.all(token.ts[1:] > token.ts[:-1])) and bool(
        np.all((token.low <= np.minimum(token.open, token.close)) & (token.high >= np.maximum(token.open, token.close)))
    )
    if not ordered or not np.all((token.low > 0) & np.isfinite(token.high)):  # no comparison holds for NaN
        raise ValueError(f"the candles of {token.mint!r} are invalid, or their times do not ascend")


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


def content_of(path: Path) -> str:
    """Return what changes when a file's content does: what its footer says, or its bytes; empty where there is no file."""
    if not path.exists():
        return ""
    with readable(path):
        digest = (pq.read_metadata(path).metadata or {}).get(HASH_KEY)
        if digest is not None:
            return str(digest.decode(errors="replace"))
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
