"""What a prediction reads and the columns that it makes, the same for a month's run and for a call that is scored."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quantbot_pipeline.market.features.candles import candle_features
from quantbot_pipeline.market.features.names import PRICES
from quantbot_pipeline.market.features.outcomes import Outcomes, outcome_history

if TYPE_CHECKING:
    from quantbot_pipeline.home import Home
    from quantbot_pipeline.models.model import Model, Predicted

MODEL_FEATURES = PRICES  # the columns that helped where this was measured; the caller is known by its rate
Floats = npt.NDArray[np.float64]


def model_features(home: "Home", calls: pa.Table, interval: str) -> Floats:
    """Return MODEL_FEATURES of calls as of their alerts, (C, F); calls: `mint` and `alert_ts_ms`."""
    found = candle_features(
        home.candles.folder,
        interval,
        calls["mint"].to_pylist(),
        calls["alert_ts_ms"].to_numpy(),
        market=False,
        threads=home.settings.threads,
    )
    return np.column_stack([found[name] for name in MODEL_FEATURES])


def prediction_columns(model: "Model", model_id: str, said: "Predicted", x: Floats) -> dict[str, Any]:
    """Return the columns of predictions that a model makes, from `target` to `stale`: x (C, F) as it saw the calls."""
    n = len(x)
    limit = np.full(n, np.nan if model.limit is None else model.limit)
    texts = {"target": model.target.name, "model_id": model_id, "status": model.status}
    return {
        **{name: pa.repeat(pa.scalar(text), n) for name, text in texts.items()},
        "value": said.value,
        "base_value": said.base,
        "caller_value": said.caller,
        "linear_value": nullable(said.linear),
        "boosting_value": nullable(said.boosting),
        "low": nullable(said.low),
        "high": nullable(said.high),
        "take": said.take,
        "limit": nullable(limit),
        "outside": said.outside,
        "stale": x[:, MODEL_FEATURES.index("candles_24h")] == 0,
    }


def past_columns(
    callers: Sequence[str], alert: npt.NDArray[np.int64], settled: Outcomes, horizon_ms: int
) -> dict[str, Any]:
    """Return the columns of the outcome history of calls, as of their alerts (UTC ms)."""
    found = outcome_history(callers, alert, settled, horizon_ms)
    counted = found.pop("caller_settled_calls").astype(np.int64)
    return {"caller_settled_calls": counted} | {name: nullable(values) for name, values in found.items()}


def nullable(values: Floats) -> pa.Array:
    """Return a column whose NaN are nulls."""
    return pa.array(values, mask=np.isnan(values))
