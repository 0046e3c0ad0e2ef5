"""The configuration of a backtest: everything that changes a number.

Which kind of run depends on which part of it says `specs`.

One model serves the command line, the Dagster launchpad and the tests. It loads nothing heavy, so that the code location loads fast.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.replay.policies import DEFAULT_POLICIES, Policy, complaint, parse_policy, policy_id
from quantbot_pipeline.vocabulary import DEFAULT_TARGETS, Interval

MAX_SPAN_MS = 3_660 * 86_400_000  # ten years; more is a slip of the unit


class BacktestConfig(BaseModel):
    """Everything that changes a number. Defaults are those of docs/semantics.md; times in ms, costs in basis points."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    interval: Interval = Field("5m", description="candle interval to replay")
    latency_ms: int = Field(60_000, ge=0, le=MAX_SPAN_MS, description="time between the alert and the earliest entry")
    entry: Literal["open", "close"] = Field("open", description="buy at the open or at the close of the entry candle")
    horizon_ms: int = Field(172_800_000, gt=0, le=MAX_SPAN_MS, description="length of the window after the entry")
    max_entry_delay_ms: int = Field(
        3_600_000, ge=0, le=MAX_SPAN_MS, description="alerts without a candle for longer are excluded"
    )
    min_coverage: float = Field(0.0, ge=0, le=1, description="least share of candles that a window must have")
    activity_move_pct: float = Field(0.10, gt=0, lt=1, description="price move that counts as activity")
    intrabar: Literal["pessimistic", "optimistic"] = Field("pessimistic", description="order of touches in a candle")
    both_orders: bool = Field(False, description="also replay the optimistic order and mark ambiguous trades")
    taker_fee_bps: float = Field(30.0, ge=0, lt=10_000, description="fee per side")
    slippage_bps: float = Field(10.0, ge=0, lt=10_000, description="slippage per side")
    stop_slippage_bps: float = Field(0.0, ge=0, lt=10_000, description="further slippage of protective exits")
    policies: list[dict[str, Any]] = Field(
        default_factory=lambda: [dict(p) for p in DEFAULT_POLICIES], description="exit policies, as JSON objects"
    )
    policy_id: str | None = Field(None, description="name of the policy, if there is only one")
    grid: dict[str, Any] = Field(default_factory=dict, description="levels of the policy grid; empty: the default")
    constraints: dict[str, Any] = Field(default_factory=dict, description="limits of the search; empty: the default")
    objective: dict[str, Any] = Field(default_factory=dict, description='{"kind": "growth"} or {"kind": "median"}')
    rolling_months: int = Field(3, ge=1, description="months that the rolling walk-forward learns from")
    pool_calls: int = Field(
        0, ge=0, le=1_000_000, description="calls of all callers that a caller's statistics lean on in the walk-forward"
    )
    tune_pool_calls: int = Field(
        20, ge=0, le=1_000_000, description="calls of all callers that a caller's statistics lean on in the tuning"
    )
    evidence: dict[str, Any] = Field(default_factory=dict, description="parameters of the evidence; empty: the default")
    targets: list[str] = Field(
        default_factory=lambda: list(DEFAULT_TARGETS),
        description="what models predict: hit_2x, peak_1.5, drawdown_30, win, return",
    )
    from_ms: int | None = Field(None, description="leave out calls before this UTC time")
    to_ms: int | None = Field(None, description="leave out calls at or after this UTC time")

    def parsed_policies(self) -> dict[str, Policy]:
        """{policy id: policy}, without repetitions. Raises InputError naming the key that is wrong."""
        parsed = [parse_policy(p) for p in self.policies]
        if self.policy_id is not None:
            if len(parsed) != 1:
                raise InputError(f"policy_id names one policy, but there are {len(parsed)}; leave it out")
            return {self.policy_id: parsed[0]}
        return {policy_id(p): p for p in parsed}


def make_config(values: dict[str, Any]) -> BacktestConfig:
    """A validated configuration. Raises InputError naming the key that is wrong, policies included."""
    try:
        config = BacktestConfig.model_validate(values)
    except ValidationError as e:
        first = e.errors()[0]
        raise InputError(complaint(first["loc"], first)) from None
    if config.policy_id is not None and not config.policy_id.strip():
        raise InputError("policy_id: an empty name; give the policy a name, or leave it out")
    config.parsed_policies()
    if config.targets != list(DEFAULT_TARGETS):
        from quantbot_pipeline.models.targets import parse_targets

        parse_targets(config.targets)
    if config.evidence:
        from quantbot_pipeline.evidence.rules import EvidenceRules
        from quantbot_pipeline.search.objective import parse_model

        parse_model(EvidenceRules, "evidence", config.evidence)
    if config.grid or config.constraints or config.objective:
        from quantbot_pipeline.search.grid import parse_grid
        from quantbot_pipeline.search.objective import Constraints, Objective, parse_model

        parse_grid(config.grid).multiply()
        parse_model(Constraints, "constraints", config.constraints)
        parse_model(Objective, "objective", config.objective)
    return config
