"""Reports for people, made from the catalog: the dashboard file."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from quantbot_pipeline.orchestration.resources import Lab
from quantbot_pipeline.orchestration.stopping import heeding

if TYPE_CHECKING:
    from quantbot_pipeline.home import Home

ROWS_SHOWN = 12
DASHBOARD = dg.AssetKey(["reports", "dashboard"])


@dg.asset(key=DASHBOARD, group_name="reports", deps=[["catalog", "runs"]], kinds={"html"})
def dashboard(context: dg.AssetExecutionContext, lab: Lab) -> dg.MaterializeResult:
    """One self-contained HTML file over the newest runs: callers, policies, frontier, walk-forward, calls, errors."""
    from quantbot_pipeline.reports.dashboard.page import write_dashboard

    started = time.perf_counter()
    home = lab.open()
    with heeding(context):
        path = write_dashboard(home)
        metadata = dashboard_metadata(home, path, time.perf_counter() - started)
    return dg.MaterializeResult(metadata=metadata)


def dashboard_metadata(home: "Home", path: Path, seconds: float) -> dict[str, Any]:
    """Return what the UI shows of a dashboard file: the answers of its first screen, where it is and how to open it."""
    from quantbot_pipeline.reports.changes import changes
    from quantbot_pipeline.reports.leaderboard import FIRST, for_people, leaderboard

    rows = for_people(leaderboard(home.catalog))[:ROWS_SHOWN]
    found = changes(home.catalog)
    changed = [{"caller_name": row["caller_name"], "change": row["change"]} for row in found.rows[:ROWS_SHOWN]]
    return {
        **_table("callers", [{name: row[name] for name in FIRST} for row in rows]),
        **_table(f"changed_since_{found.before}", changed),
        "path": dg.MetadataValue.path(str(path)),
        # As text to copy, not as a link: no browser follows one from a web page to a file.
        "address": path.as_uri(),
        "open_with": "quantbot dashboard --open",
        "bytes": path.stat().st_size,
        "seconds": round(seconds, 3),
    }


def _table(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a table for the UI under its name; nothing without rows."""
    records = [dg.TableRecord({key: "" if value is None else str(value) for key, value in row.items()}) for row in rows]
    return {name: dg.MetadataValue.table(records)} if records else {}
