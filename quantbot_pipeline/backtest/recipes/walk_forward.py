"""The choice made on earlier months, tested on this one."""

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quantbot_pipeline.backtest.inputs import MonthInputs, bounds_of
from quantbot_pipeline.backtest.provenance import parameters_of
from quantbot_pipeline.backtest.recipes.search import goals_of, search_of
from quantbot_pipeline.backtest.replaying import Replayed, replay_month
from quantbot_pipeline.backtest.run import Run
from quantbot_pipeline.backtest.writing import write_rows
from quantbot_pipeline.months import month_start_ms, months_before
from quantbot_pipeline.replay.policies import Policy, parse_policy
from quantbot_pipeline.specs import KINDS
from quantbot_pipeline.vocabulary import ALL_CALLERS, INCLUDED, SCHEMES

if TYPE_CHECKING:
    from quantbot_pipeline.replay import results
    from quantbot_pipeline.search.frontier import Candidates, Group
    from quantbot_pipeline.search.walk_forward import Evaluated


def make(run: Run) -> None:
    from quantbot_pipeline.search.walk_forward import walk_forward

    config, search = run.config, search_of(run.config)
    constraints, objective = goals_of(config)
    start = month_start_ms(run.inputs.month)
    first = min(month_start_ms(m.month) for m in (run.inputs, *run.earlier))
    since = {"anchored": first, "rolling": month_start_ms(months_before(run.inputs.month, config.rolling_months))}
    trained = _train(run, search, since)
    with run.record.phase("optimization"):
        rows = walk_forward(
            trained.data,
            start,
            trained.groups,
            trained.stats,
            trained.tested,
            search,
            run.cost,
            constraints,
            objective,
            config.pool_calls,
        )
        write_rows(run, "walk_forward", rows)
        _write_test_trades(run, trained, search, rows)


def _write_test_trades(run: Run, trained: "_Trained", search: "Candidates", rows: Sequence[dict[str, Any]]) -> None:
    """Write the test trades of every choice: per scheme those of the choice of all callers pooled, then of each caller's own."""
    from quantbot_pipeline.replay.trades import chosen_trades_table

    calls = run.inputs.calls
    truth = trained.data.truth.of_calls(slice(0, calls.num_rows))
    included = truth.status == INCLUDED
    place = {name: column for column, name in enumerate(search.ids)}
    chosen = {(row["scheme"], row["caller_name"]): place.get(row["policy_id"], -1) for row in rows}
    names = calls["caller_name"].to_pylist()
    ids, everybody = pa.array(search.ids, pa.string()), np.arange(len(names))
    with run.staged.writing("trades") as trades:
        for scheme, pooled in product(SCHEMES, (True, False)):
            column = np.array(
                [chosen.get((scheme, ALL_CALLERS if pooled else name), -1) for name in names], dtype=np.int64
            )
            none, column = column < 0, np.maximum(column, 0)
            table = chosen_trades_table(
                calls, truth, trained.tested.of_chosen(everybody, column), ids.take(pa.array(column)), run.cost
            ).filter(pa.array(~none[included]))
            if pooled:
                whose = table.schema.get_field_index("caller_name")
                table = table.set_column(whose, "caller_name", pa.repeat(pa.scalar(ALL_CALLERS), table.num_rows))
            trades.add(table.append_column("scheme", pa.repeat(pa.scalar(scheme), table.num_rows)))


class _Trained(NamedTuple):
    """All calls up to the tested month; per scheme who is trained and the statistics; the tested month's outcomes."""

    data: "Evaluated"
    groups: "dict[str, list[Group]]"
    stats: dict[str, npt.NDArray[np.float64]]
    tested: "results.Outcomes"


def _train(run: Run, search: "Candidates", since: dict[str, int]) -> _Trained:
    """Replay the month and all earlier ones, in as many parts of the grid as the memory limit asks for."""
    from quantbot_pipeline.replay.results import concatenate, side_by_side
    from quantbot_pipeline.search.frontier import statistics
    from quantbot_pipeline.search.walk_forward import train_groups

    hold = parse_policy({"kind": "time_stop", "max_hold_ms": run.config.horizon_ms})
    months = (run.inputs, *run.earlier)
    parts = run.parts(len(search.policies), sum(m.calls.num_rows for m in months), also=1)
    groups: dict[str, list[Group]] = {}
    stats: dict[str, list[npt.NDArray[np.float64]]] = {scheme: [] for scheme in SCHEMES}
    tested = []
    for part in parts:
        policies = [*search.policies[part], *([hold] if part is parts[-1] else [])]
        replays = _replay_months(run, months, policies, keep=len(parts) == 1)
        with run.record.phase("optimization"):
            truth, outcomes = concatenate([r.truth for r in replays], [r.outcomes for r in replays])
            data = evaluated(replays, truth)
            groups = groups or train_groups(
                data, month_start_ms(run.inputs.month), since, run.config.horizon_ms, run.config.pool_calls
            )
            for scheme in SCHEMES:
                found = statistics(groups[scheme], truth, outcomes, run.cost, goals_of(run.config)[1])
                stats[scheme].append(found[:, : part.stop - part.start])
            tested.append(replays[0].outcomes)
    joined = {scheme: np.concatenate(found, axis=1) for scheme, found in stats.items()}
    return _Trained(data, groups, joined, side_by_side(tested))


def _replay_months(
    run: Run, months: Sequence[MonthInputs], policies: Sequence[Policy], *, keep: bool
) -> list[Replayed]:
    """Every month with the same policies, the tested one first; with `keep` they stay for the next month's walk-forward."""
    key = parameters_of(KINDS["walk-forward"], run.config, bounds_of(run.inputs.month, run.config), run.inputs.month)[
        "config_hash"
    ]
    replays = [run.replay(policies)]
    for inputs in months[1:]:
        known = (inputs.month, inputs.fingerprint, key)
        made = run.cache.get(known) if keep else None
        replays.append(made or replay_month(run.home, inputs, run.config, policies, run.record))
        if keep:
            run.cache[known] = replays[-1]
    if keep:
        run.cache[(run.inputs.month, run.inputs.fingerprint, key)] = replays[0]
    return replays


def evaluated(replays: Sequence[Replayed], truth: "results.Truth") -> "Evaluated":
    from quantbot_pipeline.search.frontier import mint_numbers
    from quantbot_pipeline.search.walk_forward import Evaluated

    mints = pa.chunked_array([chunk for r in replays for chunk in r.month.calls["mint"].chunks], pa.string())
    return Evaluated(
        callers=np.concatenate([np.array(r.month.calls["caller_name"].to_pylist(), dtype=object) for r in replays]),
        mints=mint_numbers(mints),
        month_start=np.repeat(
            [month_start_ms(r.month.month) for r in replays], [r.month.calls.num_rows for r in replays]
        ),
        truth=truth,
    )
