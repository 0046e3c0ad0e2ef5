"""Tables for people and for programs: terminal, JSON, CSV. Text from outside is shown, never interpreted.

JSON keeps every value exactly. CSV guards cells that a spreadsheet would run as a formula with a leading apostrophe.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from html import escape
from typing import Any

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
STYLE = "body{font:14px sans-serif}table{border-collapse:collapse}th,td{padding:.2em .6em;border-bottom:1px solid #ccc;text-align:left;white-space:nowrap}"
PADDING = 3  # cells: a blank on each side, and one between columns
MAX_WORD = 72  # characters; what is longer is no id of ours, and may be broken


def to_json(rows: Sequence[dict[str, Any]]) -> str:
    """An array with one object per row; NaN and infinities become null."""
    return "".join(json_pieces([rows])).removesuffix("\n")


def json_pieces(batches: Iterable[Sequence[dict[str, Any]]]) -> Iterator[str]:
    """The same, piece by piece and with a line end, for rows that are too many to hold."""
    opened = False
    for rows in batches:
        if rows:
            text = json.dumps([_plain(row) for row in rows], indent=1, ensure_ascii=False, allow_nan=False)
            yield ("," if opened else "[") + text[1:-2]  # without its own brackets
            opened = True
    yield "\n]\n" if opened else "[]\n"


def to_csv(rows: Sequence[dict[str, Any]], columns: Sequence[str] = ()) -> str:
    """A header and one line per row; formula-like text is guarded."""
    names = list(columns) or (list(rows[0]) if rows else [])
    return "".join(csv_pieces([rows], names)).removesuffix("\n")


def csv_pieces(batches: Iterable[Sequence[dict[str, Any]]], columns: Sequence[str]) -> Iterator[str]:
    """The same, piece by piece and with a line end."""
    yield _csv_line([_guarded(name) for name in columns]) + "\n"
    for rows in batches:
        if rows:
            yield "".join(_csv_line([_guarded(_plain(row[name])) for name in columns]) + "\n" for row in rows)


def to_html(rows: Sequence[dict[str, Any]], columns: Sequence[str], title: str) -> str:
    """A page of its own with one table; every cell is text."""
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in columns)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{escape(_shown(row[name]))}</td>" for name in columns) + "</tr>" for row in rows
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n<style>{STYLE}</style></head>\n'
        f"<body><h1>{escape(title)}</h1>\n<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></body></html>\n"
    )


def _csv_line(cells: Sequence[Any]) -> str:
    out = io.StringIO()
    csv.writer(out).writerow(cells)  # ends in \r\n: only so the writer quotes both of these in a cell
    return out.getvalue().removesuffix("\r\n")


def print_table(rows: Sequence[dict[str, Any]], title: str, columns: Sequence[str] = ()) -> None:
    """A table on the terminal, every cell plain text; in a pipe as wide as it needs to be.

    What a narrow terminal cannot hold is left out by whole columns, and said: half a number would be a wrong one.
    """
    from rich.box import SIMPLE_HEAD
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    names = list(columns) or (list(rows[0]) if rows else [])
    console = Console()
    natural = {name: max(map(cell_len, [name, *(_shown(row[name]) for row in rows)])) for name in names}
    widths = _fitting(rows, natural, console.width) if console.is_terminal else natural
    shown = list(widths)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name, width in widths.items():
        table.add_column(
            Text(name.replace("_", " ")),
            justify="right" if _is_numeric(rows, name) else "left",
            overflow="fold",
            width=width,  # rich would measure every cell twice
        )
    for row in rows:
        table.add_row(*(Text(_shown(row[name])) for name in shown))
    if not console.is_terminal:
        console = Console(width=max(80, sum(width + PADDING for width in widths.values())))
    console.print(
        Text(title, style="table.title"), soft_wrap=True
    )  # on its own: a title in a table is cut to its width
    console.print(table)
    if len(shown) < len(names):
        left_out = ", ".join(name.replace("_", " ") for name in names if name not in widths)
        Console(stderr=True).print(
            Text(f"too narrow for {left_out}: widen the terminal, pipe into `less -S`, or take --format csv"),
            soft_wrap=True,
        )


def _fitting(rows: Sequence[dict[str, Any]], natural: dict[str, int], width: int) -> dict[str, int]:
    """{name: width} of the columns that fit side by side, the first of them always; what is left over goes to the first ones."""
    left = width + 1
    widths: dict[str, int] = {}
    for name in natural:
        least = _min_width(rows, name)
        if not widths:
            least = max(1, min(least, width - 2))
        if left < least + PADDING:
            continue
        widths[name] = least
        left -= least + PADDING
    for name, least in widths.items():
        more = max(0, min(natural[name] - least, left))
        widths[name] += more
        left -= more
    return widths


def _min_width(rows: Sequence[dict[str, Any]], name: str) -> int:
    """The longest word: text folds on a narrow terminal between words, and a number, an id or a path does not fold at all."""
    numeric = _is_numeric(rows, name)
    cells = [_shown(row[name]) for row in rows]
    words = cells if numeric else [word for cell in cells for word in cell.split()]
    longest = max(map(len, words), default=0)
    heading = max(map(len, name.replace("_", " ").split()), default=0)
    return max(longest if numeric else min(longest, MAX_WORD), heading)


def _is_numeric(rows: Sequence[dict[str, Any]], name: str) -> bool:
    return any(isinstance(row[name], int | float) and not isinstance(row[name], bool) for row in rows)


def _plain(value: Any) -> Any:
    """The value as JSON can hold it: exact, or as text."""
    match value:
        case None | str() | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {str(k): _plain(v) for k, v in value.items()}
        case list() | tuple():
            return [_plain(v) for v in value]
        case datetime():
            utc = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
            return utc.isoformat(timespec="microseconds" if utc.microsecond % 1000 else "milliseconds") + "Z"
        case Decimal():
            return _number(value)
        case bytes():
            return value.hex()
        case _:
            return str(value)


def _number(value: Decimal) -> int | float | str:
    """SQL's sums and literals are decimals: a number where that is exact, else text."""
    if value == value.to_integral_value():
        return int(value)
    return float(value) if Decimal(repr(float(value))) == value else str(value)


def _guarded(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return "'" + value
    return "" if value is None else value


def _shown(value: Any) -> str:
    value = _plain(value)
    if value is None:
        return "–"  # noqa: RUF001  (a dash is meant)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 10 else f"{value:,.1f}"
    text = (
        value
        if isinstance(value, str)
        else json.dumps(value, ensure_ascii=False)
        if isinstance(value, dict | list)
        else str(value)
    )
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
