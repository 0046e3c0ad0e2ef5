"""Given policies on every call: trades and their summary."""

from quantbot_pipeline.backtest.run import Run
from quantbot_pipeline.backtest.writing import add_trades, summary_rows, write_rows


def make(run: Run) -> None:
    policies, both = list(run.config.parsed_policies().items()), run.config.both_orders
    summary = []
    with run.staged.writing("trades") as trades:
        for part in run.parts(len(policies), run.inputs.calls.num_rows * (2 if both else 1)):
            some = dict(policies[part])
            replayed = run.replay(list(some.values()), both_orders=both)
            add_trades(run, trades, replayed, some)
            summary += summary_rows(run, replayed, some)
    write_rows(run, "summary", summary)
