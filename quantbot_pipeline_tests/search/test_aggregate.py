"""The aggregation kernel against numpy on hand-made outcomes: ties, few trades, no tail captures, many groups.

What belongs here: `replay.trades.aggregate` and nothing above it.
"""

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantbot_pipeline.replay import statistics
from quantbot_pipeline.replay.statistics import RANKING_STATS, STATS, aggregate
from quantbot_pipeline.vocabulary import EXIT_REASONS
from quantbot_pipeline_tests.support.arrays import as_arrays
from quantbot_pipeline_tests.support.reference import Exit, aggregates, assert_close, row_of

PROPERTY = settings(
    derandomize=True,
    deadline=None,
    max_examples=80,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
C = 0.004
HOUR = 3_600_000

p0s = st.sampled_from((1.0, 0.1, 3.7e-9, 41_000.0))
# Few distinct values make ties; the floats between make none.
multiples = st.sampled_from((0.0, 0.5, 0.9, 1.0, 1.00804, 1.1, 2.0, 30.0)) | st.floats(0.0, 50.0)
peaks = st.sampled_from((1.0, 1.2499999, 1.25, 3.0)) | st.floats(1.0, 100.0)
mae = st.sampled_from((0.0, -1_000.0, -9_999.0)) | st.floats(-10_000.0, 0.0)


@st.composite
def tables(draw: st.DrawFn, n: int, policies: int) -> list[list[Exit]]:
    """`n` calls under some policies."""
    calls = []
    for _ in range(n):
        p0, entry, peak = draw(p0s), draw(st.integers(0, 10)) * HOUR, draw(peaks)
        calls.append(
            [
                Exit(p0, entry, peak, p0 * draw(multiples), entry + draw(st.integers(0, 48)) * HOUR, draw(st.sampled_from(EXIT_REASONS)), draw(mae))
                for _ in range(policies)
            ]
        )  # fmt: skip  # a table: what belongs together stands on one line
    return calls


def check(calls: Sequence[Sequence[Exit]], sizes: Sequence[int], shuffle: int = 0) -> None:
    """Groups of these sizes, cut from the calls one after the other, in whatever order."""
    truth, outcomes, rows = as_arrays(calls)
    numbers = list(range(sum(sizes)))
    random.Random(shuffle).shuffle(numbers)
    ends = np.cumsum(sizes)
    everything = aggregate(truth, outcomes, rows[numbers], ends, C)
    ranking = aggregate(truth, outcomes, rows[numbers], ends, C, stats=RANKING_STATS)
    assert everything.shape == (len(sizes), len(calls[0]), len(STATS))
    np.testing.assert_array_equal(ranking, everything[..., :RANKING_STATS])
    for g, (size, end) in enumerate(zip(sizes, ends, strict=True)):
        members = [calls[i] for i in numbers[end - size : end]]
        for p in range(len(calls[0])):
            if not members:
                assert np.isnan(everything[g, p]).all()
                continue
            want = aggregates([row_of(exits[p], C) for exits in members])
            for name, value in zip(STATS, everything[g, p].tolist(), strict=True):
                assert_close(None if np.isnan(value) else value, want[name], name, (g, p, size))


@PROPERTY
@given(st.data())
def test_aggregate_is_what_numpy_says(data: st.DataObject) -> None:
    """Random groups, random sizes from none to a few, more policies than one tile holds."""
    sizes = data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=4).filter(any))
    calls = data.draw(tables(sum(sizes), data.draw(st.sampled_from((1, 3, 9)))))
    check(calls, sizes, shuffle=data.draw(st.integers(0, 5)))


@pytest.mark.parametrize("n", [1, 2, 19, 20, 21, 39, 40, 41, 100])
@pytest.mark.parametrize("distinct", [1, 2, 1_000])
def test_quantiles_and_shortfall_at_their_edges(n: int, distinct: int) -> None:
    """One trade is its own shortfall; the second worst counts from 40 on; ties and constants are no special case."""
    rng = random.Random(n * 7 + distinct)
    values = [rng.uniform(0.0, 3.0) for _ in range(distinct)]
    calls = [
        [Exit(1.0, 0, rng.choice((1.1, 2.0)), rng.choice(values), rng.choice((1, 2, 3)) * HOUR, rng.choice(EXIT_REASONS), -1e4 * rng.choice(values) / 3)
         for _ in range(8)]
        for _ in range(n)
    ]  # fmt: skip  # a table: what belongs together stands on one line
    check([[first._replace(peak=exits[0].peak) for first in exits] for exits in calls], [n])


