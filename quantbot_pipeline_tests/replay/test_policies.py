"""Policies as data: what is refused and how the message says so, the one JSON text of a policy, its id, its levels.

Belongs here: everything about a policy before it meets a candle. What a policy does belongs in `test_engine`.
"""

import json
from collections.abc import Mapping
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.replay.compile import compile_policies, compiled_key
from quantbot_pipeline.replay.policies import DEFAULT_POLICIES, KINDS, Policy, canonical_json, parse_policy, policy_id

PROPERTY = settings(derandomize=True, deadline=None)
NAN, INF = float("nan"), float("inf")


def fixed(**keys: Any) -> dict[str, Any]:
    """A fixed stop, with some keys changed."""
    return {"kind": "fixed_stop", "stop_pct": 0.1, **keys}


def time(**keys: Any) -> dict[str, Any]:
    """A time stop, with some keys changed."""
    return {"kind": "time_stop", "max_hold_ms": 3_600_000, **keys}


def trail(**keys: Any) -> dict[str, Any]:
    """A trailing stop, with some keys changed."""
    return {"kind": "trailing_stop", "activation_pct": 0.2, "trail_pct": 0.1, **keys}


def ladder(*levels: tuple[Any, Any], **keys: Any) -> dict[str, Any]:
    """A ladder of `(multiple, fraction)`."""
    return {"kind": "ladder", "levels": [{"multiple": m, "fraction": f} for m, f in levels], **keys}


def combo(*rules: Any, **keys: Any) -> dict[str, Any]:
    """All of the rules."""
    return {"kind": "combo", "policies": list(rules), **keys}


def without(policy: dict[str, Any], key: str) -> dict[str, Any]:
    """The policy with a key left out."""
    return {k: v for k, v in policy.items() if k != key}


def canonical(value: str | Mapping[str, Any]) -> str:
    """Canonical JSON of a policy as the user wrote it."""
    return canonical_json(parse_policy(value))


# --- refusals ---------------------------------------------------------------------------------------------------------

# Every number, by where it stands: its key, and a policy around a given value.
NUMBERS = {
    "fixed stop": ("stop_pct", lambda v: fixed(stop_pct=v)),
    "fixed take profit": ("take_profit_pct", lambda v: fixed(take_profit_pct=v)),
    "hold": ("max_hold_ms", lambda v: time(max_hold_ms=v)),
    "time take profit": ("take_profit_pct", lambda v: time(take_profit_pct=v)),
    "activation": ("activation_pct", lambda v: trail(activation_pct=v)),
    "trail": ("trail_pct", lambda v: trail(trail_pct=v)),
    "hard stop": ("hard_stop_pct", lambda v: trail(hard_stop_pct=v)),
    "multiple": ("levels[1].multiple", lambda v: ladder((2, 0.5), (v, 0.25))),
    "fraction": ("levels[1].fraction", lambda v: ladder((2, 0.5), (3, v))),
    "ladder stop": ("stop_pct", lambda v: ladder((2, 0.5), stop_pct=v)),
    "inside a combo": ("policies[1].trail_pct", lambda v: combo(fixed(), trail(trail_pct=v))),
    "deep inside a combo": ("policies[1].levels[0].fraction", lambda v: combo(fixed(), ladder((2, v)))),
}
NOT_A_NUMBER = [NAN, INF, -INF, True, False, "0.1", "", [], {}, [0.1], -0.5, -1]


@pytest.mark.parametrize("value", NOT_A_NUMBER, ids=repr)
@pytest.mark.parametrize("place", NUMBERS)
def test_what_is_no_number_or_out_of_range_is_refused_everywhere(place: str, value: object) -> None:
    key, policy = NUMBERS[place]
    with pytest.raises(InputError) as refusal:
        parse_policy(policy(value))
    assert f"{key}:" in str(refusal.value)


