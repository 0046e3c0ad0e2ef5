"""GeckoTerminal's answers: arrays below data.attributes.ohlcv_list, seconds of the open, newest first."""

from quantbot_pipeline.ingest.layouts.common import TIME_TO_VOLUME, Layout

GECKO_TERMINAL = Layout(
    "GeckoTerminal",
    "the JSON of an `ohlcv` answer; the token is `meta.base.address`",
    by_place=TIME_TO_VOLUME,
    rows_at=("data", "attributes", "ohlcv_list"),
    token_at=(("meta", "base", "address"),),
)
