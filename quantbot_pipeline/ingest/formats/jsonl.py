"""JSON lines, one object per line, and JSON arrays of objects."""

import codecs
import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb

from quantbot_pipeline.duck import escape_glob, quoted
from quantbot_pipeline.durable import scratch_folder
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.formats.common import Column, match_columns
from quantbot_pipeline.ingest.limits import MAX_COLUMNS, MAX_ROW_BYTES, row_too_long


def load_jsonl(
    con: duckdb.DuckDBPyConnection, path: Path, columns: Sequence[Column], table: str | None
) -> dict[str, str]:
    with _without_bom(path) as plain:
        pattern, layout = escape_glob(str(plain)), _layout(plain)
        try:
            # A column exists if any row has its key, be its value null in every row.
            keys = con.execute(
                "SELECT DISTINCT unnest(json_keys(json)) AS k FROM read_json_objects(?, format = ?, maximum_object_size = ?) "
                "ORDER BY k LIMIT ?",
                [pattern, layout, MAX_ROW_BYTES, MAX_COLUMNS + 1],
            )
            present = [key for (key,) in keys.fetchall()]
            if not present:
                raise InputError(f"{path}: no JSON object found; expected one per line")
            matched = match_columns(path, present, columns)
            # Declared as text, numbers and strings arrive alike and a missing key as NULL.
            lenient = {column.name for column in columns if column.lenient}
            strict = {name: source for name, source in matched.items() if name not in lenient}
            _refuse_nested(con, path, pattern, layout, strict)
            struct = ", ".join(f"{quoted(source)}: 'VARCHAR'" for source in matched.values())
            chosen = ", ".join(f"{quoted(source)} AS {name}" for name, source in matched.items())
            con.execute(
                f"CREATE TEMP TABLE incoming AS SELECT row_number() OVER () AS row_no, {chosen} FROM "
                f"read_json(?, format = ?, columns = {{{struct}}}, maximum_object_size = ?)",
                [pattern, layout, MAX_ROW_BYTES],
            )
        except duckdb.InvalidInputException as e:
            raise row_too_long(path, e, "maximum_object_size", "is there one object per line?") from None
        return matched


def _layout(path: Path) -> str:
    """Return DuckDB's word for the layout of a file: an array of objects, or one object per line."""
    with path.open("rb") as file:
        head = file.read(1 << 16).lstrip()
    return "array" if head.startswith(b"[") else "newline_delimited"


def _refuse_nested(
    con: duckdb.DuckDBPyConnection, path: Path, pattern: str, layout: str, matched: dict[str, str]
) -> None:
    """Refuse arrays and objects where a value is expected; their JSON text would pass for one."""
    pointers = ["/" + source.replace("~", "~0").replace("/", "~1") for source in matched.values()]
    found = con.execute(
        """SELECT row_no, types FROM (
               SELECT row_number() OVER () AS row_no, json_type(json, ?::VARCHAR[]) AS types
               FROM read_json_objects(?, format = ?, maximum_object_size = ?))
           WHERE list_has_any(types, ['ARRAY', 'OBJECT']) ORDER BY row_no LIMIT 1""",
        [pointers, pattern, layout, MAX_ROW_BYTES],
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
