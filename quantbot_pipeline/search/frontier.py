"""The frontier: every policy of the grid on every caller's calls, ranked under constraints, with its Pareto set.

All callers are evaluated in one aggregation over the outcomes of one replay. Source: docs/semantics.md, "Frontier".
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quantbot_pipeline.compiled import compiled
from quantbot_pipeline.replay.policies import Policy, canonical_json, policy_id
from quantbot_pipeline.replay.results import Outcomes, Truth
from quantbot_pipeline.replay.statistics import MEDIAN_RETURN, P95_DRAWDOWN, RANKING_STATS, STATS, aggregate
from quantbot_pipeline.replay.truth import included_rows
from quantbot_pipeline.search.leaning import leaned
from quantbot_pipeline.search.objective import VIOLATIONS, Constraints, Objective, score, violated
from quantbot_pipeline.vocabulary import ALL_CALLERS


class Candidates(NamedTuple):
    """The policies of a search and what ranks them: ids, canonical texts, and the byte order of those texts."""

    policies: list[Policy]
    ids: list[str]
    texts: list[str]
    text_order: npt.NDArray[np.int64]


class Group(NamedTuple):
    """A caller (or all of them), its included calls as rows of the replay, and how many different tokens they name."""

    name: str
    rows: npt.NDArray[np.int64]
    mints: int


class Ranking(NamedTuple):
    """One group's policies: statistics (P, S), score and violations (P, …), and policies by rank, best first."""

    stats: npt.NDArray[np.float64]
    score: npt.NDArray[np.float64]
    violations: npt.NDArray[np.bool_]
    order: npt.NDArray[np.int64]

    def best(self) -> int | None:
        """The policy of rank 1 if it meets the constraints."""
        first = int(self.order[0])
        return None if self.violations[first].any() else first


def candidates(policies: Sequence[Policy]) -> Candidates:
    """Prepare policies for ranking."""
    texts = [canonical_json(p) for p in policies]
    order = np.empty(len(texts), dtype=np.int64)
    order[sorted(range(len(texts)), key=lambda i: texts[i].encode())] = np.arange(len(texts))
    return Candidates(list(policies), [policy_id(p) for p in policies], texts, order)


def group_of(name: str, rows: npt.NDArray[np.int64], mints: npt.NDArray[np.integer]) -> Group:
    """Return a group of calls; `mints`: the token of every call of the replay, as a number."""
    return Group(name, rows, len(np.unique(mints[rows])))


def mint_numbers(mints: pa.ChunkedArray) -> npt.NDArray[np.int32]:
    """Return a number for every call: the same for the same token."""
    return mints.combine_chunks().dictionary_encode().indices.to_numpy()


def caller_groups(calls: pa.Table, truth: Truth) -> list[Group]:
    """All callers pooled, then each caller in byte order; only callers that have an included call."""
    rows = included_rows(truth)
    if not len(rows):
        return []
    mints = mint_numbers(calls["mint"])
    names = calls["caller_name"].take(pa.array(rows)).combine_chunks().dictionary_encode()
    codes = names.indices.to_numpy()
    ordered = sorted(enumerate(names.dictionary.to_pylist()), key=lambda pair: pair[1].encode())
    own = [group_of(name, rows[codes == code], mints) for code, name in ordered]
    return [group_of(ALL_CALLERS, rows, mints), *own]


def statistics(
    groups: Sequence[Group], truth: Truth, outcomes: Outcomes, c: float, objective: Objective
) -> npt.NDArray[np.float64]:
    """What `rank` needs to know of every (group, policy), (G, P, S): the first S of STATS. Policies may be done in any number of parts."""
    ends = np.cumsum([len(g.rows) for g in groups], dtype=np.int64)
    rows = np.concatenate([g.rows for g in groups]) if groups else np.empty(0, np.int64)
    return aggregate(truth, outcomes, rows, ends, c, stats=objective.stats)


def rank(
    groups: Sequence[Group],
    truth: Truth,
    stats: npt.NDArray[np.float64],
    found: Candidates,
    constraints: Constraints,
    objective: Objective,
    pool_calls: int = 0,
) -> list[Ranking]:
    """Rank all policies for every group: feasible first, then score, median return, drawdown, canonical text.

    stats: (G, P, S) as `statistics` gives them. A caller's are leaned on those of all callers by `pool_calls`, which count for its
    minimum of trades, too. The numbers compared are rounded to six decimals, so that the order of a summation cannot decide.
    """
    rankings = []
    everybody = next((i for i, group in enumerate(groups) if group.name == ALL_CALLERS), None)
    tables = leaned(stats, [len(group.rows) for group in groups], everybody, pool_calls)
    for i, (group, table) in enumerate(zip(groups, tables, strict=True)):
        own = constraints.for_peaks(truth.peak[group.rows] / truth.p0[group.rows])
        trades = len(group.rows) + (0 if i == everybody else pool_calls)
        points, broken = score(table, objective), violated(table, trades, group.mints, own)
        keys = [points, table[:, MEDIAN_RETURN], table[:, P95_DRAWDOWN]]
        order = np.lexsort([found.text_order, *(-np.round(k, 6) for k in reversed(keys)), broken.any(axis=1)])
        rankings.append(Ranking(table, points, broken, order))
    return rankings


