"""The columns of feature set 1: their names, in the order of the artifact, and which of them count.

Belongs here: names. Does not: how a column is made. A column never changes its meaning: another definition is another name,
and another list of columns is another set.
"""

FEATURE_SET = 1

# Of the calls, and the whole of the JSON column `features`.
FEATURES = (
    "caller_prior_calls",
    "hour_utc",
    "mint_age_ms",
    "mint_prior_callers",
    "mint_prior_calls",
    "since_callers_last_call_ms",
    "weekday_utc",
)
# Of the calls of the last day and hour.
RECENT_CALLS = ("caller_calls_24h", "mint_calls_24h", "calls_24h", "mint_callers_1h", "caller_follow_share")
# Of the token's own candles.
PRICES = (
    "candles_24h",
    "stale_ms",
    "ret_1h",
    "ret_4h",
    "ret_24h",
    "from_high_24h",
    "from_low_24h",
    "rv_4h",
    "rv_24h",
    "max_up_24h",
    "up_share_24h",
    "volume_share_1h",
)
# Of the candles of all other tokens, and the token's own return against theirs.
MARKET = ("market_tokens", "market_ret_1h", "market_ret_24h", "market_rv_24h", "excess_ret_24h")
FROM_CANDLES = PRICES + MARKET
COUNTS = frozenset({"candles_24h", "stale_ms", "market_tokens"})  # int64; every other column of candles is float64
