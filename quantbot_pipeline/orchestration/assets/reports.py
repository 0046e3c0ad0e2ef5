"""Reports for people, made from the catalog: the dashboard file."""

import time
from pathlib import Path
from typing import Any

import dagster as dg

from quantbot_pipeline.orchestration.resources import Lab
from quantbot_pipeline.orchestration.stopping import heeding

DASHBOARD = dg.AssetKey(["reports", "dashboard"])


@dg.asset(key=DASHBOARD, group_name="reports", deps=[["catalog", "runs"]], kinds={"html"})
def dashboard(context: dg.AssetExecutionContext, lab: Lab) -> dg.MaterializeResult:
    """One self-contained HTML file over the newest runs: callers, policies, frontier, walk-forward, calls, errors."""
    from quantbot_pipeline.reports.dashboard.page import write_dashboard

    started = time.perf_counter()
    with heeding(context):
        path = write_dashboard(lab.open())
    return dg.MaterializeResult(metadata=dashboard_metadata(path, time.perf_counter() - started))


def dashboard_metadata(path: Path, seconds: float) -> dict[str, Any]:
    """Return what the UI shows of a dashboard file: where it is and how to open it."""
    return {
        "path": dg.MetadataValue.path(str(path)),
        # As text to copy, not as a link: no browser follows one from a web page to a file.
        "address": path.as_uri(),
        "open_with": "quantbot dashboard --open",
        "bytes": path.stat().st_size,
        "seconds": round(seconds, 3),
    }
