"""CoinMarketCap's historical data: semicolons, `timeOpen`; `timestamp` and `timeClose` are 23:59:59.999 of the day."""

from quantbot_pipeline.ingest.layouts.common import Layout

COINMARKETCAP = Layout(
    "CoinMarketCap",
    "the CSV of historical data, daily: `--interval 1d`",
    names={"ts_ms": ("time_open",)},
)
