"""The reports: leaderboard, frontier, walk-forward, dashboard."""

import time
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from quantbot_pipeline.cli.app import app
from quantbot_pipeline.cli.arrow import arrow_without_pandas
from quantbot_pipeline.cli.options import Format, HomeFolder, OfInterval, open_home
from quantbot_pipeline.cli.output import note, note_runs, note_unregistered, print_leaderboard, print_rows
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.months import month_of, parse_day

if TYPE_CHECKING:
    from quantbot_pipeline.home import Home

CHANGES_SHOWN = 10


@app.command("leaderboard")
def leaderboard_command(
    interval: OfInterval = None,
    fmt: Format = "table",
    home: HomeFolder = None,
) -> None:
    """How sure each caller's edge is, from the newest month with evidence, and what followed its calls in all months."""
    lab = open_home(home)
    print_leaderboard(lab, fmt, interval)
    if fmt == "table":
        print_changes(lab, interval)


def print_changes(lab: "Home", interval: str | None = None) -> None:
    """Print what changed since the month before, if there is one."""
    from quantbot_pipeline.reports.changes import changes

    found = changes(lab.catalog, interval)
    if found.before is not None:
        title = f"Changed from {found.before} to {found.month}" + ("" if found.rows else ": nothing")
        print_rows(found.rows[:CHANGES_SHOWN], "table", title, ("caller_name", "change", "new_units"))


@app.command("frontier")
def frontier_command(
    caller: Annotated[str | None, typer.Option(help="Caller, or __all__ for all pooled (default: each).")] = None,
    month: Annotated[str | None, typer.Option(help="Month, YYYY-MM (default: every month).")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Best ranks per caller and month.")] = 20,
    strategy: Annotated[Literal["grid-search", "v1-baseline"], typer.Option(help="Which search.")] = "grid-search",
    interval: OfInterval = None,
    fmt: Format = "table",
    home: HomeFolder = None,
) -> None:
    """The policies that the search ranked best for a caller, from the newest run of each month."""
    from quantbot_pipeline.reports.searches import FRONTIER_COLUMNS, frontier

    lab = open_home(home)
    if month is not None and month_of(parse_day(month, end=False)) != month:
        raise InputError(f"--month {month}: not a month; write YYYY-MM")
    rows = frontier(lab.catalog, caller=caller, month=month, interval=interval, strategy_id=strategy, limit=limit)
    print_rows(rows, fmt, "Frontier", FRONTIER_COLUMNS if fmt == "table" else ())
    note_runs(lab, "frontier", rows, interval=interval, month=month, strategy_id=strategy)


@app.command("walk-forward")
def walk_forward_command(interval: OfInterval = None, fmt: Format = "table", home: HomeFolder = None) -> None:
    """What choices made on earlier months earned later, per caller and scheme, beside holding and the pooled choice."""
    from quantbot_pipeline.reports.searches import WALK_FORWARD_COLUMNS, walk_forward

    lab = open_home(home)
    rows = walk_forward(lab.catalog, interval)
    print_rows(rows, fmt, "Walk-forward", WALK_FORWARD_COLUMNS)
    note_runs(lab, "walk_forward", rows, interval=interval)


@app.command("dashboard")
def dashboard_command(
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="The file to write (default: data/dashboard.html of the home).")
    ] = None,
    fmt: Format = "table",
    home: HomeFolder = None,
) -> None:
    """Write the dashboard: one HTML file over the newest runs, which opens from disk without a network."""
    lab = open_home(home)
    if out is not None and out.is_dir():
        raise InputError(f"{out}: a directory; give the name of the file to write with --out")
    from quantbot_pipeline.orchestration.report import report_dashboard
    from quantbot_pipeline.reports.dashboard.page import write_dashboard

    arrow_without_pandas()
    started = time.perf_counter()
    path = write_dashboard(lab, out)
    if out is None:
        failure = report_dashboard(lab, path, time.perf_counter() - started)
        if failure:
            note(failure)
    if fmt == "table":
        print(path)
    else:
        print_rows([{"path": str(path), "bytes": path.stat().st_size}], fmt, "Dashboard")
    note_unregistered(lab.catalog)
    if open_:
        webbrowser.open(path.as_uri())
