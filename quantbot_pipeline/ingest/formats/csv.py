"""CSV files: comma, semicolon, tab or bar; the header is found by `csv_header`."""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.csv

from quantbot_pipeline.ingest.formats.common import Column, Matched, insert, match_columns, stream
from quantbot_pipeline.ingest.formats.csv_header import read_header
from quantbot_pipeline.ingest.limits import MAX_ROW_BYTES, row_too_long


def load_csv(con: duckdb.DuckDBPyConnection, path: Path, columns: Sequence[Column], table: str | None) -> Matched:
    header = read_header(path, columns)
    matched = match_columns(path, header.names, columns)
    if header.note:
        matched.remarks.notes.append(header.note)
    matched.remarks.by_place = header.given
    if header.is_all:  # the reader wants at least one line break
        empty = pa.schema([(name, pa.string()) for name in matched]).empty_table()
        insert(con, path, empty, matched)
        return matched
    try:
        reader = pyarrow.csv.open_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(
                block_size=MAX_ROW_BYTES,
                skip_rows=header.skip,
                column_names=header.names if header.given else None,
            ),
            parse_options=pyarrow.csv.ParseOptions(delimiter=header.delimiter, newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=list(matched.values()),
                column_types={source: pa.string() for source in matched.values()},
                strings_can_be_null=False,
            ),
        )
        insert(con, path, stream(path, reader.schema, reader, matched), matched)
    except (pa.ArrowException, duckdb.Error) as e:
        raise row_too_long(path, e, "straddling", "is a quote left open?") from None
    return matched
