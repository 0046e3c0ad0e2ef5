"""The header of a text table: where it is, what separates it, and whether there is one.

Belongs here: the first lines of a file. Does not: its rows.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.formats.common import Column, find_column
from quantbot_pipeline.ingest.layouts.common import TIME_TO_VOLUME
from quantbot_pipeline.ingest.layouts.registry import by_place
from quantbot_pipeline.ingest.limits import HEADER_LIMIT

LOOKED_AT = 10  # lines in which a header may be
NUMBER = re.compile(r'\s*"?[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?"?\s*|\s*"?(nan|null|none|n/a|-|)"?\s*', re.IGNORECASE)
TIME = re.compile(r'\s*"?(\d{9,20}(\.\d*)?|\d{8}([ T]\d{4,6})?|\d{4}[-./]\d{1,2}[-./]\d{1,2}.*)"?\s*')
CLOCK = re.compile(r'\s*"?\d{1,2}:\d\d(:\d\d)?"?\s*')
DATE_AND_CLOCK = ("date", "time", *TIME_TO_VOLUME[1:])


class Header(NamedTuple):
    """Names of the columns, what separates them, the lines before the first one that counts, whether nothing follows.

    `given`: the names are ours, because the file has no header line.
    """

    names: list[str]
    delimiter: str
    skip: int
    is_all: bool
    given: bool = False
    note: str = ""


class _Line(NamedTuple):
    number: int  # from 0
    text: str


def read_header(path: Path, columns: Sequence[Column]) -> Header:
    """Find the header among the first lines: the first line that names two of `columns`, else the first one of all.

    A comment, an address or `sep=;` before it is passed over. Rows of numbers without a header get the names of a layout
    that has so many columns.
    """
    lines, separator, ended = _first_lines(path)
    first = lines[0]
    named = next((line for line in lines if _score(line.text, columns, separator) >= 2), None)
    if named is None and (rows := _without_header(path, first, columns, separator, ended)):
        return rows
    header = named or first
    cells, delimiter = _cells(header.text.lstrip("#"), separator)
    if header.text.startswith("#"):
        cells = [cells[0].lstrip("# "), *cells[1:]]
    note = f"line 1 is no header; line {header.number + 1} is" if header.number > first.number else ""
    # The reader takes names as they stand in the line, so a line with a mark before them is passed over.
    given = header.text.startswith("#")
    blank_only = header.number == first.number and not given and separator is None
    skip = 0 if blank_only else header.number + given
    return Header(cells, delimiter, skip, ended and header is lines[-1], given, note)


def _first_lines(path: Path) -> tuple[list[_Line], str | None, bool]:
    """(the lines that are not blank, the separator that a line `sep=` names, whether they are all of the file)."""
    lines: list[_Line] = []
    separator, ended = None, False
    with path.open("rb") as f:
        _refuse_others(path, f.peek(64)[:64])
        for number in range(LOOKED_AT * 10):
            raw = f.readline(HEADER_LIMIT)
            if len(raw) == HEADER_LIMIT and not lines:
                raise InputError(f"{path}: the first line is longer than 1 MiB; is this a CSV file?")
            if not raw or len(lines) >= LOOKED_AT or len(raw) == HEADER_LIMIT:
                ended = not raw
                break
            try:
                text = raw.decode("utf-8-sig")
            except UnicodeDecodeError:
                if lines:  # a line of data; whoever reads it says so
                    break
                raise
            if said := re.fullmatch(r'\s*"?sep=(.)"?\s*', text):
                separator = said[1]
            elif text.strip():
                lines.append(_Line(number, text))
    if not lines:
        raise InputError(f"{path}: the file is empty; expected a header line")
    return lines, separator, ended


def _refuse_others(path: Path, start: bytes) -> None:
    """Refuse what is plainly no text table, in words that say what it is."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise InputError(f"{path}: this is HTML, not a table; save the data itself, as CSV or JSON")
    if text.startswith((b"{", b"[{", b"[[", b"[\n", b"[\r", b"[ ")):
        raise InputError(f"{path}: this is JSON, not CSV; name it .json or pass --format json")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path}: not readable as csv: its text is UTF-16; save it as utf-8")
    if start.startswith(b"PAR1"):
        raise InputError(f"{path}: this is Parquet, not CSV; name it .parquet or pass --format parquet")


def _cells(text: str, separator: str | None) -> tuple[list[str], str]:
    delimiter = separator or max(",;\t|", key=text.count)
    return next(csv.reader([text.rstrip("\r\n")], delimiter=delimiter), [""]), delimiter


def _score(text: str, columns: Sequence[Column], separator: str | None) -> int:
    """How many of the columns a line names."""
    try:
        cells, _ = _cells(text.lstrip("# "), separator)
    except csv.Error:
        return 0
    names = {cell.strip().lower(): cell for cell in cells if cell.strip()}
    return len({source for column in columns if (source := find_column(names, column, names.values()))})


def _without_header(
    path: Path, first: _Line, columns: Sequence[Column], separator: str | None, ended: bool
) -> Header | None:
    """Return the header of rows without one; None where the first line is no row of candles."""
    cells, delimiter = _cells(first.text, separator)
    if not {"open", "close"} <= {column.name for column in columns}:
        return None
    clock = len(cells) > 5 and CLOCK.fullmatch(cells[1]) is not None  # MetaTrader: a day, a time, and the prices
    if len(cells) < 5 or not TIME.fullmatch(cells[0]) or not all(map(NUMBER.fullmatch, cells[1 + clock :])):
        return None
    if any(column.mapped is not None for column in columns):
        names = [str(n) for n in range(1, len(cells) + 1)]
        return Header(names, delimiter, first.number, False, True, "no header line; columns are named by their number")
    layout = by_place(len(cells))
    places = DATE_AND_CLOCK[: len(cells)] if clock else layout.by_place if layout else ()
    if len(places) != len(cells):
        raise InputError(
            f"{path}: no header line, and {len(cells)} columns; say which is which, the first being 1: "
            "--map ts_ms=1 --map open=2 --map high=3 --map low=4 --map close=5"
        )
    note = f"no header line; columns taken as {', '.join(places)}"
    return Header(list(places), delimiter, first.number, False, True, note)
