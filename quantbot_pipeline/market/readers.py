"""Readers: any supported file becomes the DuckDB table `incoming` with canonical column names and a row number.

Belongs here: what a format looks like (columns, encodings, time units). Does not: what a valid call or candle is.
Values keep their native type; text formats deliver text, which the stores parse, so that one bad cell costs one row
and not the file. Strings of a file reach SQL only as data: column names are matched against the constants below.
"""

import codecs
import contextlib
import csv
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from quantbot_pipeline.durable import scratch_folder
from quantbot_pipeline.errors import InputError, StoreError, counted
from quantbot_pipeline.market import feather
from quantbot_pipeline.sql import escape_glob, quoted

SUFFIXES = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".feather": "feather",
    ".arrow": "feather",
    ".duckdb": "duckdb",
}
# Limits that keep a file that is no table from being swallowed whole: they are far beyond any table of calls or candles.
MAX_ROW_BYTES = 8 << 20  # one row of a text format; an unclosed quote makes the rest of the file one row
HEADER_LIMIT = 1 << 20
MAX_COLUMNS = 10_000
# A binary file of a few bytes can say that it holds a billion rows, all alike.
MAX_DENSITY, DENSE_ROWS = 32, 10_000_000  # rows per byte, of files with more rows than that
DENSE_TEXT = 64 << 20  # bytes of text that a file may spell out however short it is; beyond, MAX_DENSITY per byte


class Found(NamedTuple):
    """A column as it was found in a file: its name there and the DuckDB type it arrived with."""

    source: str
    type: str


@dataclass(frozen=True)
class Column:
    """A column that a reader looks for: the canonical name, the names it may have in a file, and whether it must exist.

    With `in_folder` a folder `name=value` may stand in for it; see `hive_value`.
    """

    name: str
    aliases: tuple[str, ...] = ()
    required: bool = True
    in_folder: bool = False

    @property
    def accepted(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)


