"""Small homes: generated calls and candles in a real store, runs made in it, and what the oracle says about them.

Belongs here: the parts of markets that reach the corners of the search, running a recipe, reading its artifacts, and looking
up single (policy, call) outcomes with `replay.naive`. What the search makes of them is in `reference`.
"""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from quantbot_pipeline.artifacts.schemas import ARTIFACTS
from quantbot_pipeline.backtest.month import MonthResult, run_month
from quantbot_pipeline.backtest.remembered import ReplayCache
from quantbot_pipeline.config import make_config
from quantbot_pipeline.home import Home
from quantbot_pipeline.replay.results import Rules
from quantbot_pipeline.vocabulary import INTERVALS_MS
from quantbot_pipeline_tests.support import builders
from quantbot_pipeline_tests.support.naive import Candle, Trade, Window, naive_trade, naive_truth, naive_window

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
JANUARY, FEBRUARY, MARCH, APRIL, MAY = (  # of 2024, with a leap day
    1_704_067_200_000,
    1_706_745_600_000,
    1_709_251_200_000,
    1_711_929_600_000,
    1_714_521_600_000,
)


class Call(NamedTuple):
    """A call as it is ingested."""

    call_id: str
    caller: str
    mint: str
    alert_ts: int
    liquidity: float | None = None


class Market(NamedTuple):
    """Calls, and the candles of every mint, ascending."""

    interval: str
    calls: list[Call]
    candles: dict[str, list[Candle]]


class Replayed(NamedTuple):
    """An included call with its window and its peak multiple, as the oracle sees it."""

    call: Call
    window: Window
    peak: float


# --- making a market --------------------------------------------------------------------------------------------------


def token(
    rng: random.Random, begin: int, n: int, interval: str, moves: Sequence[float], gaps: float = 0.1
) -> list[Candle]:
    """`n` candles from `begin`; each closes at its open times one of `moves`, wicks reach past both, some are missing."""
    step = INTERVALS_MS[interval]
    price = rng.choice((1.0, 0.25, 3.0e-6, 117.0))
    candles = []
    for i in range(n):
        opened = price * rng.choice((1.0, 1.0, 1.0, 0.97, 1.02))
        price = opened * rng.choice(moves)
        high = max(opened, price) * rng.choice((1.0, 1.0, 1.01, 1.08))
        low = min(opened, price) * rng.choice((1.0, 1.0, 0.99, 0.93))
        if rng.random() >= gaps:
            candles.append(Candle(begin + i * step, opened, high, low, price))
    return candles


def rug(begin: int, n: int, interval: str, left: float = 1e-6) -> list[Candle]:
    """One quiet candle, then the price opens at next to nothing: no stop can help."""
    step = INTERVALS_MS[interval]
    quiet, gone = (1.0, 1.0, 1.0, 1.0), (left, left, left, left)
    return [Candle(begin + i * step, *(gone if i else quiet)) for i in range(n)]


def make_home(home: Path, market: Market, *, threads: int = 1, shuffle: int | None = None) -> Home:
    """Ingest a market into a fresh home; with `shuffle` the rows of its files are in another order."""
    calls = [builders.call(c.mint, c.alert_ts, c.caller, call_id=c.call_id) for c in market.calls]
    if any(c.liquidity is not None for c in market.calls):
        calls = [row | {"liquidity_usd": c.liquidity} for row, c in zip(calls, market.calls, strict=True)]
    rows = [builders.candle(mint, *candle) for mint, candles in market.candles.items() for candle in candles]
    if shuffle is not None:
        random.Random(shuffle).shuffle(calls)
        random.Random(shuffle + 1).shuffle(rows)
    return builders.make_home(home, calls, rows, interval=market.interval, threads=threads)


def read(path: Path) -> list[dict[str, Any]]:
    """All rows of a Parquet file; columns are not inferred from the folder's name."""
    return pq.ParquetFile(path).read().to_pylist()


# --- runs and their artifacts -----------------------------------------------------------------------------------------


def run(lab: Home, recipe: str, month: str, config: Mapping[str, Any], cache: ReplayCache | None = None) -> MonthResult:
    """The committed run of a month that has calls."""
    made = run_month(lab, recipe, month, make_config(dict(config)), cache=cache)
    assert made is not None
    return made


def artifact(made: MonthResult, name: str) -> list[dict[str, Any]]:
    """All rows of an artifact, read straight from its file."""
    return read(made.run_dir / ARTIFACTS[name][0])


def content(made: MonthResult, name: str) -> str:
    """The hash of an artifact's values."""
    digest = made.manifest.artifacts[name].content_sha256
    assert digest
    return digest


def reported(made: MonthResult, phase: str) -> list[dict[str, Any]]:
    """The details of a run's errors of one phase."""
    return [json.loads(row["details"]) for row in artifact(made, "errors") if row["phase"] == phase]


# --- the oracle -------------------------------------------------------------------------------------------------------


def rules_of(market: Market, config: Mapping[str, Any]) -> Rules:
    """The rules of a configuration."""
    names = ("latency_ms", "horizon_ms", "max_entry_delay_ms", "min_coverage", "stop_slippage_bps")
    return Rules(
        interval_ms=INTERVALS_MS[market.interval],
        entry_close=config.get("entry") == "close",
        optimistic=config.get("intrabar") == "optimistic",
        **{name: config[name] for name in names if name in config},
    )


def month_calls(market: Market, start: int, end: int) -> list[Call]:
    """The calls with an alert in [start, end)."""
    return [call for call in market.calls if start <= call.alert_ts < end]


def replay(market: Market, calls: Iterable[Call], rules: Rules) -> list[Replayed]:
    """The included ones of `calls`."""
    found = []
    for call in calls:
        window = naive_window(market.candles.get(call.mint, []), call.alert_ts, rules)
        if window.status == "included":
            found.append(Replayed(call, window, naive_truth(window, rules).peak))
    return found


def trade(replayed: Replayed, policy: Mapping[str, Any], rules: Rules) -> Trade:
    """One policy on one included call."""
    return naive_trade(replayed.window, policy, rules)
