"""Continuous levels tuned on earlier calls, tested on this month's beside the grid's choice and holding."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.backtest.earlier_runs import EarlierRuns
from quantbot_pipeline.backtest.inputs import MonthInputs
from quantbot_pipeline.backtest.recipes.search import goals_of, search_of
from quantbot_pipeline.backtest.recipes.walk_forward import evaluated
from quantbot_pipeline.backtest.remembered import forget_others
from quantbot_pipeline.backtest.replaying import Replayed, replay_month
from quantbot_pipeline.backtest.run import Run
from quantbot_pipeline.backtest.writing import write_rows
from quantbot_pipeline.months import month_start_ms, months_before
from quantbot_pipeline.replay.policies import Policy, canonical_json, parse_policy, policy_id
from quantbot_pipeline.specs import KINDS
from quantbot_pipeline.vocabulary import ALL_CALLERS, INCLUDED, SCHEMES

if TYPE_CHECKING:
    from quantbot_pipeline.replay import results
    from quantbot_pipeline.replay.compile import CompiledPolicies
    from quantbot_pipeline.search.frontier import Group
    from quantbot_pipeline.search.guard import Judged
    from quantbot_pipeline.search.tuning import Tuned, Tuner

Floats = npt.NDArray[np.float64]
CHOICES, TESTS = "tuned", "tuned-test"
WAYS = ("tuned", "grid", "unleaned", "hold")  # to leave a test call


class Choice(NamedTuple):
    """What was chosen for a caller: by tuning, by the grid leaning alike, and by the grid leaning on nobody; None: no trade."""

    train_calls: int = 0
    policy: Policy | None = None
    promise: float | None = None
    plateau: float | None = None
    evaluations: int = 0
    grid: Policy | None = None
    unleaned: Policy | None = None


Choices = dict[tuple[str, str], Choice]  # of a month, by scheme and caller


class _Test(NamedTuple):
    """The test calls of a month (N,): callers, entries, and per scheme and way the growth in bps; all callers' choice beside.

    own, pooled: {(scheme, way): growth} under the choice of the call's caller, and under that of all callers. traded: whether there
    was a trade under that of the caller.
    """

    callers: npt.NDArray[np.object_]
    entry_ts_ms: npt.NDArray[np.int64]
    own: dict[tuple[str, str], Floats]
    pooled: dict[tuple[str, str], Floats]
    traded: dict[tuple[str, str], npt.NDArray[np.bool_]]


def make(run: Run) -> None:
    months = [*run.earlier, run.inputs]
    runs = EarlierRuns(run, KINDS["tune"], run.config, months)
    keys = {what: [runs.key(what, i) for i in range(len(months))] for what in (CHOICES, TESTS)}
    for what, kept in keys.items():
        forget_others(run.cache, what, kept)
    tests: list[_Test] = []
    for i, (inputs, chosen, tested) in enumerate(zip(months, keys[CHOICES], keys[TESTS], strict=True)):
        own = inputs is run.inputs
        choices = run.cache.get(chosen) or (None if own else _read(runs, i)) or _choose(run, months, i)
        test = None if own else run.cache.get(tested)
        tests.append(test or _test(run, inputs, choices))
        run.cache |= {chosen: choices, tested: tests[-1]}
    with run.record.phase("optimization"):
        write_rows(run, "tuned", _rows(run, choices, tests))


def _read(runs: EarlierRuns, i: int) -> Choices | None:
    """Return what a run of an earlier month chose, if there is one of the same inputs, code and configuration."""
    rows = runs.rows(i, "tuned")
    return None if rows is None else {(row["scheme"], row["caller_name"]): _choice_of(row) for row in rows}


def _choice_of(row: Mapping[str, Any]) -> Choice:
    parsed = [
        None if row[name] is None else parse_policy(row[name])
        for name in ("policy_params", "grid_policy_params", "unleaned_policy_params")
    ]
    return Choice(
        row["train_calls"], parsed[0], row["promise_bps"], row["plateau_bps"], row["evaluations"], parsed[1], parsed[2]
    )


# --- the choice -------------------------------------------------------------------------------------------------------


def _choose(run: Run, months: Sequence[MonthInputs], i: int) -> Choices:
    """Choose for every caller of month i on the months before it."""
    from quantbot_pipeline.search.walk_forward import groups_learning

    past, month, config = months[:i], months[i].month, run.config
    names = [ALL_CALLERS, *sorted(set(months[i].calls["caller_name"].to_pylist()), key=lambda name: str(name).encode())]
    if not past:
        return {(scheme, name): Choice() for scheme in SCHEMES for name in names}
    replays = [replay_month(run.home, inputs, config, [], run.record) for inputs in past]
    data = evaluated(replays, _joined(replays)[0])
    start = month_start_ms(month)
    since = {
        "anchored": month_start_ms(past[0].month),
        "rolling": month_start_ms(months_before(month, config.rolling_months)),
    }
    groups = groups_learning(data, set(names), start, since, config.horizon_ms, config.tune_pool_calls)
    grid = _grid(run, past, groups)
    tuned = _tune(run, past, groups, data.truth)
    return {
        (scheme, name): _choice_for(name, groups[scheme], tuned[scheme], grid[scheme], config.tune_pool_calls)
        for scheme in SCHEMES
        for name in names
    }


def _choice_for(
    name: str,
    groups: "Sequence[Group]",
    tuned: "Sequence[Tuned | None]",
    grid: "Sequence[tuple[Policy | None, Policy | None]]",
    pool_calls: int,
) -> Choice:
    from quantbot_pipeline.search.walk_forward import group_for

    used, alone = group_for(name, groups, pool_calls)[1], group_for(name, groups)[1]
    if used is None or alone is None:
        return Choice()
    found, calls, beside = tuned[used], len(groups[used].rows), (grid[used][0], grid[alone][1])
    if found is None:
        return Choice(calls, None, None, None, _evaluations(), *beside)
    return Choice(calls, found.policy, found.promise, found.plateau, found.evaluations, *beside)


def _evaluations() -> int:
    from quantbot_pipeline.search.tuning import CHILDREN, PARENTS, ROUNDS, SOBOL

    return SOBOL + ROUNDS * PARENTS * CHILDREN


def _grid(
    run: Run, past: Sequence[MonthInputs], groups: "Mapping[str, Sequence[Group]]"
) -> "dict[str, list[tuple[Policy | None, Policy | None]]]":
    """Return the grid's choice of each group: leaning as the tuning does, and leaning on nobody."""
    from quantbot_pipeline.replay.compile import compile_policies
    from quantbot_pipeline.search.frontier import rank, statistics

    search, (constraints, objective) = search_of(run.config), goals_of(run.config)
    stats: dict[str, list[Floats]] = {scheme: [] for scheme in SCHEMES}
    for part in run.parts(len(search.policies), sum(m.calls.num_rows for m in past)):
        compiled = compile_policies(search.policies[part], run.config.activity_move_pct)
        truth, outcomes = _replayed(run, past, compiled)
        with run.record.phase("optimization"):
            for scheme in SCHEMES:
                stats[scheme].append(statistics(groups[scheme], truth, outcomes, run.cost, objective))
    made = {}
    for scheme in SCHEMES:
        table = np.concatenate(stats[scheme], axis=1)
        first = [
            [
                ranking.best()
                for ranking in rank(groups[scheme], truth, table, search, constraints, objective, pool_calls)
            ]
            for pool_calls in (run.config.tune_pool_calls, 0)
        ]
        policies = [[None if best is None else search.policies[best] for best in column] for column in first]
        made[scheme] = list(zip(*policies, strict=True))
    return made


