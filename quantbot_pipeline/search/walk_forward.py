"""Walk-forward: what the choice made before a month earned in it, beside holding to the horizon and the pooled choice.

Training sees only calls whose whole window ended before the month began, so the choice cannot know the future. Sources:
docs/semantics.md, "Walk-forward"; Pardo, "The Evaluation and Optimization of Trading Strategies" (walk-forward efficiency).
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.replay.results import Outcomes, Truth
from quantbot_pipeline.replay.statistics import RANKING_STATS, STATS, aggregate
from quantbot_pipeline.search.frontier import Candidates, Group, Ranking, group_of, rank
from quantbot_pipeline.search.objective import Constraints, Objective
from quantbot_pipeline.vocabulary import ALL_CALLERS, INCLUDED, SCHEMES

MIN_TRAIN_CALLS = 10
# Columns of the artifact, and the statistic that each shows.
MEASURES = {
    "avg_return_bps": "avg_return_bps",
    "median_return_bps": "median_return_bps",
    "stop_out_rate": "stop_out_rate",
    "es95_bps": "es95_bps",
}
# The same, of the choice's test trades only: what the end of the data hides. Null without a trade.
ENDED = {"data_end_share": "data_end_share", "stressed_avg_return_bps": "stressed_avg_return_bps"}


class Evaluated(NamedTuple):
    """Every call up to and including the tested month, whose calls come first: caller, token (as a number), month start (UTC ms) and truth."""

    callers: npt.NDArray[np.object_]
    mints: npt.NDArray[np.integer]
    month_start: npt.NDArray[np.int64]
    truth: Truth


class Choice(NamedTuple):
    """Whose calls a caller's choice is made on, how many they are, and their ranking; None: nothing to learn from."""

    pooled: bool
    train_calls: int
    ranking: Ranking | None

    def column(self) -> int | None:
        """Return the chosen policy; None: no trade."""
        return None if self.ranking is None else self.ranking.best()


def choice_of(name: str, groups: Sequence[Group], rankings: Sequence[Ranking], pool_calls: int = 0) -> Choice:
    """Return the choice of a caller: of its own calls if they, with the calls that it leans on, are enough, else of all callers'."""
    pooled, used = group_for(name, groups, pool_calls)
    return Choice(pooled, 0, None) if used is None else Choice(pooled, len(groups[used].rows), rankings[used])


def group_for(name: str, groups: Sequence[Group], pool_calls: int = 0) -> tuple[bool, int | None]:
    """Return whether a caller's choice is that of all callers' calls, and the position of the group that it is made on; None: none."""
    place = {group.name: i for i, group in enumerate(groups)}
    own = place.get(name)
    pooled = own is None or len(groups[own].rows) + pool_calls < MIN_TRAIN_CALLS
    return pooled, place.get(ALL_CALLERS) if pooled else own


def train_groups(
    data: Evaluated, month_start: int, since: Mapping[str, int], horizon_ms: int, pool_calls: int = 0
) -> dict[str, list[Group]]:
    """{scheme: whose calls it may learn from}: all callers pooled, then the callers of the tested month with enough calls.

    since: {scheme: start (UTC ms) of the first month it may learn from}. pool_calls: how many calls of all callers count as a
    caller's own.
    """
    tested = set(data.callers[data.month_start == month_start])
    return groups_learning(data, tested, month_start, since, horizon_ms, pool_calls)


def groups_learning(
    data: Evaluated,
    tested: Collection[str],
    month_start: int,
    since: Mapping[str, int],
    horizon_ms: int,
    pool_calls: int,
) -> dict[str, list[Group]]:
    """As `train_groups`, for a month whose callers are `tested`; `data` need not hold its calls."""
    found = {}
    for scheme in SCHEMES:
        train = _by_caller(data, _train_rows(data, month_start, since[scheme], horizon_ms))
        groups = [
            group_of(n, r, data.mints)
            for n, r in train.items()
            if n == ALL_CALLERS or (n in tested and len(r) + pool_calls >= MIN_TRAIN_CALLS)
        ]
        found[scheme] = [g for g in groups if len(g.rows)]
    return found


