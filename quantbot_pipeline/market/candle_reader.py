"""Reading the candles that a month of calls needs, token by token, in pieces that threads can work on.

A piece is one row group of the month's file: it is decoded once and replayed while it is in cache. Windows reach past
the month's end; those few tokens are stitched together with their rows in the following months.
"""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.kept import NEVER, Kept
from quantbot_pipeline.market.candle_files import HASH_KEY, SCHEMA, month_file, readable, rejected_file, rejected_hash
from quantbot_pipeline.market.candle_footer import (
    COLUMNS,
    FOOTER_KEY,
    RowGroup,
    checksums,
    from_footer,
    repeated,
    require_readable,
    rows_of,
    token_runs,
)
from quantbot_pipeline.market.opening import open_file


class Piece(NamedTuple):
    """Decoded candles of tokens: `tokens[i]`, a position among the wanted mints, has rows `[lo[i], hi[i])` of the arrays."""

    tokens: npt.NDArray[np.int64]
    lo: npt.NDArray[np.int64]
    hi: npt.NDArray[np.int64]
    ts: npt.NDArray[np.int64]
    open: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    close: npt.NDArray[np.float64]

    def arrays(self) -> tuple[Any, ...]:
        """ts, open, high, low, close."""
        return self[3:]

    def of_token(self, i: int, rows: int | None = None) -> "Piece":
        """The first `rows` candles of token i, or all."""
        lo, hi = int(self.lo[i]), int(self.hi[i])
        part = slice(lo, hi if rows is None else lo + rows)
        return Piece(self.tokens[i : i + 1], *_one_span(part.stop - lo), *(array[part] for array in self.arrays()))

    def followed_by(self, later: "Piece") -> "Piece":
        """One token's candles with later ones of the same token."""
        pairs = zip(self.arrays(), later.arrays(), strict=True)
        return Piece(self.tokens, *_one_span(len(self.ts) + len(later.ts)), *(np.concatenate(pair) for pair in pairs))


