"""`quantbot demo`: everything once, on a generated market."""

import shutil

from quantbot_pipeline.cli.app import app
from quantbot_pipeline.cli.backtest import materialize
from quantbot_pipeline.cli.options import Format, Home, open_settings
from quantbot_pipeline.cli.output import note, print_rows
from quantbot_pipeline.cli.reports import write_dashboard_of
from quantbot_pipeline.config import Recipe, make_config
from quantbot_pipeline.errors import InputError, QuantbotError, counted
from quantbot_pipeline.settings import Settings


@app.command("demo")
def demo(fmt: Format = "table", home: Home = None) -> None:
    """Everything once: generated sample market (unless inputs exist), backfill, catalog, leaderboard, dashboard."""
    from quantbot_pipeline.catalog.sync import sync
    from quantbot_pipeline.cli import tables
    from quantbot_pipeline.market.calls import month_statistics
    from quantbot_pipeline.months import month_start_ms, next_month
    from quantbot_pipeline.reports.leaderboard import COLUMNS, leaderboard
    from quantbot_pipeline.reports.searches import FRONTIER_COLUMNS, WALK_FORWARD_COLUMNS, frontier, walk_forward

    settings = open_settings(home, may_begin=True)
    if settings.home.is_dir() and not settings.data_dir.is_dir() and any(settings.home.iterdir()):
        raise InputError(f"{settings.home}: holds other files and is no home; give a new or empty folder with --home")
    if not month_statistics(settings.alerts_db):
        _write_sample(settings)
    months = list(month_statistics(settings.alerts_db))
    note(
        f"backtesting {counted(len(months), 'month')} ({months[0]} … {months[-1]}); the engine compiles once, at its first use"
    )
    span = {"from_ms": month_start_ms(months[0]), "to_ms": month_start_ms(next_month(months[-1]))}
    recipes: tuple[Recipe, ...] = ("full", "v1-baseline", "walk-forward")
    for recipe in recipes:
        runs, failure = materialize(recipe, make_config(span), settings, only_changed=True)
        if failure:
            raise QuantbotError(failure)
        note(f"{recipe}: {counted(len(runs), 'run')}")
    sync(settings.runs_dir, settings.catalog_db, lock_timeout_s=settings.lock_timeout_s)
    reports = {
        "leaderboard": leaderboard(settings.catalog_db, settings.runs_dir),
        "frontier": frontier(settings.catalog_db, settings.runs_dir, month=months[-1], limit=1),
        "walk_forward": walk_forward(settings.catalog_db, settings.runs_dir),
    }
    note(f"dashboard: open {write_dashboard_of(settings, settings.dashboard_html)} in a browser")
    if fmt == "json":
        print(tables.to_json([reports]))
        return
    print_rows(reports["leaderboard"], fmt, "Callers", COLUMNS)
    print_rows(
        reports["frontier"], fmt, f"The policy each caller deserved in {months[-1]}, in sample", FRONTIER_COLUMNS
    )
    print_rows(
        reports["walk_forward"],
        fmt,
        "Walk-forward: what the choice made before each month earned in it",
        WALK_FORWARD_COLUMNS,
    )
    note(
        "\nNext:\n  quantbot ui                                   the Dagster web UI\n"
        "  quantbot backtest catalog-query               the runs just made\n"
        '  quantbot backtest policy --from 2026-01 --to 2026-06 --policy \'{"kind":"time_stop","max_hold_ms":3600000}\'\n'
        "  quantbot ingest calls your_calls.csv --home ~/lab   your own data, in a home of its own"
    )


def _write_sample(settings: Settings) -> None:
    from quantbot_pipeline.ingest.calls import ingest_calls
    from quantbot_pipeline.ingest.candles import ingest_candles
    from quantbot_pipeline.market.sample import write_sample

    folder = settings.data_dir / "generated"
    note(f"no calls yet: writing a generated sample market to {folder}")
    calls, candles = write_sample(folder)
    ingest_calls([calls], settings.alerts_db)
    ingest_candles([candles], settings.candles_dir, "5m", memory_limit=settings.memory_limit)
    shutil.rmtree(folder)
