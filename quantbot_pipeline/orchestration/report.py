"""What the command line made without a Dagster run, told to the home's instance: the web UI shows it like the rest.

Belongs here: runless materializations. Does not: making anything.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from quantbot_pipeline.errors import StoreError
from quantbot_pipeline.orchestration.assets.catalog import CATALOG, catalog_metadata
from quantbot_pipeline.orchestration.assets.reports import DASHBOARD, dashboard_metadata
from quantbot_pipeline.orchestration.launch import open_instance, state_errors

if TYPE_CHECKING:
    from quantbot_pipeline.catalog.sync import SyncReport
    from quantbot_pipeline.home import Home


def report_sync(home: "Home", report: "SyncReport") -> str | None:
    """Report the months of the catalog that a sync published anew; return what kept Dagster from noting it, if anything did."""
    if not report.published:
        return None
    return _report(
        home,
        (
            dg.AssetMaterialization(CATALOG, metadata=metadata, partition=month)
            for month, metadata in catalog_metadata(home.catalog, report.months).items()
        ),
    )


def report_dashboard(home: "Home", path: Path, seconds: float) -> str | None:
    """Report that the dashboard file was written at `path`; return what kept Dagster from noting it, if anything did."""
    return _report(home, [dg.AssetMaterialization(DASHBOARD, metadata=dashboard_metadata(home, path, seconds))])


def _report(home: "Home", events: Iterable[dg.AssetMaterialization]) -> str | None:
    try:
        with state_errors(), open_instance(home) as instance:
            for event in events:
                instance.report_runless_asset_event(event)
    except StoreError as e:  # what was made is made; the web UI shows it at the next time
        return f"done, but the web UI does not show it: {e}"
    return None
