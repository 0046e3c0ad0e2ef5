"""What a recipe works with and writes to."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from quantbot_pipeline.backtest.exclusions import report_exclusions
from quantbot_pipeline.backtest.features import features_from_candles
from quantbot_pipeline.backtest.inputs import MonthInputs
from quantbot_pipeline.backtest.record import Record
from quantbot_pipeline.backtest.remembered import ReplayCache
from quantbot_pipeline.backtest.replaying import Replayed, replay_month
from quantbot_pipeline.config import BacktestConfig
from quantbot_pipeline.home import Home
from quantbot_pipeline.market.features.candles import CandleFeatures
from quantbot_pipeline.replay.policies import Policy
from quantbot_pipeline.runs.commit import StagedRun


@dataclass
class Run:
    """What a recipe works with and writes to."""

    home: Home
    config: BacktestConfig
    inputs: MonthInputs
    earlier: list[MonthInputs]
    features: Callable[[], Iterator[pa.Table]] | None
    staged: StagedRun
    record: Record
    cache: ReplayCache
    excluded: int | None = None  # known once the month was replayed
    from_candles: CandleFeatures | None = None  # what candles say of the calls, known once the month was replayed

    @property
    def cost(self) -> float:
        """Fees and slippage of one side, as a fraction."""
        from quantbot_pipeline.replay.statistics import cost_per_side

        return cost_per_side(self.config.taker_fee_bps, self.config.slippage_bps)

    def replay(self, policies: Sequence[Policy], *, both_orders: bool = False) -> Replayed:
        """Replay the month; the first time, report the calls that are left out and make the features that candles give."""
        watch = None
        if self.features is not None and self.from_candles is None:
            with self.record.phase("slice"):
                self.from_candles = features_from_candles(self.home, self.inputs, self.config)
            watch = self.from_candles.take
        replayed = replay_month(
            self.home, self.inputs, self.config, policies, self.record, both_orders=both_orders, watch=watch
        )
        if watch is not None and self.from_candles is not None and self.inputs.plan.main is not None:
            self.from_candles.keep_last_day(self.inputs.plan.main)
        if self.excluded is None:
            self.excluded = report_exclusions(self.home, replayed, self.config, self.record)
        return replayed

    def parts(self, policies: int, calls: int, also: int = 0, reserved: int = 0) -> list[slice]:
        """Return slices of so many policies that their outcomes take about the memory limit; `also` go with the last.

        reserved: bytes of the limit that the outcomes must leave.
        """
        from quantbot_pipeline.replay.results import MAX_POLICIES, outcome_bytes

        most = range(1, min(policies, MAX_POLICIES - also) + 1)
        fit = bisect_right(most, self.home.settings.memory_bytes - reserved, key=lambda n: outcome_bytes(calls, n))
        size = max(1, fit)
        return [slice(first, min(first + size, policies)) for first in range(0, max(1, policies), size)]
