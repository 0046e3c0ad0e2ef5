"""All figures of every caller, from its units and what every policy made of them.

Belongs here: which figure is made of which units. Does not: formulas, which have a file for each section of docs/evidence.md.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.evidence import costs, incidence
from quantbot_pipeline.evidence.evalues import Bets, EValue, Refuting, e_none, e_value, without_hurdle
from quantbot_pipeline.evidence.hits import Rate, shrunk_rates
from quantbot_pipeline.evidence.means import Interval, mean_interval
from quantbot_pipeline.evidence.rules import EvidenceRules
from quantbot_pipeline.evidence.support import Support, support
from quantbot_pipeline.evidence.units import Units
from quantbot_pipeline.evidence.verdict import Standing, Verdict, verdicts

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
BPS = 10_000
MULTIPLES = (2, 3, 4)
Row = dict[str, Any]


class Delayed(NamedTuple):
    """The monthly choice under another latency, of each resolved unit: whether it has a window, x, and when it enters."""

    included: Mask
    x: Floats
    entry: Ints


class Case(NamedTuple):
    """What is judged. names: in byte order. units: resolved ones, (N,). closed, x: (P, N). hurdle: (callers, months, P).

    chosen: (N,) the policy of the monthly choice or -1; idle: (N,) the choice was to stay out. gross: (N,) exit over entry
    price of the choice, NaN without one. hits: (N, 3). calls, unresolved: by caller. calendar: the number of each month.
    ends: (caller, time, event) of the replay against the stop, unresolved units included.
    """

    names: Sequence[str]
    units: Units
    closed: Ints
    x: Floats
    hurdle: Floats
    chosen: Ints
    idle: Mask
    gross: Floats
    liquidity: Floats
    hits: Mask
    calls: Ints
    unresolved: Ints
    calendar: Ints
    text_order: Ints
    ends: tuple[Ints, Ints, Ints]
    delayed: Mapping[int, Delayed]
    latency_ms: int
    horizon_ms: int
    cost: float


class Judged(NamedTuple):
    """Rows of the three artifacts, without `run_id`."""

    evidence: list[Row]
    times: list[Row]
    costs: list[Row]


class _Caller(NamedTuple):
    """A caller and its units among all resolved ones."""

    code: int
    name: str
    part: slice


def judge(case: Case, rules: EvidenceRules) -> Judged:
    """Return the rows of every caller that has a resolved unit."""
    bounds = np.searchsorted(case.units.caller, np.arange(len(case.names) + 1)).tolist()
    callers = [
        _Caller(c, name, slice(bounds[c], bounds[c + 1]))
        for c, name in enumerate(case.names)
        if bounds[c] < bounds[c + 1]
    ]
    scored = [_scored(case, who, rules) for who in callers]
    said = verdicts([standing for standing, _ in scored], rules)
    counts, known = _hit_counts(case, callers)
    rates = [shrunk_rates(column, known) for column in counts.T]
    judged = Judged([], [], [])
    for i, who in enumerate(callers):
        standing, row = scored[i]
        curves = _cost_curves(case, who, rules)
        curve = _incidence(case, who)
        judged.times.extend(_time_rows(who.name, curve))
        judged.costs.extend(_cost_rows(who.name, curves))
        hits = _hit_columns(counts[i], [by_caller[i] for by_caller in rates])
        last = {"median_ms_to_2x": None if curve is None else curve.median_ms}
        judged.evidence.append(
            _verdict_columns(standing, said[i]) | row | hits | last | _break_evens(case, who, curves, rules)
        )
    return judged


def _bets(case: Case, who: _Caller) -> Bets:
    part, units = who.part, case.units.of(who.part)
    return Bets(
        entry=units.entry,
        month=units.month,
        missing=units.missing,
        closed=np.ascontiguousarray(case.closed[:, part]),
        x=np.ascontiguousarray(case.x[:, part]),
        hurdle=case.hurdle[who.code],
        chosen=case.chosen[part],
        idle=case.idle[part],
    )


def _scored(case: Case, who: _Caller, rules: EvidenceRules) -> tuple[Standing, Row]:
    """Return what the verdict needs of a caller, and its figures that no other caller moves."""
    units, bets, fractions = case.units.of(who.part), _bets(case, who), np.array(rules.fractions)
    known = bets.of(~bets.missing)
    staked = bets if rules.missing_lost else known
    lately = case.calendar[staked.month] > case.calendar[-1] - rules.recent_months
    e, refuting = e_value(staked, fractions), e_none(known, rules, fractions)
    e_known = e if not rules.missing_lost or not bets.missing.any() else e_value(known, fractions)
    recent = e_value(staked.of(lately), fractions).value
    has, closed, x, _ = known.choice()
    interval = mean_interval(known.entry[has], closed, x, rules.cap, fractions)
    supported = support(who.name, known.entry, known.x, case.text_order, rules)
    mints = len(np.unique(units.mint[~units.missing]))
    missing = int(units.missing.sum())
    row = {
        "e_zero": e_value(without_hurdle(staked), fractions).value,
        "e_known": e_known.value,
        "calls": int(case.calls[who.code]),
        "missing_units": missing,
        "unresolved_units": int(case.unresolved[who.code]),
        "choice_units": int(has.sum()),
    }
    standing = Standing(who.name, len(known.entry), mints, missing, len(staked.entry), e, recent, refuting)
    return standing, row | _interval_columns(interval) | _support_columns(supported)


def _verdict_columns(s: Standing, v: Verdict) -> Row:
    e: EValue = s.e
    refuting: Refuting = s.none
    return {
        "caller_name": s.name,
        "verdict": v.verdict,
        "calls_needed": v.needed,
        "towards": v.towards,
        "flags": ",".join(v.flags),
        "tested": v.tested,
        "e_value": e.value,
        "e_threshold": v.threshold,
        "e_family": e.family,
        "e_choice": e.choice,
        "e_none": refuting.value,
        "e_recent": s.recent,
        "units": s.units,
        "mints": s.mints,
    }


def _interval_columns(found: Interval | None) -> Row:
    values = (None, None, None) if found is None else tuple(value * BPS for value in found)
    return dict(zip(("choice_mean_bps", "choice_low_bps", "choice_high_bps"), values, strict=True))


def _support_columns(found: Support) -> Row:
    return found._asdict()


def _hit_counts(case: Case, callers: Sequence[_Caller]) -> tuple[Ints, Ints]:
    """Return hits (callers, 3) and known units of callers that have a row."""
    hits = [(case.hits[who.part] & ~case.units.missing[who.part, None]).sum(axis=0) for who in callers]
    known = [(~case.units.missing[who.part]).sum() for who in callers]
    return np.array(hits, np.int64).reshape(-1, len(MULTIPLES)), np.array(known, np.int64)


def _hit_columns(counts: Ints, rates: Sequence[Rate | None]) -> Row:
    row: Row = {}
    for k, count, rate in zip(MULTIPLES, counts.tolist(), rates, strict=True):
        row[f"hit_{k}x"] = count
        for name in Rate._fields:
            row[f"hit_{k}x_{name}"] = None if rate is None else getattr(rate, name)
    return row


def _incidence(case: Case, who: _Caller) -> incidence.Curve | None:
    caller, time, event = case.ends
    own = caller == who.code
    return incidence.incidence(time[own], event[own], case.horizon_ms) if own.any() else None


def _time_rows(name: str, curve: incidence.Curve | None) -> list[Row]:
    columns = ("t_ms", "hit_2x", "hit_low", "hit_high", "stop", "silent", "at_risk")
    points = [] if curve is None else curve.points
    return [{"caller_name": name, **dict(zip(columns, point, strict=True))} for point in points]


def _traded(case: Case, who: _Caller) -> Ints:
    """Return the known units of a caller that its monthly choice traded, as positions among all."""
    part = who.part
    return part.start + np.flatnonzero((case.chosen[part] >= 0) & ~case.units.missing[part])


def _cost_curves(case: Case, who: _Caller, rules: EvidenceRules) -> dict[str, list[costs.Point]]:
    units = _traded(case, who)
    if not len(units):
        return {"size": [], "latency": []}
    size = costs.size_curve(case.units.entry[units], case.gross[units], case.cost, rules.cap)
    everywhere = np.logical_and.reduce([delayed.included[units] for delayed in case.delayed.values()])
    both = units[everywhere]
    curve = []
    for latency, delayed in sorted(case.delayed.items()) if len(both) else []:
        same = float((delayed.entry[both] == case.units.entry[both]).mean())
        curve.append(costs.point(float(latency), case.units.entry[both], delayed.x[both], same))
    return {"size": size, "latency": curve}


def _cost_rows(name: str, curves: Mapping[str, Sequence[costs.Point]]) -> list[Row]:
    return [
        {
            "caller_name": name,
            "kind": kind,
            "value": point.value,
            "units": point.units,
            "same_entry": point.same_entry,
            "mean_bps": point.mean * BPS,
            "se_bps": None if point.error is None else point.error * BPS,
        }
        for kind, curve in curves.items()
        for point in curve
    ]


def _break_evens(case: Case, who: _Caller, curves: Mapping[str, Sequence[costs.Point]], rules: EvidenceRules) -> Row:
    units = _traded(case, who)
    gross = case.gross[units]
    return {
        "break_even_share": costs.break_even_share(gross, case.cost, rules.cap),
        "break_even_usd": costs.break_even_money(gross, case.liquidity[units], case.cost, rules.cap),
        "break_even_latency_ms": costs.break_even_latency(curves["latency"]),
    }
