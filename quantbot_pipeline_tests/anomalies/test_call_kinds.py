"""The detectors of callers: what plain Python says, what is planted, and what chance alone does."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from quantbot_pipeline.anomalies.bursts import call_bursts
from quantbot_pipeline.anomalies.copies import copied_calls
from quantbot_pipeline.anomalies.findings import DAY_MS
from quantbot_pipeline.anomalies.ingested import deleted_calls, fisher, late_calls
from quantbot_pipeline.anomalies.regimes import alarms, regimes
from quantbot_pipeline.anomalies.touching import rows_of
from quantbot_pipeline_tests.support.odd_calls import (
    HOUR,
    SPAN,
    Made,
    calls_of,
    naive_alarms,
    naive_bursts,
    naive_follows,
)


def _scattered(rng: np.random.Generator, caller: str, n: int, days: float = 60, mints: int = 10_000) -> list[Made]:
    """Return calls at random times up to the month's end."""
    at = rng.integers(SPAN.end - int(days * DAY_MS), SPAN.end, n)
    return [
        Made(caller, f"m{rng.integers(mints)}", int(t), bool(rng.random() < 0.3), bool(rng.random() < 0.4)) for t in at
    ]


# --- bursts ---


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 150), planted=st.integers(0, 3))
def test_bursts_are_those_of_the_oracle(seed: int, n: int, planted: int) -> None:
    rng = np.random.default_rng(seed)
    made = [*_scattered(rng, "a", n), *_scattered(rng, "b", n // 3, days=20)]
    for _ in range(planted):
        at = int(rng.integers(SPAN.start - DAY_MS, SPAN.end - 3 * HOUR))
        made += [
            Made(str(rng.choice(["a", "b"])), "m", at + int(t))
            for t in rng.integers(0, 2 * HOUR, int(rng.integers(4, 20)))
        ]
    found = list(call_bursts(calls_of(made), SPAN))
    assert {(f.subject, f.from_ts, f.to_ts - 1) for f in found} == naive_bursts(made, SPAN)
    assert all(f.score >= f.limit >= 5 for f in found)


def test_a_planted_burst_is_found_and_touches_its_calls() -> None:
    rng = np.random.default_rng(1)
    made = _scattered(rng, "steady", 60)
    at = SPAN.start + 20 * DAY_MS
    made += [Made("steady", f"x{i}", at + i * 120_000, hit=i == 0) for i in range(9)]
    calls = calls_of(made)
    (row,) = rows_of(call_bursts(calls, SPAN), calls, SPAN.interval_ms)
    assert (row["kind"], row["subject"], row["severity"]) == ("call_burst", "steady", "warning")
    assert (row["calls_touched"], row["hits_touched"]) == (9, 1)


def test_somebody_who_is_new_or_always_fast_has_no_burst() -> None:
    new = [Made("new", f"m{i}", SPAN.start + DAY_MS + i * 60_000) for i in range(30)]
    fast = [Made("fast", f"m{i}", SPAN.start - 20 * DAY_MS + i * 12 * 60_000) for i in range(24 * 5 * 40)]
    assert list(call_bursts(calls_of([*new, *fast]), SPAN)) == []


# --- copies ---


def _copied(rng: np.random.Generator, follows: int) -> list[Made]:
    """Return five callers on common mints, and one that follows the first so many times."""
    made = [call for name in "abcde" for call in _scattered(rng, name, 60, days=30, mints=120)]
    leaders = [call for call in made if call.caller == "a"][:follows]
    return made + [Made("thief", call.mint, call.alert + int(rng.integers(1, HOUR))) for call in leaders]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), follows=st.integers(0, 20))
def test_a_told_pair_has_the_count_of_the_oracle_and_no_follower_is_left_out(seed: int, follows: int) -> None:
    made = _copied(np.random.default_rng(seed), follows)
    calls = calls_of(made)
    counts = naive_follows(made, SPAN)
    found = list(copied_calls(calls, SPAN))
    for f in found:
        assert f.other is not None
        assert f.score == counts[f.subject, f.other] >= 6
        assert f.calls is not None
        assert {calls.caller[row] for row in f.calls} == {f.other}
        assert len(f.calls) == f.score
    told = {(f.subject, f.other) for f in found}
    if follows >= 12:
        assert ("a", "thief") in told


def _false_alarms(stores: int) -> int:
    """Return the pairs told in stores without a thief whose callers are shuffled within mints."""
    told = 0
    for seed in range(stores):
        made = _copied(np.random.default_rng(seed), 0)
        told += len(list(copied_calls(calls_of(made), SPAN)))
    return told


def test_callers_that_meet_by_chance_are_not_told() -> None:
    assert _false_alarms(6) == 0


@pytest.mark.torture
def test_of_sixty_thieves_most_are_found_and_of_sixty_honest_stores_none() -> None:
    found = 0
    for seed in range(60):
        made = _copied(np.random.default_rng(seed), 12)
        found += ("a", "thief") in {(f.subject, f.other) for f in copied_calls(calls_of(made), SPAN)}
    assert found >= 55
    assert _false_alarms(60) <= 2


def test_equal_calls_give_equal_rows_in_any_process() -> None:
    made = _copied(np.random.default_rng(3), 15)
    assert list(copied_calls(calls_of(made), SPAN)) == list(copied_calls(calls_of(made[::-1]), SPAN))


