"""Feather files (Arrow IPC): streamed, after their metadata was judged by `arrow_ipc`."""

from collections.abc import Sequence
from pathlib import Path

import duckdb

from quantbot_pipeline.ingest.formats import arrow_ipc
from quantbot_pipeline.ingest.formats.common import Column, insert_batches, match_columns
from quantbot_pipeline.ingest.limits import max_text, refuse_dense


def load_feather(
    con: duckdb.DuckDBPyConnection, path: Path, columns: Sequence[Column], table: str | None
) -> dict[str, str]:
    said = arrow_ipc.declared(path)
    refuse_dense(path, said.rows)
    schema = arrow_ipc.read_schema(path)
    matched = match_columns(path, schema.names, columns)
    batches = arrow_ipc.read_batches(path, list(matched.values()), said.largest, max_text(path))
    insert_batches(con, path, schema, batches, matched)
    return matched
