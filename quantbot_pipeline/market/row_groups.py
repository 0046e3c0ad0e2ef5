"""What the footer of a candle file says of its row groups: whose rows they hold, and a checksum of every column.

With it a reader knows which row groups a month needs and where each token's rows are before it decodes anything, and
verifies what it decoded ten times faster than by Parquet's page checksums (which are written too, for other readers).
A file that another program wrote has no such entry; then the tokens are read from its column `mint`.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

FOOTER_KEY = b"quantbot.row_groups"
COLUMNS = ["ts_ms", "open", "high", "low", "close"]


class RowGroup(NamedTuple):
    """Token i has rows `[offsets[i], offsets[i+1])` (int64); one XXH3 of the decoded values per name in `COLUMNS`."""

    mints: list[str]
    offsets: npt.NDArray[np.int64]
    checksums: list[str] | None


def describe(group: pa.Table) -> RowGroup:
    """The entry of a row group that is about to be written: one chunk a column, the rows of a token together."""
    mints, offsets = token_runs(group["mint"].combine_chunks().dictionary_encode())
    return RowGroup(mints, offsets, checksums([group[name].chunk(0).to_numpy() for name in COLUMNS]))


def token_runs(mint: pa.DictionaryArray) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Mints and offsets of the runs of equal values; a mint comes twice if its rows are not together."""
    codes = mint.indices.to_numpy()
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    return mint.dictionary.take(pa.array(codes[starts])).to_pylist(), np.append(starts, len(codes)).astype(np.int64)


def checksums(columns: Iterable[npt.NDArray[Any]]) -> list[str]:
    """XXH3, 64 bits, of the bytes of each array."""
    return [xxhash.xxh3_64_hexdigest(np.ascontiguousarray(column).data) for column in columns]


def to_footer(groups: Sequence[RowGroup]) -> bytes:
    """The value of `FOOTER_KEY`: a SHA-256, since Parquet's footer has no checksum, and JSON."""
    entries = [{"mints": g.mints, "offsets": g.offsets.tolist(), "checksums": g.checksums} for g in groups]
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    return hashlib.sha256(text).hexdigest().encode() + b"\n" + text


def from_footer(value: bytes) -> list[RowGroup]:
    """The inverse of `to_footer`; raises ValueError for anything that it did not write."""
    digest, _, text = value.partition(b"\n")
    if hashlib.sha256(text).hexdigest().encode() != digest:
        raise ValueError(f"{FOOTER_KEY.decode()} in its footer is damaged")
    return [RowGroup(e["mints"], np.array(e["offsets"], dtype=np.int64), e["checksums"]) for e in json.loads(text)]


def repeated(groups: Sequence[RowGroup]) -> bool:
    """Whether a mint's rows are in more than one place."""
    mints = list(chain.from_iterable(group.mints for group in groups))
    return len(set(mints)) < len(mints)