def pareto(ranking: Ranking) -> npt.NDArray[np.bool_]:
    """Policies that no other beats or equals in median return, stop-out rate and drawdown while better in one."""
    columns = ("median_return_bps", "stop_out_rate", "p95_drawdown_bps")
    median, stops, drawdown = (np.ascontiguousarray(ranking.stats[:, STATS.index(name)]) for name in columns)
    return _pareto(median, stops, drawdown)


@compiled()
def _pareto(median, stops, drawdown):  # type: ignore[no-untyped-def]
    keep = np.ones(len(median), np.bool_)
    for i in range(len(median)):
        for j in range(len(median)):
            as_good = median[j] >= median[i] and stops[j] <= stops[i] and drawdown[j] >= drawdown[i]
            if as_good and (median[j] > median[i] or stops[j] < stops[i] or drawdown[j] > drawdown[i]):
                keep[i] = False
                break
    return keep


def frontier_table(
    groups: Sequence[Group], rankings: Sequence[Ranking], calls: pa.Table, truth: Truth, found: Candidates
) -> pa.Table:
    """One row per (group, policy), group after group, best rank first; columns as the `frontier` artifact without `run_id`."""
    p = len(found.ids)
    order = [r.order for r in rankings]
    index = np.concatenate(order) if order else np.empty(0, np.int64)
    names = pa.array([g.name for g in groups], pa.string())
    violation_texts, violation_codes = _violation_texts(rankings, order)
    excluded = _excluded_by_caller(calls, truth)
    stats = (
        np.concatenate([r.stats[o] for r, o in zip(rankings, order, strict=True)])
        if order
        else np.empty((0, RANKING_STATS))
    )

    def per_group(values: Sequence[int]) -> npt.NDArray[np.int64]:
        return np.repeat(np.array(values, dtype=np.int64), p)

    columns = {
        "caller_name": names.take(pa.array(np.repeat(np.arange(len(groups)), p))),
        "policy_params": pa.array(found.texts, pa.string()).take(pa.array(index)),
        "meets_constraints": violation_codes == 0,
        "objective_score": np.concatenate([r.score[o] for r, o in zip(rankings, order, strict=True)])
        if order
        else np.empty(0),
        "rank": np.tile(np.arange(1, p + 1), len(groups)),
        "policy_id": pa.array(found.ids, pa.string()).take(pa.array(index)),
        "trades": per_group([len(g.rows) for g in groups]),
        "calls_excluded": per_group([excluded.get(g.name, 0) for g in groups]),
        "distinct_mints": per_group([g.mints for g in groups]),
        "censored_count": per_group([int(truth.censored[g.rows].sum()) for g in groups]),
        "violations": violation_texts.take(pa.array(violation_codes)),
        "is_pareto": np.concatenate([pareto(r)[o] for r, o in zip(rankings, order, strict=True)])
        if order
        else np.empty(0, bool),
    }
    for i, name in enumerate(STATS[:RANKING_STATS]):
        columns.setdefault(name, pa.array(stats[:, i], mask=np.isnan(stats[:, i])))
    return pa.table(columns)


def _violation_texts(
    rankings: Sequence[Ranking], order: Sequence[npt.NDArray[np.int64]]
) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """All combinations as text (`trades,stop_out_rate`), and the combination of every row."""
    bits = 1 << np.arange(len(VIOLATIONS))
    texts = [
        ",".join(name for name, bit in zip(VIOLATIONS, bits, strict=True) if code & bit)
        for code in range(1 << len(VIOLATIONS))
    ]
    codes = [(r.violations[o] * bits).sum(axis=1) for r, o in zip(rankings, order, strict=True)]
    return pa.array(texts, pa.string()), np.concatenate(codes) if codes else np.empty(0, np.int64)


def _excluded_by_caller(calls: pa.Table, truth: Truth) -> dict[str, int]:
    left_out = calls["caller_name"].take(pa.array(np.flatnonzero(truth.status != 0))).to_pylist()
    counts: dict[str, int] = {ALL_CALLERS: len(left_out)}
    for name in left_out:
        counts[name] = counts.get(name, 0) + 1
    return counts