REFUSED = [
    ("unknown key", fixed(stop=0.1), "stop:"),
    ("unknown key that is null", fixed(max_hold_ms=None), "max_hold_ms:"),
    ("key in another case", fixed(Take_profit_pct=1), "Take_profit_pct:"),
    (
        "unknown key of a level",
        {"kind": "ladder", "levels": [{"multiple": 2, "fraction": 1, "at": 3}]},
        "levels[0].at:",
    ),
    ("unknown key of a combo", combo(fixed(), name="x"), "name:"),
    ("unknown key inside a combo", combo(fixed(), trail(stop_pct=0.1)), "policies[1].stop_pct:"),
    ("unknown kind", {"kind": "fixed"}, "kind:"),
    ("kind in another case", fixed(kind="Fixed_stop"), "kind:"),
    ("no kind", {"stop_pct": 0.1}, "kind:"),
    ("kind null", fixed(kind=None), "kind:"),
    ("kind a list", fixed(kind=["fixed_stop"]), "kind:"),
    ("unknown kind inside a combo", combo(fixed(), {"kind": "x"}), "policies[1].kind:"),
    ("no stop", {"kind": "fixed_stop"}, "stop_pct:"),
    ("stop null", fixed(stop_pct=None), "stop_pct:"),
    ("stop 0", fixed(stop_pct=0), "stop_pct:"),
    ("stop 1", fixed(stop_pct=1), "stop_pct:"),
    ("ladder stop 1", ladder((2, 1), stop_pct=1.0), "stop_pct:"),
    ("hard stop 1", trail(hard_stop_pct=1), "hard_stop_pct:"),
    ("trail 1", trail(trail_pct=1), "trail_pct:"),
    ("trail 0", trail(trail_pct=0), "trail_pct:"),
    ("no trail", without(trail(), "trail_pct"), "trail_pct:"),
    ("no activation", without(trail(), "activation_pct"), "activation_pct:"),
    ("take profit 0", fixed(take_profit_pct=0), "take_profit_pct:"),
    ("take profit too large for a double", fixed(take_profit_pct=10**400), "take_profit_pct:"),
    ("hold 0", time(max_hold_ms=0), "max_hold_ms:"),
    ("hold 1.5", time(max_hold_ms=1.5), "max_hold_ms:"),
    ("no hold", without(time(), "max_hold_ms"), "max_hold_ms:"),
    ("hold null", time(max_hold_ms=None), "max_hold_ms:"),
    ("no levels", ladder(), "levels:"),
    ("levels null", {"kind": "ladder", "levels": None}, "levels:"),
    ("levels absent", {"kind": "ladder"}, "levels:"),
    ("a level that is a number", {"kind": "ladder", "levels": [2]}, "levels[0]:"),
    ("a level without fraction", {"kind": "ladder", "levels": [{"multiple": 2}]}, "levels[0].fraction:"),
    ("multiple 1", ladder((1, 0.5)), "levels[0].multiple:"),
    ("fraction 0", ladder((2, 0)), "levels[0].fraction:"),
    ("fraction above 1", ladder((2, 1.0000000001)), "levels[0].fraction:"),
    ("fractions above 1 in sum", ladder((2, 0.5), (3, 0.500000002)), "levels:"),
    ("equal multiples", ladder((2, 0.25), (3, 0.25), (2.0, 0.25)), "levels:"),
    ("empty combo", combo(), "policies:"),
    ("combo without policies", {"kind": "combo"}, "policies:"),
    ("combo of a policy instead of a list", {"kind": "combo", "policies": fixed()}, "policies:"),
    ("combo in a combo", combo(fixed(), combo(fixed())), "policies[1].kind:"),
    ("two ladders", combo(ladder((2, 1)), fixed(), ladder((3, 1))), "policies:"),
    ("a number in a combo", combo(fixed(), 1), "policies[1]:"),
    ("duplicate key", '{"kind":"fixed_stop","stop_pct":0.1,"stop_pct":0.1}', "'stop_pct'"),
    ("duplicate key inside", '{"kind":"ladder","levels":[{"multiple":2,"multiple":2,"fraction":1}]}', "'multiple'"),
    ("JSON NaN", '{"kind":"fixed_stop","stop_pct":NaN}', "stop_pct:"),
    ("JSON Infinity", '{"kind":"fixed_stop","stop_pct":0.1,"take_profit_pct":Infinity}', "take_profit_pct:"),
    ("JSON 1e999", '{"kind":"fixed_stop","stop_pct":0.1,"take_profit_pct":1e999}', "take_profit_pct:"),
    ("a list", "[]", "policy:"),
    ("a number", "1", "policy:"),
    ("null", "null", "policy:"),
    ("no JSON", "fixed_stop", "not valid JSON"),
    ("nothing", "", "not valid JSON"),
    ("something after the JSON", '{"kind":"fixed_stop","stop_pct":0.1}}', "not valid JSON"),
    ("JSON too deep", "[" * 100_000, "not valid JSON"),
    ("a number of too many digits", f'{{"kind":"time_stop","max_hold_ms":{"9" * 5_000}}}', "not valid JSON"),
]


