"""What a caller deserves: the constraints a policy must meet and the score by which the feasible ones are ranked.

Sources: docs/semantics.md, "Frontier". The growth score is the mean log growth of an account that stakes a fixed fraction
(Kelly, "A New Interpretation of Information Rate", 1956).
"""

from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.replay.policies import Whole, complaint
from quantbot_pipeline.replay.statistics import (
    AVG_TAIL_CAPTURE,
    GROWTH_SCORE,
    MEDIAN_EXCURSION,
    MEDIAN_RETURN,
    RANKING_STATS,
    STATS,
)

# In this order they are named in `violations`. The last three have limits only where they are set.
VIOLATIONS = (
    "trades",
    "avg_return_bps",
    "stop_out_rate",
    "p95_drawdown_bps",
    "avg_time_exposed_ms",
    "distinct_mints",
    "data_end_share",
    "stressed_avg_return_bps",
)
M = TypeVar("M", bound=BaseModel)


class Constraints(BaseModel):
    """Limits of risk and evidence; returns and drawdowns in basis points, times in ms."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    min_trades: Whole = Field(10, ge=0)
    min_avg_return_bps: float = Field(0.0, allow_inf_nan=False, description="exclusive: the mean must be above it")
    max_stop_out_rate: float = Field(0.40, ge=0, le=1)
    min_p95_drawdown_bps: float = Field(-5_000.0, le=0, allow_inf_nan=False)
    max_avg_time_exposed_ms: float = Field(86_400_000.0, ge=0, allow_inf_nan=False)
    min_distinct_mints: Whole | None = Field(None, ge=0, description="least number of different tokens; null: any")
    max_data_end_share: float | None = Field(
        None, ge=0, le=1, description="greatest share of trades that end because the data end; null: any"
    )
    min_stressed_avg_return_bps: float | None = Field(
        None, allow_inf_nan=False, description="least mean with such trades valued at a total loss; null: any"
    )
    fat_tail_factor: float | None = Field(
        None, gt=0, le=1, description="divides the drawdown and stop-out limits of callers with fat tails; null: never"
    )
    fat_tail_p95_peak: float = Field(20.0, gt=1)
    fat_tail_p75_peak: float = Field(10.0, gt=1)

    def for_peaks(self, peak_multiples: npt.NDArray[np.float64]) -> "Constraints":
        """These constraints, relaxed if the caller's peaks (multiples of the entry price) have a fat tail."""
        if self.fat_tail_factor is None or not len(peak_multiples):
            return self
        p75, p95 = np.quantile(peak_multiples, [0.75, 0.95])
        if p95 < self.fat_tail_p95_peak and p75 < self.fat_tail_p75_peak:
            return self
        relaxed = {
            "max_stop_out_rate": min(1.0, self.max_stop_out_rate / self.fat_tail_factor),
            "min_p95_drawdown_bps": self.min_p95_drawdown_bps / self.fat_tail_factor,
        }
        return self.model_copy(update=relaxed)


class Objective(BaseModel):
    """The score: `growth` or `median`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["growth", "median"] = "growth"

    @property
    def stats(self) -> int:
        """How many of STATS must be computed to rank by it."""
        return RANKING_STATS if self.kind == "growth" else RANKING_STATS + 1


def parse_model(model: type[M], name: str, values: Any) -> M:
    """A validated model from JSON values. Raises InputError naming the key that is wrong."""
    try:
        return model.model_validate(values)
    except ValidationError as e:
        first = e.errors()[0]
        raise InputError(complaint([name, *first["loc"]], first)) from None


def score(stats: npt.NDArray[np.float64], objective: Objective) -> npt.NDArray[np.float64]:
    """The objective's score, shape of `stats` (…, S) without its last axis; always finite."""
    if objective.kind == "growth":
        return stats[..., GROWTH_SCORE]
    capture = np.nan_to_num(stats[..., AVG_TAIL_CAPTURE], nan=0.0)
    excursion = stats[..., MEDIAN_EXCURSION]
    return stats[..., MEDIAN_RETURN] + 200 * capture - np.abs(excursion) / 100


def violated(
    stats: npt.NDArray[np.float64], trades: int, mints: int, constraints: Constraints
) -> npt.NDArray[np.bool_]:
    """Return which constraints each policy of one group violates, (P, len(VIOLATIONS)).

    stats: (P, S), the first S of STATS. trades, mints: the group's calls, and the different tokens among them.
    """
    column = {name: stats[:, STATS.index(name)] for name in VIOLATIONS if name in STATS}
    never = np.zeros(len(stats), dtype=bool)
    least, share, stressed = (
        constraints.min_distinct_mints,
        constraints.max_data_end_share,
        constraints.min_stressed_avg_return_bps,
    )
    return np.stack(
        [
            np.full(len(stats), trades < constraints.min_trades),
            ~(column["avg_return_bps"] > constraints.min_avg_return_bps),
            ~(column["stop_out_rate"] <= constraints.max_stop_out_rate),
            ~(column["p95_drawdown_bps"] >= constraints.min_p95_drawdown_bps),
            ~(column["avg_time_exposed_ms"] <= constraints.max_avg_time_exposed_ms),
            never if least is None else np.full(len(stats), mints < least),
            never if share is None else ~(column["data_end_share"] <= share),
            never if stressed is None else ~(column["stressed_avg_return_bps"] >= stressed),
        ],
        axis=1,
    )
