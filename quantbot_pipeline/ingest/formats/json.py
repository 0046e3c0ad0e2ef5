"""JSON documents: a list of records or of arrays, wherever it is in the document, or one array per column.

Belongs here: how rows are found in a document of any size. Does not: what a source calls its columns; see `layouts`.
JSON with one object per line is handed to `jsonl`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.formats.common import Column, Matched, find_column, match_columns
from quantbot_pipeline.ingest.formats.json_text import Scanner
from quantbot_pipeline.ingest.formats.jsonl import load_jsonl
from quantbot_pipeline.ingest.layouts.registry import LAYOUTS, by_place

MAX_DEPTH = 8  # of the objects that rows may be in
MAX_CELLS = 5_000_000  # of columns that are arrays of their own: they must be held until the last one is there
# Numbers stay the text that they are: a store parses them as it does those of CSV.
DECODER = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)


def load_json(con: duckdb.DuckDBPyConnection, path: Path, columns: Sequence[Column], table: str | None) -> Matched:
    if _is_lines(path):
        return Matched(load_jsonl(con, path, columns, table))
    reading = _Reading(con, path, columns)
    try:
        with path.open(encoding="utf-8-sig") as file:
            scanner = Scanner(file, DECODER)
            if not scanner.peek():
                raise InputError(f"{path}: the file is empty; expected JSON")
            reading.value(scanner, ())
            if scanner.peek():
                raise ValueError(f"something follows the end at character {scanner.where()}")
    except (ValueError, RecursionError) as e:
        raise InputError(f"{path}: not valid JSON: {str(e)[:200]}") from None
    return reading.result()


def _is_lines(path: Path) -> bool:
    """Whether the first line is an object of its own and another one follows."""
    with path.open("rb") as f:
        first = f.readline(1 << 20).removeprefix(b"\xef\xbb\xbf").strip()
        then = f.readline(64).strip()
    return first[:1] == b"{" and first[-1:] == b"}" and then[:1] == b"{"


class _Reading:
    """One way through a document: the rows go to `incoming` as they come, what stands around them is kept."""

    def __init__(self, con: duckdb.DuckDBPyConnection, path: Path, columns: Sequence[Column]) -> None:
        self.con, self.path, self.columns = con, path, columns
        self.lenient = {column.name for column in columns if column.lenient}
        self.matched: Matched | None = None
        self.at: tuple[str, ...] = ()
        self.facts: dict[tuple[str, ...], str] = {}
        self.seen: list[str] = []
        self.rows = self.cells = 0

    def value(self, scanner: Scanner, at: tuple[str, ...]) -> None:
        """Take the value that comes next."""
        kind = scanner.peek()
        if kind == "{" and len(at) < MAX_DEPTH:
            self._object(scanner, at)
        elif kind == "[":
            self._list(scanner, at)
        elif isinstance(value := scanner.value(), str):
            self.facts[at] = value

    def _object(self, scanner: Scanner, at: tuple[str, ...]) -> None:
        arrays: dict[str, list[pa.Array]] = {}
        for key in scanner.members():
            if scanner.peek() != "[":
                self.value(scanner, (*at, key))
                continue
            scalars = self._list(scanner, (*at, key))
            if scalars is not None:
                arrays[key] = scalars
        self.seen += [key for key in arrays if key not in self.seen][:12]
        if len(arrays) >= 2 and self._are_columns(list(arrays)):
            self._columns(arrays, at)

    def _list(self, scanner: Scanner, at: tuple[str, ...]) -> list[pa.Array] | None:
        """Take a list: rows go to the table; the values of a list of scalars are returned."""
        scalars: list[pa.Array] = []
        is_rows = None
        for some in scanner.items():
            first = next((value for value in some if value is not None), None)
            if isinstance(first, dict | list):
                if is_rows is None:
                    is_rows = self._begin(first, some, at)
                if is_rows:
                    self._add(some)
            else:
                self.cells += len(some)
                if self.cells > MAX_CELLS:
                    raise InputError(f"{self.path}: more than {MAX_CELLS:,} values in lists; split the file")
                scalars.append(pa.array([self._text(value, "value") for value in some], pa.string()))
        return None if is_rows is not None else scalars

    def _are_columns(self, keys: Sequence[str]) -> bool:
        names = {key.lower(): key for key in keys}
        return sum(find_column(names, column, keys) is not None for column in self.columns) >= 2

    def _begin(self, first: Any, some: Sequence[Any], at: tuple[str, ...]) -> bool:
        """Decide from the first rows of a list whether it is the table, and how its columns are named."""
        if isinstance(first, dict):
            keys = list(dict.fromkeys(key for row in some if isinstance(row, dict) for key in row))
            self.seen += [key for key in keys if key not in self.seen][:12]
            if not self._are_columns(keys):
                return False
            self._open(match_columns(self.path, keys, self.columns), at)
            return True
        layout = by_place(len(first), at)
        wanted = {column.name for column in self.columns}
        if (
            not {"open", "close"} <= wanted
            or not isinstance(first[:1], list)
            or isinstance((first or [[]])[0], dict | list)
        ):
            return False
        if any(column.mapped is not None for column in self.columns):
            matched = match_columns(self.path, [str(n) for n in range(1, len(first) + 1)], self.columns)
        elif layout is None:
            raise InputError(
                f"{self.path}: arrays of {len(first)} values at {'.'.join(at) or 'the top'}; say which is which, the first "
                "being 1: --map ts_ms=1 --map open=2 --map high=3 --map low=4 --map close=5"
            )
        else:
            matched = match_columns(self.path, layout.by_place, self.columns)
            matched.remarks.close_stamped = layout.name if layout.close_stamped else ""
        matched.remarks.by_place = True
        self.places = list(layout.by_place) if layout else []
        self._open(matched, at)
        return True

    def _open(self, matched: Matched, at: tuple[str, ...]) -> None:
        if self.matched is not None:
            raise InputError(
                f"{self.path}: two lists of rows, {'.'.join(self.at) or 'the top'} and {'.'.join(at)}; make two files of them"
            )
        self.matched, self.at = matched, at
        names = ", ".join(f"{name} VARCHAR" for name in matched)
        self.con.execute(f"CREATE TEMP TABLE incoming (row_no BIGINT, {names})")

    def _add(self, some: Sequence[Any]) -> None:
        """Append rows to the table; a row of another form than the first has no values."""
        assert self.matched is not None  # noqa: S101  # `_begin` has made it
        picked = [self._row(value, self.rows + n) for n, value in enumerate(some, start=1)]
        arrays = [pa.array(column, pa.string()) for column in zip(*picked, strict=True)]
        self._insert(pa.Table.from_arrays(arrays, names=list(self.matched)))

    def _row(self, value: Any, number: int) -> list[str | None]:
        assert self.matched is not None  # noqa: S101
        if isinstance(value, list):
            places = self.places or [str(n) for n in range(1, len(value) + 1)]
            value = dict(zip(places, value, strict=False))
        if not isinstance(value, dict):
            value = {}
        return [
            None
            if name in self.lenient and isinstance(value.get(source), dict | list)
            else self._text(value.get(source), source, number)
            for name, source in self.matched.items()
        ]

    def _text(self, value: Any, name: str, number: int = 0) -> str | None:
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, bool):
            return str(value).lower()
        raise InputError(f"{self.path}: row {number}: {name!r} holds an array or an object; expected a number or text")

    def _columns(self, arrays: dict[str, list[pa.Array]], at: tuple[str, ...]) -> None:
        lengths = {key: sum(map(len, parts)) for key, parts in arrays.items()}
        matched = match_columns(self.path, list(arrays), self.columns)
        used = {source: lengths[source] for source in matched.values()}
        if len(set(used.values())) > 1:
            said = ", ".join(f"{key} {n:,}" for key, n in used.items())
            raise InputError(f"{self.path}: the arrays have different lengths ({said}); is the file cut?")
        self._open(matched, at)
        self._insert(
            pa.table({name: pa.chunked_array(arrays[source], pa.string()) for name, source in matched.items()})
        )

    def _insert(self, table: pa.Table) -> None:
        self.con.register("json_rows", table)
        names = ", ".join(table.column_names)
        self.con.execute(f"INSERT INTO incoming SELECT {self.rows} + row_number() OVER (), {names} FROM json_rows")
        self.con.unregister("json_rows")
        self.rows += table.num_rows

    def result(self) -> Matched:
        """Return what was found. Raises InputError where there was no list of rows."""
        if self.matched is None:
            shown = ", ".join(dict.fromkeys([*self.seen, *(key[0] for key in self.facts if key)])) or "none"
            wanted = " or ".join(column.name for column in self.columns if column.required)[:80]
            raise InputError(
                f"{self.path}: no list of rows with {wanted} in this JSON (columns found: {shown[:200]}); name them with --map"
            )
        tokens = [self.facts[place] for layout in LAYOUTS for place in layout.token_at if self.facts.get(place)]
        self.matched.remarks.token = next(iter(tokens), None)
        return self.matched
