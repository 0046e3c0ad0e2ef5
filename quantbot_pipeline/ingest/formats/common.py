"""What every format shares: the table `incoming`, canonical column names, and streams of Arrow batches.

Belongs here: what a reader looks for and hands on. Does not: what a valid call or candle is. Values keep their native type;
text formats deliver text, which the stores parse, so that one bad cell costs one row and not the file. Strings of a file
reach SQL only as data: column names are matched against the constants of the stores.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.files import hive_value
from quantbot_pipeline.ingest.limits import MAX_COLUMNS, MAX_ROW_BYTES

CLOCK = "clock"  # the column of clock times beside one of days; no other may hold times of a day


class Found(NamedTuple):
    """A column as it was found in a file: its name there and the DuckDB type it arrived with."""

    source: str
    type: str


@dataclass
class Remarks:
    """What a file says besides its rows: its token, whether it is stamped with the close time, what was assumed of it."""

    token: str | None = None
    close_stamped: str = ""  # the layout that is
    notes: list[str] = field(default_factory=list)
    by_place: bool = False


class Matched(dict[str, str]):
    """{canonical name: name in the file}, with the remarks of the reader."""

    def __init__(self, matched: Mapping[str, str], remarks: Remarks | None = None) -> None:
        super().__init__(matched)
        self.remarks = remarks or Remarks()


class Incoming(dict[str, Found]):
    """The columns of the table `incoming` by canonical name, with the remarks of the reader."""

    remarks = Remarks()


@dataclass(frozen=True)
class Column:
    """A column that a reader looks for: the canonical name, the names it may have in a file, and whether it must exist.

    With `in_folder` a folder `name=value` may stand in for it; see `hive_value`. A name that ends in `*` stands for all that
    begin so. `mapped` is the only name that counts, given by the user. `beside` is (canonical name, name): the column is
    looked for only where that one was found under that name. Any of the columns `spares` stands in for it, too. It is not
    read at all where the column `only_without` was found.
    """

    name: str
    aliases: tuple[str, ...] = ()
    required: bool = True
    in_folder: bool = False
    mapped: str | None = None
    beside: tuple[str, str] | None = None
    spares: tuple[str, ...] = ()
    only_without: str = ""
    told: tuple[str, ...] = ()  # the names that a message offers; else the first of those accepted
    lenient: bool = False  # lists and objects below its name are no reason to refuse the file

    @property
    def accepted(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)


def folded(name: str) -> str:
    """Return a column's name without case, blanks, dashes and underscores: `Open Time` and `openTime` are one."""
    return re.sub(r"[\s_.\-]+", "", name.strip().strip("<>#").lower())


def find_column(names: Mapping[str, str], column: Column, free: Collection[str]) -> str | None:
    """Return the name in the file of a column; `names` is {name in lower case: name in the file}, `free` those not taken."""
    if column.mapped is not None:
        return names.get(column.mapped.strip().lower())
    loose: dict[str, str] = {}
    for name in names.values():
        loose.setdefault(folded(name), name)
    for alias in column.accepted:
        if alias.endswith("*"):
            hits = [name for key, name in names.items() if key.startswith(alias[:-1]) and name in free]
        else:
            hits = [hit for hit in (names.get(alias), loose.get(folded(alias)) if alias else None) if hit is not None]
        if hits and hits[0] in free:
            return hits[0]
    return None


def match_columns(
    path: Path, present: Sequence[str], columns: Sequence[Column], schema: pa.Schema | None = None
) -> Matched:
    """{canonical name: name in the file}, case-insensitively; the earliest alias wins.

    A lenient column that is nested in the `schema` is not taken.

    Raises InputError that names every missing column at once, what was found, and how to name the right ones.
    """
    if len(present) > MAX_COLUMNS:
        raise InputError(f"{path}: more than {MAX_COLUMNS:,} columns; is this a table of calls or candles?")
    names: dict[str, str] = {}
    for name in present:
        key = name.strip().lower()
        if key in names:
            raise InputError(f"{path}: column {key!r} appears twice; remove one")
        names[key] = name
    matched: dict[str, str] = {}
    for column in columns:
        if column.beside is not None and folded(matched.get(column.beside[0], "")) != column.beside[1]:
            continue
        if column.only_without in matched:
            continue
        source = find_column(names, column, set(present) - set(matched.values()))
        if source is not None and not (column.lenient and schema is not None and _is_nested(schema.field(source))):
            matched[column.name] = source
    missing = [column for column in columns if column.name not in matched and _is_needed(path, column, matched)]
    if missing:
        raise InputError(_missing(path, missing, list(names)))
    return Matched(matched)