class _Search(NamedTuple):
    """A search at work: the group of all callers that it leans on, its own, and who proposes."""

    pool: "Group"
    group: "Group"
    tuner: "Tuner"


def _tune(
    run: Run, past: Sequence[MonthInputs], groups: "Mapping[str, Sequence[Group]]", truth: "results.Truth"
) -> "dict[str, list[Tuned | None]]":
    """Search the levels of every group of every scheme, side by side: a month is decoded once for a round of all of them."""
    from quantbot_pipeline.search.tuning import ROUNDS, Tuner, first_points

    constraints, objective = goals_of(run.config)
    searches: dict[tuple[bytes, bytes], _Search] = {}  # schemes that learn from the same calls share a search
    for scheme in SCHEMES:
        for group in groups[scheme]:
            own = constraints.for_peaks(truth.peak[group.rows] / truth.p0[group.rows])
            leans = group.name != ALL_CALLERS
            tuner = Tuner(len(group.rows), group.mints, own, objective, run.config.tune_pool_calls, leans=leans)
            searches.setdefault(_calls_of(groups[scheme], group), _Search(groups[scheme][0], group, tuner))
    found = list(searches.values())
    if found:
        _tell(run, past, found, [first_points()] * len(found), shared=True)
        for number in range(ROUNDS):
            _tell(run, past, found, [search.tuner.ask(number) for search in found])
    best = {key: search.tuner.best() for key, search in searches.items()}
    return {scheme: [best[_calls_of(own, group)] for group in own] for scheme, own in groups.items()}


