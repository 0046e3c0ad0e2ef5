"""How sure each caller's edge is: a function of calls, candles and configuration of all months up to this one."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from quantbot_pipeline.backtest.choices import NO_TRADE, ByCaller, Choices, Chosen
from quantbot_pipeline.backtest.inputs import MonthInputs, bounds_of
from quantbot_pipeline.backtest.provenance import parameters_of
from quantbot_pipeline.backtest.recipes.search import goals_of, search_of
from quantbot_pipeline.backtest.replaying import Replayed, replay_month
from quantbot_pipeline.backtest.run import Run
from quantbot_pipeline.backtest.writing import write_rows
from quantbot_pipeline.config import BacktestConfig
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.months import month_start_ms
from quantbot_pipeline.replay.policies import Policy, parse_policy
from quantbot_pipeline.specs import KINDS
from quantbot_pipeline.vocabulary import DATA_END, INCLUDED, NO_ENTRY, STOP_LOSS, TAKE_PROFIT

if TYPE_CHECKING:
    from quantbot_pipeline.evidence.judging import Case, Delayed
    from quantbot_pipeline.evidence.rules import EvidenceRules
    from quantbot_pipeline.evidence.units import Calls, Units
    from quantbot_pipeline.replay import results
    from quantbot_pipeline.search.frontier import Candidates
    from quantbot_pipeline.search.walk_forward import Evaluated

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
AT_ONCE = 32  # policies whose exits are gathered together
RETURN_BYTES = 24  # of a unit and policy: x, when it is closed, and the copy that the hurdles take
RETURNS_SHARE = 0.75  # of the memory limit: what is left is for the outcomes of a part of the grid
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
    history = _replayed(run, search, rules)
    units, callers = history.units.of(history.units.resolved), len(history.names)
    chosen, idle = _choices_of(history, units)
    months = [m.month for m in history.months]
    calendar = [int(m[:4]) * 12 + int(m[5:7]) for m in months]
    with run.record.phase("optimization"):
        hurdle = hurdles(
            units, history.x, [month_start_ms(m) for m in months], calendar, history.names, rules, config.horizon_ms
        )
    delayed, gross = _delayed(run, history, units, chosen, search, rules)
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


def _replayed(run: Run, search: "Candidates", rules: "EvidenceRules") -> _History:
    """Replay all months, in as many parts of the grid as the memory limit asks for; first for the choices, then for x."""
    from quantbot_pipeline.evidence.units import find_units

    grid = _Grid(run, search, rules)
    truth, last = grid.of(grid.parts[-1])[0], grid.parts[-1]
    names, calls = _calls(grid.months, truth)
    units = find_units(calls, run.config.latency_ms, run.config.horizon_ms)
    resolved = units.of(units.resolved)
    ends = _ends(units, truth, grid.of(last)[1])
    choices = Choices(run, grid.months, search, goals_of(run.config))
    if not choices.complete:
        data = _evaluated(names, calls, grid.months)
        for part in grid.parts:
            outcomes = grid.of(part)[1]
            with run.record.phase("optimization"):
                choices.add(part, data, outcomes)
    shape = (len(search.policies), len(resolved.row))
    closed, x = np.empty(shape, np.int64), np.empty(shape)
    for part in reversed(grid.parts):  # the last one is at hand
        outcomes = grid.of(part)[1]
        with run.record.phase("optimization"):
            _fill(resolved, truth, outcomes, part, run, rules, closed, x)
    return _History(grid.months, names, calls, units, choices.finish(truth), closed, x, ends)


class _Grid:
    """All months replayed with the grid, part after part; the last part has the stop against which doubles are timed."""

    def __init__(self, run: Run, search: "Candidates", rules: "EvidenceRules") -> None:
        self.months = [*run.earlier, run.inputs]
        calls = sum(m.calls.num_rows for m in self.months)
        self.parts = run.parts(
            len(search.policies), calls, also=1, reserved=_reserved(run, calls, len(search.policies))
        )
        self._run, self._search = run, search
        self._stop = parse_policy({"kind": "fixed_stop", "stop_pct": rules.stop_pct, "take_profit_pct": 1})
        self._held: tuple[slice, tuple[results.Truth, results.Outcomes]] | None = None

    def of(self, part: slice) -> "tuple[results.Truth, results.Outcomes]":
        """Return truth and outcomes of one part of the grid on all calls; the part last asked for is held."""
        from quantbot_pipeline.replay.results import concatenate

        if self._held is None or self._held[0] != part:
            self._held = None
            policies = [*self._search.policies[part], *([self._stop] if part is self.parts[-1] else [])]
            replays = [self._replay(inputs, policies) for inputs in self.months]
            self._held = part, concatenate([r.truth for r in replays], [r.outcomes for r in replays])
        return self._held[1]

    def _replay(self, inputs: MonthInputs, policies: Sequence[Policy]) -> Replayed:
        """Replay a month; a grid in one part stays for the evidence of the next month."""
        run, keep = self._run, len(self.parts) == 1
        known = ("evidence", inputs.month, inputs.fingerprint, _config_hash(run))
        if inputs is run.inputs:
            made = run.replay(policies)
        else:
            remembered: Replayed | None = run.cache.get(known) if keep else None
            made = remembered or replay_month(run.home, inputs, run.config, policies, run.record)
        if keep:
            run.cache[known] = made
        return made


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


def _calls(months: Sequence[MonthInputs], truth: "results.Truth") -> "tuple[list[str], Calls]":
    """Return the callers in byte order, and all calls as numbers."""
    from quantbot_pipeline.evidence.units import Calls
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
        truth=truth,
    )


def _evaluated(names: Sequence[str], calls: "Calls", months: Sequence[MonthInputs]) -> "Evaluated":
    from quantbot_pipeline.search.walk_forward import Evaluated

    starts = np.array([month_start_ms(m.month) for m in months], np.int64)
    return Evaluated(np.array(names, dtype=object)[calls.caller], calls.mint, starts[calls.month], calls.truth)


def _capped(px: Floats, p0: Floats, reason: npt.NDArray[np.uint8], cost: float, cap: float) -> Floats:
    """Return x: the realized return, at most the cap; a token that stopped trading cannot be sold."""
    from quantbot_pipeline.replay.statistics import realized_return_bps

    return np.where(reason == DATA_END, -1.0, np.minimum(realized_return_bps(px, p0, cost) / 10_000, cap))


def _fill(
    units: "Units",
    truth: "results.Truth",
    outcomes: "results.Outcomes",
    part: slice,
    run: Run,
    rules: "EvidenceRules",
    closed: Ints,
    x: Floats,
) -> None:
    """Fill in what some policies made of every resolved unit; a missing one loses its stake at the horizon."""
    closed[part], x[part] = units.entry + run.config.horizon_ms, -1.0
    known = ~units.missing
    rows, p0 = units.row[known], truth.p0[units.row[known]]
    for first in range(part.start, part.stop, AT_ONCE):
        some = slice(first, min(first + AT_ONCE, part.stop))
        exits = outcomes.at(rows, slice(some.start - part.start, some.stop - part.start))
        closed[some, known] = exits.ts.T
        x[some, known] = _capped(exits.px, p0[:, None], exits.reason, run.cost, rules.cap).T


def _ends(units: "Units", truth: "results.Truth", outcomes: "results.Outcomes") -> tuple[Ints, Ints, Ints]:
    """Return (caller, time, event) of the replay against the stop, the last policy, on every known unit."""
    from quantbot_pipeline.evidence.incidence import CENSORED, HIT, SILENT, STOP

    known = units.of(~units.missing)
    exits = outcomes.at(known.row, outcomes.which.shape[1] - 1)
    event = np.full(len(known.row), CENSORED)
    event[exits.reason == TAKE_PROFIT] = HIT
    event[exits.reason == STOP_LOSS] = STOP
    event[(exits.reason == DATA_END) & known.resolved] = SILENT
    return known.caller, exits.ts - known.entry, event


def _choices_of(history: _History, units: "Units") -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Return of every unit the policy of its month's choice (-1: none), and whether the choice was to stay out."""
    truth, calls = history.calls.truth, history.calls
    months = len(history.months)
    called = np.zeros((len(history.names), months), bool)
    included = truth.status == INCLUDED
    called[calls.caller[included], calls.month[included]] = True
    column, learned = np.full(called.shape, NO_TRADE), np.zeros(called.shape, np.int64)
    for c, m in np.argwhere(called).tolist():
        column[c, m], learned[c, m] = history.choices[m].get(history.names[c], Chosen(NO_TRADE, 0))
    chosen = column[units.caller, units.month]
    idle = (chosen < 0) & called[units.caller, units.month] & (learned[units.caller, units.month] >= MIN_IDLE_CALLS)
    return chosen, idle


