"""Policies in words: every kind, both directions of ambiguity (two policies never read the same)."""

import pytest

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.replay.policies import canonical_json, parse_policy
from quantbot_pipeline.reports.describe import describe, kind_of, price_levels
from quantbot_pipeline.search.grid import Grid

LADDER = '{"kind":"ladder","levels":[{"fraction":0.25,"multiple":3},{"fraction":0.5,"multiple":2}],"stop_pct":0.2}'


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ('{"kind":"fixed_stop","stop_pct":0.2}', "stop -20%"),
        ('{"kind":"fixed_stop","stop_pct":0.125,"take_profit_pct":1.5}', "stop -12.5%, take profit +150%"),
        ('{"kind":"time_stop","max_hold_ms":3600000}', "leave after 1 h"),
        ('{"kind":"time_stop","max_hold_ms":172800000,"take_profit_pct":1}', "leave after 48 h, take profit +100%"),
        ('{"kind":"time_stop","max_hold_ms":604800000}', "leave after 7 d"),
        ('{"kind":"time_stop","max_hold_ms":1001}', "leave after 1001 ms"),
        ('{"kind":"trailing_stop","activation_pct":0,"trail_pct":0.1}', "trail 10% below the high"),
        (
            '{"kind":"trailing_stop","activation_pct":0.2,"trail_pct":0.1,"hard_stop_pct":0.3}',
            "once up 20%, trail 10% below the high, hard stop -30%",
        ),
        (LADDER, "sell 50% at 2x, 25% at 3x, stop -20%"),
        (
            '{"kind":"combo","policies":[{"kind":"fixed_stop","stop_pct":0.1},{"kind":"time_stop","max_hold_ms":60000}]}',
            "stop -10%; leave after 1 min",
        ),
        ('{"max_hold_hrs":48,"sl_mult":0.88,"tp_mult":2.5}', "take profit at 2.5x, stop -12%, leave after 48 h"),
    ],
)
def test_every_kind_has_words(params: str, words: str) -> None:
    assert describe(params) == words


def test_no_two_policies_of_the_grid_read_the_same() -> None:
    policies = Grid().multiply()
    assert len({describe(p) for p in policies}) == len(policies) > 400
    assert all(describe(canonical_json(p)) == describe(p) for p in policies)


def test_a_policy_has_a_kind_and_its_levels_from_the_lowest_up() -> None:
    assert kind_of(LADDER) == "ladder"
    assert kind_of('{"max_hold_hrs":48,"sl_mult":0.88,"tp_mult":2.5}') == "v1"
    assert price_levels(LADDER) == [("stop", 0.8), ("sell 50%", 2.0), ("sell 25%", 3.0)]
    both = parse_policy(
        {
            "kind": "combo",
            "policies": [
                {"kind": "trailing_stop", "activation_pct": 0.5, "trail_pct": 0.1, "hard_stop_pct": 0.25},
                {"kind": "time_stop", "max_hold_ms": 1, "take_profit_pct": 2},
            ],
        }
    )
    assert price_levels(both) == [("hard stop", 0.75), ("trail starts", 1.5), ("take profit", 3.0)]


@pytest.mark.parametrize("text", ["", "[]", "no policy", '{"kind":"magic"}', '{"tp_mult":1}'])
def test_what_is_no_policy_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        describe(text)
