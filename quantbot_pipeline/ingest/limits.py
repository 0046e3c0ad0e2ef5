"""How large a file and its values may be: limits far beyond any table of calls or candles, and the refusals of what is past them.

They keep a file that is no table from being swallowed whole, and a file of a few bytes from filling the memory.
"""

import re
from pathlib import Path

import duckdb

from quantbot_pipeline.errors import InputError

# Limits that keep a file that is no table from being swallowed whole: they are far beyond any table of calls or candles.
MAX_ROW_BYTES = 8 << 20  # one row of a text format; an unclosed quote makes the rest of the file one row
HEADER_LIMIT = 1 << 20
MAX_COLUMNS = 10_000
# A binary file of a few bytes can say that it holds a billion rows, all alike.
MAX_DENSITY, DENSE_ROWS = 32, 10_000_000  # rows per byte, of files with more rows than that
DENSE_TEXT = 64 << 20  # bytes of text that a file may spell out however short it is; beyond, MAX_DENSITY per byte
UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def is_of_one_piece(error: duckdb.OutOfMemoryException) -> bool:
    """Whether a single allocation wanted most of all the memory there is: the fault of the file, and not of its length."""
    said = re.search(r"of size ([\d.]+) (\w+) \([\d.]+ \w+/([\d.]+) (\w+) used", str(error))
    if said is None or not {said[2], said[4]} <= UNITS.keys():
        return False
    return float(said[1]) * UNITS[said[2]] > float(said[3]) * UNITS[said[4]] / 2


def refuse_dense(path: Path, rows: int) -> None:
    if rows > max(DENSE_ROWS, MAX_DENSITY * path.stat().st_size):
        raise InputError(f"{path}: claims {rows:,} rows in {path.stat().st_size:,} bytes; is it damaged?")


def max_text(path: Path) -> int:
    """The bytes of text that a binary file may spell out."""
    return max(DENSE_TEXT, MAX_DENSITY * path.stat().st_size)


def row_too_long(path: Path, error: Exception, sign: str, question: str) -> Exception:
    """The error in words that help, if it is the library's way of saying that a row is longer than MAX_ROW_BYTES."""
    if sign not in str(error):
        return error
    return InputError(f"{path}: a row is longer than {MAX_ROW_BYTES >> 20} MiB; {question}")


def too_much_text(path: Path, limit: int) -> InputError:
    """The refusal of a file that spells out more text than its bytes can be about."""
    size = path.stat().st_size
    return InputError(f"{path}: claims more than {limit >> 20:,} MiB of text in {size:,} bytes; is it damaged?")
