"""Feather files (Arrow IPC): streamed, after their metadata was judged by `arrow_ipc`."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.formats import arrow_ipc
from quantbot_pipeline.ingest.formats.common import Column, insert, match_columns, stream
from quantbot_pipeline.ingest.limits import max_text, refuse_dense


def load_feather(
    con: duckdb.DuckDBPyConnection, path: Path, columns: Sequence[Column], table: str | None
) -> dict[str, str]:
    said = arrow_ipc.declared(path)
    refuse_dense(path, said.rows)
    schema = arrow_ipc.read_schema(path)
    matched = match_columns(path, schema.names, columns)
    batches = arrow_ipc.read_batches(path, list(matched.values()), said.largest, max_text(path))
    refusals: list[Exception] = []

    def noting() -> Iterator[pa.RecordBatch]:  # DuckDB makes its own error of whatever a stream raises
        try:
            yield from batches
        except (InputError, pa.ArrowException) as e:
            refusals.append(e)
            raise

    try:
        insert(con, path, stream(path, schema, noting(), matched), matched)
    except duckdb.Error as e:
        raise (refusals or [e])[0] from None
    return matched
