"""Feather files (Arrow IPC) from anybody: what a file says about its sizes is read and judged before Arrow believes it.

Arrow allocates what a file declares: a compressed buffer of a few bytes may say that it holds a terabyte, a dictionary may be
repeated without end. So the footer and the head of every batch are read here first; they are flatbuffers, of which the
format (apache/arrow, `format/*.fbs`) numbers the fields. Does not belong here: columns and their names; see `readers`.
"""

import struct
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.limits import too_much_text

MAGIC = b"ARROW1"
MAX_METADATA = 4 << 20  # of the footer, and of the head of a batch: 10,000 columns need less than 1 MiB
MAX_DECODED = 128 << 20  # of a batch with all dictionaries; pandas, R and Arrow write batches of 65,536 rows: a few MiB
PIECE_ROWS, PIECE_BYTES = 65_536, 16 << 20  # what is handed on at once
REWRITE = "write it anew in batches of 65,536 rows"


class Declared(NamedTuple):
    """What a file says about itself: its rows, and the largest body of a batch as it lies in the file, in bytes."""

    rows: int
    largest: int


def declared(path: Path) -> Declared:
    """The sizes in the footer and in the head of every batch. Raises InputError for those that no table needs."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            footer = _footer(path, file, size)
            _require_small_schema(path, footer)
            dictionaries, batches = footer.blocks(2), footer.blocks(3)
            if sum(block.metadata + block.body for block in dictionaries + batches) > size:
                raise pa.ArrowInvalid("its batches are longer than the file")
            kept = sum(max(block.body, _decoded(path, file, block).bytes) for block in dictionaries)
            heads = [_decoded(path, file, block) for block in batches] if kept <= MAX_DECODED else []
    except (struct.error, OverflowError):
        raise pa.ArrowInvalid("its metadata is damaged") from None
    if (needed := kept + max((head.bytes for head in heads), default=0)) > MAX_DECODED:
        raise InputError(
            f"{path}: a batch of it needs {needed >> 20:,} MiB, more than {MAX_DECODED >> 20} MiB; is it damaged? If not, {REWRITE}"
        )
    return Declared(sum(head.rows for head in heads), max((block.body for block in batches), default=0))


def read_schema(path: Path) -> pa.Schema:
    """The columns of a file that `declared` has let pass."""
    with pa.OSFile(str(path)) as source:
        return pa.ipc.open_file(source).schema


def read_batches(path: Path, names: Sequence[str], largest: int, max_text: int) -> Iterator[pa.RecordBatch]:
    """The columns `names` of a file that `declared` has let pass, checked, in pieces of bounded size.

    `largest` is what `declared` said; `max_text` limits the bytes of text that dictionaries and views spell out in all. Raises
    InputError beyond it, ArrowInvalid for values that contradict their buffers.
    """
    # A large batch can only be an uncompressed one: mapped, it needs no memory of ours.
    with pa.OSFile(str(path)) if largest <= MAX_DECODED else pa.memory_map(str(path)) as source:
        schema = pa.ipc.open_file(source).schema
        options = pa.ipc.IpcReadOptions(included_fields=[schema.get_field_index(name) for name in names])
        reader = pa.ipc.open_file(source, options=options)
        spelled = 0
        for i in range(reader.num_record_batches):
            batch = reader.get_batch(i)
            batch.validate(full=True)
            for start in range(0, batch.num_rows, PIECE_ROWS):
                piece = batch.slice(start, PIECE_ROWS)
                spelled += _text_bytes(piece)
                if spelled > max_text:
                    raise too_much_text(path, max_text)
                yield from _pieces(piece)


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    half = batch.num_rows // 2
    if not half or _text_bytes(batch) <= PIECE_BYTES:
        yield batch
        return
    yield from _pieces(batch.slice(0, half))
    yield from _pieces(batch.slice(half))


def _text_bytes(batch: pa.RecordBatch) -> int:
    """The bytes of text that columns spell out which may name the same bytes many times."""
    total = 0
    for column in batch.columns:
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if pa.types.is_dictionary(column.type) and (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            total += pc.sum(pc.binary_length(column.dictionary).take(column.indices)).as_py() or 0
        elif kind == pa.string_view():  # the length is the first of the four numbers of a view
            lengths = np.frombuffer(column.buffers()[1], np.int32)[4 * column.offset :: 4][: len(column)]
            total += int(lengths.sum(where=column.is_valid().to_numpy(zero_copy_only=False), dtype=np.int64))
    return total


class _Block(NamedTuple):
    """Where a batch lies in the file: its head (metadata), then its body."""

    offset: int
    metadata: int
    body: int


class _Table:
    """A table of a flatbuffer. What is wrong with its offsets is a struct.error: they may point outside, never elsewhere."""

    def __init__(self, buffer: bytes, at: int) -> None:
        self._buffer, self._at = buffer, at

    @classmethod
    def root(cls, buffer: bytes) -> "_Table":
        return cls(buffer, _unpack("<I", buffer, 0)[0])

    def _place(self, field: int) -> int:
        """Where a field's value is; 0 if the table does not have it."""
        vtable = self._at - _unpack("<i", self._buffer, self._at)[0]
        offset = 4 + 2 * field
        if offset + 2 > _unpack("<H", self._buffer, vtable)[0]:
            return 0
        found: int = _unpack("<H", self._buffer, vtable + offset)[0]
        return found and self._at + found

    def number(self, field: int, fmt: str) -> int:
        place = self._place(field)
        value: int = _unpack("<" + fmt, self._buffer, place)[0] if place else 0
        return value

    def _indirect(self, place: int) -> int:
        target: int = place + _unpack("<I", self._buffer, place)[0]
        return target

    def table(self, field: int) -> "_Table | None":
        place = self._place(field)
        return _Table(self._buffer, self._indirect(place)) if place else None

    def _vector(self, field: int) -> tuple[int, int]:
        """(where the elements of a vector begin, how many there are)."""
        place = self._place(field)
        if not place:
            return 0, 0
        start = self._indirect(place)
        return start + 4, _unpack("<I", self._buffer, start)[0]

    def length(self, field: int) -> int:
        """The elements of a vector; the bytes of a text."""
        return self._vector(field)[1]

    def tables(self, field: int) -> "Iterator[_Table]":
        start, count = self._vector(field)
        for i in range(count):
            yield _Table(self._buffer, self._indirect(start + 4 * i))

    def structs(self, field: int, fmt: str) -> list[tuple[int, ...]]:
        start, count = self._vector(field)
        end = start + count * struct.calcsize(fmt)
        if end > len(self._buffer):
            raise struct.error
        return list(struct.iter_unpack(fmt, self._buffer[start:end]))

    def blocks(self, field: int) -> list[_Block]:
        found = [_Block(*block) for block in self.structs(field, "<qi4xq")]
        if any(min(block) < 0 for block in found):
            raise struct.error
        return found


