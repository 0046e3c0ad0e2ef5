"""How sure each caller's edge is: a function of calls, candles and configuration of all months up to this one."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from quantbot_pipeline.backtest.choices import NO_TRADE, ByCaller, Choices, Chosen
from quantbot_pipeline.backtest.grid_replays import GridReplays, MonthReplay
from quantbot_pipeline.backtest.inputs import MonthInputs, bounds_of
from quantbot_pipeline.backtest.provenance import parameters_of
from quantbot_pipeline.backtest.recipes.search import goals_of, search_of
from quantbot_pipeline.backtest.remembered import forget_others
from quantbot_pipeline.backtest.replaying import replay_month
from quantbot_pipeline.backtest.run import Run
from quantbot_pipeline.backtest.writing import write_rows
from quantbot_pipeline.config import BacktestConfig
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.months import month_start_ms
from quantbot_pipeline.replay.policies import parse_policy
from quantbot_pipeline.specs import KINDS
from quantbot_pipeline.vocabulary import DATA_END, INCLUDED, NO_ENTRY, STOP_LOSS, TAKE_PROFIT

if TYPE_CHECKING:
    from quantbot_pipeline.evidence.hurdle import Window
    from quantbot_pipeline.evidence.judging import Case, Delayed
    from quantbot_pipeline.evidence.rules import EvidenceRules
    from quantbot_pipeline.evidence.units import Calls, Units
    from quantbot_pipeline.replay import results
    from quantbot_pipeline.search.frontier import Candidates
    from quantbot_pipeline.search.walk_forward import Evaluated

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
RETURN_BYTES = 24  # of a unit and policy: x, when it is closed, and the copy that the hurdles take
RETURNS_SHARE = 0.75  # of the memory limit: what is left is for the outcomes of a part of the grid
HURDLE = "hurdle"
DELAYED = "delayed"  # what the monthly choice made under another latency
MIN_IDLE_CALLS = 10  # a choice to stay out that was made on fewer calls is none


def make(run: Run) -> None:
    from quantbot_pipeline.evidence.judging import judge

    rules = rules_of(run.config)
    case = _case(run, rules)
    with run.record.phase("optimization"):
        judged = judge(case, rules)
    if not judged.evidence:
        text = "no call has seen its whole window yet, so there is nothing to judge; ingest later candles"
        run.record.report("info", "optimization", text)
    write_rows(run, "evidence", judged.evidence)
    write_rows(run, "evidence_times", judged.times)
    write_rows(run, "evidence_costs", judged.costs)


def rules_of(config: BacktestConfig) -> "EvidenceRules":
    from quantbot_pipeline.evidence.rules import EvidenceRules
    from quantbot_pipeline.search.objective import parse_model

    return parse_model(EvidenceRules, "evidence", config.evidence)


class _History(NamedTuple):
    """All calls up to the judged month, their names in byte order, months, choices, and the arrays that units give."""

    months: Sequence[MonthInputs]
    begins: Ints  # of each month's calls among all
    names: list[str]
    calls: "Calls"
    units: "Units"  # unresolved ones included
    choices: Mapping[int, ByCaller]
    closed: Ints
    x: Floats
    ends: tuple[Ints, Ints, Ints]


def _case(run: Run, rules: "EvidenceRules") -> "Case":
    from quantbot_pipeline.evidence.hurdle import hurdles
    from quantbot_pipeline.evidence.judging import Case

    config, search = run.config, search_of(run.config)
    config_hash = _config_hash(run)
    history = _replayed(run, search, rules, config_hash)
    units, callers = history.units.of(history.units.resolved), len(history.names)
    column, learned, called = _choices_of(history)
    chosen = column[units.caller, units.month]
    idle = (chosen < 0) & called[units.caller, units.month] & (learned[units.caller, units.month] >= MIN_IDLE_CALLS)
    months = [m.month for m in history.months]
    calendar = [int(m[:4]) * 12 + int(m[5:7]) for m in months]
    with run.record.phase("optimization"):
        starts, remember = [month_start_ms(m) for m in months], _Hurdles(run, history, units, config_hash)
        hurdle = hurdles(units, history.x, starts, calendar, history.names, rules, config.horizon_ms, remember)
        remember.forget_others()
    delayed, gross = _delayed(run, history, units, column, search, rules, config_hash)
    status, waiting = history.calls.truth.status, history.units.of(~history.units.resolved)
    return Case(
        names=history.names,
        units=units,
        closed=history.closed,
        x=history.x,
        hurdle=hurdle,
        chosen=chosen,
        idle=idle,
        gross=gross,
        liquidity=np.concatenate([m.liquidity for m in history.months])[units.row],
        hits=history.calls.truth.t_multiple[units.row] >= 0,
        calls=np.bincount(history.calls.caller[status != NO_ENTRY], minlength=callers),
        unresolved=np.bincount(waiting.caller, minlength=callers),
        calendar=np.array(calendar, np.int64),
        text_order=search.text_order,
        ends=history.ends,
        delayed=delayed,
        latency_ms=config.latency_ms,
        horizon_ms=config.horizon_ms,
        cost=run.cost,
    )


def _replayed(run: Run, search: "Candidates", rules: "EvidenceRules", config_hash: str) -> _History:
    """Replay all months, in as many parts of the grid as the memory limit asks for; first for the choices, then for x."""
    from quantbot_pipeline.evidence.returns import fill, missing_lost
    from quantbot_pipeline.evidence.units import find_units

    policies, horizon = search.policies, run.config.horizon_ms
    stop = parse_policy({"kind": "fixed_stop", "stop_pct": rules.stop_pct, "take_profit_pct": 1})
    reserved = _reserved(run, sum(m.calls.num_rows for m in [*run.earlier, run.inputs]), len(policies))
    grid = GridReplays(run, policies, stop, config_hash, reserved)
    last = grid.months_of(grid.parts[-1])
    names, calls = _calls(grid.months, [m.truth for m in last])
    begins = np.cumsum([0, *(m.calls.num_rows for m in grid.months)])
    units = find_units(calls, run.config.latency_ms, horizon)
    resolved = units.of(units.resolved)
    ends = _ends(units, last, begins)
    choices = Choices(run, grid.months, search, goals_of(run.config))
    if not choices.complete:
        data = _evaluated(names, calls, grid.months)
        for part in grid.parts:
            outcomes = grid.joined(part)[1]
            with run.record.phase("optimization"):
                choices.add(part, data, outcomes)
    closed, x = missing_lost(resolved, len(policies), horizon)
    known = [np.flatnonzero((resolved.month == i) & ~resolved.missing) for i in range(len(grid.months))]
    for part in reversed(grid.parts):  # the last one is at hand
        for own, begin, month in zip(known, begins, grid.months_of(part), strict=False):
            with run.record.phase("optimization"):
                fill(closed[part], x[part], own, resolved.row[own] - begin, *month, run.cost, rules.cap)
    return _History(grid.months, begins, names, calls, units, choices.finish(calls.truth), closed, x, ends)


def _reserved(run: Run, calls: int, policies: int) -> int:
    """Return the bytes that the returns of all units take. Raises InputError where they leave too little for the replay."""
    needed, limit = calls * policies * RETURN_BYTES, run.home.settings.memory_bytes
    if needed > RETURNS_SHARE * limit:
        least = math.ceil(needed / RETURNS_SHARE / 1e6)
        raise InputError(
            f"the evidence of {calls:,} calls under {policies} policies holds {needed / 1e6:.0f} MB of returns, more than "
            f"{RETURNS_SHARE:.0%} of the memory limit; set QUANTBOT_MEMORY_LIMIT to {least}MB or search a smaller grid"
        )
    return needed


def _config_hash(run: Run) -> str:
    month = run.inputs.month
    return str(parameters_of(KINDS["evidence"], run.config, bounds_of(month, run.config), month)["config_hash"])


def _calls(months: Sequence[MonthInputs], truths: "Sequence[results.Truth]") -> "tuple[list[str], Calls]":
    """Return the callers in byte order, and all calls as numbers."""
    from quantbot_pipeline.evidence.units import Calls
    from quantbot_pipeline.replay.results import joined_truth
    from quantbot_pipeline.search.frontier import mint_numbers

    calls = pa.concat_tables([m.calls.select(["call_id", "mint", "caller_name", "alert_ts_ms"]) for m in months])
    names = sorted(pc.unique(calls["caller_name"]).to_pylist(), key=lambda name: str(name).encode())
    rank = np.empty(calls.num_rows, np.int64)
    rank[pc.sort_indices(calls["call_id"]).to_numpy()] = np.arange(calls.num_rows)
    return names, Calls(
        caller=pc.index_in(calls["caller_name"], value_set=pa.array(names, pa.string())).to_numpy().astype(np.int64),
        mint=mint_numbers(calls["mint"]).astype(np.int64),
        month=np.repeat(np.arange(len(months)), [m.calls.num_rows for m in months]),
        alert=calls["alert_ts_ms"].to_numpy(),
        id_rank=rank,
        truth=joined_truth(truths),
    )


def _evaluated(names: Sequence[str], calls: "Calls", months: Sequence[MonthInputs]) -> "Evaluated":
    from quantbot_pipeline.search.walk_forward import Evaluated

    starts = np.array([month_start_ms(m.month) for m in months], np.int64)
    return Evaluated(np.array(names, dtype=object)[calls.caller], calls.mint, starts[calls.month], calls.truth)


def _ends(units: "Units", months: Sequence[MonthReplay], begins: Ints) -> tuple[Ints, Ints, Ints]:
    """Return (caller, time, event) of the replay against the stop, the last policy, on every known unit."""
    from quantbot_pipeline.evidence.incidence import CENSORED, HIT, SILENT, STOP

    known = units.of(~units.missing)
    time, event = np.empty(len(known.row), np.int64), np.full(len(known.row), CENSORED)
    for i, (_, outcomes) in enumerate(months):
        own = np.flatnonzero(known.month == i)
        exits = outcomes.at(known.row[own] - begins[i], outcomes.which.shape[1] - 1)
        time[own] = exits.ts - known.entry[own]
        event[own[exits.reason == TAKE_PROFIT]] = HIT
        event[own[exits.reason == STOP_LOSS]] = STOP
        event[own[(exits.reason == DATA_END) & known.resolved[own]]] = SILENT
    return known.caller, time, event


def _choices_of(history: _History) -> tuple[Ints, Ints, npt.NDArray[np.bool_]]:
    """Return of every caller and month the chosen policy (-1: none), on how many calls, and whether it had a call at all."""
    truth, calls = history.calls.truth, history.calls
    called = np.zeros((len(history.names), len(history.months)), bool)
    included = truth.status == INCLUDED
    called[calls.caller[included], calls.month[included]] = True
    column, learned = np.full(called.shape, NO_TRADE), np.zeros(called.shape, np.int64)
    for c, m in np.argwhere(called).tolist():
        column[c, m], learned[c, m] = history.choices[m].get(history.names[c], Chosen(NO_TRADE, 0))
    return column, learned, called


class _Hurdles:
    """Hurdles of earlier months, remembered by the inputs of their windows and by which calls are units there."""

    def __init__(self, run: Run, history: _History, units: "Units", config_hash: str) -> None:
        self._cache, self._history, self._units, self._config_hash = run.cache, history, units, config_hash
        self._keys: set[tuple[str, ...]] = set()

    def __call__(self, month: int, known: Ints, make: "Callable[[], Window]") -> "Window":
        months, of, row = self._history.months, self._units.month[known], self._units.row[known]
        window = [m.fingerprint for m in months[of.min() : month]]
        digest = hashlib.sha256(np.array([month - of, row - self._history.begins[of]]).tobytes()).hexdigest()
        key = (HURDLE, months[month].month, self._config_hash, digest, *window)
        if key not in self._cache:
            self._cache[key] = make()
        self._keys.add(key)
        made: Window = self._cache[key]
        return made

    def forget_others(self) -> None:
        forget_others(self._cache, HURDLE, self._keys)


def _delayed(
    run: Run,
    history: _History,
    units: "Units",
    column: Ints,
    search: "Candidates",
    rules: "EvidenceRules",
    config_hash: str,
) -> "tuple[dict[int, Delayed], Floats]":
    """Return the monthly choice replayed under every latency, and exit over entry price under the run's."""
    from quantbot_pipeline.evidence.costs import LATENCIES_MS
    from quantbot_pipeline.evidence.judging import Delayed

    made, gross = {}, np.empty(0)
    keys: set[tuple[str, ...]] = set()
    for latency in sorted({*LATENCIES_MS, run.config.latency_ms}):
        months = []
        for m, inputs in enumerate(history.months):
            chosen = column[history.calls.caller[history.begins[m] : history.begins[m + 1]], m]
            key = _delayed_key(inputs, config_hash, latency, chosen)
            if key not in run.cache:
                run.cache[key] = _replay_delayed(run, inputs, latency, chosen, search, rules)
            months.append(run.cache[key])
            keys.add(key)
        included, x, entry, multiple = (np.concatenate(parts)[units.row] for parts in zip(*months, strict=True))
        made[latency] = Delayed(included & ~units.missing, x, entry)
        if latency == run.config.latency_ms:
            gross = multiple
    forget_others(run.cache, DELAYED, keys)
    return made, gross