def _calls_of(groups: "Sequence[Group]", group: "Group") -> tuple[bytes, bytes]:
    """Return what a search depends on: the calls of all callers, and the group's."""
    return groups[0].rows.tobytes(), group.rows.tobytes()


def _tell(
    run: Run, past: Sequence[MonthInputs], searches: Sequence[_Search], asked: Sequence[Floats], *, shared: bool = False
) -> None:
    """Measure what the searches asked for, in as many parts as the memory limit asks for; `shared`: all asked for the same."""
    from quantbot_pipeline.replay.compile import compile_levels
    from quantbot_pipeline.search.frontier import statistics
    from quantbot_pipeline.search.tuning import levels_of

    objective = goals_of(run.config)[1]
    points = asked[0] if shared else np.concatenate(asked)
    ends = np.cumsum([len(p) for p in asked])
    spans = [slice(0, len(points)) if shared else slice(end - len(p), end) for p, end in zip(asked, ends, strict=True)]
    found = [np.empty((2, len(p), objective.stats)) for p in asked]
    levels = levels_of(points)
    for part in run.parts(len(points), sum(m.calls.num_rows for m in past)):
        truth, outcomes = _replayed(run, past, compile_levels(levels.of(part), run.config.activity_move_pct))
        with run.record.phase("optimization"):
            pools: dict[tuple[int, int, int], Floats] = {}
            for search, span, table in zip(searches, spans, found, strict=True):
                low, high = max(span.start, part.start), min(span.stop, part.stop)
                if low >= high:
                    continue
                some, key = (
                    outcomes.of_policies(slice(low - part.start, high - part.start)),
                    (id(search.pool), low, high),
                )
                if key not in pools:
                    pools[key] = statistics([search.pool], truth, some, run.cost, objective)[0]
                inside = slice(low - span.start, high - span.start)
                table[1, inside] = pools[key]
                own = search.group is search.pool
                table[0, inside] = (
                    pools[key] if own else statistics([search.group], truth, some, run.cost, objective)[0]
                )
    for search, p, table in zip(searches, asked, found, strict=True):
        search.tuner.tell(p, *table)


def _replayed(
    run: Run, past: Sequence[MonthInputs], policies: "CompiledPolicies"
) -> "tuple[results.Truth, results.Outcomes]":
    return _joined([replay_month(run.home, inputs, run.config, policies, run.record) for inputs in past])


def _joined(replays: Sequence[Replayed]) -> "tuple[results.Truth, results.Outcomes]":
    from quantbot_pipeline.replay.results import concatenate

    return concatenate([r.truth for r in replays], [r.outcomes for r in replays])


# --- the test ---------------------------------------------------------------------------------------------------------