def _unpack(fmt: str, buffer: bytes, at: int) -> tuple[int, ...]:
    if at < 0:  # Python would count from the end
        raise struct.error
    return struct.unpack_from(fmt, buffer, at)


def _footer(path: Path, file: BinaryIO, size: int) -> _Table:
    start = file.read(len(MAGIC))
    if start.startswith(b"FEA1"):
        raise InputError(f"{path}: a Feather file of version 1, which is not read any more; write it as version 2")
    if start != MAGIC:
        raise pa.ArrowInvalid("not an Arrow file")
    file.seek(max(0, size - len(MAGIC) - 4))
    length, end = struct.unpack("<i6s", file.read(4 + len(MAGIC)))
    if end != MAGIC or not 0 < length <= size:
        raise pa.ArrowInvalid("it is cut off: no footer at its end")
    return _Table.root(_metadata(path, file, size - len(MAGIC) - 4 - length, length))


def _metadata(path: Path, file: BinaryIO, offset: int, length: int) -> bytes:
    if length > MAX_METADATA:
        raise InputError(f"{path}: metadata of {length >> 20} MiB; is this a table of candles?")
    file.seek(offset)
    return file.read(length)


def _require_small_schema(path: Path, footer: _Table) -> None:
    """Refuse a schema that is larger than its bytes, since parts of it are named many times."""
    schema = footer.table(1)
    if any(size > MAX_METADATA for size in accumulate(_schema_parts(schema) if schema else ())):
        raise InputError(f"{path}: metadata of more than {MAX_METADATA >> 20} MiB; is this a table of candles?")


def _schema_parts(schema: _Table) -> Iterator[int]:
    """About the bytes of each part of a schema: its fields with their names and children, and the notes on all of them."""
    left = [schema]
    while left:
        table = left.pop()
        children, name, notes = (1, 0, 2) if table is schema else (5, table.length(0), 6)
        yield 64 + name
        for note in table.tables(notes):
            yield 16 + note.length(0) + note.length(1)
        for child in table.tables(children):
            yield 8
            left.append(child)


class _Head(NamedTuple):
    """What the head of a batch says: its rows, and the bytes that it needs when it is decoded."""

    rows: int
    bytes: int


def _decoded(path: Path, file: BinaryIO, block: _Block) -> _Head:
    head = _metadata(path, file, block.offset, block.metadata)
    # A mark of 0xFFFFFFFF, which old writers leave out, and the length of what follows.
    prefix = 8 if head[:4] == b"\xff" * 4 else 4
    message = _Table.root(head[prefix:])
    kind, batch = message.number(1, "B"), message.table(2)
    if kind == 2 and batch is not None:  # a dictionary: a batch within
        batch = batch.table(1)
    elif kind != 3:
        raise struct.error
    if batch is None or b"ARROW:experimental_compression" in head:
        raise struct.error
    rows, buffers = batch.number(0, "q"), batch.structs(2, "<qq")
    if rows < 0 or message.number(3, "q") > block.body or any(min(buffer) < 0 for buffer in buffers):
        raise struct.error
    if batch.table(3) is None:
        return _Head(rows, 0 if block.body > MAX_DECODED else sum(length for _, length in buffers))
    needed = 0
    for offset, length in buffers:
        if length:
            file.seek(block.offset + block.metadata + offset)
            (claimed,) = struct.unpack("<q", file.read(8))
            if claimed < -1:
                raise struct.error
            needed += length if claimed == -1 else claimed
    return _Head(rows, needed)
