"""TradingView UDF and Codex getBars: one array per column."""

from quantbot_pipeline.ingest.layouts.common import Layout

TRADINGVIEW = Layout(
    "TradingView UDF, Codex getBars",
    "a JSON object of arrays `t`, `o`, `h`, `l`, `c`, `v` or `volume`",
    names={"ts_ms": ("t",), "volume": ("v", "volume")},
)