def _test(run: Run, inputs: MonthInputs, choices: Choices) -> _Test:
    """Replay a month with everything that was chosen for it."""
    from quantbot_pipeline.replay.statistics import realized_return_bps
    from quantbot_pipeline.search.guard import growth_bps

    hold = parse_policy({"kind": "time_stop", "max_hold_ms": run.config.horizon_ms})
    used = {canonical_json(p): p for choice in choices.values() for p in _of(choice, hold) if p is not None}
    policies = list(used.values())
    place = {text: column for column, text in enumerate(used)}
    made = (
        run.replay(policies)
        if inputs is run.inputs
        else replay_month(run.home, inputs, run.config, policies, run.record)
    )
    rows = np.flatnonzero(made.truth.status == INCLUDED)
    callers = np.array(inputs.calls["caller_name"].to_pylist(), dtype=object)[rows]
    exits = made.outcomes.at(rows)
    realized = realized_return_bps(exits.px, made.truth.p0[rows][:, None], run.cost) / 10_000
    growth = np.append(growth_bps(realized), np.zeros((len(rows), 1)), axis=1)  # the last column is no trade

    def columns(scheme: str, way: int, names: npt.NDArray[np.object_]) -> npt.NDArray[np.int64]:
        policy = {name: _of(choices[scheme, name], hold)[way] for name in set(names)}
        column = {name: -1 if p is None else place[canonical_json(p)] for name, p in policy.items()}
        return np.array([column[name] for name in names], dtype=np.int64)

    own, pooled, traded = {}, {}, {}
    calls, everybody = np.arange(len(rows)), np.full(len(rows), ALL_CALLERS, dtype=object)
    for scheme, (way, name) in product(SCHEMES, enumerate(WAYS)):
        column = columns(scheme, way, callers)
        own[scheme, name], traded[scheme, name] = growth[calls, column], column >= 0
        pooled[scheme, name] = growth[calls, columns(scheme, way, everybody)]
    return _Test(callers, made.truth.entry_ts[rows], own, pooled, traded)


def _of(choice: Choice, hold: Policy) -> tuple[Policy | None, ...]:
    """Return the policies of a choice in the order of WAYS."""
    return choice.policy, choice.grid, choice.unleaned, hold


def _rows(run: Run, choices: Choices, tests: Sequence[_Test]) -> list[dict[str, Any]]:
    """Rows of the artifact without `run_id`: per scheme all callers pooled, then each caller of the month."""
    rows, test = [], tests[-1]
    for scheme in SCHEMES:
        tuned, leaning, held = _judged(tests, scheme, run.config.horizon_ms)
        for (of, name), choice in choices.items():
            if of != scheme:
                continue
            mine = np.ones(len(test.callers), bool) if name == ALL_CALLERS else test.callers == name
            growth = test.pooled if name == ALL_CALLERS else test.own
            earned = {way: float(growth[scheme, way][mine].mean()) if mine.any() else 0.0 for way in WAYS}
            rows.append(
                {
                    "caller_name": name,
                    "scheme": scheme,
                    "pool_calls": run.config.tune_pool_calls,
                    "train_calls": choice.train_calls,
                    "test_calls": int(mine.sum()),
                    "promise_bps": choice.promise,
                    "plateau_bps": choice.plateau,
                    "evaluations": choice.evaluations,
                    "out_of_sample_bps": earned["tuned"],
                    "grid_bps": earned["grid"],
                    "hold_bps": earned["hold"],
                    "unleaned_bps": earned["unleaned"],
                    "difference_z": tuned.z,
                    "verdict": tuned.verdict,
                    "leaning_z": leaning.z,
                    "leaning_verdict": leaning.verdict,
                    "hold_z": held.z,
                    "hold_verdict": held.verdict,
                    **_named("", choice.policy),
                    **_named("grid_", choice.grid),
                    **_named("unleaned_", choice.unleaned),
                }
            )
    return rows


def _named(prefix: str, policy: Policy | None) -> dict[str, str | None]:
    return {
        f"{prefix}policy_id": None if policy is None else policy_id(policy),
        f"{prefix}policy_params": None if policy is None else canonical_json(policy),
    }


def _judged(tests: Sequence[_Test], scheme: str, horizon_ms: int) -> "tuple[Judged, Judged, Judged]":
    """Return the verdicts to date: tuned against the grid, the grid leaning against not, the grid against holding."""
    from quantbot_pipeline.search.guard import Tested, judge

    entry = np.concatenate([test.entry_ts_ms for test in tests])
    month = np.repeat(np.arange(len(tests)), [len(test.callers) for test in tests])

    def versus(first: str, second: str, words: tuple[str, str]) -> "Judged":
        one, other = (np.concatenate([test.own[scheme, way] for test in tests]) for way in (first, second))
        traded = np.concatenate([test.traded[scheme, first] for test in tests])
        return judge(Tested(entry, month, one, other, traded), horizon_ms, *words)

    return (
        versus("tuned", "grid", ("tuned", "grid")),
        versus("grid", "unleaned", ("leaning", "not leaning")),
        versus("grid", "hold", ("grid", "hold")),
    )