@pytest.mark.parametrize(("policy", "named"), [pytest.param(p, n, id=i) for i, p, n in REFUSED])
def test_refusals_name_the_key(policy: str | Mapping[str, Any], named: str) -> None:
    with pytest.raises(InputError) as refusal:
        parse_policy(policy)
    assert named in str(refusal.value)
    assert "\n" not in str(refusal.value)
    for jargon in (
        "Input tag",
        "discriminator",
        "Value error",
        "Tuple",
        "Extra inputs",
        "after validation",
        "Field req",
    ):
        assert jargon not in str(refusal.value)


@pytest.mark.parametrize(
    ("policy", "choices"),
    [
        ({"kind": "x"}, ["fixed_stop", "time_stop", "trailing_stop", "ladder", "combo"]),
        ({"stop_pct": 0.1}, ["fixed_stop", "time_stop", "trailing_stop", "ladder", "combo"]),
        (combo({"kind": "combo"}), ["fixed_stop", "time_stop", "trailing_stop", "ladder"]),
        (combo({"stop_pct": 0.1}), ["fixed_stop", "time_stop", "trailing_stop", "ladder"]),
    ],
)
def test_a_wrong_kind_is_answered_with_those_that_may_stand_there(policy: dict[str, Any], choices: list[str]) -> None:
    with pytest.raises(InputError, match=rf"kind: .*; choose one of {', '.join(choices)} \(given"):
        parse_policy(policy)


def test_the_kinds_are_those_that_there_are() -> None:
    assert tuple(get_args(m.model_fields["kind"].annotation)[0] for m in get_args(Policy)) == KINDS


@pytest.mark.parametrize("key", ["ladder", "combo", "time_stop"])
def test_an_unknown_key_that_is_spelled_like_a_kind_is_named_too(key: str) -> None:
    with pytest.raises(InputError) as refusal:
        parse_policy(fixed(**{key: 1}))
    assert f"{key}:" in str(refusal.value)


# --- accepted at the edge ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "policy",
    [
        fixed(stop_pct=5e-324, take_profit_pct=5e-324),
        fixed(stop_pct=1 - 2**-53, take_profit_pct=1e308),
        time(max_hold_ms=1),
        time(max_hold_ms=10**30),
        trail(activation_pct=0),
        trail(activation_pct=-0.0),
        ladder((1 + 2**-52, 1)),
        ladder((2, 0.5), (3, 0.5 + 9e-10)),
        ladder((2, 0.1), (3, 0.2), (4, 0.7)),
        combo(ladder((2, 1))),
        combo(fixed(), fixed()),
    ],
    ids=repr,
)
def test_the_edges_of_the_ranges_are_accepted(policy: dict[str, Any]) -> None:
    assert len(compile_policies([parse_policy(policy)]).stop) == 1


