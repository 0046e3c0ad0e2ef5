"""Measures are what their definitions say, and undefined where a definition says nothing."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.models.metrics import Judged, Measure, auc, blocks_of, calibration, gain, mean_with_z, money
from quantbot_pipeline.models.numbers import Floats, expit
from quantbot_pipeline.models.report import wilson
from quantbot_pipeline.models.targets import outcomes_of, parse_target, parse_targets
from quantbot_pipeline.models.verdict import money_verdict, verdict

DAY = 86_400_000
FEW = st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(FEW)
def test_auc_is_the_share_of_pairs_in_order(calls: list[tuple[bool, int]]) -> None:
    outcome, said = np.array([float(o) for o, _ in calls]), np.array([s / 5 + 0.1 for _, s in calls])
    pairs = [(h, m) for h in said[outcome > 0] for m in said[outcome == 0]]
    found = auc(outcome, said)
    if not pairs:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(sum((h > m) + (h == m) / 2 for h, m in pairs) / len(pairs))


def judged(outcome: Floats, block: list[int], take: list[bool] | None = None, **said: Floats) -> Judged:
    n, nothing = len(outcome), np.full(len(outcome), np.nan)
    taken = np.array(take) if take is not None else np.zeros(n, bool)
    return Judged(outcome, said, taken, nothing, nothing, outcome - 0.3, np.array(block), np.zeros(n, int))


def test_a_gain_is_a_share_of_the_loss_with_an_error_over_blocks() -> None:
    outcome, block = np.array([1.0, 0.0, 1.0, 0.0, 1.0]), [0, 0, 1, 2, 2]
    own, base = np.array([0.9, 0.2, 0.6, 0.4, 0.5]), np.full(5, 0.5)
    calls = judged(outcome, block, base=base, blend=own)
    difference = np.log(2) + np.log(np.where(outcome > 0, own, 1 - own))
    found = gain(calls, "blend", "base", is_amount=False)
    assert found.value == pytest.approx(difference.mean() / np.log(2))
    sums = [difference[[b == k for b in block]].sum() - block.count(k) * difference.mean() for k in range(3)]
    assert found.z == pytest.approx(difference.mean() / (math.sqrt(3 / 2 * sum(s * s for s in sums)) / 5))


def test_two_blocks_are_no_measure_of_a_spread() -> None:
    assert math.isnan(mean_with_z(np.array([1.0, 2.0, 3.0]), np.array([0, 0, 1])).z)
    assert math.isnan(mean_with_z(np.ones(4), np.arange(4)).z)
    assert mean_with_z(np.zeros(0), np.zeros(0, int)) == pytest.approx(Measure(np.nan, np.nan), nan_ok=True)


def test_blocks_are_two_days_or_the_horizon() -> None:
    alert = np.array([0, 2 * DAY - 1, 2 * DAY, 5 * DAY])
    assert blocks_of(alert, DAY).tolist() == [0, 0, 1, 2]
    assert blocks_of(alert, 5 * DAY).tolist() == [0, 0, 0, 1]


def test_z_has_the_spread_that_it_claims_where_two_days_share_a_mood() -> None:
    rng = np.random.default_rng(0)
    block = np.repeat(np.arange(40), 10)
    found = [mean_with_z(rng.normal(size=40)[block] + rng.normal(size=400), block).z for _ in range(300)]
    assert np.std(found) == pytest.approx(1.0, abs=0.15)


def test_calibration_finds_slope_and_intercept() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=20_000)
    outcome = (rng.random(20_000) < expit(0.7 * logits - 0.2)).astype(float)
    found = calibration(outcome, expit(logits))
    assert found.slope == pytest.approx(0.7, abs=0.06) and found.intercept == pytest.approx(-0.2, abs=0.05)


def test_what_is_undefined_is_not_a_number() -> None:
    ones, half = np.ones(4), np.full(4, 0.5)
    assert math.isnan(auc(ones, half))
    assert math.isnan(calibration(ones, np.linspace(0.1, 0.9, 4)).slope)
    assert math.isnan(calibration(np.array([0.0, 1.0]), half[:2]).slope)
    apart = np.array([0.1, 0.2, 0.8, 0.9])
    assert math.isnan(calibration((apart > 0.5).astype(float), apart).slope)
    assert math.isnan(money(judged(ones, [0, 1, 2, 3], base=half)).value)


def test_money_is_what_the_taken_earned_beyond_all() -> None:
    rng = np.random.default_rng(0)
    outcome = rng.normal(size=4000)
    take = (rng.random(4000) < 0.2).tolist()
    block = (np.arange(4000) // 20).tolist()
    calls = judged(outcome, block, take, base=np.zeros(4000))
    found = money(calls)
    assert found.value == pytest.approx(outcome[take].mean() - outcome.mean())
    # Independent calls: the difference of means of 800 and of all 4,000, which share calls.
    assert found.value / found.z == pytest.approx(np.sqrt(1 / 800 - 1 / 4000), rel=0.1)


def test_verdicts_ask_for_months_outcomes_and_both_gains() -> None:
    sure, unsure, none = Measure(0.1, 2.0), Measure(0.1, 1.9), Measure(np.nan, np.nan)
    assert verdict(2, 100, sure, sure) == verdict(3, 29, sure, sure) == "too little data"
    assert verdict(3, 30, unsure, sure) == verdict(3, 30, none, sure) == "no better than the base rate"
    assert verdict(3, 30, sure, unsure) == verdict(3, 30, sure, none) == "no better than the caller's rate"
    assert verdict(3, 30, sure, sure) == "better"
    assert money_verdict(30, sure) == "earns more"
    assert money_verdict(29, sure) == money_verdict(30, unsure) == money_verdict(30, none) == "not shown"


def test_wilson_is_the_published_interval() -> None:
    assert wilson(1, 10) == pytest.approx((0.0179, 0.4042), abs=1e-4)
    assert wilson(0, 5)[0] == 0 and wilson(5, 5)[1] == 1


def test_targets_have_one_spelling_each() -> None:
    peak, hits = np.array([1.5, 1.49, 4.0]), np.array([[False] * 3, [False] * 3, [True] * 3])
    dd, returns = np.array([-3000.0, -2999.9, 0.0]), np.array([0.0, -0.1, 0.2])
    expected = {
        "hit_3x": [0, 0, 1],
        "peak_1.5": [1, 0, 1],
        "drawdown_30": [1, 0, 0],
        "win": [0, 0, 1],
        "return": [0, -0.1, 0.2],
    }
    for name, values in expected.items():
        assert outcomes_of(parse_target(name), peak, hits, dd, returns).tolist() == values
    for wrong in (
        "peak_1.50",
        "peak_1",
        "peak_0.5",
        "drawdown_0",
        "drawdown_100",
        "hit_5x",
        "",
        "Win",
        "peak_1e2",
        "peak_nan",
    ):
        with pytest.raises(InputError, match="targets: "):
            parse_target(wrong)
    for several in ([], ["win", "win"], ["win"] * 21):
        with pytest.raises(InputError, match="targets: "):
            parse_targets(several)
