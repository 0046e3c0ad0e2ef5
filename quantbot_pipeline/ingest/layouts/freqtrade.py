"""freqtrade and ccxt: arrays of [ms, open, high, low, close, volume]; mark, funding and trades files lie beside them."""

import re

from quantbot_pipeline.ingest.layouts.common import TIME_TO_VOLUME, Layout

FREQTRADE = Layout(
    "freqtrade, ccxt",
    "a folder of `PAIR-5m[-futures]` as feather, json, json.gz, parquet or h5; mark, funding and trades files are left out",
    by_place=TIME_TO_VOLUME,
    file_name=re.compile(
        r"(?P<token>[A-Z0-9][A-Z0-9._]*|[A-Za-z0-9.]+_[A-Z0-9_]+(?:-\d{6})?)-"
        r"(?:(?P<step>\d+[a-zM]{1,2})(?:-(?P<kind>[A-Za-z_]+))?|(?P<trades>trades))"
    ),
)
OTHER_KINDS = (
    "mark",
    "funding_rate",
    "index",
    "premiumIndex",
    "trades",
    "fundingRate",
    "metrics",
    "bookDepth",
    "bookTicker",
)
