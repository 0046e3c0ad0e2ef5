"""Kraken's OHLCVT files: seconds, open, high, low, close, volume, trades, without a header; the name ends in minutes."""

import re

from quantbot_pipeline.ingest.layouts.common import TIME_TO_VOLUME, Layout

KRAKEN = Layout(
    "Kraken OHLCVT",
    "`XBTUSD_60.csv`: seven columns without header, the minutes of a candle in the name",
    by_place=(*TIME_TO_VOLUME, "trades"),
    file_name=re.compile(r"(?P<token>[A-Z0-9]{4,14})_(?P<minutes>1|5|15|30|60|240|720|1440)"),
)
