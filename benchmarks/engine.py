"""500 mixed policies on every call in one pass, and the aggregation of their outcomes into 100 callers."""

import argparse

import numpy as np

from benchmarks import measuring
from benchmarks.market import START_MS, random_market
from quantbot_pipeline.replay import kernel, results
from quantbot_pipeline.replay.compile import compile_policies
from quantbot_pipeline.replay.statistics import RANKING_STATS, aggregate
from quantbot_pipeline.search.grid import Grid

CALLERS = 100
TOKENS = 500  # distinct ones; calls share them, so that the market fits into memory


def run(options: argparse.Namespace) -> None:
    """Measure both and print CPU seconds."""
    measuring.title(f"Engine: {options.policies} policies x {options.calls} calls x {options.candles} candles")
    rng = np.random.default_rng(7)
    wider = Grid(stops=[0.05, 0.08, 0.10, 0.12, 0.15, 0.20, 0.25, 0.30, 0.40, 0.50], trails=[0.02, 0.05, 0.1, 0.2])
    policies = wider.multiply()[: options.policies]
    compiled = compile_policies(policies)
    candles = random_market(rng, TOKENS, options.candles).flat()
    token = np.arange(options.calls, dtype=np.int64) % TOKENS
    lo = token * options.candles
    alert = np.full(options.calls, START_MS - 60_000, dtype=np.int64)
    rows = np.arange(options.calls, dtype=np.int64)
    truth, outcomes = results.empty_truth(options.calls), results.empty_outcomes(options.calls, len(policies))
    rules = results.Rules(interval_ms=60_000)
    caller = np.argsort(rng.integers(0, CALLERS, options.calls), kind="stable")
    ends = np.linspace(0, options.calls, CALLERS + 1).astype(np.int64)[1:]

    def replay() -> results.Outcomes:
        exits = kernel.replay(candles, alert, lo, lo + options.candles, rows, rules, compiled, truth, outcomes)
        return results.with_exits(outcomes, [(rows, exits)])

    made = replay()
    works = {
        "replay": replay,
        "aggregation": lambda: aggregate(truth, made, caller, ends, 0.004, stats=RANKING_STATS),
    }
    spent = measuring.interleaved(works, options.repeats)
    evaluations = options.calls * len(policies)
    measuring.table(
        ("", "CPU s", "outcomes per CPU-second"),
        [
            (name, f"{measuring.median(seconds):.3f}", measuring.rate(evaluations / measuring.median(seconds)))
            for name, seconds in spent.items()
        ],
    )
    print(f"peak memory {measuring.peak_memory_mb():.0f} MB")
