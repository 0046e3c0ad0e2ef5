"""`python -m tools.docs_tables`: write the tables of docs/ from the code: columns, settings, commands, options.

Between `<!-- generated: NAME -->` and `<!-- end -->` a page is generated, the rest is written by hand. What a column means is in
`docs/meanings.toml`; sentences of settings, commands and options are those of the code. A test fails when a page is out of date.
"""

import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import typer

import quantbot_pipeline.cli.main  # noqa: F401  (the commands add themselves to the app)
from quantbot_pipeline.artifacts.schemas import ARTIFACTS
from quantbot_pipeline.catalog.schema import TABLES
from quantbot_pipeline.cli.app import app
from quantbot_pipeline.reports.tearsheet.meaning import FIGURES
from quantbot_pipeline.settings import PREFIX, Settings
from quantbot_pipeline.versions import FORMATS, format_of

DOCS = Path(__file__).resolve().parents[1] / "docs"
MEANINGS: dict[str, Any] = tomllib.loads((DOCS / "meanings.toml").read_text(encoding="utf-8"))
BLOCK = re.compile(r"<!-- generated: ([^>]+?) -->\n.*?<!-- end -->", re.DOTALL)

# Defaults that the machine or the place decides.
FOUND = {"home": "current directory", "threads": "number of cores"}
# Not a setting of ours, but of the same table.
DAGSTER_HOME = (
    "`DAGSTER_HOME`",
    "the home",
    "Dagster's own: where the instance lies. If it is set, all homes share that instance",
)


def blocks() -> dict[str, Callable[[], str]]:
    """Return what makes each generated block, by the block's name."""
    made: dict[str, Callable[[], str]] = {
        "settings": settings,
        "commands": commands,
        "options": options,
        "figures": figures,
        "versions": versions,
    }
    made |= {f"columns {artifact}": partial(columns, artifact) for artifact in ARTIFACTS}
    return made | {f"catalog {table}": partial(catalog, table, found) for table, found in catalog_columns().items()}


def rendered(page: str) -> str:
    """Return the page with every generated block as the code has it now. Raises ValueError for a block that nothing makes."""
    made = blocks()

    def fresh(found: re.Match[str]) -> str:
        if found[1] not in made:
            raise ValueError(f"<!-- generated: {found[1]} -->: nothing makes it; choose one of {', '.join(made)}")
        return f"<!-- generated: {found[1]} -->\n{made[found[1]]()}<!-- end -->"

    return BLOCK.sub(fresh, page)


def figures() -> str:
    """Return the table of the tear sheet's figures."""
    return _table(("figure", "unit", "meaning"), [(f"`{f.name}`", f.unit, f.meaning) for f in FIGURES])


def versions() -> str:
    """Return the table of everything that is written, with its version and what becomes of an older one."""
    rows = [
        (
            f"`{name}`" if name in ARTIFACTS else name,
            f"`{form.file}`",
            form.current,
            ", ".join(form.versions),
            form.says,
            form.older,
        )
        for name, form in ((name, format_of(name)) for name in (*FORMATS, *ARTIFACTS))
    ]
    return _table(("what", "file", "version", "read too", "where it says so", "an older one is"), rows)


def columns(artifact: str) -> str:
    """Return the table of an artifact's columns: type and null of the schema, unit and meaning of `meanings.toml`."""
    schema = ARTIFACTS[artifact][1]
    told = _told(f"columns.{artifact}", MEANINGS["columns"].get(artifact, {}), schema.names)
    rows = ((f"`{f.name}`", str(f.type), "yes" if f.nullable else "no", *told[f.name]) for f in schema)
    return _table(("column", "type", "null", "unit", "meaning"), rows)