def test_tail_capture_is_null_when_no_call_had_a_tail() -> None:
    calls = [[Exit(1.0, 0, 1.2499, px, HOUR, "horizon", -5.0)] for px in (0.9, 1.1, 1.2)]
    truth, outcomes, rows = as_arrays(calls)
    stats = aggregate(truth, outcomes, rows, np.array([3]), C)[0, 0]
    assert np.isnan(stats[STATS.index("avg_tail_capture")])
    assert np.isnan(stats[STATS.index("median_tail_capture")])
    check(calls, [3])


def test_a_break_even_stop_is_not_a_stop_out() -> None:
    """Only a protective exit that lost more than 1e-6 bps before costs; after costs it is a loss all the same."""
    exits = [
        (1.0, "stop_loss"),
        (1.0 - 1e-11, "stop_loss"),
        (1.0 - 1e-9, "stop_loss"),
        (0.5, "data_end"),
        (0.5, "hard_stop"),
    ]
    truth, outcomes, rows = as_arrays([[Exit(1.0, 0, 1.0, px, HOUR, why, 0.0)] for px, why in exits])
    stats = aggregate(truth, outcomes, rows, np.array([5]), C)[0, 0]
    assert stats[STATS.index("stop_out_rate")] == 2 / 5
    assert stats[STATS.index("loss_rate")] == 1.0


def test_worked_example() -> None:
    """Four trades without costs that a person can check: +100 %, +50 %, 0, -50 % (of which the last one by a dead token)."""
    exits = [
        (2.0, "take_profit", 0.0),
        (1.5, "horizon", -1_000.0),
        (1.0, "time_stop", -2_000.0),
        (0.5, "data_end", -6_000.0),
    ]
    truth, outcomes, rows = as_arrays([[Exit(1.0, 0, 2.0, px, HOUR, why, dd)] for px, why, dd in exits])
    stats = dict(zip(STATS, aggregate(truth, outcomes, rows, np.array([4]), 0.0)[0, 0].tolist(), strict=True))
    assert stats["avg_return_bps"] == 2_500
    assert stats["median_return_bps"] == 2_500
    assert stats["p25_return_bps"] == -1_250
    assert stats["es95_bps"] == -5_000
    assert stats["stressed_avg_return_bps"] == 1_250
    assert stats["loss_rate"] == 0.25
    assert stats["avg_tail_capture"] == (1 + 0.5 + 0 + 0) / 4
    assert stats["p95_drawdown_bps"] == pytest.approx(-6_000 + 0.15 * 4_000)
    assert stats["growth_score"] == pytest.approx(250_000 * (np.log(1.04) + np.log(1.02) + np.log(0.98)) / 4)


def test_policies_that_leave_alike_are_counted_once_and_told_apart_where_they_differ() -> None:
    """In one group two policies end every call alike, in another they do not; a digest that lies is found out."""
    rng = random.Random(3)
    px = [rng.uniform(0.5, 2.0) for _ in range(12)]
    same = [[Exit(1.0, 0, 2.0, v, HOUR, "horizon", -5.0)] * 3 for v in px[:6]]
    other = [[Exit(1.0, 0, 2.0, v * factor, HOUR, "horizon", -5.0) for factor in (1.0, 1.5, 1.0)] for v in px[6:]]
    check([*same, *other], [6, 6])
    which = np.array([[0, 0, 0], [0, 1, 0], [2, 1, 2]], dtype=np.uint16)
    groups, ends = np.array([0, 0, 1, 2]), np.array([1, 4])
    assert statistics._leaders(which, groups, ends).tolist() == [[0, 0, 0], [0, 1, 0]]
    lie = np.zeros((2, 3), dtype=np.int64)
    statistics._check_leaders(which, groups, ends, lie)
    assert lie.tolist() == [[0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize(("repeats", "policies"), [(20, 400), (5_000, 11)])
def test_more_outcomes_than_are_looked_up_at_once(repeats: int, policies: int) -> None:
    """A large group, as the pool of all callers is, gives what its policies give one by one."""
    rng = random.Random(5)
    calls = [
        [Exit(1.0, 0, 2.0, rng.uniform(0.5, 2.0), HOUR, "horizon", -rng.uniform(1.0, 5_000.0)) for _ in range(policies)]
        for _ in range(30)
    ]
    truth, outcomes, rows = as_arrays(calls)
    pool = np.tile(rows, repeats)
    assert len(pool) * policies > statistics.TILE_OUTCOMES
    groups, ends = np.concatenate([pool, rows[:7]]), np.array([len(pool), len(pool) + 7])
    together = aggregate(truth, outcomes, groups, ends, C, stats=RANKING_STATS)
    for p in range(0, policies, policies // 5):
        alone = aggregate(truth, outcomes.of_policies(slice(p, p + 1)), groups, ends, C, stats=RANKING_STATS)
        np.testing.assert_array_equal(together[:, p], alone[:, 0])
