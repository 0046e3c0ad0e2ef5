"""The capital-aware V1 baseline: thirty accounts per caller, and the grouped one."""

import numpy as np

from quantbot_pipeline.backtest.replaying import replay_month
from quantbot_pipeline.backtest.run import Run
from quantbot_pipeline.backtest.writing import write_rows


def make(run: Run) -> None:
    from quantbot_pipeline.search import v1
    from quantbot_pipeline.search.frontier import caller_groups, group_of, mint_numbers
    from quantbot_pipeline.vocabulary import ALL_CALLERS

    # V1 is defined for the pessimistic order, whatever the configuration says.
    run.config = run.config.model_copy(update={"intrabar": "pessimistic"})
    replayed = run.replay([params.policy() for params in v1.GRID])
    with run.record.phase("optimization"):
        calls, truth = run.inputs.calls, replayed.truth
        position = v1.entry_order(truth, calls["call_id"])
        groups = [g for g in caller_groups(calls, truth) if g.name != ALL_CALLERS]
        optimized = v1.optimize(groups, truth, replayed.outcomes, position, run.cost)
        grouped = v1.grouped_params(optimized)
        if grouped is not None:
            members, mean = grouped
            together = group_of(ALL_CALLERS, np.concatenate([g.rows for g in members]), mint_numbers(calls["mint"]))
            outcomes = replay_month(run.home, run.inputs, run.config, [mean.policy()], run.record).outcomes
            account = v1.run_account(together, mean, 0, truth, outcomes, position, run.cost)
            optimized.insert(0, v1.Optimized([account], *v1.flags_of(account)))
        for one in optimized:
            counts = {reason: n for reason, n in v1.skip_counts(one.accounts[0]).items() if n}
            name = one.accounts[0].group.name
            if counts:
                text = ", ".join(f"{n} calls skipped: {reason}" for reason, n in counts.items())
                run.record.report("info", "optimization", text, details={"caller_name": name, **counts})
            if one.flags:
                flagged = {"caller_name": name, "flags": one.flags}
                run.record.report("info", "optimization", f"best parameters are {one.flags}", details=flagged)
        ids = calls["call_id"].to_pylist()
        equity = [row for one in optimized for row in v1.equity_rows(one.accounts[0], ids)]
        write_rows(run, "frontier", v1.frontier_rows(optimized, calls, truth))
        write_rows(run, "equity", equity)
