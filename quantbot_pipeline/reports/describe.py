"""A policy in words and as price levels: what a trader would say and draw, from the JSON that the artifacts carry.

Belongs here: wording. What a policy means is in `replay.policies`; the V1 baseline has parameters of its own.
"""

import json
from typing import Any

from quantbot_pipeline.replay.policies import Combo, FixedStop, Ladder, Policy, TimeStop, TrailingStop, parse_policy

_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000))


def describe(params: str | Policy) -> str:
    """One line, e.g. `stop -20%, take profit +100%`; `params` is a policy or the text of a `policy_params` column.

    Raises InputError for a text that is neither a policy nor V1 parameters.
    """
    policy, v1 = _parsed(params)
    if policy is None:
        return f"take profit at {v1['tp_mult']:g}x, stop {_change(v1['sl_mult'] - 1)}, leave after {v1['max_hold_hrs']:g} h"
    rules = policy.policies if isinstance(policy, Combo) else (policy,)
    return "; ".join(_rule(rule) for rule in rules)


def kind_of(params: str | Policy) -> str:
    """The kind of a policy; `v1` for V1 parameters."""
    policy, _ = _parsed(params)
    return "v1" if policy is None else policy.kind


def price_levels(params: str | Policy) -> list[tuple[str, float]]:
    """(what happens, multiple of the entry price) of every level that is known at the entry, from the lowest up."""
    policy, v1 = _parsed(params)
    if policy is None:
        return [("stop", v1["sl_mult"]), ("take profit", v1["tp_mult"])]
    levels: list[tuple[str, float]] = []
    for rule in policy.policies if isinstance(policy, Combo) else (policy,):
        levels += _levels(rule)
    return sorted(levels, key=lambda level: level[1])


def _parsed(params: str | Policy) -> tuple[Policy | None, dict[str, Any]]:
    """(policy, {}) or (None, V1 parameters)."""
    if not isinstance(params, str):
        return params, {}
    values = json.loads(params) if params.startswith("{") else {}
    if {"tp_mult", "sl_mult", "max_hold_hrs"} == values.keys():
        return None, values
    return parse_policy(params), {}


def _rule(rule: FixedStop | TimeStop | TrailingStop | Ladder | Combo) -> str:
    match rule:
        case FixedStop():
            return f"stop {_change(-rule.stop_pct)}" + _optional(", take profit ", rule.take_profit_pct)
        case TimeStop():
            return f"leave after {_duration(rule.max_hold_ms)}" + _optional(", take profit ", rule.take_profit_pct)
        case TrailingStop():
            start = f"once up {_percent(rule.activation_pct)}, " if rule.activation_pct else ""
            hard = None if rule.hard_stop_pct is None else -rule.hard_stop_pct
            return f"{start}trail {_percent(rule.trail_pct)} below the high" + _optional(", hard stop ", hard)
        case Ladder():
            rungs = ", ".join(f"{_percent(level.fraction)} at {level.multiple:g}x" for level in rule.levels)
            stop = None if rule.stop_pct is None else -rule.stop_pct
            return f"sell {rungs}" + _optional(", stop ", stop)
        case Combo():  # a combo holds no combo; this keeps the type checker and a reader at ease
            return describe(rule)


def _levels(rule: FixedStop | TimeStop | TrailingStop | Ladder) -> list[tuple[str, float]]:
    levels: list[tuple[str, float]] = []
    if isinstance(rule, FixedStop | TimeStop) and rule.take_profit_pct is not None:
        levels.append(("take profit", 1 + rule.take_profit_pct))
    if isinstance(rule, FixedStop | Ladder) and rule.stop_pct is not None:
        levels.append(("stop", 1 - rule.stop_pct))
    if isinstance(rule, TrailingStop):
        levels.append(("trail starts", 1 + rule.activation_pct))
        if rule.hard_stop_pct is not None:
            levels.append(("hard stop", 1 - rule.hard_stop_pct))
    if isinstance(rule, Ladder):
        levels += [(f"sell {_percent(level.fraction)}", level.multiple) for level in rule.levels]
    return levels


def _optional(prefix: str, change: float | None) -> str:
    return "" if change is None else prefix + _change(change)


def _percent(fraction: float) -> str:
    return f"{fraction * 100:.4g}%"


def _change(fraction: float) -> str:
    return f"{fraction * 100:+.4g}%"


def _duration(ms: int) -> str:
    for unit, size in _UNITS:
        if ms % size == 0 and (unit != "d" or ms // size > 2):  # people say 48 h, not 2 d
            return f"{ms // size} {unit}"
    return f"{ms} ms"
