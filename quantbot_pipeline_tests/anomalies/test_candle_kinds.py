"""The candle detectors say what plain Python says, candle by candle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbot_pipeline.anomalies.findings import DAY_MS, Series, Span
from quantbot_pipeline.anomalies.intervals import interval_mismatches
from quantbot_pipeline_tests.support import anomaly_oracle as oracle
from quantbot_pipeline_tests.support import odd_markets as odd

ALONE = ("price_spike", "unit_change", "flat_line", "wash_volume")


def _odd_token(rng: np.random.Generator, span: Span, mint: str, holes: float) -> Series:
    """Return a token with several oddities, planted near their limits and at random places."""
    made = odd.token(rng, span, mint, holes=holes)
    rows = rng.integers(30, len(made.ts) - 60, 12)
    for row in rows[:4].tolist():
        made = odd.spiked(made, row, float(rng.uniform(1.3, 2)), low=bool(rng.random() < 0.5))
    made = odd.in_another_unit(made, int(rows[4]), float(rng.choice([0.1, 0.3, 3, 5, 1000])))
    for row in rows[5:8].tolist():
        made = odd.standing_still(made, row, int(rng.integers(18, 40)))
    for row in rows[8:10].tolist():
        made = odd.washed(made, row, float(rng.uniform(5, 200)))
    volume = made.volume.copy()
    volume[rows[10] : rows[10] + 30] = rng.choice([0.0, np.nan])
    return odd.with_hole(made._replace(volume=volume), int(rows[11]), int(rng.integers(3, 30)))


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), holes=st.sampled_from([0.0, 0.02, 0.3]))
def test_what_a_token_says_alone_is_what_the_oracle_says(seed: int, holes: float) -> None:
    rng, span = np.random.default_rng(seed), odd.span_of(1.5)
    made = _odd_token(rng, span, "mint", holes)
    found = odd.found_in([made], span)
    for kind in ALONE:
        said, expected = oracle.told(found, kind), getattr(oracle, kind)(made, span)
        assert said.keys() == expected.keys(), kind
        for key, (score, limit) in expected.items():
            assert said[key] == (pytest.approx(score, rel=1e-9), pytest.approx(limit, rel=1e-9)), kind


def test_the_tokens_of_that_test_are_odd_in_every_way() -> None:
    rng, span = np.random.default_rng(1), odd.span_of(1.5)
    found = [f for i in range(20) for f in odd.found_in([_odd_token(rng, span, f"m{i}", 0.02)], span)]
    assert {f.kind for f in found} >= {*ALONE, "gap"}


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tokens=st.integers(3, 12), share=st.floats(0.2, 1))
def test_outages_and_gaps_are_those_of_the_oracle(seed: int, tokens: int, share: float) -> None:
    rng, span = np.random.default_rng(seed), odd.span_of(1)
    made = []
    for own in odd.market(rng, span, tokens, holes=float(rng.choice([0.0, 0.01]))):
        own = odd.before(own, span.end - int(rng.integers(0, DAY_MS)) if rng.random() < 0.2 else span.end)
        if rng.random() < share:
            row = int(np.searchsorted(own.ts, span.start - 30 * span.interval_ms)) + int(rng.integers(0, 2))
            own = odd.with_hole(own, row, int(rng.integers(5, 60)))
        made.append(odd.with_hole(own, len(own.ts) - int(rng.integers(20, 150)), int(rng.integers(2, 18))))
    found = odd.found_in(made, span)
    expected, all_of = oracle.outage(made, span)
    assert oracle.told(found, "outage") == expected
    for own in made:
        said = {key for key in oracle.told(found, "gap") if key[0] == own.mint}
        assert said == oracle.gap(own, all_of, span).keys()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_duplicates_are_those_of_the_oracle(seed: int) -> None:
    rng, span = np.random.default_rng(seed), odd.span_of(2, 900_000)
    first = odd.token(rng, span, "a", holes=0.05)
    half = odd.copied(first, "c", 0.037)
    half.close[half.ts < span.start + DAY_MS] *= np.exp(rng.normal(0, 0.01, int((half.ts < span.start + DAY_MS).sum())))
    made = [first, odd.copied(first, "b", 12.5), half, odd.token(rng, span, "d")]
    pairs = oracle.duplicate_series(made, span)
    said = {(f.subject, f.other): int(f.score) for f in odd.found_in(made, span) if f.kind == "duplicate_series"}
    assert pairs[("a", "b")] and pairs[("a", "c")]
    assert said == {pair: len(days) for pair, days in pairs.items() if pair[0] == "a"}


@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), hours=st.integers(-6, 6), holes=st.sampled_from([0.0, 0.05]))
def test_time_shifts_are_those_of_the_oracle(seed: int, hours: int, holes: float) -> None:
    rng, span = np.random.default_rng(seed), odd.span_of(28, 3_600_000)
    factor = odd.factor_of(rng, span)
    made = [odd.token(rng, span, f"m{i}", factor, holes, beta=2) for i in range(6)]
    made[2] = odd.shifted(made[2], hours * 3_600_000, span)
    # One trades for too few hours of a week, one for enough of the first.
    made += [odd.first_days(odd.token(rng, span, f"s{days}", factor, beta=2), span, days) for days in (2, 4)]
    said = {
        (f.subject, f.details["lag_ms"] // span.interval_ms): f.details["weeks"]
        for f in odd.found_in(made, span)
        if f.kind == "time_shift"
    }
    assert said == oracle.time_shift(made, span)
    assert (("m2", hours) in said) == (hours != 0)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0, 0.2), holes=st.sampled_from([0.0, 0.2]))
def test_interval_mismatches_are_those_of_the_oracle(seed: int, share: float, holes: float) -> None:
    rng, span = np.random.default_rng(seed), odd.span_of(1)
    fine = odd.token(rng, span, "m", holes=holes)
    coarse = odd.coarser(fine, 3 * span.interval_ms)
    wrong = rng.random(len(coarse.ts)) < share
    coarse.high[wrong] *= 1.0 + rng.choice([0.009, 0.02])
    compared, differ = oracle.interval_mismatch(coarse, fine, 3 * span.interval_ms, span.interval_ms)
    found = list(interval_mismatches(coarse, fine, 3 * span.interval_ms, span.interval_ms, ("15m", "5m"), span))
    assert bool(found) == (compared >= 100 and differ > 0.05 * compared)
    for own in found:
        assert (own.details["compared"], own.details["differ"]) == (compared, differ)
        assert own.score == pytest.approx(differ / compared)
