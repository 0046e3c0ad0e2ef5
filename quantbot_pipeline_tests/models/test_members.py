"""Members say what their formulas say; trees and weights say bit for bit what scikit-learn says, on any number of threads."""

import math
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbot_pipeline.models.blend import weights_of_amounts, weights_of_logits
from quantbot_pipeline.models.fitting import _linear, _trees, fit_members, fitting
from quantbot_pipeline.models.members import Trees, caller_means, caller_rates, prior_by_moments
from quantbot_pipeline.models.numbers import Floats, expit


def features(calls: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Features with holes, and hits that follow one of them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(calls, 5))
    x[rng.random(x.shape) < 0.2] = np.nan
    x[:, 3] = np.nan
    x[:, 4] = 7.0
    hits = rng.random(calls) < expit(np.nan_to_num(x[:, 1]))
    return x, hits.astype(float)


def naive_tree(trees: Trees, tree: int, row: Floats) -> float:
    """One row through one tree, node by node."""
    begin, node = int(trees.starts[tree]), 0
    while trees.left[begin + node] >= 0:
        value = row[trees.feature[begin + node]]
        goes_left = trees.missing_left[begin + node] if math.isnan(value) else value <= trees.threshold[begin + node]
        node = int((trees.left if goes_left else trees.right)[begin + node])
    return float(trees.value[begin + node])


@pytest.mark.parametrize("is_amount", [False, True])
def test_trees_are_walked_as_a_reader_would_walk_them(is_amount: bool) -> None:
    x, hits = features(300)
    with fitting():
        trees = _trees(x, hits - 0.3 if is_amount else hits, np.array([0, 1, 2]), is_amount)
    strange = np.vstack([x[:40], np.full(5, np.nan), np.full(5, 1e308), np.full(5, -1e308)])
    expected = []
    for row in strange:
        total = trees.baseline
        for tree in range(len(trees.starts) - 1):
            total += naive_tree(trees, tree, row)
        expected.append(total)
    assert trees.predict(strange).tolist() == expected


@pytest.mark.parametrize("is_amount", [False, True])
def test_a_fit_has_the_same_bits_on_one_thread_and_on_eight(is_amount: bool) -> None:
    from threadpoolctl import threadpool_limits

    x, hits = features(400)
    made: list[tuple[Any, Any]] = []
    for threads in (1, 8):
        with threadpool_limits(threads), fitting():
            made.append(fit_members(x, hits, is_amount=is_amount))
    (linear, trees), (linear8, trees8) = made
    assert all(np.array_equal(a, b) for a, b in zip(linear, linear8, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(astuple(trees), astuple(trees8), strict=True))


def test_columns_that_tell_nothing_are_left_out() -> None:
    x, hits = features(200)
    with fitting():
        linear, trees = fit_members(x, hits, is_amount=False)
        nothing = fit_members(x[:, 3:], hits, is_amount=False)
    assert linear and linear.columns.tolist() == [0, 1, 2]
    assert trees and trees.used() <= {0, 1, 2}
    assert nothing == (None, None)


def test_a_call_alone_gets_the_bits_that_it_gets_among_others() -> None:
    x, hits = features(333)
    with fitting():
        linear, trees = fit_members(x, hits, is_amount=False)
    assert linear and trees
    for member in (linear, trees):
        said = member.predict(x)
        assert [float(member.predict(x[i : i + 1])[0]) for i in range(len(x))] == said.tolist()
    logits = np.linspace(-40, 40, 333)
    assert [float(expit(logits[i : i + 1])[0]) for i in range(333)] == expit(logits).tolist()


def test_the_linear_member_clips_standardises_and_flags() -> None:
    x, hits = features(200)
    with fitting():
        member = _linear(x, hits, np.array([1]), False)
    low, high = np.quantile(x[~np.isnan(x[:, 1]), 1], [0.01, 0.99])
    clipped = np.clip(x[~np.isnan(x[:, 1]), 1], low, high)
    far = np.full((2, 5), np.nan)
    far[0, 1] = 1e9
    at_the_end = member.intercept + (high - clipped.mean()) / clipped.std() * member.weights[0]
    assert member.predict(far) == pytest.approx([at_the_end, member.intercept + member.missing_weights[0]])


def test_the_rate_of_a_caller_leans_on_all() -> None:
    names = ["a"] * 30 + ["b"] * 10 + ["c"]
    hits = np.array([1.0] * 20 + [0.0] * 10 + [0.0] * 10 + [1.0])
    fitted = caller_rates(names, hits)
    q = 21.5 / 42
    rate = (20 + fitted.prior * q) / (30 + fitted.prior)
    assert fitted.predict(["a", "nobody"]) == pytest.approx([np.log(rate / (1 - rate) * (1 - q) / q), 0.0])
    means = caller_means(names, hits)
    assert means.predict(["b"])[0] == pytest.approx((0 + 20 * 21 / 41) / 30 - 21 / 41)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 30), st.floats(0, 1)), min_size=1, max_size=12))
def test_the_prior_is_a_weight_between_2_and_200(callers: list[tuple[int, float]]) -> None:
    calls = np.array([n for n, _ in callers], float)
    hits = np.array([round(n * share) for n, share in callers], float)
    assert 2 <= prior_by_moments(calls, hits) <= 200


def test_the_prior_finds_how_much_callers_differ() -> None:
    rng = np.random.default_rng(0)
    calls = np.full(400, 50.0)
    for k in (5.0, 20.0, 80.0):
        rates = rng.beta(0.3 * k, 0.7 * k, 400)
        assert prior_by_moments(calls, rng.binomial(50, rates).astype(float)) == pytest.approx(k, rel=0.25)
    assert prior_by_moments(calls, rng.binomial(50, 0.3, 400).astype(float)) > 80


def test_members_without_evidence_have_no_weight_and_good_ones_have_theirs() -> None:
    rng = np.random.default_rng(0)
    n = 3000
    members = rng.normal(size=(n, 3))
    base = np.full(n, -0.5)
    hits = (rng.random(n) < expit(base + 0.8 * members[:, 1] - 0.6 * members[:, 2])).astype(float)
    weights = weights_of_logits(hits, base, members)
    assert weights[1] == pytest.approx(0.8, abs=0.12) and weights[0] < 0.1 and weights[2] == 0
    amounts = base + 0.8 * members[:, 1] - 0.6 * members[:, 2] + rng.normal(size=n)
    weights = weights_of_amounts(amounts, base, members)
    assert weights[1] == pytest.approx(0.8, abs=0.1) and weights[0] < 0.1 and weights[2] == 0
    assert weights_of_logits(hits, base, 0.01 * members).max() <= 1.5
    for find in (weights_of_logits, weights_of_amounts):
        assert find(np.zeros(0), np.zeros(0), np.zeros((0, 3))).tolist() == [0, 0, 0]
    assert weights_of_amounts(base, base, members).tolist() == [0, 0, 0]
