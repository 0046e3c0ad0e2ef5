"""The reports: leaderboard, frontier, walk-forward, policies, anomalies, dashboard."""

import time
import webbrowser
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from quantbot_pipeline.cli.app import app
from quantbot_pipeline.cli.lighter import arrow_without_pandas
from quantbot_pipeline.cli.options import REPORT, Format, HomeFolder, add_command, between_months, open_home
from quantbot_pipeline.cli.output import (
    chosen_format,
    note,
    note_all,
    note_runs,
    note_unregistered,
    print_rows,
    refuse_folder,
    writing,
)
from quantbot_pipeline.cli.showing import show
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.months import month_of, parse_day

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantbot_pipeline.home import Home

CHANGES_SHOWN = 10


def print_changes(lab: "Home", interval: str | None = None) -> None:
    """Print what changed since the month before, if there is one."""
    from quantbot_pipeline.reports.changes import changes

    found = changes(lab.catalog, interval)
    if found.before is not None:
        title = f"Changed from {found.before} to {found.month}" + ("" if found.rows else ": nothing")
        print_rows(found.rows[:CHANGES_SHOWN], "table", title, ("caller_name", "change", "new_units"))


@contextmanager
def _report(given: dict[str, Any]) -> "Iterator[Home]":
    """The home of a report. All that the report asks the catalog is answered from one state of the catalog."""
    arrow_without_pandas()
    from quantbot_pipeline.catalog.catalog import reading

    lab = between_months(open_home(given["home"]), given["from_"], given["to"])
    with reading(lab.catalog):
        yield lab


def _leaderboard(given: dict[str, Any]) -> None:
    from quantbot_pipeline.reports.leaderboard import COLUMNS, for_people, leaderboard, leaderboard_remarks

    with _report(given) as lab:
        rows = leaderboard(lab.catalog, given["interval"])
        rows = show(lab, given, rows, "Callers", COLUMNS, for_people=for_people)
        if chosen_format(given["fmt"], given["out"]) == "table":
            print_changes(lab, given["interval"])
        note_all(leaderboard_remarks(lab.catalog, rows, given["interval"]))
        note_unregistered(lab.catalog)


def _frontier(given: dict[str, Any]) -> None:
    from quantbot_pipeline.reports.searches import FRONTIER_COLUMNS, frontier

    month, which = given["month"], {"interval": given["interval"], "strategy_id": given["strategy"]}
    if month is not None and month_of(parse_day(month, end=False)) != month:
        raise InputError(f"--month {month}: not a month; write YYYY-MM")
    with _report(given) as lab:
        rows = frontier(lab.catalog, caller=given["caller"], month=month, limit=given["limit"], **which)
        columns = list(rows[0]) if rows else FRONTIER_COLUMNS
        rows = show(lab, given | {"limit": None}, rows, "Frontier", columns, printed=FRONTIER_COLUMNS)
        note_runs(lab, "frontier", rows, month=month, **which)


def _walk_forward(given: dict[str, Any]) -> None:
    from quantbot_pipeline.reports.searches import WALK_FORWARD_COLUMNS, walk_forward

    with _report(given) as lab:
        rows = walk_forward(lab.catalog, given["interval"])
        rows = show(lab, given, rows, "Walk-forward", WALK_FORWARD_COLUMNS)
        note_runs(lab, "walk_forward", rows, interval=given["interval"])


def _policies(given: dict[str, Any]) -> None:
    from quantbot_pipeline.reports.policies import POLICY_COLUMNS, policies

    with _report(given) as lab:
        show(lab, given, policies(lab.catalog, caller=given["caller"]), "Policies", POLICY_COLUMNS)
        note_runs(lab, "summary", ())


def _models(given: dict[str, Any]) -> None:
    from quantbot_pipeline.reports.predictions import MODEL_COLUMNS, for_people, model_report

    with _report(given) as lab:
        rows = model_report(lab.catalog, target=given["target"], interval=given["interval"])
        show(lab, given, rows, "Predictions: what each target's verdict is", MODEL_COLUMNS, for_people=for_people)
        note_runs(lab, "model_report", (), interval=given["interval"])


def _anomalies(given: dict[str, Any]) -> None:
    from quantbot_pipeline.reports.anomalies import COLUMNS, PRINTED, anomalies

    with _report(given) as lab:
        which = {name: given[name] for name in ("severity", "kind", "subject", "interval")}
        show(lab, given, anomalies(lab.catalog, **which), "Anomalies", COLUMNS, printed=PRINTED)
        note_runs(lab, "anomalies", (), interval=given["interval"])


add_command(
    app,
    "leaderboard",
    "How sure each caller's edge is, from the newest month with evidence, and what followed its calls in all months.",
    REPORT,
    _leaderboard,
)
add_command(
    app,
    "frontier",
    "The policies that the search ranked best for a caller, from the newest run of each month.",
    REPORT
    | {
        "month": (Annotated[str | None, typer.Option(help="Month, YYYY-MM (default: every month).")], None),
        "limit": (Annotated[int, typer.Option(min=1, help="Best ranks per caller and month.")], 20),
        "strategy": (
            Annotated[Literal["grid-search", "v1-baseline"], typer.Option(help="Which search.")],
            "grid-search",
        ),
    },
    _frontier,
)
add_command(
    app,
    "walk-forward",
    "What choices made on earlier months earned later, per caller and scheme, beside holding and the pooled choice.",
    REPORT,
    _walk_forward,
)
add_command(
    app,
    "models",
    "What can be predicted of calls, target by target: the verdict first, then what it rests on, to date.",
    {name: option for name, option in REPORT.items() if name not in ("caller", "min_calls")}
    | {"target": (Annotated[str | None, typer.Option(help="Only this target, e.g. hit_2x.")], None)},
    _models,
)
add_command(
    app,
    "policies",
    "What each replayed policy earned over all months, after costs, in the newest run of each month that replayed it.",
    {name: option for name, option in REPORT.items() if name != "interval"},
    _policies,
)


add_command(
    app,
    "anomalies",
    "What was odd in the candles and calls of each month, the worst first, from the newest run of each month.",
    {
        "severity": (
            Annotated[str | None, typer.Option(help="Only this severity and worse ones: error, warning, info.")],
            None,
        ),
        "kind": (Annotated[str | None, typer.Option(help="Only this kind, e.g. price_spike.")], None),
        "subject": (Annotated[str | None, typer.Option(help="Only what concerns this mint or caller.")], None),
    }
    | {name: option for name, option in REPORT.items() if name not in ("caller", "min_calls")},
    _anomalies,
)


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
    refuse_folder(out)
    from quantbot_pipeline.orchestration.report import report_dashboard
    from quantbot_pipeline.reports.dashboard.page import write_dashboard

    arrow_without_pandas()
    started = time.perf_counter()
    with writing(out):
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
