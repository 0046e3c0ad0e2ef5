"""The search of continuous levels and its guard, each against a plain recomputation."""

import math
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbot_pipeline.replay.compile import compile_levels, compile_policies
from quantbot_pipeline.replay.policies import canonical_json
from quantbot_pipeline.replay.statistics import (
    AVG_RETURN,
    AVG_TIME_EXPOSED,
    GROWTH_SCORE,
    MEDIAN_RETURN,
    P95_DRAWDOWN,
    RANKING_STATS,
    STOP_OUT_RATE,
)
from quantbot_pipeline.search import guard, tuning
from quantbot_pipeline.search.objective import Constraints, Objective

DAY, MINUTE = 86_400_000, 60_000
coordinates = st.floats(0.0, 1.0) | st.sampled_from([0.0, 1.0, *tuning.WITHOUT])
points = st.lists(st.tuples(*[coordinates] * 5), min_size=1, max_size=12).map(lambda rows: np.array(rows))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(points=points)
def test_levels_lie_in_the_space_and_are_policies_as_data(points: Any) -> None:
    levels = tuning.levels_of(points)
    for i in range(len(points)):
        policy = tuning.policy_at(levels, i)
        stop, take, hold, activation, trail = (float(values[i]) for values in levels)
        assert math.isnan(stop) or 0.03 <= stop <= 0.6
        assert math.isnan(take) or 0.1 <= take <= 4.0
        assert 15 * MINUTE <= hold <= 48 * 60 * MINUTE and hold % MINUTE == 0
        assert math.isnan(trail) == math.isnan(activation)
        assert math.isnan(trail) or (0.02 <= trail <= 0.5 and 0.0 <= activation <= 1.5)
        for value in (stop, take, activation, trail):
            assert math.isnan(value) or value == round(value, 4)
        assert ("trail" in canonical_json(policy)) != math.isnan(trail)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(points=points, activity=st.sampled_from([0.1, 0.03]))
def test_levels_compile_to_what_their_policies_compile_to(points: Any, activity: float) -> None:
    levels = tuning.levels_of(points)
    policies = [tuning.policy_at(levels, i) for i in range(len(points))]
    ours_all, theirs_all = compile_levels(levels, activity)._asdict(), compile_policies(policies, activity)._asdict()
    for name, ours in ours_all.items():
        theirs = theirs_all[name]
        assert ours.dtype == theirs.dtype and ours.tolist() == theirs.tolist(), name


def landscape(points: Any) -> Any:
    """Statistics (P, S) that a policy at some point earns: one hill, a cliff of constraints, and the rest unremarkable."""
    stats = np.zeros((len(points), RANKING_STATS))
    hill = 1_000 * np.exp(-8 * np.square(points - np.array([0.42, 0.77, 0.61, 0.35, 0.9])).sum(axis=1))
    stats[:, GROWTH_SCORE] = stats[:, AVG_RETURN] = stats[:, MEDIAN_RETURN] = hill
    stats[:, STOP_OUT_RATE] = np.where(points[:, 1] > 0.7, 0.9, 0.1)  # the top of the hill is not allowed
    stats[:, P95_DRAWDOWN], stats[:, AVG_TIME_EXPOSED] = -100.0, 1.0
    return stats


