"""The features of a month's calls: those of the calls beside those that its candles give while they are replayed.

Belongs here: where the two meet, and what of them identifies a run. Does not: what a feature is; that is in `market.features`.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quantbot_pipeline.backtest.inputs import MonthInputs, seen_until
from quantbot_pipeline.config import BacktestConfig
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.home import Home
from quantbot_pipeline.market.candle_reader import month_content
from quantbot_pipeline.market.features.candles import CandleFeatures
from quantbot_pipeline.market.features.names import COUNTS
from quantbot_pipeline.months import months_before

UNREADABLE = "unreadable"


def features_from_candles(home: Home, inputs: MonthInputs, config: BacktestConfig) -> CandleFeatures:
    """Return the features of a month's calls that candles give, ready to be shown them: its `take` is the replay's `watch`."""
    calls = inputs.calls
    made = CandleFeatures(
        home.candles.folder,
        config.interval,
        inputs.month,
        calls["mint"].to_pylist(),
        calls["alert_ts_ms"].to_numpy(),
    )
    made.prepare(home.settings.threads)
    return made


def day_before(home: Home, month: str, interval: str) -> str:
    """Return the hash of the candles of the month before: features of a month's first day read them.

    A file that cannot be read has a word of its own: a run that needs it says what is wrong with it, and any other goes on.
    """
    try:
        return month_content(home.candles.folder, interval, months_before(month, 1))
    except InputError:
        return UNREADABLE


def known_to_models(home: Home, month: str, earlier: Iterable[str], config: BacktestConfig) -> list[str]:
    """Return what a month's predictions depend on beside the windows of calls: `day_before` of every month, and `seen_until`."""
    days = [day_before(home, one, config.interval) for one in (month, *earlier)]
    return [*days, str(seen_until(home, month, config))]


def with_candles(of_calls: Iterable[pa.Table], from_candles: CandleFeatures) -> Iterator[pa.Table]:
    """Yield the tables of `call_features` with the columns of candles, in the order of the month's calls."""
    columns = from_candles.columns()
    first = 0
    for piece in of_calls:
        rows = slice(first, first + piece.num_rows)
        for name, values in columns.items():
            piece = piece.append_column(name, _column(name, values[rows]))
        first = rows.stop
        yield piece


def _column(name: str, values: npt.NDArray[np.float64]) -> pa.Array:
    missing = np.isnan(values)
    if name in COUNTS:
        return pa.array(np.where(missing, 0, values).astype(np.int64), mask=missing)
    return pa.array(values, mask=missing)
