"""Tables for people and for programs: terminal, JSON, CSV. Text from outside is shown, never interpreted.

JSON keeps every value exactly. CSV guards cells that a spreadsheet would run as a formula with a leading apostrophe.
"""

import csv
import io
import json
import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def to_json(rows: Sequence[dict[str, Any]]) -> str:
    """An array with one object per row; NaN and infinities become null."""
    return json.dumps([_plain(row) for row in rows], indent=1, ensure_ascii=False, allow_nan=False)


def to_csv(rows: Sequence[dict[str, Any]], columns: Sequence[str] = ()) -> str:
    """A header and one line per row; formula-like text is guarded."""
    out = io.StringIO()
    names = list(columns) or (list(rows[0]) if rows else [])
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([_guarded(_plain(row[name])) for name in names])
    return out.getvalue().rstrip("\n")


def print_table(rows: Sequence[dict[str, Any]], title: str, columns: Sequence[str] = ()) -> None:
    """A table on the terminal, every cell plain text; in a pipe as wide as it needs to be."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    names = list(columns) or (list(rows[0]) if rows else [])
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in names:
        numeric = any(isinstance(row[name], int | float) and not isinstance(row[name], bool) for row in rows)
        table.add_column(
            Text(name.replace("_", " ")), justify="right" if numeric else "left", overflow="fold", no_wrap=numeric
        )
    for row in rows:
        table.add_row(*(Text(_shown(row[name])) for name in names))
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(80, console.measure(table, options=console.options.update(max_width=2000)).maximum))
    console.print(table)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
    return value


def _guarded(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return "'" + value
    return "" if value is None else value


def _shown(value: Any) -> str:
    value = _plain(value)
    if value is None:
        return "–"  # noqa: RUF001
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
