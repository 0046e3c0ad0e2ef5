"""What every format shares: the table `incoming`, canonical column names, and streams of Arrow batches.

Belongs here: what a reader looks for and hands on. Does not: what a valid call or candle is. Values keep their native type;
text formats deliver text, which the stores parse, so that one bad cell costs one row and not the file. Strings of a file
reach SQL only as data: column names are matched against the constants of the stores.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.files import hive_value
from quantbot_pipeline.ingest.limits import MAX_COLUMNS, MAX_ROW_BYTES

NAMES_SHOWN = 4  # of a column that is missing; docs/operations.md has them all


class Found(NamedTuple):
    """A column as it was found in a file: its name there and the DuckDB type it arrived with."""

    source: str
    type: str


@dataclass(frozen=True)
class Column:
    """A column that a reader looks for: the canonical name, the names it may have in a file, and whether it must exist.

    With `in_folder` a folder `name=value` may stand in for it; see `hive_value`. Any of the columns `spares` stands in for it,
    too. It is not read at all where the column `only_without` was found.
    """

    name: str
    aliases: tuple[str, ...] = ()
    required: bool = True
    in_folder: bool = False
    spares: tuple[str, ...] = ()
    only_without: str = ""

    @property
    def accepted(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)


def match_columns(path: Path, present: Sequence[str], columns: Sequence[Column]) -> dict[str, str]:
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
        alias = next((a for a in column.accepted if a in folded and folded[a] not in matched.values()), None)
        if alias is not None and column.only_without not in matched:
            matched[column.name] = folded[alias]
    lacking = [
        column
        for column in columns
        if column.required
        and not matched.keys() & {column.name, *column.spares}
        and not (column.in_folder and hive_value(path, column.name))
    ]
    if lacking:
        shown = ", ".join(list(folded)[:12]) + (" …" if len(folded) > 12 else "") or "none"
        hidden = {column.name for column in columns if column.only_without}
        missing = "; ".join(_names(column, hidden) for column in lacking)
        one = len(lacking) == 1
        raise InputError(
            f"{path}: missing column{'' if one else 's'} {missing} (columns found: {shown}); "
            + ("add it or rename one" if one else "add them or rename some")
        )
    return matched


def _names(column: Column, hidden: set[str]) -> str:
    """The names of a column for a message: the first ones, which the most files have, and what stands in for it."""
    more = " …" if len(column.accepted) > NAMES_SHOWN else ""
    return " or ".join([*column.accepted[:NAMES_SHOWN], *(s for s in column.spares if s not in hidden)]) + more


def insert(
    con: duckdb.DuckDBPyConnection, path: Path, reader: pa.RecordBatchReader | pa.Table, matched: dict[str, str]
) -> None:
    """Materialize the Arrow stream (already limited to canonical names) with row numbers."""
    con.register("arrow_source", reader)
    try:
        names = ", ".join(matched)
        con.execute(f"CREATE TEMP TABLE incoming AS SELECT row_number() OVER () AS row_no, {names} FROM arrow_source")
    finally:
        con.unregister("arrow_source")


def plain_type(path: Path, field: pa.Field) -> pa.DataType:
    """The type to hand to DuckDB; refuses what cannot be a scalar value."""
    t = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    scalar = pa.types.is_string(t) or pa.types.is_large_string(t) or t in (pa.string_view(), pa.null(), pa.bool_())
    number = pa.types.is_integer(t) or pa.types.is_floating(t) or pa.types.is_decimal(t)
    if not (scalar or number or pa.types.is_timestamp(t) or pa.types.is_date(t)):
        raise InputError(f"{path}: column {field.name!r} has type {field.type}; expected numbers, text or timestamps")
    return t


def stream(
    path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch], matched: dict[str, str]
) -> pa.RecordBatchReader:
    fields = [pa.field(name, plain_type(path, schema.field(source))) for name, source in matched.items()]
    target = pa.schema(fields)

    def renamed() -> Iterator[pa.RecordBatch]:
        for batch in batches:
            arrays = [batch.column(source).cast(target.field(name).type) for name, source in matched.items()]
            yield pa.RecordBatch.from_arrays(arrays, schema=target)

    return pa.RecordBatchReader.from_batches(target, renamed())


def refuse_long_values(con: duckdb.DuckDBPyConnection, path: Path, found: dict[str, Found]) -> None:
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
