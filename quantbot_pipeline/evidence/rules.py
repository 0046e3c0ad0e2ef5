"""The configuration block `evidence`: every parameter of docs/evidence.md, with its default."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from quantbot_pipeline.replay.policies import Whole

MIN_HURDLE_CALLERS = 3  # so many callers with enough units make a median
CROWDED_CASH = 1e12  # an account that is this rich bets no more: numbers stay finite
REFUTED = 40.0  # an account this rich refutes a mean, at 95 % on two sides


class EvidenceRules(BaseModel):
    """Parameters of the evidence. Returns are fractions: 0.03 is 3 %."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    cap: float = Field(3.0, gt=0, le=1e6, description="a trade counts for at most this return")
    hurdle_months: Whole = Field(3, ge=1, description="months that a hurdle looks back on")
    hurdle_min_units: Whole = Field(30, ge=2, description="fewer units of other callers make no hurdle")
    hurdle_caller_units: Whole = Field(10, ge=1, description="units that a caller needs to count in the median")
    control: list[str] = Field([], description="callers that make the hurdle; empty: all others")
    fractions: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        [0.05, 0.1, 0.2, 0.4, 0.8], min_length=1, description="stakes of the accounts"
    )
    recent_months: Whole = Field(6, ge=1, description="months that `e_recent` looks at")
    missing_lost: bool = Field(True, description="whether a call without candles loses its stake")
    edge: float = Field(0.03, gt=-1, description="the mean return that would matter")
    min_units: Whole = Field(30, ge=0, description="fewer units are not tested")
    min_mints: Whole = Field(5, ge=0, description="fewer tokens are not tested")
    fdr: float = Field(0.10, gt=0, le=1, description="largest share of false claims in expectation")
    none_alpha: float = Field(0.05, gt=0, lt=1, description="error rate of `none`")
    max_missing: float = Field(0.05, ge=0, le=1, description="a greater share of missing units is flagged")
    draws: Whole = Field(1_000, ge=1, le=100_000, description="draws of the bootstrap")
    seed: Whole = Field(0, ge=0, description="names the draws")
    stop_pct: float = Field(0.5, gt=0, lt=1, description="the stop against which the time to 2x is measured")

    @field_validator("edge")
    @classmethod
    def _below_the_cap(cls, edge: float, info: ValidationInfo) -> float:
        if edge >= info.data.get("cap", edge + 1):
            raise ValueError("must be less than cap")
        return edge
