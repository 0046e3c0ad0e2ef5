"""Birdeye's answers: records below data.items, seconds of the open; `type` is the interval, `address` the token."""

from quantbot_pipeline.ingest.layouts.common import Layout

BIRDEYE = Layout(
    "Birdeye",
    "the JSON of an `ohlcv` answer; `type` must be the interval, `address` is the token",
    names={"ts_ms": ("unix_time",), "volume": ("v_base",), "step": ("type",)},
)
