"""Kaggle's Bitstamp minutes: `Timestamp` in s, `Volume_(BTC)`; a minute without a trade is a row of NaN."""

from quantbot_pipeline.ingest.layouts.common import Layout

KAGGLE = Layout(
    "Kaggle Bitstamp",
    "the CSV as it is; rows of NaN are minutes without a trade and are left out",
    names={"volume": ("volume_(btc)", "volume_(*")},
)
