"""What is planted is found, and what comes later changes nothing."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbot_pipeline.anomalies.findings import DAY_MS, Finding, Series, Span
from quantbot_pipeline.anomalies.intervals import interval_mismatches
from quantbot_pipeline_tests.support import odd_markets as odd

HOUR_MS = 3_600_000
Plant = Callable[[np.random.Generator, Series, int], Series]
# What one token bears, at a row that is drawn; the least that the 60 of the torture must find.
ON_ONE: dict[str, tuple[Plant, int]] = {
    "price_spike": (lambda rng, c, row: odd.spiked(c, row, rng.uniform(1.6, 4), low=bool(rng.random() < 0.5)), 55),
    "unit_change": (lambda rng, c, row: odd.in_another_unit(c, row, float(rng.choice([0.001, 0.1, 7, 10, 1000]))), 55),
    "flat_line": (lambda rng, c, row: odd.standing_still(c, row, int(rng.integers(26, 60))), 50),
    "wash_volume": (lambda rng, c, row: odd.washed(c, row, float(rng.uniform(20, 60))), 45),
    "gap": (lambda rng, c, row: odd.with_hole(c, row, int(rng.integers(12, 60))), 51),
}


def _planted(kind: str, count: int, seed: int) -> tuple[int, list[Finding]]:
    """Return how many of so many planted ones were found on a quiet token each, and what else was found."""
    rng, span, found, other = np.random.default_rng(seed), odd.span_of(3), 0, []
    for i in range(count):
        clean = odd.token(rng, span, f"m{i}", holes=0.01 if kind == "gap" else 0.0)
        row = int(rng.integers(len(clean.ts) - 700, len(clean.ts) - 100))
        made = ON_ONE[kind][0](rng, clean, row)
        ts = int(clean.ts[row])
        near = [
            f for f in odd.found_in([made], span) if f.kind == kind and f.from_ts - HOUR_MS <= ts <= f.to_ts + HOUR_MS
        ]
        found += bool(near)
        other += [f for f in odd.found_in([clean], span) if f.kind == kind]
    return found, other


@pytest.mark.parametrize("kind", ON_ONE)
def test_most_of_what_is_planted_on_a_token_is_found_and_nothing_else(kind: str) -> None:
    found, other = _planted(kind, 4, seed=3)
    assert found >= 3
    assert not other


@pytest.mark.torture
@pytest.mark.parametrize("kind", ON_ONE)
def test_of_sixty_planted_as_many_are_found_as_the_documentation_says(kind: str) -> None:
    found, other = _planted(kind, 60, seed=11)
    assert found >= ON_ONE[kind][1]
    assert len(other) <= 2


def test_an_outage_is_one_finding_of_the_market_and_no_gap() -> None:
    rng, span = np.random.default_rng(5), odd.span_of(2)
    made = [odd.with_hole(own, 2_300 + i % 2, 20) for i, own in enumerate(odd.market(rng, span, 8))]
    found = odd.found_in(made, span)
    assert [(f.kind, f.subject_type, len(f.tokens)) for f in found] == [("outage", "market", 8)]
    assert found[0].from_ts == span.start + (2_300 - 2_016) * span.interval_ms
    alone = odd.found_in([made[0], *odd.market(rng, span, 8)[1:]], span)
    assert [(f.kind, f.subject) for f in alone] == [("gap", "mint00")]


def test_tokens_whose_data_end_at_once_are_no_outage() -> None:
    rng, span = np.random.default_rng(6), odd.span_of(2)
    made = [odd.before(own, span.start + DAY_MS) for own in odd.market(rng, span, 8)]
    assert not odd.found_in(made, span)


@pytest.mark.parametrize("minutes", [15, 60, -240])
def test_a_token_at_another_time_is_told_with_its_lag(minutes: int) -> None:
    rng, span = np.random.default_rng(abs(minutes)), odd.span_of(28, 900_000)
    made = odd.market(rng, span, 7)
    made[3] = odd.shifted(made[3], minutes * 60_000, span)
    found = odd.found_in(made, span)
    assert [(f.kind, f.subject, f.details["lag_ms"]) for f in found] == [("time_shift", "mint03", minutes * 60_000)]
    assert ("late" if minutes > 0 else "early") in found[0].reason


def test_a_copy_in_another_unit_is_told_once_for_all_its_days() -> None:
    rng, span = np.random.default_rng(8), odd.span_of(4)
    made = odd.market(rng, span, 5)
    found = odd.found_in([*made, odd.copied(made[2], "zcopy", 1 / 173.13)], span)
    assert [(f.kind, f.subject, f.other, len(f.details["days"])) for f in found] == [
        ("duplicate_series", "mint02", "zcopy", 4)
    ]


def test_candles_moved_by_their_own_length_do_not_fit_the_finer_ones() -> None:
    rng, span = np.random.default_rng(9), odd.span_of(3)
    fine = odd.token(rng, span, "m")
    coarse = odd.coarser(fine, 900_000)
    names = ("15m", "5m")
    assert not list(interval_mismatches(coarse, fine, 900_000, span.interval_ms, names, span))
    moved = coarse._replace(ts=coarse.ts + 900_000)
    (found,) = interval_mismatches(moved, fine, 900_000, span.interval_ms, names, span)
    assert found.score > 0.05
    assert found.details["coarse"] == "15m"


def test_words_and_powers_of_ten_of_a_unit_change() -> None:
    rng, span = np.random.default_rng(10), odd.span_of(2)
    made = odd.token(rng, span, "m")
    for factor, power in ((1000.0, 3), (0.1, -1), (7.0, 0)):
        (found,) = odd.found_in([odd.in_another_unit(made, 2_300, factor)], span)
        assert found.kind == "unit_change"
        assert found.details["power_of_ten"] == power
        assert ("is a power of ten" if power else "is no power of ten") in found.reason


def _in_parts(tokens: list[Series], months: list[Span]) -> list[list[Finding]]:
    """Return what each month says when no candle after it is known; and every candle of the 7 days before it is."""
    made = []
    for span in months:
        known = [odd.before(own, span.end) for own in tokens]
        recent = [odd.kept(own, own.ts >= span.start - 7 * DAY_MS) for own in known]
        made.append(odd.found_in([own for own in recent if len(own.ts)], span))
    return made


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), cut=st.integers(1, 3 * 288))
def test_a_spike_and_a_new_unit_that_are_known_stay_known_whatever_comes_later(seed: int, cut: int) -> None:
    rng, whole = np.random.default_rng(seed), odd.span_of(3)
    made = odd.token(rng, whole, "m", holes=0.01)
    for row in (rng.integers(2_040, len(made.ts) - 100, 6)).tolist():
        made = odd.spiked(made, row, rng.uniform(1.4, 3), low=bool(rng.random() < 0.5))
    made = odd.in_another_unit(made, int(rng.integers(2_040, len(made.ts) - 100)), 1000.0)
    end = whole.start + cut * whole.interval_ms
    later = odd.in_another_unit(made, int(np.searchsorted(made.ts, end)), float(rng.choice([1.0, 0.02, 50.0])))

    def known(candles: Series) -> list[Finding]:
        return [f for f in odd.found_in([candles], whole) if f.kind in ("price_spike", "unit_change")]

    early, all_of = known(odd.before(later, end)), known(later)
    assert early == [f for f in all_of if f in early]


def test_what_lies_across_two_spans_is_told_in_one_of_them() -> None:
    rng, whole = np.random.default_rng(12), odd.span_of(2)
    middle = whole.start + DAY_MS
    parts = [whole._replace(end=middle), whole._replace(start=middle)]
    for kind in ("price_spike", "unit_change", "gap"):
        for back in (0, 1, 2, 12, 23, 24):
            made = odd.token(rng, whole, "m")
            row = int(np.searchsorted(made.ts, middle)) - back
            made = {
                "price_spike": lambda c, r: odd.spiked(c, r, 3.0),
                "unit_change": lambda c, r: odd.in_another_unit(c, r, 10.0),
                "gap": lambda c, r: odd.with_hole(c, r, 20),
            }[kind](made, row)
            told = [f for found in _in_parts([made], parts) for f in found if f.kind == kind]
            assert len(told) == 1, (kind, back)


def test_an_outage_across_two_spans_is_told_in_one_of_them() -> None:
    rng, whole = np.random.default_rng(13), odd.span_of(2)
    parts = [whole._replace(end=whole.start + DAY_MS), whole._replace(start=whole.start + DAY_MS)]
    made = [odd.with_hole(own, 2_016 + 288 - 5, 12 + i % 3) for i, own in enumerate(odd.market(rng, whole, 7))]
    told = [[f.kind for f in found] for found in _in_parts(made, parts)]
    assert told == [[], ["outage"]]