@contextlib.contextmanager
def workspace(**config: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A private in-memory DuckDB in which times without a zone are UTC, whatever the machine's zone.

    What it cannot do within its memory and disk is a StoreError; DuckDB reports it in three ways.
    """
    try:
        with duckdb.connect(config=dict(config)) as con:
            con.execute("SET TimeZone = 'UTC'")
            yield con
    except (duckdb.Error, pa.ArrowException, OSError) as e:
        if isinstance(e, OSError) and e.errno is not None:
            raise  # the file system's own words
        raise StoreError(
            f"the ingest stopped: {_first_line(e)}; give it more memory (QUANTBOT_MEMORY_LIMIT) or free disk space"
        ) from e


def expand_paths(paths: Sequence[Path], formats: Iterable[str]) -> list[Path]:
    """All input files under `paths`, in byte order of their path; the order decides which duplicate wins.

    Raises InputError for a path that does not exist, cannot be read, or a folder without a known file.
    """
    wanted = {suffix for suffix, fmt in SUFFIXES.items() if fmt in set(formats)}
    found: set[Path] = set()
    for path in paths:
        if path.is_dir():
            inside = [p for p in _walk(path) if p.suffix.lower() in wanted]
            if not inside:
                raise InputError(f"{path}: no file ending in {', '.join(sorted(wanted))} in this folder")
            found.update(inside)
        elif path.exists():
            found.add(path)
        else:
            raise InputError(f"{path}: no such file or folder")
    for path in found:
        if not os.access(path, os.R_OK):
            raise InputError(f"{path}: no permission to read; check its owner and mode")
    return sorted(found, key=lambda p: os.fsencode(p))


def _walk(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: {error.strerror}; check its owner and mode")

    for parent, _, names in os.walk(folder, onerror=refuse):
        yield from (Path(parent, name) for name in names if not name.startswith((".", "_")))


def format_of(path: Path, fmt: str, formats: Sequence[str] = tuple(dict.fromkeys(SUFFIXES.values()))) -> str:
    """The format to read `path` with: `fmt`, or by its suffix when `fmt` is `auto`; one of `formats`."""
    known = SUFFIXES.get(path.suffix.lower(), "") if fmt == "auto" else fmt
    if known not in formats:
        raise InputError(f"{path}: unknown file type {path.suffix!r}; say what it is with --format {'|'.join(formats)}")
    return known


def load(
    con: duckdb.DuckDBPyConnection, path: Path, fmt: str, columns: Sequence[Column], table: str | None = None
) -> dict[str, Found]:
    """Read `path` into the temporary table `incoming` of `con`; returns the columns found, by canonical name.

    `incoming` holds `row_no` (int64, from 1, in file order) and those of `columns` that the file has. Raises InputError
    naming the file when it is empty, unreadable, or lacks a required column.
    """
    con.execute("DROP TABLE IF EXISTS incoming")
    try:
        matched = _LOADERS[fmt](con, path, columns, table)
    except duckdb.OutOfMemoryException as e:
        if _is_of_one_piece(e):
            raise InputError(
                f"{path}: one value or page of it needs more memory than the ingest may use ({_first_line(e)}); "
                "check the file, or raise QUANTBOT_MEMORY_LIMIT"
            ) from None
        raise  # not the file's fault
    except (pa.ArrowException, duckdb.Error, UnicodeDecodeError, csv.Error, OSError) as e:
        raise InputError(f"{path}: not readable as {fmt}: {_first_line(e)}") from None
    described = con.execute("DESCRIBE incoming").fetchall()
    found = {name: Found(matched[name], dtype) for name, dtype, *_ in described if name in matched}
    _refuse_long_values(con, path, found)
    return found


UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def _is_of_one_piece(error: duckdb.OutOfMemoryException) -> bool:
    """Whether a single allocation wanted most of all the memory there is: the fault of the file, and not of its length."""
    said = re.search(r"of size ([\d.]+) (\w+) \([\d.]+ \w+/([\d.]+) (\w+) used", str(error))
    if said is None or not {said[2], said[4]} <= UNITS.keys():
        return False
    return float(said[1]) * UNITS[said[2]] > float(said[3]) * UNITS[said[4]] / 2


def _refuse_long_values(con: duckdb.DuckDBPyConnection, path: Path, found: dict[str, Found]) -> None:
    """Refuse text of a size that no name has, before anything copies it."""
    text = [name for name, column in found.items() if column.type == "VARCHAR"]
    if text:
        longest = con.execute(f"SELECT {', '.join(f'max(strlen({name}))' for name in text)} FROM incoming").fetchall()[
            0
        ]
        for name, size in zip(text, longest, strict=True):
            if (size or 0) > MAX_ROW_BYTES:
                raise InputError(
                    f"{path}: column {found[name].source} holds a value of {size >> 20} MiB; is it what it seems?"
                )


def hive_value(path: Path, key: str) -> str | None:
    """The value of `key=value` in the folders of `path`, decoded; None if there is none."""
    for part in reversed(path.parent.parts):
        if part.startswith(key + "="):
            return unquote(part[len(key) + 1 :])
    return None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _match(path: Path, present: Sequence[str], columns: Sequence[Column]) -> dict[str, str]:
    """{canonical name: name in the file}, case-insensitively; the earliest alias wins."""
    if len(present) > MAX_COLUMNS:
        raise InputError(f"{path}: more than {MAX_COLUMNS:,} columns; is this a table of calls or candles?")
    folded = {}
    for name in present:
        key = name.strip().lower()
        if key in folded:
            raise InputError(f"{path}: column {key!r} appears twice; remove one")
        folded[key] = name
    matched: dict[str, str] = {}
    for column in columns:
        alias = next((a for a in column.accepted if a in folded), None)
        if alias is not None:
            matched[column.name] = folded[alias]
        elif column.required and not (column.in_folder and hive_value(path, column.name)):
            shown = ", ".join(list(folded)[:12]) or "none"
            raise InputError(
                f"{path}: missing column {' or '.join(column.accepted)} (columns found: {shown}); add it or rename one"
            )
    return matched


def _insert(
    con: duckdb.DuckDBPyConnection, path: Path, reader: pa.RecordBatchReader | pa.Table, matched: dict[str, str]
) -> None:
    """Materialize the Arrow stream (already limited to canonical names) with row numbers."""
    con.register("arrow_source", reader)
    try:
        names = ", ".join(matched)
        con.execute(f"CREATE TEMP TABLE incoming AS SELECT row_number() OVER () AS row_no, {names} FROM arrow_source")
    finally:
        con.unregister("arrow_source")


def _plain_type(path: Path, field: pa.Field) -> pa.DataType:
    """The type to hand to DuckDB; refuses what cannot be a scalar value."""
    t = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    scalar = pa.types.is_string(t) or pa.types.is_large_string(t) or t in (pa.string_view(), pa.null(), pa.bool_())
    number = pa.types.is_integer(t) or pa.types.is_floating(t) or pa.types.is_decimal(t)
    if not (scalar or number or pa.types.is_timestamp(t) or pa.types.is_date(t)):
        raise InputError(f"{path}: column {field.name!r} has type {field.type}; expected numbers, text or timestamps")
    return t


def _stream(
    path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch], matched: dict[str, str]
) -> pa.RecordBatchReader:
    fields = [pa.field(name, _plain_type(path, schema.field(source))) for name, source in matched.items()]
    target = pa.schema(fields)

    def renamed() -> Iterator[pa.RecordBatch]:
        for batch in batches:
            arrays = [batch.column(source).cast(target.field(name).type) for name, source in matched.items()]
            yield pa.RecordBatch.from_arrays(arrays, schema=target)

    return pa.RecordBatchReader.from_batches(target, renamed())


def _load_parquet(
    con: duckdb.DuckDBPyConnection, path: Path, columns: Sequence[Column], table: str | None
) -> dict[str, str]:
    """DuckDB reads it: it checks every size that the file declares against its memory before it believes it."""
    footer = pq.read_metadata(path)
    schema = footer.schema.to_arrow_schema()
    matched = _match(path, schema.names, columns)
    types = {name: _plain_type(path, schema.field(name)) for name in matched.values()}
    for chunk in _chunks(footer, set(matched.values())):
        if chunk.total_uncompressed_size > MAX_ROW_BYTES * max(1, chunk.num_values):
            raise InputError(f"{path}: column {chunk.path_in_schema} holds values of many MiB; is it what it seems?")
    _refuse_dense(path, footer.num_rows)
    source = "read_parquet(?, file_row_number = true, hive_partitioning = false)"
    # A dictionary may spell out the same long text in every row: added up first, nothing is copied.
    for name in (n for n, kind in types.items() if kind in (pa.string(), pa.large_string(), pa.string_view())):
        total = f"SELECT coalesce(sum(strlen({quoted(name)})), 0) FROM {source}"
        ((spelled,),) = con.execute(total, [escape_glob(str(path))]).fetchall()
        if spelled > _max_text(path):
            raise feather.too_much_text(path, _max_text(path))
    values = ", ".join(f"{quoted(name)} AS {canonical}" for canonical, name in matched.items())
    con.execute(
        f"CREATE TEMP TABLE incoming AS SELECT file_row_number + 1 AS row_no, {values} FROM {source}",
        [escape_glob(str(path))],
    )
    return matched


def _refuse_dense(path: Path, rows: int) -> None:
    if rows > max(DENSE_ROWS, MAX_DENSITY * path.stat().st_size):
        raise InputError(f"{path}: claims {rows:,} rows in {path.stat().st_size:,} bytes; is it damaged?")


def _max_text(path: Path) -> int:
    """The bytes of text that a binary file may spell out."""
    return max(DENSE_TEXT, MAX_DENSITY * path.stat().st_size)


def _chunks(footer: pq.FileMetaData, names: set[str]) -> Iterator[pq.ColumnChunkMetaData]:
    """What a Parquet footer says about the chunks of some columns."""
    wanted = [i for i in range(footer.num_columns) if footer.schema.column(i).path in names]
    for group in range(footer.num_row_groups):
        yield from (footer.row_group(group).column(i) for i in wanted)


def _load_feather(
    con: duckdb.DuckDBPyConnection, path: Path, columns: Sequence[Column], table: str | None
) -> dict[str, str]:
    said = feather.declared(path)
    _refuse_dense(path, said.rows)
    schema = feather.read_schema(path)
    matched = _match(path, schema.names, columns)
    batches = feather.read_batches(path, list(matched.values()), said.largest, _max_text(path))
    refusals: list[Exception] = []

    def noting() -> Iterator[pa.RecordBatch]:  # DuckDB makes its own error of whatever a stream raises
        try:
            yield from batches
        except (InputError, pa.ArrowException) as e:
            refusals.append(e)
            raise

    try:
        _insert(con, path, _stream(path, schema, noting(), matched), matched)
    except duckdb.Error as e:
        raise (refusals or [e])[0] from None
    return matched


def _load_csv(
    con: duckdb.DuckDBPyConnection, path: Path, columns: Sequence[Column], table: str | None
) -> dict[str, str]:
    names, delimiter, is_all = _csv_header(path)
    matched = _match(path, names, columns)
    if is_all:  # the reader wants at least one line break
        empty = pa.schema([(name, pa.string()) for name in matched]).empty_table()
        _insert(con, path, empty, matched)
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
        _insert(con, path, _stream(path, reader.schema, reader, matched), matched)
    except (pa.ArrowException, duckdb.Error) as e:
        raise _row_too_long(path, e, "straddling", "is a quote left open?") from None
    return matched


def _row_too_long(path: Path, error: Exception, sign: str, question: str) -> Exception:
    """The error in words that help, if it is the library's way of saying that a row is longer than MAX_ROW_BYTES."""
    if sign not in str(error):
        return error
    return InputError(f"{path}: a row is longer than {MAX_ROW_BYTES >> 20} MiB; {question}")


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


def _load_jsonl(
    con: duckdb.DuckDBPyConnection, path: Path, columns: Sequence[Column], table: str | None
) -> dict[str, str]:
    with _without_bom(path) as plain:
        pattern = escape_glob(str(plain))
        try:
            # A column exists if any row has its key, be its value null in every row.
            keys = con.execute(
                "SELECT DISTINCT unnest(json_keys(json)) AS k FROM read_ndjson_objects(?, maximum_object_size = ?) "
                "ORDER BY k LIMIT ?",
                [pattern, MAX_ROW_BYTES, MAX_COLUMNS + 1],
            )
            present = [key for (key,) in keys.fetchall()]
            if not present:
                raise InputError(f"{path}: no JSON object found; expected one per line")
            matched = _match(path, present, columns)
            # Declared as text, numbers and strings arrive alike and a missing key as NULL.
            _refuse_nested(con, path, pattern, matched)
            struct = ", ".join(f"{quoted(source)}: 'VARCHAR'" for source in matched.values())
            chosen = ", ".join(f"{quoted(source)} AS {name}" for name, source in matched.items())
            con.execute(
                f"CREATE TEMP TABLE incoming AS SELECT row_number() OVER () AS row_no, {chosen} FROM "
                f"read_json(?, format = 'newline_delimited', columns = {{{struct}}}, maximum_object_size = ?)",
                [pattern, MAX_ROW_BYTES],
            )
        except duckdb.InvalidInputException as e:
            raise _row_too_long(path, e, "maximum_object_size", "is there one object per line?") from None
        return matched


def _refuse_nested(con: duckdb.DuckDBPyConnection, path: Path, pattern: str, matched: dict[str, str]) -> None:
    """Refuse arrays and objects where a value is expected; their JSON text would pass for one."""
    pointers = [f"/{source}" for source in matched.values()]  # an alias in blanks and capitals: nothing to escape
    found = con.execute(
        """SELECT row_no, types FROM (
               SELECT row_number() OVER () AS row_no, json_type(json, ?::VARCHAR[]) AS types
               FROM read_ndjson_objects(?, maximum_object_size = ?))
           WHERE list_has_any(types, ['ARRAY', 'OBJECT']) ORDER BY row_no LIMIT 1""",
        [pointers, pattern, MAX_ROW_BYTES],
    ).fetchall()
    for row_no, types in found:
        name = next(n for n, kind in zip(matched.values(), types, strict=True) if kind in ("ARRAY", "OBJECT"))
        raise InputError(f"{path}: row {row_no}: {name!r} holds an array or an object; expected a number or text")


@contextlib.contextmanager
def _without_bom(path: Path) -> Iterator[Path]:
    """The file, or a copy without its byte order mark: DuckDB takes none in JSON."""
    with path.open("rb") as f:
        if f.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            yield path
            return
        with scratch_folder(Path(tempfile.gettempdir()), "quantbot-jsonl-") as folder:
            plain = folder / "plain.jsonl"
            with plain.open("wb") as copy:
                shutil.copyfileobj(f, copy)
            yield plain


def _load_duckdb(
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
        matched = _match(path, reader.schema.names, columns)
        _insert(con, path, _stream(path, reader.schema, reader, matched), matched)
        return matched


UNTRUSTED = "untrusted.main"  # where the tables of such a file are


@contextlib.contextmanager
def open_untrusted(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB file that somebody else may have made, read-only: nothing in it can read other files or load extensions.

    It is attached to an empty database, under the name UNTRUSTED: so its views, macros and schemas stand in for nothing of ours.
    What does not fit into memory spills beside it, into a folder of this connection; where none can be made, nothing spills.
    """
    with contextlib.ExitStack() as stack:
        spill = ""
        with contextlib.suppress(StoreError, OSError):
            spill = str(stack.enter_context(scratch_folder(path.parent, f".{path.name}.spill-")))
        con = stack.enter_context(duckdb.connect(config={"temp_directory": spill}))
        for option in ("autoinstall_known_extensions", "autoload_known_extensions"):
            con.execute(f"SET {option} = false")
        con.execute("ATTACH ? AS untrusted (TYPE duckdb, READ_ONLY)", [str(path)])
        con.execute("SET enable_external_access = false")
        yield con


def release_untrusted(con: duckdb.DuckDBPyConnection) -> None:
    """Let go of the file, so that others may write to it; what was copied from it stays."""
    con.execute("DETACH DATABASE IF EXISTS untrusted")


def untrusted_tables(con: duckdb.DuckDBPyConnection) -> list[str]:
    """The tables of the schema main of an untrusted file. A view is none: it is somebody's program, and runs when it is read."""
    listed = con.execute(
        """SELECT table_name FROM duckdb_tables()
           WHERE schema_name = 'main' AND database_name = 'untrusted' AND NOT internal ORDER BY 1"""
    )
    return [name for (name,) in listed.fetchall()]


_LOADERS = {
    "parquet": _load_parquet,
    "feather": _load_feather,
    "csv": _load_csv,
    "jsonl": _load_jsonl,
    "duckdb": _load_duckdb,
}


# --- time -------------------------------------------------------------------------------------------------------------

UNIT_RANGES = {"s": (1e8, 1e11), "ms": (1e11, 1e14), "us": (1e14, 1e17)}  # 1973..5138 in every unit
TO_MS = {"s": "* 1000.0", "ms": "", "us": "/ 1000.0"}


def raw_time_sql(column: str, dtype: str) -> str:
    """SQL for a time cell as a double: counts stay as they are, ISO-8601 text and timestamps become milliseconds."""
    if dtype.startswith(("TIMESTAMP", "DATE")):
        return f"epoch_us({column}::TIMESTAMPTZ) / 1000.0"
    if dtype == "VARCHAR":
        return f"coalesce(TRY_CAST({column} AS DOUBLE), epoch_us(TRY_CAST({column} AS TIMESTAMPTZ)) / 1000.0)"
    return f"{column}::DOUBLE"


def infer_unit(con: duckdb.DuckDBPyConnection, path: Path, table: str, column: str, label: str) -> str:
    """The unit of a column of raw times, by magnitude: `s`, `ms` or `us`; a mix is refused.

    Cells outside every range (zero, negative, absurd) do not vote. A column without one vote is refused (20240131 is no
    count of anything since 1970) unless its name says that it holds milliseconds.
    """
    cases = " ".join(f"WHEN {column} >= {lo} AND {column} < {hi} THEN '{u}'" for u, (lo, hi) in UNIT_RANGES.items())
    votes = con.execute(
        f"SELECT CASE {cases} END AS unit, count(*), min(row_no) FROM {table} GROUP BY unit HAVING unit IS NOT NULL ORDER BY unit"
    ).fetchall()
    if len(votes) > 1:
        where = ", ".join(f"{unit} ({counted(n, 'row')}, first in row {row})" for unit, n, row in votes)
        raise InputError(f"{path}: column {label} mixes time units: {where}; convert them to one unit")
    if votes:
        return str(votes[0][0])
    odd = con.execute(f"SELECT min({column}) FROM {table} WHERE {column} > 0 AND NOT isnan({column})").fetchall()[0][0]
    if odd is not None and not label.endswith("_ms"):
        raise InputError(
            f"{path}: column {label} holds {odd:.15g}, which is no time in s, ms or µs; convert it to one or to ISO-8601"
        )
    return "ms"


def require_ms(path: Path, label: str, unit: str) -> None:
    """Refuse a column named `*_ms` whose numbers are of another magnitude."""
    if label.endswith("_ms") and unit != "ms":
        raise InputError(f"{path}: column {label} holds {unit} by magnitude, not milliseconds; convert it or rename it")