def _delayed(
    run: Run, history: _History, units: "Units", chosen: Ints, search: "Candidates", rules: "EvidenceRules"
) -> "tuple[dict[int, Delayed], Floats]":
    """Return the monthly choice replayed under every latency, and exit over entry price under the run's."""
    from quantbot_pipeline.evidence.costs import LATENCIES_MS
    from quantbot_pipeline.evidence.judging import Delayed

    n, begins = len(units.row), np.cumsum([0, *(m.calls.num_rows for m in history.months)])
    gross = np.full(n, np.nan)
    made: dict[int, Delayed] = {}
    for latency in sorted({*LATENCIES_MS, run.config.latency_ms}):
        made[latency] = Delayed(np.zeros(n, bool), np.full(n, -1.0), np.full(n, -1))
        for m, inputs in enumerate(history.months):
            columns = sorted({choice.column for choice in history.choices[m].values()} - {NO_TRADE})
            own = np.flatnonzero((units.month == m) & (chosen >= 0) & ~units.missing)
            if not len(own):
                continue
            again = _replay_delayed(run, inputs, latency, [search.policies[c] for c in columns], tuple(columns))
            rows = units.row[own] - begins[m]
            has = again.truth.status[rows] == INCLUDED
            own, rows = own[has], rows[has]
            exits = again.outcomes.at(rows, np.searchsorted(columns, chosen[own]))
            p0 = again.truth.p0[rows]
            made[latency].included[own], made[latency].entry[own] = True, again.truth.entry_ts[rows]
            made[latency].x[own] = _capped(exits.px, p0, exits.reason, run.cost, rules.cap)
            if latency == run.config.latency_ms:
                gross[own] = np.where(exits.reason == DATA_END, 0.0, exits.px / p0)
    return made, gross


def _replay_delayed(
    run: Run, inputs: MonthInputs, latency_ms: int, policies: Sequence[Policy], columns: tuple[int, ...]
) -> Replayed:
    """Replay a month under another latency, once for all months that look at it."""
    key = ("delayed", inputs.month, inputs.fingerprint, _config_hash(run), str(latency_ms), str(columns))
    made: Replayed | None = run.cache.get(key)
    if made is None:
        config = run.config.model_copy(update={"latency_ms": latency_ms})
        made = run.cache[key] = replay_month(run.home, inputs, config, policies, run.record)
    return made
