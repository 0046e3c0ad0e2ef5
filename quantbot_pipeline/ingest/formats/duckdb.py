"""DuckDB files of other programs: one table, read in a locked room."""

from collections.abc import Sequence
from pathlib import Path

import duckdb

from quantbot_pipeline.duck import UNTRUSTED, open_untrusted, quoted, untrusted_tables
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.formats.common import Column, insert, match_columns, stream


def load_duckdb(
    con: duckdb.DuckDBPyConnection, path: Path, columns: Sequence[Column], table: str | None
) -> dict[str, str]:
    with open_untrusted(path) as source:
        names = untrusted_tables(source)
        name = table or "alerts"
        if name not in names:
            raise InputError(
                f"{path}: no table {name!r} (tables: {', '.join(names) or 'none'}); choose one with --table"
            )
        reader = source.sql(f"SELECT * FROM {UNTRUSTED}.{quoted(name)}").to_arrow_reader(131_072)
        matched = match_columns(path, reader.schema.names, columns, reader.schema)
        insert(con, path, stream(path, reader.schema, reader, matched), matched)
        return matched
