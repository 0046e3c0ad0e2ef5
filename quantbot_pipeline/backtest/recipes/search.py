"""The search: every policy of the grid on every caller's calls, and the trades of each caller's best."""

import functools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quantbot_pipeline.backtest.replaying import Replayed, of_policies
from quantbot_pipeline.backtest.run import Run
from quantbot_pipeline.config import BacktestConfig
from quantbot_pipeline.replay.policies import Policy

if TYPE_CHECKING:
    from quantbot_pipeline.replay import results
    from quantbot_pipeline.search.frontier import Candidates, Group
    from quantbot_pipeline.search.objective import Constraints, Objective


def make(run: Run) -> None:
    search = search_of(run.config)
    searched = replay_search(run, search)
    first = write_frontier(run, searched, search)
    _write_best_trades(run, searched, search, first)


def search_of(config: BacktestConfig) -> "Candidates":
    return _candidates(json.dumps(config.grid))


@functools.lru_cache(maxsize=4)  # the months of a range search the same grid
def _candidates(grid: str) -> "Candidates":
    from quantbot_pipeline.search.frontier import candidates
    from quantbot_pipeline.search.grid import parse_grid

    return candidates(parse_grid(json.loads(grid)).multiply())


def goals_of(config: BacktestConfig) -> "tuple[Constraints, Objective]":
    from quantbot_pipeline.search.objective import Constraints, Objective, parse_model

    constraints = parse_model(Constraints, "constraints", config.constraints)
    return constraints, parse_model(Objective, "objective", config.objective)


class _Searched(NamedTuple):
    """The grid on every caller's calls: groups, statistics (G, P, …), how many parts it took, and the replay of the last."""

    groups: "list[Group]"
    stats: npt.NDArray[np.float64]
    parts: int
    last: Replayed


def replay_search(run: Run, search: "Candidates", also: Sequence[Policy] = ()) -> _Searched:
    """Replay the grid, in as many parts as the memory limit asks for; `also` are the last policies of the last part."""
    from quantbot_pipeline.search.frontier import caller_groups, statistics

    objective = goals_of(run.config)[1]
    groups: list[Group] = []
    stats = []
    parts = run.parts(len(search.policies), run.inputs.calls.num_rows, len(also))
    for part in parts:
        extra = also if part is parts[-1] else ()
        replayed = run.replay([*search.policies[part], *extra], both_orders=bool(extra) and run.config.both_orders)
        with run.record.phase("optimization"):
            groups = groups or caller_groups(run.inputs.calls, replayed.truth)
            grid = of_policies(replayed, 0, part.stop - part.start) if extra else replayed
            stats.append(statistics(groups, grid.truth, grid.outcomes, run.cost, objective))
    return _Searched(groups, np.concatenate(stats, axis=1), len(parts), replayed)


def write_frontier(run: Run, searched: _Searched, search: "Candidates") -> dict[str, int]:
    """The frontier of every caller; returns the position of each caller's first policy."""
    from quantbot_pipeline.search.frontier import frontier_table, rank

    calls, truth, groups = run.inputs.calls, searched.last.truth, searched.groups
    with run.record.phase("optimization"):
        rankings = rank(groups, truth, searched.stats, search, *goals_of(run.config))
        run.staged.write("frontier", frontier_table(groups, rankings, calls, truth, search))
    return {group.name: int(ranking.order[0]) for group, ranking in zip(groups, rankings, strict=True)}


def _write_best_trades(run: Run, searched: _Searched, search: "Candidates", first: dict[str, int]) -> None:
    """The trades of each caller's first policy on its own calls."""
    from quantbot_pipeline.replay.trades import chosen_trades_table

    calls, replayed = run.inputs.calls, searched.last
    column = np.array([first.get(name, 0) for name in calls["caller_name"].to_pylist()], dtype=np.int64)
    outcomes = replayed.outcomes if searched.parts == 1 else _replay_chosen(run, search, column)
    with run.record.phase("optimization"):
        if searched.parts == 1:
            outcomes = outcomes.of_chosen(np.arange(len(column)), column)
        ids = pa.array(search.ids, pa.string()).take(pa.array(column))
        run.staged.write("trades", chosen_trades_table(calls, replayed.truth, outcomes, ids, run.cost))


def _replay_chosen(run: Run, search: "Candidates", column: npt.NDArray[np.int64]) -> "results.Outcomes":
    """The outcome (C, 1) of policy `column` of each call, replayed again, as all outcomes together do not fit into memory."""
    from quantbot_pipeline.replay.results import empty_outcomes, with_exits
    from quantbot_pipeline.vocabulary import INCLUDED

    chosen = np.unique(column)
    outcomes, parts = empty_outcomes(len(column), 1), []
    for part in run.parts(len(chosen), len(column)):
        again = run.replay([search.policies[p] for p in chosen[part]])
        rows = np.flatnonzero(np.isin(column, chosen[part]) & (again.truth.status == INCLUDED))
        parts.append((rows, again.outcomes.at(rows, np.searchsorted(chosen[part], column[rows]))))
        outcomes.first[rows], outcomes.distinct[rows] = np.arange(len(rows)), 1
    return with_exits(outcomes, parts)