def _is_nested(field: pa.Field) -> bool:
    return bool(pa.types.is_nested(field.type))


def _is_needed(path: Path, column: Column, matched: Mapping[str, str]) -> bool:
    """Whether a file without this column is refused."""
    if column.mapped is not None:
        return True
    in_folder = column.in_folder and hive_value(path, column.name) is not None
    return column.required and not in_folder and not matched.keys() & set(column.spares)


def _missing(path: Path, missing: Sequence[Column], found: Sequence[str]) -> str:
    shown = ", ".join(found[:12]) or "none"
    wanted = [column.mapped or " or ".join(column.told or column.accepted[:3]) for column in missing]
    if len(missing) == 1 and missing[0].mapped is None:
        mend = f"add it or rename one, or say which it is with --map {missing[0].name}=COLUMN"
    else:
        mend = f"rename them, or say which they are with --map {missing[0].name}=COLUMN and so on"
    if any(column.in_folder and column.mapped is None for column in missing):
        mend += "; --mint TOKEN or a folder mint=TOKEN names the token of all rows"
    return f"{path}: missing column{'s' * (len(missing) > 1)} {', '.join(wanted)} (columns found: {shown}); {mend}"


def insert(
    con: duckdb.DuckDBPyConnection, path: Path, reader: pa.RecordBatchReader | pa.Table, matched: Mapping[str, str]
) -> None:
    """Materialize the Arrow stream (already limited to canonical names) with row numbers."""
    con.register("arrow_source", reader)
    try:
        names = ", ".join(matched)
        con.execute(f"CREATE TEMP TABLE incoming AS SELECT row_number() OVER () AS row_no, {names} FROM arrow_source")
    finally:
        con.unregister("arrow_source")


def plain_type(path: Path, field: pa.Field, canonical: str = "") -> pa.DataType:
    """The type to hand to DuckDB; refuses what cannot be a scalar value."""
    t = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    scalar = pa.types.is_string(t) or pa.types.is_large_string(t) or t in (pa.string_view(), pa.null(), pa.bool_())
    number = pa.types.is_integer(t) or pa.types.is_floating(t) or pa.types.is_decimal(t)
    time = pa.types.is_timestamp(t) or pa.types.is_date(t) or (canonical == CLOCK and pa.types.is_time(t))
    if not (scalar or number or time):
        raise InputError(f"{path}: column {field.name!r} has type {field.type}; expected numbers, text or timestamps")
    return t


def stream(
    path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch], matched: Mapping[str, str]
) -> pa.RecordBatchReader:
    fields = [pa.field(name, plain_type(path, schema.field(source), name)) for name, source in matched.items()]
    target = pa.schema(fields)

    def renamed() -> Iterator[pa.RecordBatch]:
        for batch in batches:
            arrays = [batch.column(source).cast(target.field(name).type) for name, source in matched.items()]
            yield pa.RecordBatch.from_arrays(arrays, schema=target)

    return pa.RecordBatchReader.from_batches(target, renamed())


def insert_batches(
    con: duckdb.DuckDBPyConnection,
    path: Path,
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    matched: Mapping[str, str],
) -> None:
    """Materialize batches that are decoded meanwhile; raises what decoding raised, of which DuckDB makes an error of its own."""
    refusals: list[Exception] = []

    def noting() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except Exception as e:
            refusals.append(e)
            raise

    try:
        insert(con, path, stream(path, schema, noting(), matched), matched)
    except duckdb.Error as e:
        raise (refusals or [e])[0] from None


def refuse_long_values(con: duckdb.DuckDBPyConnection, path: Path, found: Mapping[str, Found]) -> None:
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
