"""Polygon's flat files: `window_start` in ns, `ticker` the token."""

from quantbot_pipeline.ingest.layouts.common import Layout

POLYGON = Layout(
    "Polygon flat files",
    "the csv.gz as it is; `ticker` is the token, `window_start` the open in ns",
    names={"ts_ms": ("window_start",)},
)
