"""`quantbot tearsheet`: one caller, or one policy on its calls, as one HTML file or as figures."""

import re
import webbrowser
from pathlib import Path
from typing import Annotated, Literal

import typer

from quantbot_pipeline.cli.app import app
from quantbot_pipeline.cli.options import Format, HomeFolder, OfInterval, open_home
from quantbot_pipeline.cli.output import note, note_all, note_unregistered, print_rows, refuse_folder, writing

FIGURE_COLUMNS = ("figure", "value", "unit")


@app.command("tearsheet")
def tearsheet_command(
    caller: Annotated[str, typer.Option(help="Caller; __all__ for all callers pooled.")],
    policy: Annotated[
        str | None,
        typer.Option("--policy", help="Id of a replayed policy (default: the monthly choice of the walk-forward)."),
    ] = None,
    scheme: Annotated[Literal["anchored", "rolling"], typer.Option(help="Which walk-forward.")] = "anchored",
    out: Annotated[Path | None, typer.Option(help="The file to write (default: data/tearsheets/ of the home).")] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    interval: OfInterval = None,
    fmt: Format = "table",
    home: HomeFolder = None,
) -> None:
    """What a caller's calls earned out of sample: the verdict, every figure, and one HTML file that opens without a network."""
    from quantbot_pipeline.evidence.wording import printable
    from quantbot_pipeline.reports.page.html import write_page
    from quantbot_pipeline.reports.tearsheet.gather import gather
    from quantbot_pipeline.reports.tearsheet.page import render
    from quantbot_pipeline.reports.tearsheet.sheet import figure_rows, sheet_of

    lab = open_home(home)
    refuse_folder(out)
    sheet = sheet_of(gather(lab.catalog, caller, policy, interval, scheme))
    with writing(out):
        path = write_page(render(sheet, lab), out or lab.settings.data_dir / "tearsheets" / file_name(caller, policy))
    note(sheet.verdict)
    print_rows(figure_rows(sheet), fmt, f"Tear sheet of {printable(caller)}", FIGURE_COLUMNS if fmt == "table" else ())
    note_all(sheet.gathered.remarks)
    note_unregistered(lab.catalog)
    note(f"tear sheet: open {path} in a browser")
    if open_:
        webbrowser.open(path.as_uri())


def file_name(caller: str, policy: str | None) -> str:
    """Return a name that any file system takes; callers whose names differ in what is replaced share it."""
    return (
        "-".join(re.sub(r"[^A-Za-z0-9._=]+", "_", part)[:80].strip("._") or "_" for part in (caller, policy) if part)
        + ".html"
    )
