"""Truth alone: what the price did after each call, and what was known before it."""

from quantbot_pipeline.backtest.run import Run
from quantbot_pipeline.backtest.writing import write_truth


def make(run: Run) -> None:
    write_truth(run, run.replay([]))