# --- late and deleted ---


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_tail_is_that_of_fishers_test(data: st.DataObject) -> None:
    whole = data.draw(st.integers(1, 200))
    marked, drawn = data.draw(st.integers(0, whole)), data.draw(st.integers(0, whole))
    found = data.draw(st.integers(max(0, drawn + marked - whole), min(drawn, marked)))
    table = [[found, drawn - found], [marked - found, whole - marked - drawn + found]]
    assert fisher(found, drawn, marked, whole) == pytest.approx(
        fisher_exact(table, alternative="greater").pvalue, rel=1e-9
    )


def _told_late(late_hits: int, in_time_hits: int, n: int = 40) -> list[Made]:
    begin = SPAN.start - 5 * DAY_MS
    late = [Made("a", f"l{i}", begin + i * 6 * HOUR, hit=i < late_hits, late=True) for i in range(n)]
    return late + [Made("a", f"t{i}", begin + i * 6 * HOUR + 1, hit=i < in_time_hits) for i in range(n)]


def test_a_caller_whose_late_calls_hit_more_often_is_told() -> None:
    (found,) = late_calls(calls_of(_told_late(30, 10)), SPAN)
    assert found.reason.startswith("30 of 40 calls that were taken in over 48 hours late doubled, and 10 of 40")
    assert found.score >= found.limit == 3
    assert list(late_calls(calls_of(_told_late(16, 10)), SPAN)) == []
    assert list(late_calls(calls_of(_told_late(10, 30)), SPAN)) == []
    assert list(late_calls(calls_of(_told_late(19, 0, n=19)), SPAN)) == [], "20 of each are needed"
    later = SPAN._replace(start=SPAN.end, end=SPAN.end + 31 * DAY_MS)
    assert list(late_calls(calls_of(_told_late(30, 10)), later)) == [], "no late call in that month"


def test_deleted_losers_are_an_error_and_other_deletions_a_warning() -> None:
    def said(missing_hits: int) -> dict[str, object]:
        made = [Made("a", f"k{i}", SPAN.start + i * 6 * HOUR, hit=i < 20) for i in range(43)]
        gone = range(17)
        made += [Made("a", f"g{i}", SPAN.start + i * HOUR + 1, hit=i < missing_hits, missing=True) for i in gone]
        calls = calls_of(made)
        (row,) = rows_of(deleted_calls(calls, SPAN), calls, SPAN.interval_ms)
        return row

    losers, some = said(0), said(8)
    assert (losers["severity"], losers["calls_touched"], losers["hits_touched"]) == ("error", 17, 0)
    assert str(losers["reason"]).startswith("17 of the month's calls are missing in a later ingest")
    assert (some["severity"], some["hits_touched"]) == ("warning", 8)
    assert list(deleted_calls(calls_of([Made("a", "m", SPAN.start)]), SPAN)) == []


# --- regimes ---


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), rate=st.sampled_from([0.0, 0.15, 0.5, 1.0]), after=st.sampled_from([0.05, 0.5, 0.9])
)
def test_alarms_are_those_of_sums_made_anew_at_every_call(seed: int, rate: float, after: float) -> None:
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.random(90) < rate, rng.random(60) < after]).tolist()
    assert [(alarm.at, alarm.direction) for alarm in alarms(values)] == naive_alarms(values)


def _rates(stores: int, rate: float, factor: float) -> tuple[float, float]:
    """Return the share of stores in which odds divided by a factor are found, and false alarms per 100 calls and direction."""
    found = false = 0
    odds = rate / (1 - rate) / factor
    for seed in range(stores):
        rng = np.random.default_rng(seed)
        values = np.concatenate([rng.random(150) < rate, rng.random(100) < odds / (1 + odds)])
        found += any(alarm.at >= 150 and alarm.direction == 0 for alarm in alarms(values))
        false += sum(alarm.at < 150 for alarm in alarms(values[:150]))
    return found / stores, false / stores / 2  # 100 calls with a base rate


def test_a_fallen_rate_is_found_and_a_steady_one_seldom() -> None:
    found, false = _rates(25, 0.4, 4)
    assert found >= 0.84
    assert false <= 0.09


@pytest.mark.torture
@pytest.mark.parametrize(("rate", "least"), [(0.15, 0.45), (0.35, 0.88), (0.5, 0.9)])
def test_rates_of_alarms_are_those_of_the_documentation(rate: float, least: float) -> None:
    found, false = _rates(400, rate, 4)
    assert found >= least
    assert false <= 0.06


def test_a_regime_is_told_in_the_month_that_settles_it_and_once() -> None:
    begin = SPAN.start - 40 * DAY_MS
    made = [Made("a", f"m{i}", begin + i * 9 * HOUR, hit=i < 100 and i % 2 == 0, win=i % 2 == 0) for i in range(160)]
    told = []
    for start in (SPAN.start - 31 * DAY_MS, SPAN.start):
        span = SPAN._replace(start=start, end=start + 31 * DAY_MS)
        known = calls_of([call for call in made if call.alert < span.end])
        told += [(start, f.details["outcome"], f.details["direction"]) for f in regimes(known, span)]
    assert Counter(told) == {(SPAN.start, "hit_2x", "down"): 1}
