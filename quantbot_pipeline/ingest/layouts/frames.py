"""Frames that other libraries wrote: a time index without a name, and a date and a time in two columns."""

from quantbot_pipeline.ingest.layouts.common import Layout

FRAMES = Layout(
    "pandas, Jesse, backtesting.py, backtrader",
    "CSV or Parquet of a frame: an index without a name is the time; columns Date and Time are joined",
    names={"ts_ms": ("__index_level_0__", "unnamed: 0", "index", ""), "clock": ("time", "hour")},
)