def walk_forward(
    data: Evaluated,
    month_start: int,
    groups: Mapping[str, Sequence[Group]],
    stats: Mapping[str, npt.NDArray[np.float64]],
    tested: Outcomes,
    found: Candidates,
    c: float,
    constraints: Constraints,
    objective: Objective,
    pool_calls: int = 0,
) -> list[dict[str, Any]]:
    """Rows of the `walk_forward` artifact without `run_id`: per scheme, all callers pooled and each caller of the month.

    groups, stats: per scheme, as `train_groups` and `frontier.statistics` give them. tested: the outcomes of the tested
    month's calls; its columns are the candidates and, last, holding to the horizon. pool_calls: how many calls of all callers a
    caller's statistics lean on; the columns `in_sample_*` are of its own calls alone.
    """
    calls = _by_caller(data, np.flatnonzero(data.month_start == month_start))
    test = {name: rows[data.truth.status[rows] == INCLUDED] for name, rows in calls.items()}
    rows = []
    for scheme in SCHEMES:
        rankings = [
            ranking._replace(stats=own)
            for ranking, own in zip(
                rank(groups[scheme], data.truth, stats[scheme], found, constraints, objective, pool_calls),
                stats[scheme],
                strict=True,
            )
        ]
        ranked = {group.name: ranking for group, ranking in zip(groups[scheme], rankings, strict=True)}
        for name, test_rows in test.items():
            choice = choice_of(name, groups[scheme], rankings, pool_calls)
            rows.append(
                {
                    "caller_name": name,
                    "scheme": scheme,
                    "pooled": choice.pooled,
                    "train_calls": choice.train_calls,
                    "test_calls": len(test_rows),
                }
                | _judge(data.truth, tested, test_rows, choice.ranking, found, c)
                | _beside(data.truth, tested, test_rows, ranked.get(ALL_CALLERS), found, c)
            )
    return rows


def _train_rows(data: Evaluated, month_start: int, since: int, horizon_ms: int) -> npt.NDArray[np.int64]:
    """Included calls of months in [since, month_start) whose window ends by the month's start."""
    return np.flatnonzero(
        (data.truth.status == INCLUDED)
        & (data.month_start >= since)
        & (data.month_start < month_start)
        & (data.truth.entry_ts + horizon_ms <= month_start)
    )


def _by_caller(data: Evaluated, rows: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.int64]]:
    """{caller: rows}, all callers pooled first, then in byte order."""
    callers = data.callers[rows]
    names = sorted(set(callers), key=lambda name: str(name).encode())
    return {ALL_CALLERS: rows} | {name: rows[callers == name] for name in names}


def _judge(
    truth: Truth, tested: Outcomes, test: npt.NDArray[np.int64], ranking: Ranking | None, found: Candidates, c: float
) -> dict[str, Any]:
    best = None if ranking is None else ranking.best()
    out = _measure(truth, tested, test, best, c, "out_of_sample")
    if best is None or ranking is None:
        inside: dict[str, Any] = {f"in_sample_{name}": None for name in MEASURES}
        return {"policy_id": None, "policy_params": None, "efficiency": None, **inside, **out}
    inside = {f"in_sample_{name}": float(ranking.stats[best, STATS.index(column)]) for name, column in MEASURES.items()}
    trained, earned = inside["in_sample_avg_return_bps"], out["out_of_sample_avg_return_bps"]
    efficiency = earned / trained if trained > 0 else None
    return {"policy_id": found.ids[best], "policy_params": found.texts[best], "efficiency": efficiency, **inside, **out}


def _beside(
    truth: Truth, tested: Outcomes, test: npt.NDArray[np.int64], pooled: Ranking | None, found: Candidates, c: float
) -> dict[str, Any]:
    hold = _measure(truth, tested, test, tested.which.shape[1] - 1, c, "hold")
    best = None if pooled is None else pooled.best()
    everyone = _measure(truth, tested, test, best, c, "pooled")
    return {**hold, "pooled_policy_id": None if best is None else found.ids[best], **everyone}


def _measure(
    truth: Truth, tested: Outcomes, rows: npt.NDArray[np.int64], column: int | None, c: float, prefix: str
) -> dict[str, Any]:
    """Trades and returns of one policy on some calls; no policy is no trade, and no trade earns 0."""
    if column is None or not len(rows):
        return {f"{prefix}_trades": 0, **{f"{prefix}_{name}": 0.0 for name in MEASURES}}
    single = tested.of_policies(slice(column, column + 1))
    stats = aggregate(truth, single, rows, np.array([len(rows)], dtype=np.int64), c, stats=RANKING_STATS)[0, 0]
    shown = MEASURES | ENDED if prefix == "out_of_sample" else MEASURES
    return {
        f"{prefix}_trades": len(rows),
        **{f"{prefix}_{name}": float(stats[STATS.index(column_name)]) for name, column_name in shown.items()},
    }