def catalog_columns() -> dict[str, dict[str, str]]:
    """Return {table: {column: type}} of the catalog, in the order in which its tables and columns are made."""
    with duckdb.connect() as con:
        con.execute(TABLES)
        found = con.execute(
            "SELECT table_name, column_name, data_type FROM duckdb_columns() JOIN duckdb_tables() USING (table_oid, table_name) "
            "ORDER BY table_oid, column_index"
        ).fetchall()
    tables: dict[str, dict[str, str]] = {}
    for table, column, kind in found:
        tables.setdefault(table, {})[column] = kind
    return tables


def catalog(table: str, found: Mapping[str, str]) -> str:
    """Return the table of a catalog table's columns."""
    told = _told(f"catalog.{table}", MEANINGS["catalog"].get(table, {}), found)
    return _table(
        ("column", "type", "meaning"), ((f"`{column}`", kind, str(told[column])) for column, kind in found.items())
    )


def settings() -> str:
    """Return the table of the environment variables, with the descriptions of the fields of `Settings`."""
    rows = [
        (f"`{PREFIX}{name.upper()}`", FOUND.get(name) or _default(field.default), field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    return _table(("variable", "default", "meaning"), [*rows, DAGSTER_HOME])


def _default(value: object) -> str:
    if value is None or value == ():
        return "\N{EN DASH}"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def commands() -> str:
    """Return the table of the commands: the help of each, and what `meanings.toml` adds to it."""
    found = dict(_walk(typer.main.get_command(app)))
    added = MEANINGS["commands"]
    if unknown := sorted(added.keys() - found.keys()):
        raise ValueError(
            f"docs/meanings.toml: commands: {unknown[0]!r} is no command; take its line out or mend its name"
        )
    rows = ((f"`quantbot {name}`", f"{_sentence(found[name].help)} {added.get(name, '')}") for name in sorted(found))
    return _table(("command", "does"), rows)


def options() -> str:
    """Return the table of all options, each with the commands that have it with this meaning and this default."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for name, command in sorted(_walk(typer.main.get_command(app))):
        for option in command.params:
            if option.param_type_name == "option":
                default = "" if option.default is None or isinstance(option.default, bool) else _default(option.default)
                found.setdefault((", ".join(option.opts), default, _sentence(option.help)), []).append(name)
    rows = ((f"`{option}`", default, _listed(names), told) for (option, default, told), names in sorted(found.items()))
    return _table(("option", "default", "of", "meaning"), rows)


def _walk(group: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _walk(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


def _listed(names: list[str]) -> str:
    everything = {name for name, _ in _walk(typer.main.get_command(app))}
    return "all" if everything == set(names) else ", ".join(f"`{name}`" for name in names)


def _sentence(text: str | None) -> str:
    """Return a help text in one line. `__all__` would be bold in Markdown."""
    return " ".join((text or "").split()).replace("__all__", "`__all__`")


def _told(where: str, told: Mapping[str, Any], names: Iterable[str]) -> Mapping[str, Any]:
    """Return `told` if it has a line for exactly these names. Raises ValueError naming the first that is missing or too much."""
    wanted = list(names)
    if missing := [name for name in wanted if name not in told]:
        raise ValueError(f"docs/meanings.toml: {where}: no line for {missing[0]!r}; add what it means")
    if unknown := sorted(told.keys() - set(wanted)):
        raise ValueError(
            f"docs/meanings.toml: {where}: {unknown[0]!r} is no column; take its line out or mend its name"
        )
    return told


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join([_row(header), "|" + "---|" * len(header), *map(_row, rows), ""])


def _row(cells: Sequence[str]) -> str:
    stripped = (cell.strip().replace("|", "\\|") for cell in cells)
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in stripped)


def main(folder: Path = DOCS) -> int:
    """Write every page of a folder whose tables are out of date, and name it; return the exit status."""
    for page in sorted(folder.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        try:
            fresh = rendered(text)
        except ValueError as e:
            print(f"{page.name}: {e}", file=sys.stderr)
            return 1
        if fresh != text:
            page.write_text(fresh, encoding="utf-8")
            print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
