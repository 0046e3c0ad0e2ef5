"""A policy in words and as price levels, from the JSON that the artifacts carry.

Belongs here: the V1 baseline, which has parameters of its own. What each kind of policy says of itself is in `replay.policies`.
"""

import json
from typing import Any

from quantbot_pipeline.replay.policies import Policy, parse_policy


def describe(params: str | Policy) -> str:
    """Return one line, e.g. `stop -20%, take profit +100%`; `params` is a policy or the text of a `policy_params` column.

    Raises InputError for a text that is neither a policy nor V1 parameters.
    """
    policy, v1 = _parsed(params)
    if policy is None:
        stop = f"{(v1['sl_mult'] - 1) * 100:+.4g}%"
        return f"take profit at {v1['tp_mult']:g}x, stop {stop}, leave after {v1['max_hold_hrs']:g} h"
    return policy.words()


def kind_of(params: str | Policy) -> str:
    """Return the kind of a policy; `v1` for V1 parameters."""
    policy, _ = _parsed(params)
    return "v1" if policy is None else policy.kind


def price_levels(params: str | Policy) -> list[tuple[str, float]]:
    """Return (what happens, multiple of the entry price) of every level that is known at the entry, from the lowest up."""
    policy, v1 = _parsed(params)
    if policy is None:
        return [("stop", v1["sl_mult"]), ("take profit", v1["tp_mult"])]
    return sorted(policy.levels_at_entry(), key=lambda level: level[1])


def _parsed(params: str | Policy) -> tuple[Policy | None, dict[str, Any]]:
    """Return (policy, {}) or (None, V1 parameters)."""
    if not isinstance(params, str):
        return params, {}
    values = json.loads(params) if params.startswith("{") else {}
    if {"tp_mult", "sl_mult", "max_hold_hrs"} == values.keys():
        return None, values
    return parse_policy(params), {}
