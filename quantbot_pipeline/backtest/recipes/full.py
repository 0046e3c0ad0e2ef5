"""Truth, given policies and the search in one pass over the candles."""

from quantbot_pipeline.backtest.recipes.search import replay_search, search_of, write_frontier
from quantbot_pipeline.backtest.replaying import of_policies
from quantbot_pipeline.backtest.run import Run
from quantbot_pipeline.backtest.writing import summary_rows, write_rows, write_trades, write_truth


def make(run: Run) -> None:
    search, policies = search_of(run.config), run.config.parsed_policies()
    searched = replay_search(run, search, list(policies.values()))
    own = of_policies(searched.last, searched.last.outcomes.which.shape[1] - len(policies), None)
    write_truth(run, own)
    write_trades(run, own, policies)
    write_rows(run, "summary", summary_rows(run, own, policies))
    write_frontier(run, searched, search)
