"""What must be true of the columns of feature set 1, whatever callers and candles did."""

from collections.abc import Iterator

from quantbot_pipeline.artifacts.columns import Columns, Fault, above, apart, counts, rates

NEVER_NULL = ("caller_calls_24h", "mint_calls_24h", "calls_24h", "mint_callers_1h", "candles_24h", "market_tokens")


def recent_calls(t: Columns) -> Iterator[Fault]:
    """Yield what is wrong with the columns of earlier calls."""
    for name in NEVER_NULL:  # the schema admits it, for runs of versions without these columns
        yield name, "null", t.absent(name)
    yield from counts(t, *NEVER_NULL)
    yield from rates(t, "caller_follow_share")
    for part, whole in (
        ("caller_calls_24h", "caller_prior_calls"),
        ("caller_calls_24h", "calls_24h"),
        ("mint_calls_24h", "mint_prior_calls"),
        ("mint_calls_24h", "calls_24h"),
        ("mint_callers_1h", "mint_prior_callers"),
        ("mint_callers_1h", "mint_calls_24h"),
    ):
        yield part, f"more than {whole}", t[part] > t[whole]
    alone = t.absent("caller_follow_share") != (t["caller_prior_calls"] == 0)
    yield "caller_follow_share", "without caller_prior_calls, or the other way round", alone


def from_candles(t: Columns) -> Iterator[Fault]:
    """Yield what is wrong with the columns of candles."""
    none, nobody = t["candles_24h"] == 0, t["market_tokens"] == 0
    for name in ("stale_ms", "ret_24h", "from_high_24h", "from_low_24h", "rv_24h", "max_up_24h", "up_share_24h"):
        yield name, "without candles_24h, or the other way round", t.absent(name) != none
    for name in ("market_ret_24h", "market_rv_24h"):
        yield name, "without market_tokens, or the other way round", t.absent(name) != nobody
    for name, wider in (
        ("ret_1h", "ret_4h"),
        ("ret_4h", "ret_24h"),
        ("volume_share_1h", "ret_24h"),
        ("market_ret_1h", "market_ret_24h"),
    ):
        yield name, f"without {wider}", ~t.absent(name) & t.absent(wider)
    yield "rv_4h", "without ret_4h, or the other way round", t.absent("rv_4h") != t.absent("ret_4h")
    yield from counts(t, "stale_ms", "rv_4h", "rv_24h", "market_rv_24h", "from_low_24h")
    yield "stale_ms", "more than a day", t["stale_ms"] > 86_400_000
    yield "from_high_24h", "above 0", t["from_high_24h"] > 0
    yield from rates(t, "up_share_24h", "volume_share_1h")
    yield "max_up_24h", "more than rv_24h", above(t["max_up_24h"], t["rv_24h"])
    void = t.absent("ret_24h") | t.absent("market_ret_24h")
    yield "excess_ret_24h", "without its two returns, or the other way round", t.absent("excess_ret_24h") != void
    wrong = apart(t["excess_ret_24h"], t["ret_24h"] - t["market_ret_24h"]) & ~void
    yield "excess_ret_24h", "not ret_24h - market_ret_24h", wrong
