"""Binance Vision: klines without a header (older, spot) or with one, in ms, or in µs since 2025."""

import re

from quantbot_pipeline.ingest.layouts.common import TIME_TO_VOLUME, Layout

BINANCE = Layout(
    "Binance Vision",
    "`SYMBOL-5m-2025-01.csv` or its zip, with and without header, ms and µs",
    names={"ts_ms": ("open_time",)},
    by_place=(*TIME_TO_VOLUME, "close_time", "quote_volume", "count", "taker_buy", "taker_buy_quote", "ignore"),
    file_name=re.compile(
        r"(?P<token>[A-Z0-9]{4,30}(?:_\d{6}|_PERP)?)-"
        r"(?:(?P<step>\d+[a-zM]{1,2})|(?P<trades>trades|aggTrades)|(?P<kind>fundingRate|metrics|bookDepth|bookTicker))"
        r"-\d{4}-\d\d(?:-\d\d)?"
    ),
)
