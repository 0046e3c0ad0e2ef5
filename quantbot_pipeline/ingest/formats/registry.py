"""The list of input formats, and the one way to read a file of any of them.

A new format is a file in this folder and a line here.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from quantbot_pipeline.duck import first_line
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.files import SUFFIXES, known_suffix
from quantbot_pipeline.ingest.formats.common import Column, Found, Incoming, Matched, refuse_long_values
from quantbot_pipeline.ingest.formats.csv import load_csv
from quantbot_pipeline.ingest.formats.duckdb import load_duckdb
from quantbot_pipeline.ingest.formats.feather import load_feather
from quantbot_pipeline.ingest.formats.hdf5 import load_hdf5
from quantbot_pipeline.ingest.formats.json import load_json
from quantbot_pipeline.ingest.formats.jsonl import load_jsonl
from quantbot_pipeline.ingest.formats.parquet import load_parquet
from quantbot_pipeline.ingest.limits import is_of_one_piece


def format_of(path: Path, fmt: str, formats: Sequence[str] = tuple(dict.fromkeys(SUFFIXES.values()))) -> str:
    """The format to read `path` with: `fmt`, or by its suffix when `fmt` is `auto`; one of `formats`."""
    known = known_suffix(path.name) if fmt == "auto" else fmt
    if known not in formats:
        raise InputError(f"{path}: unknown file type {path.suffix!r}; say what it is with --format {'|'.join(formats)}")
    return known


def load(
    con: duckdb.DuckDBPyConnection, path: Path, fmt: str, columns: Sequence[Column], table: str | None = None
) -> Incoming:
    """Read `path` into the temporary table `incoming` of `con`; returns the columns found, by canonical name.

    `incoming` holds `row_no` (int64, from 1, in file order) and those of `columns` that the file has. Raises InputError
    naming the file when it is empty, unreadable, or lacks a required column.
    """
    con.execute("DROP TABLE IF EXISTS incoming")
    try:
        matched = _LOADERS[fmt](con, path, columns, table)
    except duckdb.OutOfMemoryException as e:
        if is_of_one_piece(e):
            raise InputError(
                f"{path}: one value or page of it needs more memory than the ingest may use ({first_line(e)}); "
                "check the file, or raise QUANTBOT_MEMORY_LIMIT"
            ) from None
        raise  # not the file's fault
    except (pa.ArrowException, duckdb.Error, UnicodeDecodeError, csv.Error, OSError) as e:
        raise InputError(f"{path}: not readable as {fmt}: {first_line(e)}") from None
    described = con.execute("DESCRIBE incoming").fetchall()
    found = Incoming((name, Found(matched[name], dtype)) for name, dtype, *_ in described if name in matched)
    if isinstance(matched, Matched):
        found.remarks = matched.remarks
    refuse_long_values(con, path, found)
    return found


_LOADERS = {
    "parquet": load_parquet,
    "feather": load_feather,
    "csv": load_csv,
    "jsonl": load_jsonl,
    "json": load_json,
    "duckdb": load_duckdb,
    "hdf5": load_hdf5,
}
