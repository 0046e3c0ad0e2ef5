"""`quantbot query`: one SELECT over the catalog."""

import threading
from typing import Annotated

import typer

from quantbot_pipeline.cli.app import app
from quantbot_pipeline.cli.lighter import arrow_without_pandas
from quantbot_pipeline.cli.options import HomeFolder, OfFormat, OutFile, open_home, read_text
from quantbot_pipeline.cli.output import (
    binary_target,
    check_target,
    chosen_format,
    note,
    note_all,
    note_unregistered,
    text_target,
)
from quantbot_pipeline.errors import counted

TABLE_ROWS = 100


@app.command("query")
def query_command(
    sql: Annotated[str, typer.Argument(help="One SELECT over the catalog's tables and views, or @FILE with it.")],
    fmt: OfFormat = None,
    limit: Annotated[
        int | None, typer.Option(min=0, help=f"At most so many rows (default: {TABLE_ROWS} in a table, else all).")
    ] = None,
    out: OutFile = None,
    timeout: Annotated[
        float, typer.Option(min=0.001, max=threading.TIMEOUT_MAX, help="Stop after so many seconds.")
    ] = 300.0,
    home: HomeFolder = None,
) -> None:
    """Answer a SELECT over the catalog; it cannot read or write a file, nor change anything."""
    from quantbot_pipeline.catalog.room import answering, why_nothing
    from quantbot_pipeline.cli import export, tables

    arrow_without_pandas()
    lab = open_home(home)
    chosen = chosen_format(fmt, out)
    check_target(chosen, out, lab)
    asked = read_text(sql[1:]) if sql.startswith("@") else sql
    with answering(lab.catalog, asked, timeout_s=timeout) as answer:
        rows = export.Limited(answer.batches, TABLE_ROWS if limit is None and chosen == "table" else limit)
        columns = answer.schema.names
        if chosen == "table":
            found = [row for batch in export.rows_of(rows) for row in batch]
            tables.print_table(found, counted(len(found), "row"), columns)
        elif chosen == "parquet":
            with binary_target(out) as file:
                export.write_parquet(rows, answer.schema, file)
        elif chosen == "html":
            found = [row for batch in export.rows_of(rows) for row in batch]
            with text_target(out) as file:
                file.write(tables.to_html(found, columns, counted(len(found), "row")))
        else:
            with text_target(out) as file:
                export.write_text(rows, columns, chosen, file)
    if not rows.given:
        note_all(why_nothing(lab.catalog, asked))
    note_unregistered(lab.catalog)
    if rows.more:
        note("there are more rows: raise --limit" + ("" if limit is not None else ", or take --format csv or json"))