# --- canonical JSON ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (fixed(), '{"kind":"fixed_stop","stop_pct":0.1}'),
        (fixed(take_profit_pct=1.0), '{"kind":"fixed_stop","stop_pct":0.1,"take_profit_pct":1}'),
        (
            fixed(stop_pct=1e-7, take_profit_pct=1e22),
            f'{{"kind":"fixed_stop","stop_pct":1e-07,"take_profit_pct":{10**22}}}',
        ),
        (fixed(stop_pct=0.1 + 0.2), '{"kind":"fixed_stop","stop_pct":0.30000000000000004}'),
        (time(max_hold_ms=3.6e6), '{"kind":"time_stop","max_hold_ms":3600000}'),
        (trail(activation_pct=-0.0), '{"activation_pct":0,"kind":"trailing_stop","trail_pct":0.1}'),
        (
            ladder((3.0, 0.25), (1.5, 0.5), stop_pct=None),
            '{"kind":"ladder","levels":[{"fraction":0.5,"multiple":1.5},{"fraction":0.25,"multiple":3}]}',
        ),
        (
            ladder((10, 0.5), (9, 0.5)),  # by number, not by text
            '{"kind":"ladder","levels":[{"fraction":0.5,"multiple":9},{"fraction":0.5,"multiple":10}]}',
        ),
        (
            combo(time(), trail(), fixed(stop_pct=0.25), fixed()),
            '{"kind":"combo","policies":[{"activation_pct":0.2,"kind":"trailing_stop","trail_pct":0.1},'
            '{"kind":"fixed_stop","stop_pct":0.1},{"kind":"fixed_stop","stop_pct":0.25},'
            '{"kind":"time_stop","max_hold_ms":3600000}]}',
        ),
        (
            combo(fixed(), fixed(take_profit_pct=2)),  # byte order: "," comes before "}"
            '{"kind":"combo","policies":[{"kind":"fixed_stop","stop_pct":0.1,"take_profit_pct":2},'
            '{"kind":"fixed_stop","stop_pct":0.1}]}',
        ),
    ],
)
def test_canonical_json_of_examples(policy: dict[str, Any], text: str) -> None:
    assert canonical(policy) == text
    assert canonical(json.dumps(policy)) == text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (time(max_hold_ms=3_600_000.0), time(max_hold_ms=3_600_000)),
        (fixed(take_profit_pct=None), fixed()),
        (time(take_profit_pct=None), time()),
        (trail(hard_stop_pct=None), trail()),
        (ladder((2, 1), stop_pct=None), ladder((2, 1))),
        (ladder((2, 0.5), (3, 0.25)), ladder((3, 0.25), (2, 0.5))),
        (combo(fixed(), time()), combo(time(), fixed())),
        (
            combo(fixed(), ladder((2, 0.5), (3, 0.25))),
            combo(ladder((3.0, 0.25), (2.0, 0.5)), fixed(take_profit_pct=None)),
        ),
        (fixed(take_profit_pct=1), fixed(take_profit_pct=1.0)),
    ],
)
def test_two_spellings_of_one_policy(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert canonical(one) == canonical(other)
    assert policy_id(parse_policy(one)) == policy_id(parse_policy(other))
    assert compiled_key(parse_policy(one)) == compiled_key(parse_policy(other))


def test_readable_ids() -> None:
    assert [policy_id(parse_policy(p)) for p in DEFAULT_POLICIES] == [
        "fixed_sl0.2_tp1",
        "time_1h",
        "trail_a0.2_t0.1_hs0.2",
        "ladder_2x0.5+3x0.3+4x0.2_sl0.2",
    ]


# --- properties -------------------------------------------------------------------------------------------------------

# A few numbers that come again and again, so that two policies are often nearly or quite the same, and any others.
FRACTION = st.one_of(
    st.sampled_from((0.1, 0.10000000000000002, 0.5, 1e-07, 1e-05)),
    st.floats(0, 1, exclude_min=True, exclude_max=True),
)
POSITIVE = st.one_of(
    st.sampled_from((0.1, 0.5, 1, 1.0, 2, 10.0, 1e16, 1e22, 2.5)),
    st.floats(0, exclude_min=True, allow_infinity=False),
    st.integers(1, 10**6),
)
MULTIPLE = st.one_of(
    st.sampled_from((1.5, 2, 2.0, 10, 1e16)),
    st.floats(1, exclude_min=True, allow_infinity=False),
    st.integers(2, 10**20),
)
HOLD = st.one_of(
    st.sampled_from((1, 1.0, 60, 1_000, 60_000, 61_000, 3_600_000, 3_600_000.0, 3_600_001, 7_200_000)),
    st.integers(1, 10**25),
)


def _ladder_levels(multiples: list[float]) -> list[dict[str, float]]:
    return [{"multiple": m, "fraction": 1 / 2 ** (i + 1)} for i, m in enumerate(multiples)]


RULES = {
    "fixed_stop": st.fixed_dictionaries(
        {"kind": st.just("fixed_stop"), "stop_pct": FRACTION}, optional={"take_profit_pct": st.none() | POSITIVE}
    ),
    "time_stop": st.fixed_dictionaries(
        {"kind": st.just("time_stop"), "max_hold_ms": HOLD}, optional={"take_profit_pct": st.none() | POSITIVE}
    ),
    "trailing_stop": st.fixed_dictionaries(
        {
            "kind": st.just("trailing_stop"),
            "activation_pct": POSITIVE | st.sampled_from((0, -0.0)),
            "trail_pct": FRACTION,
        },
        optional={"hard_stop_pct": st.none() | FRACTION},
    ),
    "ladder": st.fixed_dictionaries(
        {
            "kind": st.just("ladder"),
            "levels": st.lists(MULTIPLE, min_size=1, max_size=4, unique_by=float).map(_ladder_levels),
        },
        optional={"stop_pct": st.none() | FRACTION},
    ),
}
NO_LADDER = st.one_of(RULES["fixed_stop"], RULES["time_stop"], RULES["trailing_stop"])
COMBO = st.tuples(st.lists(NO_LADDER, min_size=1, max_size=3), st.lists(RULES["ladder"], max_size=1)).map(
    lambda parts: combo(*parts[1], *parts[0])
)
POLICIES = st.one_of(*RULES.values(), COMBO)


def expected_canonical(policy: Mapping[str, Any]) -> str:
    """Canonical JSON from the contract alone: the dictionary as it was written, normalised."""

    def plain(value: Any) -> Any:
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, dict):
            value = {k: plain(v) for k, v in value.items() if v is not None}
            if value.get("kind") == "ladder":
                value["levels"].sort(key=lambda level: level["multiple"])
            if value.get("kind") == "combo":
                value["policies"].sort(key=lambda rule: text(rule).encode())
        return [plain(v) for v in value] if isinstance(value, list) else value

    def text(value: Any) -> str:
        return json.dumps(value, sort_keys=True, separators=(",", ":"))

    # Numbers are doubles, so an integer that no double holds becomes the nearest one; max_hold_ms alone is an integer.
    as_doubles = json.loads(json.dumps(policy), object_hook=_as_doubles)
    return text(plain(as_doubles))


