"""The hash of a table's content: equal values, equal hash, whatever the encoding and the pieces in which the rows came."""

import hashlib
from collections.abc import Iterable, Iterator

import pyarrow as pa

# What is hashed, encoded and written at a time, as one row group. A constant: were it to follow the memory limit, so would the
# bytes of a run. Less than this is one row group, as most artifacts are.
SLICE_ROWS = 1 << 18


class ContentHash:
    """SHA-256 of values and column names as an uncompressed Arrow stream of `SLICE_ROWS` rows a batch: no run id, no encoding,
    no time, and no trace of the pieces in which the rows came.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._stream: pa.RecordBatchStreamWriter | None = None
        self._pending: list[pa.Table] = []
        self._waiting = 0

    def add(self, table: pa.Table) -> Iterator[pa.Table]:
        """Take the next rows; yields the slices that are full, hashed."""
        self._pending.append(table)
        self._waiting += table.num_rows
        del table  # what is written is a copy: while it is encoded, nothing of its pieces should be held
        while self._waiting > SLICE_ROWS:
            yield self._hashed(self._take(SLICE_ROWS))

    def rest(self) -> Iterator[pa.Table]:
        """The last slice, hashed; it is empty only if there was no row at all."""
        if self._pending:
            yield self._hashed(self._take(self._waiting))

    def _take(self, rows: int) -> pa.Table:
        waiting = pa.concat_tables(self._pending)
        self._waiting -= rows
        self._pending = [waiting.slice(rows)] if self._waiting else []
        table = waiting.slice(0, rows)
        columns = [_own(c) if rows else c for c in table.columns]
        return pa.table(columns, schema=table.schema)

    def hexdigest(self) -> str:
        """The hash, after the last row."""
        if self._stream is not None:
            self._stream.close()
        return self._digest.hexdigest()

    def _hashed(self, rows: pa.Table) -> pa.Table:
        schema = pa.schema([pa.field(f.name, f.type) for f in rows.schema])
        rows = rows.cast(schema)
        if self._stream is None:
            self._stream = pa.ipc.new_stream(pa.PythonFile(_DigestSink(self._digest), mode="w"), schema)
        for batch in rows.to_batches():
            self._stream.write_batch(batch)
        return rows


def _own(column: pa.ChunkedArray) -> pa.Array:
    """The column as one array that is not part of another: a stream fills up the last bytes of a part with what follows it."""
    whole = column.num_chunks == 1 and column.nbytes == column.get_total_buffer_size()
    # Eight booleans share a byte, so that the sizes tell nothing of them.
    if whole and not pa.types.is_boolean(column.type):
        return column.chunk(0)
    return pa.concat_arrays(column.chunks)


def content_sha256(tables: pa.Table | Iterable[pa.Table]) -> str:
    """The hash of a table's content, or of that of its pieces; see `ContentHash`."""
    content = ContentHash()
    for table in [tables] if isinstance(tables, pa.Table) else tables:
        for _ in content.add(table):
            pass
    for _ in content.rest():
        pass
    return content.hexdigest()


class _DigestSink:
    """A file that only feeds a digest."""

    closed = False

    def __init__(self, digest: "hashlib._Hash") -> None:
        self._digest = digest

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        self.closed = True
