"""Reports for people, made from the catalog: the dashboard file."""

import time

import dagster as dg

from quantbot_pipeline.orchestration.resources import Lab


@dg.asset(key=["reports", "dashboard"], group_name="reports", deps=[["catalog", "runs"]], kinds={"html"})
def dashboard(context: dg.AssetExecutionContext, lab: Lab) -> dg.MaterializeResult:
    """One self-contained HTML file over the newest runs: callers, policies, frontier, walk-forward, calls, errors."""
    from quantbot_pipeline.reports.dashboard.page import write_dashboard

    settings = lab.settings()
    started = time.perf_counter()
    path = write_dashboard(settings.catalog_db, settings.runs_dir, settings.candles_dir, settings.dashboard_html)
    return dg.MaterializeResult(
        metadata={
            "path": dg.MetadataValue.path(str(path)),
            # As text to copy, not as a link: no browser follows one from a web page to a file.
            "address": path.as_uri(),
            "open_with": "quantbot dashboard --open",
            "bytes": path.stat().st_size,
            "seconds": round(time.perf_counter() - started, 3),
        }
    )