def _as_doubles(pairs: dict[str, Any]) -> dict[str, Any]:
    return {k: float(v) if isinstance(v, int) and k != "max_hold_ms" else v for k, v in pairs.items()}


@settings(PROPERTY, max_examples=300)
@given(POLICIES)
def test_canonical_json_is_that_of_the_contract_and_a_fixed_point(policy: dict[str, Any]) -> None:
    parsed = parse_policy(policy)
    text = canonical_json(parsed)
    assert text == expected_canonical(policy)
    assert canonical(text) == text
    assert policy_id(parse_policy(text)) == policy_id(parsed)
    assert compiled_key(parse_policy(text)) == compiled_key(parsed)


@settings(PROPERTY, max_examples=300)
@given(POLICIES, st.randoms(use_true_random=False))
def test_order_and_nulls_do_not_matter(policy: dict[str, Any], rng: Any) -> None:
    """The same policy, its keys, levels and rules in any order, its nulls left out."""

    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            items = [(k, shuffled(v)) for k, v in value.items() if v is not None]
            return dict(rng.sample(items, len(items)))
        return [shuffled(v) for v in rng.sample(value, len(value))] if isinstance(value, list) else value

    other = shuffled(policy)
    assert canonical(other) == canonical(policy)
    assert compiled_key(parse_policy(other)) == compiled_key(parse_policy(policy))


