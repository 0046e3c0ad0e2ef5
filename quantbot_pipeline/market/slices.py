"""Reading the candles that a month of calls needs, token by token, in pieces that threads can work on.

A piece is one row group of the month's file: it is decoded once and replayed while it is in cache. Windows reach past
the month's end; those few tokens are stitched together with their rows in the following months.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from quantbot_pipeline.durable import sha256_file
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.market.candles import HASH_KEY, month_file, rejected_file

COLUMNS = ["mint", "ts_ms", "open", "high", "low", "close"]


class Piece(NamedTuple):
    """Decoded candles: token i has mint `mints[i]` and rows `[offsets[i], offsets[i+1])` of the arrays."""

    mints: list[str]
    offsets: npt.NDArray[np.int64]
    ts: npt.NDArray[np.int64]
    open: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    close: npt.NDArray[np.float64]

    def arrays(self) -> tuple[Any, ...]:
        """ts, open, high, low, close."""
        return self[2:]


class Load(Protocol):
    """Decode one piece of work; yields pieces whose mints are all wanted or may be ignored."""

    def __call__(self) -> Iterator[Piece]: ...


class _StoreFile(NamedTuple):
    """A file of the store as it was when it was opened: an ingest that replaces it changes nothing of what is read.

    Its footer names every page of every row group. It is parsed once and not once per row group.
    """

    path: Path
    data: pa.NativeFile
    metadata: pq.FileMetaData


@dataclass(frozen=True)
class CandlePlan:
    """What must be decoded for a month: `loads` are independent; `fingerprint` identifies the content they read."""

    loads: list[Load]
    fingerprint: list[str]


def plan_slices(
    store: Path, interval: str, months: Sequence[str], needed_until: Mapping[str, int], month_end_ms: int
) -> CandlePlan:
    """Plan the decoding of all candles of the mints in `needed_until` (mint → UTC ms) over `months` (first: the run's).

    Raises InputError when a file of the store cannot be read.
    """
    wanted = sorted(needed_until)
    later = {mint: until for mint, until in needed_until.items() if until > month_end_ms}
    paths = [month_file(store, interval, m) for m in months]
    main, *following = [_open(path) if path.exists() else None for path in paths]
    tails: dict[str, Piece] = {}
    for file in following:
        for mint, piece in _read_tail(file, later).items() if file else ():
            tails[mint] = _concat(mint, tails[mint], piece) if mint in tails else piece
    loads: list[Load] = []
    stitched: set[str] = set()
    if main:
        groups = _groups_with(main, wanted)
        present = _mints_in(main, groups) if tails else set()
        stitched = present & tails.keys()
        loads += [partial(_load_group, main, group, tails) for group in groups]
    orphans = [tails[mint] for mint in sorted(tails.keys() - stitched)]
    if orphans:
        loads.append(partial(iter, orphans))
    refused = [rejected_file(store, interval, m) for m in months]  # a run counts them, so they are part of its input
    contents = [_hash_of(file) for file in (main, *following)]
    return CandlePlan(loads, [*contents, *(sha256_file(p) for p in refused if p.exists())])


def known_mints(store: Path, interval: str, mints: Sequence[str]) -> set[str]:
    """Those of `mints` that have any valid candle at this interval, in whatever month."""
    remaining = set(mints)
    for path in sorted((store / f"interval={interval}").glob("month=*/candles.parquet")):
        if not remaining:
            break
        file = _open(path)
        remaining -= _mints_in(file, _groups_with(file, sorted(remaining)))
    return set(mints) - remaining


def read_rejected(store: Path, interval: str, months: Sequence[str], mints: Sequence[str]) -> pa.Table:
    """Rejected candles of `mints` in `months`: mint (string), ts_ms (int64), reason (string)."""
    parts = [
        pq.read_table(path, columns=["mint", "ts_ms", "reason"], filters=[("mint", "in", list(mints))])
        for path in (rejected_file(store, interval, month) for month in months)
        if path.exists() and mints
    ]
    schema = pa.schema([("mint", pa.string()), ("ts_ms", pa.int64()), ("reason", pa.string())])
    return pa.concat_tables([p.cast(schema) for p in parts]) if parts else schema.empty_table()


def month_rows(store: Path, interval: str, month: str) -> tuple[int, int, int]:
    """(valid rows, rejected rows, bytes) of a month's files; zeros where there is none."""
    valid, rejected = month_file(store, interval, month), rejected_file(store, interval, month)
    counts = [0, 0]
    for i, path in enumerate((valid, rejected)):
        if path.exists():
            counts[i] = _open(path).metadata.num_rows
    return counts[0], counts[1], sum(path.stat().st_size for path in (valid, rejected) if path.exists())


def _open(path: Path) -> _StoreFile:
    with _readable(path):
        data = pa.OSFile(str(path))
        return _StoreFile(path, data, pq.read_metadata(data))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Whatever is wrong with a store file or its pages is an InputError. A flipped bit is an error, never a price."""
    try:
        yield
    except (pa.ArrowException, OSError) as e:
        raise InputError(
            f"{path}: the candle store is not readable ({str(e)[:120]}); delete the file and ingest its candles again"
        ) from None


def _read(file: _StoreFile, group: int, columns: list[str]) -> pa.Table:
    """One row group; threads may read different ones of the same file at once."""
    with (
        _readable(file.path),
        pq.ParquetFile(
            file.data,
            metadata=file.metadata,
            read_dictionary=["mint"],
            pre_buffer=False,
            page_checksum_verification=True,
        ) as parquet,
    ):
        return parquet.read_row_group(group, columns=columns, use_threads=False)


def _hash_of(file: _StoreFile | None) -> str:
    return "" if file is None else (file.metadata.metadata or {}).get(HASH_KEY, b"").decode()


def _groups_with(file: _StoreFile, mints: Sequence[str]) -> list[int]:
    """Row groups whose range of mints holds at least one of the sorted `mints`."""
    found = []
    for group in range(file.metadata.num_row_groups):
        statistics = file.metadata.row_group(group).column(0).statistics
        if statistics is None or not statistics.has_min_max:
            found.append(group)
            continue
        at = bisect_left(mints, statistics.min)
        if at < len(mints) and mints[at] <= statistics.max:
            found.append(group)
    return found


def _mints_in(file: _StoreFile, groups: Sequence[int]) -> set[str]:
    return {
        mint
        for group in groups
        for chunk in _read(file, group, ["mint"])["mint"].chunks
        for mint in chunk.dictionary.to_pylist()
    }


def _load_group(file: _StoreFile, group: int, tails: Mapping[str, Piece]) -> Iterator[Piece]:
    piece = _decode(file, group)
    yield piece._replace(mints=["" if mint in tails else mint for mint in piece.mints])  # no mint is empty
    for i, mint in enumerate(piece.mints):
        if mint in tails:
            yield _concat(mint, _token(piece, i), tails[mint])


def _decode(file: _StoreFile, group: int) -> Piece:
    table = _read(file, group, COLUMNS)
    mint = _one_chunk(table["mint"].unify_dictionaries())
    codes, names = mint.indices.to_numpy(), mint.dictionary.to_pylist()
    if np.any(codes[1:] < codes[:-1]):
        raise InputError(f"{file.path}: not sorted by mint; delete the file and ingest its candles again")
    offsets = np.searchsorted(codes, np.arange(len(names) + 1, dtype=codes.dtype))
    ts, *prices = (_one_chunk(table[c]).to_numpy(zero_copy_only=True) for c in COLUMNS[1:])
    return Piece(names, offsets, ts, *prices)


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """The column as one array; `combine_chunks` would copy the only chunk that there usually is."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _token(piece: Piece, i: int) -> Piece:
    rows = slice(piece.offsets[i], piece.offsets[i + 1])
    size = np.array([0, rows.stop - rows.start], dtype=np.int64)
    return Piece([piece.mints[i]], size, *(array[rows] for array in piece.arrays()))


def _concat(mint: str, first: Piece, second: Piece) -> Piece:
    size = np.array([0, len(first.ts) + len(second.ts)], dtype=np.int64)
    return Piece([mint], size, *(np.concatenate(pair) for pair in zip(first.arrays(), second.arrays(), strict=True)))


def _read_tail(file: _StoreFile, until: Mapping[str, int]) -> dict[str, Piece]:
    """The first rows of a later month, up to each mint's time; only row groups that can hold one of them are decoded."""
    tails: dict[str, Piece] = {}
    for group in _groups_with(file, sorted(until)) if until else ():
        piece = _decode(file, group)
        for i, mint in enumerate(piece.mints):
            if mint in until:
                token = _token(piece, i)
                stop = int(np.searchsorted(token.ts, until[mint]))
                if stop:
                    kept = (array[:stop].copy() for array in token.arrays())  # lets go of the decoded row group
                    tails[mint] = Piece([mint], np.array([0, stop], dtype=np.int64), *kept)
    return tails
