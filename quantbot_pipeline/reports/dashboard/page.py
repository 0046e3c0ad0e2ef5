"""The dashboard as a file: what it is made of, and where it is written."""

from pathlib import Path
from typing import Any

from quantbot_pipeline.home import Home
from quantbot_pipeline.reports.dashboard.charts import charts
from quantbot_pipeline.reports.dashboard.data import collect
from quantbot_pipeline.reports.page import html
from quantbot_pipeline.reports.page.drawing import specifications

SOURCES = html.Sources(
    "quantbot_pipeline.reports.dashboard",
    "Calls lab",
    "#/overview",
    (
        "names.js",
        "evidence.js",
        "callers.js",
        "policies.js",
        "runs.js",
        "searches.js",
        "models.js",
        "anomalies.js",
        "market.js",
        "app.js",
    ),
)


def write_dashboard(home: Home, out: Path | None = None) -> Path:
    """Write the dashboard over the newest runs to `out` (default: in the home), atomically, and return its absolute path.

    The candle store may be gone: then single calls have no pictures. Raises InputError without a catalog, IntegrityError when an artifact of a newest run
    was changed.
    """
    return html.write_page(render(collect(home)), out or home.settings.dashboard_html)


def render(data: dict[str, Any]) -> str:
    """The page with this data; `data` as `collect` returns it."""
    return html.render(SOURCES, data, specifications("dashboard", charts))
