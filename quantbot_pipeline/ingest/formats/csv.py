"""CSV files: one header line, comma, semicolon or tab."""

import csv
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.csv

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.formats.common import Column, insert, match_columns, stream
from quantbot_pipeline.ingest.limits import HEADER_LIMIT, MAX_ROW_BYTES, row_too_long


def load_csv(
    con: duckdb.DuckDBPyConnection, path: Path, columns: Sequence[Column], table: str | None
) -> dict[str, str]:
    names, delimiter, is_all = _csv_header(path)
    matched = match_columns(path, names, columns)
    if is_all:  # the reader wants at least one line break
        empty = pa.schema([(name, pa.string()) for name in matched]).empty_table()
        insert(con, path, empty, matched)
        return matched
    try:
        reader = pyarrow.csv.open_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(block_size=MAX_ROW_BYTES),
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
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


def _csv_header(path: Path) -> tuple[list[str], str, bool]:
    """(column names, delimiter, whether nothing follows); empty lines before the header do not count."""
    with path.open("rb") as f:
        first = f.readline(HEADER_LIMIT)
        while first in (b"\n", b"\r\n"):
            first = f.readline(HEADER_LIMIT)
        is_all = not f.peek(1)
    if not first.strip():
        raise InputError(f"{path}: the file is empty; expected a header line")
    if len(first) == HEADER_LIMIT:
        raise InputError(f"{path}: the first line is longer than 1 MiB; is this a CSV file?")
    header = first.decode("utf-8-sig")
    delimiter = max(",;\t", key=header.count)
    return next(csv.reader([header], delimiter=delimiter)), delimiter, is_all