def plainly(constraints: Constraints) -> tuple[Any, float, float, int]:
    """The search in plain Python: (point, score, plateau, evaluations)."""
    tried = [tuple(point) for point in tuning.first_points()]
    measured = list(landscape(np.array(tried)))

    def order(i: int) -> tuple[Any, ...]:
        stats = measured[i]
        feasible = stats[STOP_OUT_RATE] <= constraints.max_stop_out_rate and stats[AVG_RETURN] > 0
        return not feasible, -round(stats[GROWTH_SCORE], 6), -round(stats[MEDIAN_RETURN], 6), 100.0, i

    for number in range(4):
        rng = np.random.default_rng([0, number])
        parents = sorted(range(len(tried)), key=order)[:16]
        noise = rng.normal(0.0, 0.15 / 2**number, (16 * 32, 5))
        children = []
        for k in range(16 * 32):
            moved = [abs(x + d) for x, d in zip(tried[parents[k // 32]], noise[k], strict=True)]
            children.append(tuple(min(max(1 - abs(1 - x), 0.0), 1.0) for x in moved))
        tried += children
        measured += list(landscape(np.array(children)))
    first = min(range(len(tried)), key=order)
    near = sorted(
        (sum((x - y) ** 2 for x, y in zip(tried[i], tried[first], strict=True)), i)
        for i in range(len(tried))
        if i != first
    )[:16]
    scores = [float(stats[GROWTH_SCORE]) for stats in measured]
    return tried[first], scores[first], sum(scores[i] for _, i in near) / 16, len(tried)


def test_a_search_is_its_plain_recomputation_and_climbs_as_far_as_it_may() -> None:
    constraints = Constraints()
    tuner = tuning.Tuner(50, 50, constraints, Objective(), 20, leans=False)
    sobol = tuning.first_points()
    tuner.tell(sobol, landscape(sobol), landscape(sobol))
    begin = tuner.best()
    for number in range(tuning.ROUNDS):
        asked = tuner.ask(number)
        assert asked.shape == (512, 5) and asked.min() >= 0 and asked.max() <= 1
        tuner.tell(asked, landscape(asked), landscape(asked))
    best = tuner.best()
    point, score, plateau, evaluations = plainly(constraints)
    assert begin is not None and best is not None
    assert best.evaluations == evaluations == 4_096
    assert best.promise == pytest.approx(score, rel=1e-12) and best.plateau == pytest.approx(plateau, rel=1e-9)
    assert canonical_json(best.policy) == canonical_json(tuning.policy_at(tuning.levels_of(np.array([point])), 0))
    assert point[1] <= 0.7, "the cliff was not stepped over"
    assert begin.promise < best.promise and best.plateau < best.promise


def test_leaning_and_constraints_decide_alike_and_nothing_feasible_is_no_choice() -> None:
    """One call and K = 20: the pool decides. Nine calls alone are too few; nothing that earns is no policy."""
    sobol = tuning.first_points()
    good = landscape(sobol)
    bad = good.copy()
    bad[:, [GROWTH_SCORE, AVG_RETURN]] *= -1

    def best(own: Any, pool: Any, calls: int, pool_calls: int) -> tuning.Tuned | None:
        tuner = tuning.Tuner(calls, calls, Constraints(), Objective(), pool_calls, leans=True)
        tuner.tell(sobol, own, pool)
        return tuner.best()

    found = best(bad, good, 1, 20)
    assert found is not None and found.promise == pytest.approx(19 / 21 * float(best(good, good, 10, 0).promise))  # type: ignore[union-attr]
    assert best(good, bad, 1, 20) is None and best(bad, bad, 50, 20) is None
    assert best(good, good, 9, 0) is None and best(good, good, 10, 0) is not None and best(good, good, 9, 1) is not None


# --- the guard --------------------------------------------------------------------------------------------------------


def z_of(entries: list[int], values: list[float], block: int) -> float | None:
    """A mean over its standard error by blocks, in words of school."""
    sums: dict[int, float] = defaultdict(float)
    mean = math.fsum(values) / len(values) if values else 0.0
    for at, value in zip(entries, values, strict=True):
        sums[at // block] += value - mean
    if len(sums) < 2:
        return None
    error = math.sqrt(len(sums) / (len(sums) - 1) * math.fsum(s * s for s in sums.values())) / len(values)
    return mean / error if error else None


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 40 * DAY), st.integers(-300, 300), st.integers(-300, 300), st.booleans()), max_size=60
    ),
    shift=st.integers(-200, 200),
    horizon=st.sampled_from([DAY // 6, 2 * DAY, 5 * DAY]),
)
def test_the_guard_is_its_plain_recomputation(rows: list[tuple[int, int, int, bool]], shift: int, horizon: int) -> None:
    entries = [row[0] for row in rows]
    first, second = [float(row[1] + shift) for row in rows], [float(row[2]) for row in rows]
    traded = [row[3] for row in rows]
    months = [at // (10 * DAY) for at in entries]
    found = guard.judge(
        guard.Tested(
            np.array(entries, np.int64),
            np.array(months, np.int64),
            np.array(first),
            np.array(second),
            np.array(traded, bool),
        ),
        horizon,
        "tuned",
        "grid",
    )
    z = z_of(entries, [a - b for a, b in zip(first, second, strict=True)], max(2 * DAY, horizon))
    assert found.z == (None if z is None else pytest.approx(z, rel=1e-9, abs=1e-9))
    if z is None or abs(abs(z) - 2) < 1e-6:
        return
    trading = {m for m, t in zip(months, traded, strict=True) if t}
    enough = len(trading) >= 3 and sum(traded) >= 30
    assert found.verdict == ("grid better" if z < -2 else "tuned better" if z > 2 and enough else "not shown")


@pytest.mark.parametrize(
    ("months", "calls", "verdict"), [(3, 30, "tuned better"), (2, 60, "not shown"), (3, 29, "not shown")]
)
def test_better_needs_months_and_trades(months: int, calls: int, verdict: str) -> None:
    """A difference beyond doubt on too few months or trades shows nothing; its opposite does."""
    entry = np.arange(calls) * DAY
    gain = (100 + np.arange(calls) % 3).astype(np.float64)
    tested = guard.Tested(entry, np.arange(calls) % months, gain, np.zeros(calls), np.ones(calls, bool))
    assert guard.judge(tested, DAY, "tuned", "grid").verdict == verdict
    assert guard.judge(tested._replace(first=-gain), DAY, "tuned", "grid").verdict == "grid better"


def test_growth_is_the_score_of_the_search() -> None:
    realized = np.array([0.5, -0.9, 2.0, 0.0])
    assert guard.growth_bps(realized).mean() == pytest.approx(
        250_000 * np.mean([math.log(1 + 0.04 * r) for r in realized])
    )