def _one_span(rows: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    return np.zeros(1, dtype=np.int64), np.array([rows], dtype=np.int64)


class Group(NamedTuple):
    """A decoded row group: `mints[i]` has rows `[offsets[i], offsets[i+1])` of the arrays. volume: NaN where unknown."""

    mints: Sequence[str]
    offsets: npt.NDArray[np.int64]
    ts: npt.NDArray[np.int64]
    open: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    close: npt.NDArray[np.float64]
    volume: npt.NDArray[np.float64]

    def arrays(self) -> tuple[Any, ...]:
        """ts, open, high, low, close, volume."""
        return self[2:]


Watch = Callable[[Group], None]  # is shown every row group of a month's file, in whatever order and thread


class Load(Protocol):
    """Decode one piece of work."""

    def __call__(self) -> Iterator[Piece]: ...


class _Spans(NamedTuple):
    """Where the wanted tokens of a row group are, as in `Piece`."""

    group: int
    tokens: npt.NDArray[np.int64]
    lo: npt.NDArray[np.int64]
    hi: npt.NDArray[np.int64]


class StoreFile(NamedTuple):
    """A file of the store as it was when it was opened: an ingest that replaces it changes nothing of what is read.

    Its footer is parsed once and not once per row group. Each thread has a reader of its own. fetch: as in `Opened`.
    """

    path: Path
    data: pa.NativeFile
    metadata: pq.FileMetaData
    groups: list[RowGroup]
    readers: threading.local
    mints: frozenset[str]
    fetch: Callable[[Sequence[int]], None] | None = None

    @property
    def is_described(self) -> bool:
        """Whether its footer says what it holds, with a checksum of every column."""
        entries = self.metadata.metadata or {}
        return FOOTER_KEY in entries and HASH_KEY in entries


# Opened files and hashes of rejected ones; what is kept counts tokens. An open file costs a descriptor and its footer.
_OPENED: Kept[StoreFile] = Kept(128 * 4096, lambda file: max(4096, len(file.mints)) if file.is_described else NEVER)
_REJECTED: Kept[str] = Kept(4096)


@dataclass(frozen=True)
class CandlePlan:
    """What must be decoded for a month: the row groups of its file, and what the following months hold of tokens that go on.

    fingerprint: identifies the content that is read. A plan holds no candle: it may be kept and used by several threads.
    """

    main: StoreFile | None
    spans: list[_Spans]
    tails: list[tuple[StoreFile, list[_Spans]]]
    until: npt.NDArray[np.int64]
    fingerprint: list[str]

    def loads(self, watch: Watch | None = None) -> list[Load]:
        """Return the independent pieces of work; what they share is decoded once, by whoever needs it first.

        With `watch` all row groups of the month are decoded, with their volumes.
        """
        self._fetch(watch is not None)
        tails = _Tails(self)
        loads: list[Load] = [partial(_load_group, self.main, spans, tails, watch) for spans in self.spans if self.main]
        if watch is not None and self.main is not None:
            others = set(range(len(self.main.groups))).difference(spans.group for spans in self.spans)
            loads += [partial(_show_group, self.main, group, watch) for group in sorted(others)]
        orphans = tails.tokens.difference(*(spans.tokens.tolist() for spans in self.spans))
        if orphans:  # tokens without a candle in the run's month
            loads.append(partial(tails.of, sorted(orphans)))
        return loads

    def _fetch(self, whole: bool) -> None:
        """Have the row groups of files that lie elsewhere here, several at once, before threads read them one by one."""
        for file, spans in [(self.main, self.spans), *self.tails]:
            if file is not None and file.fetch is not None:
                everything = whole and file is self.main
                file.fetch(range(len(file.groups)) if everything else [found.group for found in spans])


NOTHING = CandlePlan(None, [], [], np.empty(0, dtype=np.int64), [])


def plan_slices(
    store: Path, interval: str, months: Sequence[str], needed_until: Mapping[str, int], month_end_ms: int
) -> CandlePlan:
    """Plan the decoding of all candles of the mints in `needed_until` (mint → UTC ms) over `months` (first: the run's).

    The tokens of the pieces are positions in `needed_until`. Raises InputError when a file of the store cannot be read.
    """
    code = {mint: i for i, mint in enumerate(needed_until)}
    until = np.fromiter(needed_until.values(), dtype=np.int64, count=len(code))
    later = {mint: code[mint] for mint, needed in needed_until.items() if needed > month_end_ms}
    files = [month_file(store, interval, m) for m in months]
    main, *following = [_open(path) if path.exists() else None for path in files]
    spans = _spans(main, code) if main else []
    tails = [(file, found) for file in following if file and (found := _spans(file, later))]
    refused = [rejected_file(store, interval, m) for m in months]  # a run counts them, so they are part of its input
    contents = [content_of(file) for file in (main, *following)]
    hashes = [_REJECTED.get(p, [p], partial(rejected_hash, p)) for p in refused if p.exists()]
    return CandlePlan(main, spans, tails, until, [*contents, *hashes])


class _Tails:
    """The first rows of the tokens that go on in later months, up to each one's time; decoded when they are first needed."""

    def __init__(self, plan: CandlePlan) -> None:
        self._plan = plan
        self._lock = threading.Lock()
        self._made: dict[int, Piece] | None = None
        self.tokens = {token for _, found in plan.tails for spans in found for token in spans.tokens.tolist()}

    def pieces(self) -> Mapping[int, Piece]:
        """Return the rows by token; a token that has none before its time is left out."""
        if not self.tokens:
            return {}
        with self._lock:
            if self._made is None:
                made: dict[int, Piece] = {}
                for file, found in self._plan.tails:
                    for token, piece in _read_tails(file, found, self._plan.until):
                        made[token] = made[token].followed_by(piece) if token in made else piece
                self._made = made
            return self._made

    def of(self, tokens: Iterable[int]) -> Iterator[Piece]:
        """Yield the rows of these tokens."""
        pieces = self.pieces()
        return (pieces[token] for token in tokens if token in pieces)


def month_groups(store: Path, interval: str, month: str) -> tuple[StoreFile, list[Callable[[], Group]]] | None:
    """Return a month's file and a function for each of its row groups that decodes it; None where there is no file.

    Raises InputError when the file cannot be read; so do the functions.
    """
    path = month_file(store, interval, month)
    if not path.exists():
        return None
    file = _open(path)
    return file, [partial(_whole_group, file, number) for number in range(len(file.groups))]


def month_content(store: Path, interval: str, month: str) -> str:
    """Return the hash of a month's candles; an empty text where there is no file."""
    path = month_file(store, interval, month)
    return content_of(_open(path)) if path.exists() else ""


def known_mints(store: Path, interval: str, mints: Sequence[str]) -> set[str]:
    """Those of `mints` that have any valid candle at this interval, in whatever month."""
    remaining = set(mints)
    for path in sorted((store / f"interval={interval}").glob("month=*/candles.parquet")):
        if not remaining:
            break
        remaining -= _open(path).mints
    return set(mints) - remaining


def _open(path: Path) -> StoreFile:
    """The file as it is; one that says what it holds stays open and is not read again while it is the same."""
    return _OPENED.get(path, [path], partial(_open_anew, path))


def _open_anew(path: Path) -> StoreFile:
    with readable(path):
        data, fetch = open_file(path)
        file = StoreFile(path, data, pq.read_metadata(data), [], threading.local(), frozenset(), fetch)
        require_readable(path, file.metadata.metadata)
        _require_columns(file.metadata.schema.to_arrow_schema())
        value = (file.metadata.metadata or {}).get(FOOTER_KEY)
        groups = _read_tokens(file) if value is None else from_footer(value, rows_of(file.metadata))
    return file._replace(groups=groups, mints=frozenset(mint for group in groups for mint in group.mints))


def _require_columns(schema: pa.Schema) -> None:
    if "mint" not in schema.names:
        raise ValueError("it has no column mint")
    for name in COLUMNS:
        wanted = SCHEMA.field(name).type
        if name not in schema.names or schema.field(name).type != wanted:
            raise ValueError(f"it has no column {name} of type {wanted}")


def _read(file: StoreFile, group: int, columns: list[str], *, pages: bool = False) -> pa.Table:
    """One row group, verified by its pages' checksums if there are no others; threads may read different ones at once."""
    pages = pages or FOOTER_KEY not in (file.metadata.metadata or {})
    name = "of_pages" if pages else "of_values"
    reader = getattr(file.readers, name, None)
    if reader is None:  # to open one takes as long as to replay two calls
        reader = pq.ParquetFile(
            file.data,
            metadata=file.metadata,
            read_dictionary=["mint"],
            pre_buffer=False,
            page_checksum_verification=pages,
        )
        setattr(file.readers, name, reader)
    return reader.read_row_group(group, columns=columns, use_threads=False)


def _read_tokens(file: StoreFile) -> list[RowGroup]:
    """What the footer of a file that another program wrote does not say."""
    groups = []
    for group in range(file.metadata.num_row_groups):
        column = _read(file, group, ["mint"])["mint"]
        groups.append(RowGroup(*token_runs(_one_chunk(column.unify_dictionaries())), None))
    if repeated(groups):
        raise InputError(f"{file.path}: not sorted by mint; delete the file and ingest its candles again")
    return groups


def content_of(file: StoreFile | None) -> str:
    """Return what changes when the file's content does: its footer's word where checksums hold it to that, else of the bytes read."""
    if file is None:
        return ""
    if file.is_described:
        return str(file.metadata.metadata[HASH_KEY].decode(errors="replace"))
    with readable(file.path):
        file.data.seek(0)
        return hashlib.file_digest(file.data, "sha256").hexdigest()


def _spans(file: StoreFile, code: Mapping[str, int]) -> list[_Spans]:
    """The row groups that hold at least one of the mints of `code`, and where."""
    spans = []
    for number, group in enumerate(file.groups):
        at = [i for i, mint in enumerate(group.mints) if mint in code]
        if at:
            tokens = np.array([code[group.mints[i]] for i in at], dtype=np.int64)
            spans.append(_Spans(number, tokens, group.offsets[at], group.offsets[1:][at]))
    return spans


def _load_group(file: StoreFile, spans: _Spans, following: _Tails, watch: Watch | None) -> Iterator[Piece]:
    piece = _decode(file, spans)
    if watch is not None:
        watch(_with_volumes(file, spans.group, piece.arrays()))
    tails = following.pieces()
    if not tails:
        yield piece
        return
    going_on = np.array([token in tails for token in piece.tokens.tolist()])
    yield piece._replace(**{name: getattr(piece, name)[~going_on] for name in ("tokens", "lo", "hi")})
    for i in np.flatnonzero(going_on).tolist():
        yield piece.of_token(i).followed_by(tails[int(piece.tokens[i])])


def _show_group(file: StoreFile, group: int, watch: Watch) -> Iterator[Piece]:
    """Decode a row group without a token that is wanted."""
    watch(_whole_group(file, group))
    return iter(())


def _whole_group(file: StoreFile, group: int) -> Group:
    return _with_volumes(file, group, _decode_group(file, group))


def _with_volumes(file: StoreFile, group: int, arrays: Sequence[npt.NDArray[Any]]) -> Group:
    """Add the volumes. No checksum of the footer covers them, so that those of their pages are verified."""
    mints, offsets, known = file.groups[group]
    ts, opened, high, low, close = arrays
    if "volume" not in file.metadata.schema.names:  # another program may leave it out
        return Group(mints, offsets, ts, opened, high, low, close, np.full(len(ts), np.nan))
    with readable(file.path):
        volume = _read(file, group, ["volume"], pages=True)["volume"].cast(pa.float64())
    volumes = _one_chunk(volume).to_numpy(zero_copy_only=False)
    if known is None:  # another program may write what an ingest refuses
        volumes = np.where(np.isfinite(volumes) & (volumes >= 0), volumes, np.nan)
    return Group(mints, offsets, ts, opened, high, low, close, volumes)


def _decode(file: StoreFile, spans: _Spans) -> Piece:
    group, tokens, lo, hi = spans
    return Piece(tokens, lo, hi, *_decode_group(file, group))


def _decode_group(file: StoreFile, group: int) -> list[npt.NDArray[Any]]:
    expected = file.groups[group].checksums
    with readable(file.path):
        table = _read(file, group, COLUMNS)
        arrays = [_one_chunk(table[name]).to_numpy(zero_copy_only=True) for name in COLUMNS]
        if expected is not None and checksums(arrays) != expected:
            raise ValueError(f"checksum of row group {group} differs")
        if expected is None and not _sound(file.groups[group].offsets, *arrays):
            raise ValueError(f"row group {group} has invalid candles, or a token's times do not ascend")
    return arrays


def _sound(offsets: npt.NDArray[np.int64], ts: npt.NDArray[np.int64], *prices: npt.NDArray[np.float64]) -> bool:
    """Whether all candles are valid and the times of each token ascend: an ingest sees to it, another program may not."""
    opened, high, low, closed = prices
    descents = np.flatnonzero(ts[1:] <= ts[:-1]) + 1
    ordered = np.all((low <= np.minimum(opened, closed)) & (high >= np.maximum(opened, closed)))
    positive = np.all((low > 0) & np.isfinite(high))  # no comparison holds for NaN
    return bool(np.all(np.isin(descents, offsets)) and ordered and positive)


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """The column as one array; `combine_chunks` would copy the only chunk that there usually is."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _read_tails(file: StoreFile, found: Sequence[_Spans], until: npt.NDArray[np.int64]) -> Iterator[tuple[int, Piece]]:
    """The first rows of the tokens of a later month, up to each one's time; only row groups that hold one are decoded."""
    for spans in found:
        piece = _decode(file, spans)
        for i, token in enumerate(piece.tokens.tolist()):
            rows = int(np.searchsorted(piece.ts[piece.lo[i] : piece.hi[i]], until[token]))
            if rows:
                part = piece.of_token(i, rows)
                # A copy lets go of the decoded row group.
                yield token, Piece(*part[:3], *(array.copy() for array in part.arrays()))
