"""The answer of a query on its way out: the first rows for a terminal; JSON, CSV and Parquet as a stream, to a pipe or a file.

Belongs here: what becomes of rows in each format. How a cell is spelled is in `render`; what may be asked in `catalog.query`.
"""

from collections.abc import Iterable, Iterator
from typing import IO, Any, Literal

import pyarrow as pa

from quantbot_pipeline.cli.tables import csv_pieces, json_pieces
from quantbot_pipeline.errors import InputError

Batches = Iterable[pa.RecordBatch]


class Limited:
    """The first `limit` rows of some batches; `more` tells, once they are read, whether there were others, and `given` how many."""

    def __init__(self, batches: Batches, limit: int | None) -> None:
        self.more = False
        self.given = 0
        self._batches = batches
        self._limit = limit

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        left = self._limit
        for batch in self._batches:
            if left is not None and batch.num_rows > left:
                self.more = True
                self.given += left
                yield batch.slice(0, left)
                return
            left = None if left is None else left - batch.num_rows
            self.given += batch.num_rows
            yield batch


def rows_of(batches: Batches) -> Iterator[list[dict[str, Any]]]:
    """Batch after batch as row dicts."""
    for batch in batches:
        columns = [
            # Python's datetime ends at microseconds: nanoseconds stay exact as text.
            column.cast(pa.string()) if column.type == pa.timestamp("ns") else column
            for column in batch.columns
        ]
        yield [
            dict(zip(batch.schema.names, row, strict=True))
            for row in zip(*map(_values, columns, batch.schema.names), strict=True)
        ]


def _values(column: pa.Array, name: str) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except (OverflowError, ValueError):  # infinity, a year before Christ, nanoseconds in a list
        raise InputError(
            f"column {name!r}: a date or time that JSON, CSV and tables cannot show; cast it to text: {name}::VARCHAR"
        ) from None
    return values


def write_text(batches: Batches, columns: list[str], fmt: Literal["json", "csv"], out: IO[str]) -> None:
    """Write rows as JSON or CSV; formula-like cells of a CSV are guarded, JSON keeps every value."""
    rows = rows_of(batches)
    for piece in json_pieces(rows) if fmt == "json" else csv_pieces(rows, columns):
        out.write(piece)


def write_parquet(batches: Batches, schema: pa.Schema, out: IO[bytes]) -> None:
    """Write rows as one Parquet file. Raises InputError for a column whose type Parquet lacks."""
    import pyarrow.parquet as pq

    try:
        writer = pq.ParquetWriter(out, schema, compression="zstd")
    except pa.ArrowNotImplementedError as e:
        raise InputError(f"Parquet cannot hold a column ({e}); cast it, or take another format") from None
    with writer:
        for batch in batches:
            writer.write_batch(batch)
