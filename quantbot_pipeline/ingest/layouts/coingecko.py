"""CoinGecko's OHLC: arrays of [ms of the close, open, high, low, close], without volume."""

from quantbot_pipeline.ingest.layouts.common import TIME_TO_VOLUME, Layout

COINGECKO = Layout(
    "CoinGecko OHLC",
    "JSON arrays of five numbers, stamped with the close; `--stamp open` says otherwise",
    by_place=TIME_TO_VOLUME[:-1],
    close_stamped=True,
)