def _delayed_key(inputs: MonthInputs, config_hash: str, latency_ms: int, chosen: Ints) -> tuple[str, ...]:
    digest = hashlib.sha256(chosen.tobytes()).hexdigest()
    return DELAYED, inputs.month, inputs.fingerprint, config_hash, str(latency_ms), digest


def _replay_delayed(
    run: Run, inputs: MonthInputs, latency_ms: int, chosen: Ints, search: "Candidates", rules: "EvidenceRules"
) -> tuple[npt.NDArray[np.bool_], Floats, Ints, Floats]:
    """Return of each call of a month, under another latency: has it a choice and a window, x, its entry, exit over entry price."""
    from quantbot_pipeline.evidence.returns import capped

    n = len(chosen)
    included, x, entry, gross = np.zeros(n, bool), np.full(n, -1.0), np.full(n, -1), np.full(n, np.nan)
    columns = np.unique(chosen[chosen >= 0])
    if len(columns):
        config = run.config.model_copy(update={"latency_ms": latency_ms})
        again = replay_month(run.home, inputs, config, [search.policies[c] for c in columns], run.record)
        included = (again.truth.status == INCLUDED) & (chosen >= 0)
        rows = np.flatnonzero(included)
        exits, p0 = again.outcomes.at(rows, np.searchsorted(columns, chosen[rows])), again.truth.p0[rows]
        x[rows], entry[rows] = capped(exits, p0, run.cost, rules.cap), again.truth.entry_ts[rows]
        gross[rows] = np.where(exits.reason == DATA_END, 0.0, exits.px / p0)
    return included, x, entry, gross