@settings(PROPERTY, max_examples=200)
@given(st.lists(POLICIES, min_size=2, max_size=20))
def test_ids_are_equal_exactly_when_the_canonical_json_is(policies: list[dict[str, Any]]) -> None:
    parsed = [parse_policy(p) for p in policies]
    both = {(canonical_json(p), policy_id(p)) for p in parsed}
    assert len({text for text, _ in both}) == len(both)
    assert len({name for _, name in both}) == len(both)


def test_neighbouring_policies_have_ids_of_their_own() -> None:
    """Ids of policies that differ in one key, one bit, one level, or in which rule holds a number."""
    near = [
        fixed(),
        fixed(stop_pct=0.10000000000000002),
        fixed(take_profit_pct=1),
        fixed(take_profit_pct=0.1),
        trail(trail_pct=0.1),
        trail(activation_pct=0.1, trail_pct=0.2),
        trail(hard_stop_pct=0.1),
        time(),
        time(max_hold_ms=60_000),
        time(max_hold_ms=3_600_001),
        time(take_profit_pct=0.1),
        ladder((2, 0.5), (3, 0.5)),
        ladder((2, 0.5)),
        ladder((3, 0.5)),
        ladder((2, 0.5), stop_pct=0.1),
        combo(fixed()),
        combo(fixed(), fixed()),
        combo(fixed(), time()),
        combo(fixed(take_profit_pct=0.1), time()),
        combo(fixed(), time(take_profit_pct=0.1)),
        combo(ladder((2, 0.5)), fixed()),
        combo(ladder((2, 0.5), stop_pct=0.1), fixed()),
    ]
    assert len({policy_id(parse_policy(p)) for p in near}) == len(near)


# --- compilation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "same"),
    [
        (combo(fixed(stop_pct=0.2, take_profit_pct=1), fixed(take_profit_pct=2)), fixed(take_profit_pct=1)),
        (combo(time(max_hold_ms=5), time(max_hold_ms=7)), time(max_hold_ms=5)),
        (combo(trail(), trail()), trail()),
        (combo(trail(hard_stop_pct=0.1), fixed()), combo(trail(), fixed())),  # the tie is a stop_loss
        (combo(fixed(), ladder((2, 1), stop_pct=0.5)), ladder((2, 1), stop_pct=0.1)),
    ],
)
def test_rules_that_never_decide_leave_no_trace(policy: dict[str, Any], same: dict[str, Any]) -> None:
    """The highest stop, the lowest take profit and the smallest hold are all that counts."""
    assert compiled_key(parse_policy(policy)) == compiled_key(parse_policy(same))


def test_a_hard_stop_trades_like_a_stop_under_another_name() -> None:
    """A grid needs only one of the two, a trade has to tell them apart."""
    hard = parse_policy(combo(trail(activation_pct=5, hard_stop_pct=0.1)))
    plain = parse_policy(combo(trail(activation_pct=5), fixed()))
    assert compiled_key(hard) == compiled_key(plain)
    compiled = compile_policies([hard, plain])
    assert compiled.stop[0] == compiled.stop[1]
    assert compiled.stop_reason[0] != compiled.stop_reason[1]


def test_no_policies_compile_to_empty_tables() -> None:
    assert len(compile_policies([]).stop) == 0
