"""The compiled engine made ready once: every kernel that a backtest runs, in the one form in which it runs it.

Belongs here: which kernels there are from outside, and that one process compiles while others wait. How a kernel is compiled
and kept is in `compiled`. A test holds that runs of every kind compile nothing after this.
"""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np

from quantbot_pipeline.compiled import kept_in
from quantbot_pipeline.durable import locked
from quantbot_pipeline.errors import StoreError
from quantbot_pipeline.evidence.account import family, wealth
from quantbot_pipeline.evidence.clusters import DAY_MS
from quantbot_pipeline.evidence.hurdle import hurdles
from quantbot_pipeline.evidence.means import mean_interval
from quantbot_pipeline.evidence.returns import fill, missing_lost
from quantbot_pipeline.evidence.rules import EvidenceRules
from quantbot_pipeline.evidence.support import support
from quantbot_pipeline.evidence.units import Units
from quantbot_pipeline.market.features.candles import warm_up as features
from quantbot_pipeline.replay import kernel, results
from quantbot_pipeline.replay.capital import capital_path
from quantbot_pipeline.replay.compile import compile_policies
from quantbot_pipeline.replay.statistics import RANKING_STATS, aggregate
from quantbot_pipeline.search.frontier import Ranking, pareto

NO_TIMES, NO_PRICES = np.empty(0, np.int64), np.empty(0)
Say = Callable[[str], None]


def warm_up(say: Say = lambda text: None) -> None:
    """Compile or load every kernel. `say` hears what is compiled, and nothing when all is kept from before."""
    with _alone():
        fresh = kernel.must_compile()
        for number, (name, make) in enumerate(KERNELS.items(), 1):
            if fresh:
                say(f"compiling the engine once: {name} ({number} of {len(KERNELS)})")
            make()


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Hold the lock beside the machine code, where there can be one: two cores compile one thing once, not twice at half speed."""
    folder = kept_in()
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(StoreError, OSError):  # read-only, or without locks: every process for itself
            if folder is not None:
                stack.enter_context(locked(folder / "compiling.lock", -1))
        yield


def _raised() -> None:
    empty, truth, outcomes = compile_policies([]), results.empty_truth(0), results.empty_outcomes(0, 0)
    candles = results.Candles(NO_TIMES, NO_PRICES, NO_PRICES, NO_PRICES, NO_PRICES)
    no = NO_TIMES
    found = np.zeros((0, 0), dtype=bool)
    kernel.raised_and_broken(candles, no, no, no, no, results.Rules(), empty, truth, outcomes, outcomes.exits, found)


def _statistics() -> None:
    none, ends = results.empty_outcomes(0, 2), np.zeros(1, np.int64)
    aggregate(results.empty_truth(0), none, NO_TIMES, ends, 0.0, stats=RANKING_STATS)


def _searches() -> None:
    nothing = np.empty((0, RANKING_STATS))
    pareto(Ranking(nothing, NO_PRICES, np.empty((0, 0), dtype=bool), NO_TIMES))
    capital_path(NO_TIMES, NO_TIMES, NO_PRICES, 0.5)


def _evidence() -> None:
    rules = EvidenceRules(hurdle_min_units=2)
    one, stakes = np.zeros(1), np.array(rules.fractions)
    when = np.zeros(1, np.int64)
    wealth(when, when, one, stakes)
    mean_interval(when, when, one, rules.cap, stakes)
    family(when, when[None], one[None], when, one[None], stakes, np.empty((1, len(stakes))))
    two, no = np.zeros(2, np.int64), np.zeros(2, dtype=bool)
    units = Units(two, np.arange(2), two, two, two, no, ~no)
    hurdles(units, np.zeros((1, 2)), [1, 2], [1, 2], ["a", "b"], rules, 0)
    fill(*missing_lost(units, 2, 0), NO_TIMES, NO_TIMES, results.empty_truth(0), results.empty_outcomes(0, 2), 0.0, 1.0)
    days = np.arange(8) * DAY_MS
    support("", days, np.outer([1.0, 2.0], np.arange(8.0)), np.arange(2), rules)


KERNELS: dict[str, Callable[[], None]] = {
    "the replay": kernel.warm_up,
    "the order of touches": _raised,
    "statistics": _statistics,
    "the search": _searches,
    "the evidence": _evidence,
    "the features": features,
}
