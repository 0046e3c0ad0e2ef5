"""A generated market of one-minute candles: random walks of different volatility, with gaps and a few wild candles.

Belongs here: the candles that the benchmarks replay. They are made to cost what real ones cost: prices have seven
significant digits, some stops are hit at once and some never. They say nothing about any market.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.replay.results import Candles

Floats = npt.NDArray[np.float64]

MINUTE_MS = 60_000
START_MS = 1_767_229_200_000  # 2026-01-01 01:00 UTC
MONTH = "2026-01"
VOLATILITY = (0.001, 0.006)  # of one minute; a real memecoin's, measured on its 1m candles, is 0.005
GAPS, GAP = 0.01, 0.02  # share of candles that open away from the last close, and how far
WILD, WILD_RANGE = 0.0005, 0.4  # share of candles with long wicks on both sides, and how long


class Market(NamedTuple):
    """OHLC of T tokens with N one-minute candles each, shape (T, N), without a missing minute."""

    open: Floats
    high: Floats
    low: Floats
    close: Floats

    def flat(self) -> Candles:
        """As the engine wants it: token after token, every token from START_MS on."""
        tokens, n = self.open.shape
        ts = np.tile(START_MS + MINUTE_MS * np.arange(n), tokens)
        return Candles(ts, *(np.ascontiguousarray(column).reshape(-1) for column in self))


def random_market(rng: np.random.Generator, tokens: int, candles: int) -> Market:
    """A market of independent tokens."""
    shape = (tokens, candles)
    volatility = rng.uniform(*VOLATILITY, (tokens, 1))

    def spread(scale: Floats | float) -> Floats:
        return np.abs(rng.standard_normal(shape, dtype=np.float32)) * scale

    step = np.clip(rng.standard_normal(shape, dtype=np.float32) * volatility, -0.5, 0.5)
    close = rng.uniform(1e-6, 1e-2, (tokens, 1)) * np.cumprod(1 + step, axis=1)
    open_ = np.concatenate([close[:, :1], close[:, :-1]], axis=1)
    open_ *= 1 + np.where(rng.random(shape, dtype=np.float32) < GAPS, np.clip(spread(GAP), 0, 0.5), 0.0)
    wild = np.where(rng.random(shape, dtype=np.float32) < WILD, WILD_RANGE, 0.0)
    high = np.maximum(open_, close) * (1 + spread(volatility / 4) + wild)
    low = np.minimum(open_, close) * np.clip(1 - spread(volatility / 4) - wild, 0.1, 1.0)
    return Market(*(_seven_digits(column) for column in (open_, high, low, close)))


def _seven_digits(prices: Floats) -> Floats:
    scale = 10.0 ** (6 - np.floor(np.log10(prices)))
    return np.round(prices * scale) / scale
