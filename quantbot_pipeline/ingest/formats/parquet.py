"""Parquet files: read by DuckDB, after their footer was judged."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from quantbot_pipeline.duck import escape_glob, quoted
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest import limits
from quantbot_pipeline.ingest.formats.common import Column, match_columns, plain_type
from quantbot_pipeline.ingest.limits import MAX_ROW_BYTES, max_text, refuse_dense


def load_parquet(
    con: duckdb.DuckDBPyConnection, path: Path, columns: Sequence[Column], table: str | None
) -> dict[str, str]:
    """DuckDB reads it: it checks every size that the file declares against its memory before it believes it."""
    footer = pq.read_metadata(path)
    schema = footer.schema.to_arrow_schema()
    matched = match_columns(path, schema.names, columns, schema)
    types = {name: plain_type(path, schema.field(name), canonical) for canonical, name in matched.items()}
    for chunk in _chunks(footer, set(matched.values())):
        if chunk.total_uncompressed_size > MAX_ROW_BYTES * max(1, chunk.num_values):
            raise InputError(f"{path}: column {chunk.path_in_schema} holds values of many MiB; is it what it seems?")
    refuse_dense(path, footer.num_rows)
    source = "read_parquet(?, file_row_number = true, hive_partitioning = false)"
    # A dictionary may spell out the same long text in every row: added up first, nothing is copied.
    for name in (n for n, kind in types.items() if kind in (pa.string(), pa.large_string(), pa.string_view())):
        total = f"SELECT coalesce(sum(strlen({quoted(name)})), 0) FROM {source}"
        ((spelled,),) = con.execute(total, [escape_glob(str(path))]).fetchall()
        if spelled > max_text(path):
            raise limits.too_much_text(path, max_text(path))
    values = ", ".join(f"{quoted(name)} AS {canonical}" for canonical, name in matched.items())
    con.execute(
        f"CREATE TEMP TABLE incoming AS SELECT file_row_number + 1 AS row_no, {values} FROM {source}",
        [escape_glob(str(path))],
    )
    return matched


def _chunks(footer: pq.FileMetaData, names: set[str]) -> Iterator[pq.ColumnChunkMetaData]:
    """What a Parquet footer says about the chunks of some columns."""
    wanted = [i for i in range(footer.num_columns) if footer.schema.column(i).path in names]
    for group in range(footer.num_row_groups):
        yield from (footer.row_group(group).column(i) for i in wanted)
