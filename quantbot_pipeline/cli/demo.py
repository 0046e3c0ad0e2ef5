"""`quantbot demo`: everything once, on a generated market."""

import shlex
import shutil
from typing import TYPE_CHECKING, Any

from quantbot_pipeline.cli.app import app
from quantbot_pipeline.cli.hints import command
from quantbot_pipeline.cli.lighter import arrow_without_pandas, kernels_without_scipy
from quantbot_pipeline.cli.options import Format, HomeFolder, Output, open_home
from quantbot_pipeline.cli.output import note, note_all, print_rows
from quantbot_pipeline.errors import InputError, QuantbotError, counted

if TYPE_CHECKING:
    from quantbot_pipeline.home import Home

SOLD_AFTER_AN_HOUR = shlex.quote('{"kind": "time_stop", "max_hold_ms": 3600000}')
DEMO_KINDS = ("full", "v1-baseline", "walk-forward", "evidence")


@app.command("demo")
def demo(fmt: Format = "table", home: HomeFolder = None) -> None:
    """Everything once: generated sample market (unless inputs exist), backfill, catalog, verdicts, dashboard."""
    from quantbot_pipeline.cli import tables
    from quantbot_pipeline.config import make_config
    from quantbot_pipeline.market.calls import month_statistics
    from quantbot_pipeline.materialize import materialize, register
    from quantbot_pipeline.months import month_start_ms, next_month
    from quantbot_pipeline.reports.dashboard.page import write_dashboard
    from quantbot_pipeline.reports.leaderboard import leaderboard
    from quantbot_pipeline.reports.searches import frontier, walk_forward

    arrow_without_pandas()
    kernels_without_scipy()
    lab = open_home(home, may_begin=True)
    if lab.path.is_dir() and not lab.settings.data_dir.is_dir() and any(lab.path.iterdir()):
        raise InputError(f"{lab.path}: holds other files and is no home; give a new or empty folder with --home")
    if not month_statistics(lab.calls):
        _write_sample(lab)
    months = list(month_statistics(lab.calls))
    note(
        f"backtesting {counted(len(months), 'month')} ({months[0]} … {months[-1]}); the engine compiles once, at its first use"
    )
    span = {"from_ms": month_start_ms(months[0]), "to_ms": month_start_ms(next_month(months[-1]))}
    for kind in DEMO_KINDS:
        runs, failure = materialize(kind, make_config(span), lab, only_changed=True)
        if failure:
            raise QuantbotError(failure)
        note(f"{kind}: {counted(len(runs), 'run')}")
    note_all(register(lab))
    reports = {
        "leaderboard": leaderboard(lab.catalog),
        "frontier": frontier(lab.catalog, month=months[-1], limit=1),
        "walk_forward": walk_forward(lab.catalog),
    }
    note(f"dashboard: open {write_dashboard(lab)} in a browser")
    if fmt == "json":
        print(tables.to_json([reports]))
        return
    _print_reports(reports, months[-1], fmt)


def _print_reports(reports: dict[str, list[dict[str, Any]]], month: str, fmt: Output) -> None:
    """Print the tables, the verdicts first, and what to do next."""
    from quantbot_pipeline.reports.leaderboard import for_people
    from quantbot_pipeline.reports.searches import FRONTIER_COLUMNS, WALK_FORWARD_COLUMNS

    print_rows(
        for_people(reports["leaderboard"]) if fmt == "table" else reports["leaderboard"],
        fmt,
        f"Callers: how sure each one's edge is in {month}",
    )
    print_rows(
        reports["frontier"],
        fmt,
        f"The policy that the search ranked first for each caller in {month}, in sample",
        FRONTIER_COLUMNS,
    )
    print_rows(
        reports["walk_forward"],
        fmt,
        "Walk-forward: what the choice made before each month earned in it",
        WALK_FORWARD_COLUMNS,
    )
    note("\nNext:")
    for arguments, what in (
        ("ui", "the Dagster web UI"),
        ("backtest catalog-query", "the runs just made"),
        (f"backtest policy --from {month} --to {month} --policy {SOLD_AFTER_AN_HOUR}", "a policy of your own"),
        ("ingest calls your_calls.csv --home ~/lab", "your own data, in a home of its own"),
    ):
        note(f"  {command(arguments)}\n      {what}")


def _write_sample(lab: "Home") -> None:
    from quantbot_pipeline.ingest.calls import ingest_calls
    from quantbot_pipeline.ingest.candles import ingest_candles
    from quantbot_pipeline.market.sample import write_sample

    folder = lab.settings.data_dir / "generated"
    note(f"no calls yet: writing a generated sample market to {folder}")
    calls, candles = write_sample(folder)
    ingest_calls([calls], lab.calls)
    ingest_candles([candles], lab.candles, "5m")
    shutil.rmtree(folder)
