"""How a report is shown: which of its rows and columns, in which order, in which format, on the terminal or in a file.

Belongs here: what the options that all reports share do to rows. How a format is spelled is in `tables` and `export`.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from quantbot_pipeline.cli.output import binary_target, check_target, chosen_format, text_target
from quantbot_pipeline.errors import InputError

if TYPE_CHECKING:
    from quantbot_pipeline.home import Home

Rows = list[dict[str, Any]]
COUNTS = ("calls", "trades", "dataset_calls_count")  # what --min-calls looks at, the first that a report has


def show(
    lab: "Home",
    given: dict[str, Any],
    rows: Rows,
    title: str,
    columns: Sequence[str],
    *,
    for_people: Callable[[Rows], Rows] | None = None,
    printed: Sequence[str] = (),
) -> Rows:
    """Show the rows of a report as the options of its command say; return those shown.

    `columns` are all, `printed` those of a table when none are asked for. `for_people` rounds and joins them for a table.
    """
    fmt = chosen_format(given["fmt"], given["out"])
    check_target(fmt, given["out"], lab)
    rows = chosen_rows(rows, columns, given)
    names = _chosen_columns(columns, given["columns"])
    if fmt == "table":
        if given["columns"] is None and for_people is not None and rows:
            people = for_people(rows)
            names, shown = list(people[0]), people
        else:
            names, shown = (list(printed) if printed and given["columns"] is None else names), rows
        _print(shown, title, names)
    elif fmt == "parquet":
        _write_parquet(given, rows, names)
    else:
        with text_target(given["out"]) as file:
            file.write(_spelled(fmt, [{name: row[name] for name in names} for row in rows], names, title) + "\n")
    return rows


def chosen_rows(rows: Rows, columns: Sequence[str], given: dict[str, Any]) -> Rows:
    """Return the rows that the options ask for, in their order. Raises InputError for a column or a caller that is not there."""
    caller, least, limit = given.get("caller"), given.get("min_calls"), given.get("limit")
    if caller is not None and "caller_name" in columns:
        known = list(dict.fromkeys(row["caller_name"] for row in rows))
        if caller not in known:
            raise InputError(
                f"--caller {caller!r}: not in this report; callers here: {', '.join(known[:12]) or 'none'}"
            )
        rows = [row for row in rows if row["caller_name"] == caller]
    if least is not None:
        count = next(name for name in COUNTS if name in columns)
        rows = [row for row in rows if (row[count] or 0) >= least]
    if given["sort"] is not None:
        name = given["sort"].removeprefix("-")
        _require("--sort", [name], columns)
        held = [row for row in rows if row[name] is not None]
        missing = [row for row in rows if row[name] is None]
        rows = sorted(held, key=lambda row: row[name], reverse=given["sort"].startswith("-")) + missing
    return rows if limit is None else rows[:limit]


def _chosen_columns(columns: Sequence[str], asked: str | None) -> list[str]:
    if asked is None:
        return list(columns)
    names = [name.strip() for name in asked.split(",") if name.strip()]
    _require("--columns", names, columns)
    return list(dict.fromkeys(names))


def _require(option: str, names: Sequence[str], columns: Sequence[str]) -> None:
    if unknown := [name for name in names if name not in columns]:
        raise InputError(f"{option} {unknown[0]!r}: no such column; columns are {', '.join(columns)}")
    if not names:
        raise InputError(f"{option}: no column; columns are {', '.join(columns)}")


def _print(rows: Rows, title: str, names: Sequence[str]) -> None:
    from quantbot_pipeline.cli.tables import print_table

    print_table(rows, title, names)


def _spelled(fmt: str, rows: Rows, names: Sequence[str], title: str) -> str:
    from quantbot_pipeline.cli import tables

    if fmt == "json":
        return tables.to_json(rows)
    return tables.to_csv(rows, names) if fmt == "csv" else tables.to_html(rows, names, title).rstrip("\n")


def _write_parquet(given: dict[str, Any], rows: Rows, names: Sequence[str]) -> None:
    import pyarrow as pa

    from quantbot_pipeline.cli.export import write_parquet

    table = pa.table({name: pa.array([row[name] for row in rows]) for name in names})
    with binary_target(given["out"]) as file:
        write_parquet(table.to_batches(), table.schema, file)
