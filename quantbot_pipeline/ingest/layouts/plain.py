"""The names that tables of candles commonly have."""

from quantbot_pipeline.ingest.layouts.common import TIME_TO_VOLUME, Layout

PLAIN = Layout(
    "plain",
    "a table with columns of these names, or six columns without names: time, open, high, low, close, volume",
    names={
        "ts_ms": ("ts_ms", "timestamp", "date", "datetime", "time", "t", "ts", "time_utc", "date_utc"),
        "clock": ("time",),
        "open": ("open", "o", "open_price", "price_open", "open_usd"),
        "high": ("high", "h", "high_price", "price_high", "high_usd"),
        "low": ("low", "l", "low_price", "price_low", "low_usd"),
        "close": ("close", "c", "close_price", "price_close", "close_usd"),
        "volume": ("volume", "v", "vol", "base_volume", "volume_usd"),
        "symbol": ("symbol", "pair", "ticker"),
        "step": ("interval", "timeframe", "resolution"),
    },
    by_place=TIME_TO_VOLUME,
)
BARE = Layout(
    "without volume", "five columns without names: time, open, high, low, close", by_place=TIME_TO_VOLUME[:-1]
)
