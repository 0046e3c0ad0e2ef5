"""The names under which tables say whose candles they are."""

from quantbot_pipeline.ingest.layouts.common import Layout

ADDRESSES = (
    "token_address",
    "mint_b58",
    "mint_address",
    "contract",
    "contract_address",
    "ca",
    "address",
    "base_address",
)
TOKENS = Layout(
    "tokens",
    "a column that names the token; a column symbol, pair or ticker does where nothing else names it",
    names={
        "address": ADDRESSES,
        "mint": (
            *ADDRESSES,
            "token",
            "symbol",
            "pair",
            "ticker",
        ),
    },
)
