"""What the footer of a candle file says of its row groups: whose rows they hold, and a checksum of every column.

With it a reader knows which row groups a month needs, and where each token's rows are, before it decodes anything.
Checking the decoded values is ten times faster than checking Parquet's page checksums. Those are written for other readers.
A file that another program wrote has no such entry; then the tokens are read from its column `mint`.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.versions import FORMAT_KEY, WRITER_KEY, Version, read_version

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


def require_readable(path: Path, metadata: Mapping[bytes, bytes] | None) -> None:
    """Refuse a file of the store whose format is of a newer major version, or of none. Raises InputError in one sentence."""
    said_version(path, metadata)


def said_version(path: Path, metadata: Mapping[bytes, bytes] | None) -> Version:
    """Return the version that the metadata of a file of the store say. Raises InputError as `require_readable`."""
    said = metadata or {}
    version, program = (said[key].decode(errors="replace") if key in said else None for key in (FORMAT_KEY, WRITER_KEY))
    return read_version("candles", version, path, InputError, program)


def rows_of(metadata: pq.FileMetaData) -> list[int]:
    """The number of rows of each row group."""
    return [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]


def from_footer(value: bytes, rows: Sequence[int]) -> list[RowGroup]:
    """The inverse of `to_footer` for a file whose row groups have so many rows; raises ValueError for anything else.

    The engine trusts these offsets: outside the decoded arrays there would be other memory.
    """
    digest, _, text = value.partition(b"\n")
    if hashlib.sha256(text).hexdigest().encode() != digest:
        raise ValueError(f"{FOOTER_KEY.decode()} in its footer is damaged")
    try:
        groups = [
            RowGroup(e["mints"], np.array(e["offsets"], dtype=np.int64), [*e["checksums"]]) for e in json.loads(text)
        ]
    except (KeyError, TypeError) as e:
        raise ValueError(f"{FOOTER_KEY.decode()} in its footer is of another version: {e!r}") from None
    if len(groups) != len(rows):
        raise ValueError(f"{FOOTER_KEY.decode()} in its footer describes {len(groups)} row groups of {len(rows)}")
    for number, (group, n) in enumerate(zip(groups, rows, strict=True)):
        mints, offsets, sums = group
        fits = len(offsets) == len(mints) + 1 and offsets[0] == 0 and offsets[-1] == n and np.all(np.diff(offsets) > 0)
        if not fits or sums is None or len(sums) != len(COLUMNS):  # without them nothing would be verified
            raise ValueError(f"{FOOTER_KEY.decode()} in its footer does not describe row group {number}")
    return groups


def repeated(groups: Sequence[RowGroup]) -> bool:
    """Whether a mint's rows are in more than one place."""
    mints = list(chain.from_iterable(group.mints for group in groups))
    return len(set(mints)) < len(mints)
