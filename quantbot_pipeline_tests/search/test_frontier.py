"""The frontier against a naive loop: single-policy outcomes from the oracle, numpy aggregates, a brute-force Pareto set.

Belongs here: the grid, the ranking, and what `optimization` and `full` runs write, on a small real home. The aggregation kernel on its
own is in `test_aggregate`.
"""

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantbot_pipeline.backtest.month import MonthResult
from quantbot_pipeline.config import make_config
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.home import Home
from quantbot_pipeline.market import candle_files
from quantbot_pipeline.replay import results
from quantbot_pipeline.replay.policies import canonical_json, parse_policy, policy_id
from quantbot_pipeline.replay.results import Outcomes, Truth, outcome_bytes
from quantbot_pipeline.search.frontier import Candidates, Group, Ranking, candidates, pareto, rank, statistics
from quantbot_pipeline.search.grid import parse_grid
from quantbot_pipeline.search.objective import Constraints, Objective
from quantbot_pipeline_tests.support import homes, reference
from quantbot_pipeline_tests.support.arrays import as_arrays
from quantbot_pipeline_tests.support.homes import DAY, HOUR, JANUARY, MINUTE, Call, Market
from quantbot_pipeline_tests.support.naive import Candle
from quantbot_pipeline_tests.support.reference import Exit, assert_close

PROPERTY = settings(
    derandomize=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
MONTH = "2024-01"
SHORT: dict[str, Any] = {"horizon_ms": 4 * HOUR}  # windows of 48 candles: the oracle is fast
SMALL_GRID: dict[str, Any] = {
    "stops": [0.1, 0.25],
    "take_profits": [0.5, None],
    "holds_ms": [15 * MINUTE, HOUR],
    "hold_take_profits": [None, 0.3],
    "activations": [0.1],
    "trails": [0.05],
    "hard_stops": [None, 0.1],
    "ladders": [[[1.5, 0.5], [2.0, 0.5]]],
    "ladder_stops": [None, 0.2],
    "combo_holds_ms": [None],
}
HABITS = {  # what one candle does to the price
    "pump": (1.08, 1.05, 1.0, 0.98),
    "bleed": (0.97, 1.0, 0.99, 1.01),
    "chop": (0.9, 1.12, 1.0, 1.03, 0.96),
    "calm": (1.0, 1.001, 0.999),
}
# Names in another order as bytes than as words, and one outside ASCII.
CALLERS = {"hunter": 12, "Bleeder": 12, "élan": 5, "chopper": 10}


def january() -> Market:
    """Four callers with included calls (one of them too few for the constraints), one without, tokens of every habit.

    Some calls share a token, some are on a token that dies within its window (censored), some are excluded.
    """
    rng = random.Random(11)
    calls: list[Call] = []
    prices: dict[str, list[Candle]] = {}
    habits = list(HABITS)
    for n, (caller, size) in enumerate(CALLERS.items()):
        for i in range(size):
            begin = JANUARY + (3 + i) * DAY + n * 7 * HOUR
            habit = habits[n] if i % 3 else rng.choice(habits)
            length = rng.choice((60, 60, 60, 20))
            mint = f"{caller}{i}"
            prices[mint] = homes.token(rng, begin, length, "5m", HABITS[habit])
            calls.append(Call(f"{n}-{i}", caller, mint, begin + rng.randrange(0, 9) * MINUTE + rng.randrange(60_000)))
    prices["hunter3"] = homes.rug(JANUARY + 6 * DAY, 60, "5m", left=1e-4)
    calls.append(Call("again", "hunter", "hunter5", calls[5].alert_ts + HOUR))
    calls.append(Call("late", "Bleeder", "hunter1", calls[1].alert_ts + 2 * DAY))
    calls.append(Call("gone", "Bleeder", "nothing", JANUARY + DAY))
    calls += [Call(f"nobody{i}", "nobody", "nothing", JANUARY + DAY) for i in range(2)]
    prices["hunter7"] = list(prices["hunter6"])  # the same prices again: equal returns, ties in every quantile
    calls[7] = calls[6]._replace(call_id=calls[7].call_id, mint="hunter7")
    return Market("5m", calls, prices)


class Lab(NamedTuple):
    """A home and the market in it."""

    home: Home
    market: Market


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The January market in a real home; tests only add runs to it."""
    market = january()
    return Lab(homes.make_home(tmp_path_factory.mktemp("frontier") / "home", market), market)


@pytest.fixture(scope="module")
def default_run(lab: Lab) -> MonthResult:
    """The default grid over the month."""
    return homes.run(lab.home, "optimization", MONTH, SHORT)


# --- the reference ----------------------------------------------------------------------------------------------------


def expected(
    market: Market, config: Mapping[str, Any], policies: Sequence[Mapping[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """The frontier of every caller and of all pooled, by a loop over calls and policies; policies by canonical text."""
    rules, c = homes.rules_of(market, config), reference.cost(config)
    replayed = homes.replay(market, market.calls, rules)
    outcomes = {reference.canonical(p): [reference.row(r, p, rules, c) for r in replayed] for p in policies}
    constraints, kind = config.get("constraints", {}), config.get("objective", {}).get("kind", "growth")
    found = {}
    for name in ["__all__", *sorted({call.caller for call in market.calls}, key=str.encode)]:
        own = [i for i, r in enumerate(replayed) if name in ("__all__", r.call.caller)]
        if not own:
            continue
        stats = {text: reference.aggregates([rows[i] for i in own]) for text, rows in outcomes.items()}
        limits = reference.limits(constraints, [replayed[i].peak for i in own])
        called = sum(name in ("__all__", call.caller) for call in market.calls)
        counts = {
            "caller_name": name,
            "trades": len(own),
            "calls_excluded": called - len(own),
            "distinct_mints": len({replayed[i].call.mint for i in own}),
            "censored_count": sum(replayed[i].window.censored for i in own),
        }
        found[name] = [
            row | counts
            for row in reference.ranked(stats, len(own), len({replayed[i].call.mint for i in own}), limits, kind)
        ]
    return found


IN_ARTIFACT = (
    "caller_name", "policy_params", "meets_constraints", "objective_score", "avg_return_bps", "median_return_bps",
    "stop_out_rate", "rank", "trades", "calls_excluded", "distinct_mints", "censored_count", "loss_rate", "es95_bps",
    "p95_drawdown_bps", "stressed_avg_return_bps", "avg_time_exposed_ms", "avg_tail_capture", "violations", "is_pareto",
    "data_end_share",
)  # fmt: skip  # a table: what belongs together stands on one line


def assert_frontier(rows: Sequence[Mapping[str, Any]], want: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Row for row: all callers pooled, then callers in byte order, each by rank."""
    wanted = [row for group in want.values() for row in group]
    assert [(r["caller_name"], r["rank"], r["policy_params"]) for r in rows] == [
        (w["caller_name"], w["rank"], w["policy_params"]) for w in wanted
    ]
    for got, one in zip(rows, wanted, strict=True):
        for name in IN_ARTIFACT:
            assert_close(got[name], one[name], name, (one["caller_name"], one["policy_params"]))


def policies_of(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The policies of a frontier, as a user writes them."""
    return [json.loads(text) for text in sorted({row["policy_params"] for row in rows})]


# --- the default grid -------------------------------------------------------------------------------------------------


def test_every_row_of_the_default_grid_is_what_a_naive_loop_gives(lab: Lab, default_run: MonthResult) -> None:
    """Acceptance: statistics, constraints, rank and Pareto flag of 450 policies for every caller and for all pooled."""
    rows = homes.artifact(default_run, "frontier")
    want = expected(lab.market, SHORT, policies_of(rows))
    assert list(want) == ["__all__", "Bleeder", "chopper", "hunter", "élan"], (
        "a caller without included calls has no rows"
    )
    assert_frontier(rows, want)
    seen = Counter(v for row in rows for v in row["violations"].split(","))
    assert seen["trades"] == 450, "only the caller with five calls is below min_trades, with every policy"
    assert min(seen[v] for v in ("avg_return_bps", "stop_out_rate", "p95_drawdown_bps")) > 20
    assert any(row["meets_constraints"] for row in rows)
    assert 0 < sum(row["is_pareto"] for row in rows) < len(rows)
    assert {row["caller_name"]: row["censored_count"] for row in rows}["__all__"] > 3
    assert {row["caller_name"]: (row["trades"], row["calls_excluded"], row["distinct_mints"]) for row in rows}[
        "Bleeder"
    ][1] == 2


def test_scores_are_finite_feasible_or_not(default_run: MonthResult) -> None:
    rows = homes.artifact(default_run, "frontier")
    assert all(np.isfinite(row["objective_score"]) for row in rows)
    assert all(row["meets_constraints"] == (row["violations"] == "") for row in rows)


def test_policy_id_names_one_policy_in_the_whole_frontier(default_run: MonthResult) -> None:
    rows = homes.artifact(default_run, "frontier")
    pairs = {(row["policy_id"], row["policy_params"]) for row in rows}
    assert len(pairs) == len({name for name, _ in pairs}) == len({text for _, text in pairs}) == 450
    for name, text in pairs:
        policy = parse_policy(text)
        assert (policy_id(policy), canonical_json(policy)) == (name, text)
        assert reference.canonical(json.loads(text)) == text


# --- the grid ---------------------------------------------------------------------------------------------------------


def issue_grid() -> Iterator[dict[str, Any]]:
    """The families and levels of the issue, written again."""
    ladders = [[(2.0, 0.5), (3.0, 0.3), (4.0, 0.2)], [(1.5, 0.5), (2.0, 0.5)], [(2.0, 1.0)]]

    def trailing(a: float, t: float, hard: float | None) -> dict[str, Any]:
        return {"kind": "trailing_stop", "activation_pct": a, "trail_pct": t, "hard_stop_pct": hard}

    def ladder(levels: list[tuple[float, float]], stop: float | None) -> dict[str, Any]:
        return {"kind": "ladder", "levels": [{"multiple": m, "fraction": f} for m, f in levels], "stop_pct": stop}

    for stop, take in product((0.05, 0.1, 0.15, 0.2, 0.25), (0.5, 1.0, 1.5, 2.0, None)):
        yield {"kind": "fixed_stop", "stop_pct": stop, "take_profit_pct": take}
    for minutes, take in product((5, 10, 15, 30, 60, 120, 240, 2880), (None, 0.5, 1.0, 2.0)):
        yield {"kind": "time_stop", "max_hold_ms": minutes * MINUTE, "take_profit_pct": take}
    for a, t in product((0.1, 0.2, 0.5), (0.02, 0.05, 0.1)):
        for hard in (None, 0.1, 0.15, 0.2):
            yield trailing(a, t, hard)
            for levels in ladders:
                yield {"kind": "combo", "policies": [trailing(a, t, hard), ladder(levels, None)]}
        for stop in (0.05, 0.1, 0.15, 0.2, 0.25):
            yield {"kind": "combo", "policies": [trailing(a, t, None), {"kind": "fixed_stop", "stop_pct": stop}]}
    for levels, below in product(ladders, (None, 0.1, 0.15, 0.2, 0.25)):
        yield ladder(levels, below)


def compiled(policy: Mapping[str, Any]) -> tuple[Any, ...]:
    """What the contract says a policy compiles to; equal ones trade alike."""
    parts = policy["policies"] if policy["kind"] == "combo" else [policy]
    stops = [r[key] for r in parts for key in ("stop_pct", "hard_stop_pct") if r.get(key) is not None]
    takes = [r["take_profit_pct"] for r in parts if r.get("take_profit_pct") is not None]
    holds = [r["max_hold_ms"] for r in parts if r["kind"] == "time_stop"]
    trails = sorted({(r["activation_pct"], r["trail_pct"]) for r in parts if r["kind"] == "trailing_stop"})
    rungs = sorted((level["multiple"], level["fraction"]) for r in parts for level in r.get("levels", ()))
    return min(stops, default=None), min(takes, default=None), min(holds, default=None), tuple(trails), tuple(rungs)


def test_the_default_grid_holds_every_policy_of_the_issue_once(default_run: MonthResult) -> None:
    """And beyond them only combos with a hold. Policies that trade alike are one row, whatever their rules are called."""
    keys = [compiled(p) for p in policies_of(homes.artifact(default_run, "frontier"))]
    assert len(set(keys)) == len(keys) == 450
    wanted = {compiled(p) for p in issue_grid()}
    assert wanted <= set(keys)
    assert all(hold is not None and trails and rungs for _, _, hold, trails, rungs in set(keys) - wanted)


def test_duplicates_after_compilation_are_one_row(lab: Lab) -> None:
    """The same stop as a rule of its own and as a hard stop, rules in another order, an unreachable second stop."""
    hard: dict[str, Any] = {"kind": "trailing_stop", "activation_pct": 0.1, "trail_pct": 0.05, "hard_stop_pct": 0.1}
    trail = {"kind": "trailing_stop", "activation_pct": 0.1, "trail_pct": 0.05}
    fixed: dict[str, Any] = {"kind": "fixed_stop", "stop_pct": 0.1}
    policies: list[dict[str, Any]] = [
        hard,
        {"kind": "combo", "policies": [trail, fixed]},
        {"kind": "combo", "policies": [fixed, trail]},
        {"kind": "combo", "policies": [trail, fixed, {"kind": "fixed_stop", "stop_pct": 0.2}]},
        {"kind": "combo", "policies": [trail, trail, fixed]},
        {"kind": "combo", "policies": [hard]},
        {"kind": "combo", "policies": [fixed]},
        {"kind": "time_stop", "max_hold_ms": 3_600_000.0},
        {"kind": "time_stop", "max_hold_ms": 3_600_000, "take_profit_pct": None},
    ]
    config: dict[str, Any] = SHORT | {"grid": {key: [] for key in SMALL_GRID} | {"policies": policies}}
    rows = homes.artifact(homes.run(lab.home, "optimization", MONTH, config), "frontier")
    kept = [hard, policies[6], policies[7]]
    assert {row["policy_params"] for row in rows} == {reference.canonical(p) for p in kept}, "the first of them stays"
    assert_frontier(rows, expected(lab.market, config, kept))


# --- other configurations ---------------------------------------------------------------------------------------------

VARIATIONS: dict[str, dict[str, Any]] = {
    "median objective": {"objective": {"kind": "median"}},
    "constraints": {
        "constraints": {
            "min_trades": 11,
            "min_avg_return_bps": -100.0,
            "max_stop_out_rate": 0.25,
            "min_p95_drawdown_bps": -2_000.0,
            "max_avg_time_exposed_ms": 2.0 * HOUR,
        }
    },
    "no constraint binds": {
        "constraints": {
            "min_trades": 0,
            "min_avg_return_bps": -1e4,
            "max_stop_out_rate": 1.0,
            "min_p95_drawdown_bps": -1e4,
            "max_avg_time_exposed_ms": 1e12,
        }
    },
    "fat tails at the default peaks": {"constraints": {"fat_tail_factor": 0.5}},
    "fat p95 only": {
        "constraints": {"fat_tail_factor": 0.7, "fat_tail_p95_peak": 4.0, "max_stop_out_rate": 0.2, "min_p95_drawdown_bps": -900.0}
    },
    "fat p75 only": {
        "constraints": {
            "fat_tail_factor": 0.25,
            "fat_tail_p75_peak": 1.5,
            "max_stop_out_rate": 0.3,
            "min_p95_drawdown_bps": -900.0,
        }
    },
    "tokens and ends of data are limited": {
        "constraints": {"min_distinct_mints": 12, "max_data_end_share": 0.05, "min_stressed_avg_return_bps": -500.0}
    },
    "entry at the close": {"entry": "close", "latency_ms": 0},
    "optimistic, dear": {"intrabar": "optimistic", "taker_fee_bps": 100.0, "slippage_bps": 55.5, "stop_slippage_bps": 250.0},
    "thin windows left out": {"min_coverage": 0.85, "max_entry_delay_ms": 5 * MINUTE},
}  # fmt: skip  # a table: what belongs together stands on one line


@pytest.mark.parametrize("variation", list(VARIATIONS))
def test_a_custom_grid_under_other_configurations(lab: Lab, variation: str) -> None:
    """Rules, costs, objective and constraints reach every row."""
    config = SHORT | {"grid": SMALL_GRID} | VARIATIONS[variation]
    rows = homes.artifact(homes.run(lab.home, "optimization", MONTH, config), "frontier")
    policies = policies_of(rows)
    assert len(policies) == 15  # 4 fixed + 4 timed + 2 trailing + 2 ladders + 2 + 2 combos, one of them a duplicate
    assert_frontier(rows, expected(lab.market, config, policies))


def test_fat_tails_relax_limits_for_those_callers_only(lab: Lab) -> None:
    """Off by default; with it exactly the callers at or above one of the two peaks gain feasible policies."""
    strict = {"max_stop_out_rate": 0.1, "min_p95_drawdown_bps": -900.0, "min_avg_return_bps": -1e4, "min_trades": 1}
    plain = SHORT | {"grid": SMALL_GRID, "constraints": strict}
    relaxed = plain | {"constraints": strict | {"fat_tail_factor": 0.1, "fat_tail_p95_peak": 4.0}}
    feasible: list[Counter[str]] = []
    for config in (plain, relaxed):
        rows = homes.artifact(homes.run(lab.home, "optimization", MONTH, config), "frontier")
        feasible.append(Counter(row["caller_name"] for row in rows if row["meets_constraints"]))
    peaks: dict[str, list[float]] = {}
    for r in homes.replay(lab.market, lab.market.calls, homes.rules_of(lab.market, SHORT)):
        peaks.setdefault(r.call.caller, []).append(r.peak)
    fat = {name for name, own in peaks.items() if np.quantile(own, 0.95) >= 4.0 or np.quantile(own, 0.75) >= 10.0}
    assert 0 < len(fat) < len(peaks)
    assert {name for name in peaks if feasible[1][name] > feasible[0][name]} == fat


def ranked(
    groups: list[Group], truth: Truth, outcomes: Outcomes, found: Candidates, limits: Constraints, goal: Objective
) -> list[Ranking]:
    """Rankings without costs."""
    return rank(groups, truth, statistics(groups, truth, outcomes, 0.0, goal), found, limits, goal)


def test_constraints_compare_as_written() -> None:
    """Exactly at a limit all hold but the mean return, which must be above; the relaxation includes its thresholds."""
    exits = [Exit(1.0, 0, 1.0, 1.0, HOUR, "horizon", -5_000.0), Exit(1.0, 0, 1.0, 1.0, HOUR, "stop_loss", -5_000.0)]
    truth, outcomes, rows = as_arrays([exits] * 10)
    limits = Constraints(max_avg_time_exposed_ms=HOUR, max_stop_out_rate=0.0)
    found = candidates([parse_policy({"kind": "fixed_stop", "stop_pct": s}) for s in (0.1, 0.2)])
    (ranking,) = ranked([Group("x", rows, len(rows))], truth, outcomes, found, limits, Objective())
    assert ranking.violations.tolist() == [[False, True, *[False] * 6]] * 2
    assert ranking.best() is None
    fat = Constraints(fat_tail_factor=0.5)
    assert fat.for_peaks(np.array([20.0])).max_stop_out_rate == 0.8
    assert fat.for_peaks(np.array([19.9, 9.0, 9.0, 9.0, 9.0])).min_p95_drawdown_bps == -5_000
    assert fat.for_peaks(np.array([10.0, 10.0, 10.0, 10.0])).min_p95_drawdown_bps == -10_000


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"constraints": {"max_stopout": 0.1}}, "max_stopout"),
        ({"constraints": {"max_stop_out_rate": 1.5}}, "max_stop_out_rate"),
        ({"constraints": {"min_trades": "many"}}, "min_trades"),
        ({"constraints": {"min_trades": "5"}}, "min_trades"),
        ({"constraints": {"min_trades": True}}, "min_trades"),
        ({"constraints": {"max_stop_out_rate": True}}, "max_stop_out_rate"),
        ({"grid": {"take_profits": [True]}}, "take_profits"),
        ({"grid": {"holds_ms": [1.5]}}, "holds_ms"),
        ({"grid": {"ladders": [[[2, "0.5"]]]}}, "ladders"),
        ({"constraints": {"min_avg_return_bps": float("nan")}}, "min_avg_return_bps"),
        ({"objective": {"kind": "sharpe"}}, "kind"),
        ({"grid": {"stops": [0.1, 1.5]}}, r"grid: stops\[1\]: Input should be less than 1 \(given: 1.5\)"),
        ({"grid": {"take_profits": [0]}}, r"grid: take_profits\[0\]: "),
        ({"grid": {"activations": [-0.1]}}, r"grid: activations\[0\]: "),
        ({"grid": {"trails": [1]}}, r"grid: trails\[0\]: "),
        ({"grid": {"holds_ms": [60_000, 0]}}, r"grid: holds_ms\[1\]: "),
        ({"grid": {"combo_holds_ms": [None, -1]}}, r"grid: combo_holds_ms\[1\]: "),
        ({"grid": {"ladder_stops": [None, float("inf")]}}, r"grid: ladder_stops\[1\]: "),
        ({"grid": {"ladders": [[[2, 1]], [[2, 0.7], [3, 0.7]]]}}, r"grid: ladders\[1\]: levels: the fractions sum"),
        ({"grid": {"ladders": [[]]}}, r"grid: ladders\[0\]: levels: an empty list; give at least one"),
        ({"grid": {"stop": [0.1]}}, "grid: stop: unknown key"),
        ({"grid": {"policies": [{"kind": "time_stop", "max_hold_ms": 0}]}}, r"grid: policies\[0\]: max_hold_ms: "),
        ({"grid": {key: [] for key in SMALL_GRID}}, "no policy"),
    ],
)
def test_wrong_configuration_is_refused_by_name(values: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        make_config(values)


def test_whole_numbers_may_be_written_as_floats() -> None:
    """3600000.0 is the same policy as 3600000, in the grid as elsewhere."""
    floats: dict[str, Any] = {
        "constraints": {"min_trades": 5.0, "max_avg_time_exposed_ms": 1},
        "grid": {"holds_ms": [3_600_000.0]},
    }
    make_config(floats)
    assert parse_grid(floats["grid"]).multiply() == parse_grid({"holds_ms": [3_600_000]}).multiply()


# --- ranking on lattices ----------------------------------------------------------------------------------------------

# Levels and nudges below the sixth decimal of a basis point: those must not decide, those above must.
levels = st.sampled_from((0.9, 1.0, 1.1, 1.2))
nudges = st.sampled_from((0.0, 0.0, 1e-15, 3e-12, 1e-9))


@st.composite
def ranked_outcomes(draw: st.DrawFn) -> list[list[Exit]]:
    """A few calls under eight policies whose results tie, or nearly tie, in everything that ranks."""
    calls = []
    for _ in range(draw(st.integers(1, 4))):
        exits = []
        for _ in range(8):
            why = draw(st.sampled_from(("horizon", "stop_loss")))
            mae = draw(st.sampled_from((0.0, -1_000.0, -1_000.0000001, -6_000.0)))
            exits.append(Exit(1.0, 0, 2.0, draw(levels) * (1 + draw(nudges)), HOUR, why, mae))
        calls.append(exits)
    return calls


@PROPERTY
@given(ranked_outcomes(), st.sampled_from(("growth", "median")), st.permutations(range(8)))
def test_rank_is_a_total_order_and_pareto_is_brute_force(calls: list[list[Exit]], kind: Any, order: list[int]) -> None:
    """Ties go down the list of criteria to the canonical text, in whatever order the policies were given."""
    texts = [{"kind": "time_stop", "max_hold_ms": ms} for ms in (9, 10, 11, 100, 1_000_000, 99, 2, 20)]
    found = candidates([parse_policy(texts[i]) for i in order])
    truth, outcomes, rows = as_arrays([[exits[i] for i in order] for exits in calls])
    limits: dict[str, Any] = {"min_trades": 2, "min_avg_return_bps": -500.0}
    groups = [Group("all", rows, len(rows)), Group("one", rows[:1], 1)]
    rankings = ranked(groups, truth, outcomes, found, Constraints(**limits), Objective(kind=kind))
    for group, ranking in zip(groups, rankings, strict=True):
        own = calls[: len(group.rows)]
        stats = {
            reference.canonical(texts[i]): reference.aggregates([reference.row_of(exits[i], 0.0) for exits in own])
            for i in range(8)
        }
        want = reference.ranked(stats, len(own), len(own), reference.limits(limits, [2.0]), kind)
        assert [found.texts[p] for p in ranking.order] == [row["policy_params"] for row in want]
        flags = pareto(ranking)
        assert [bool(flags[p]) for p in ranking.order] == [row["is_pareto"] for row in want]
        best = ranking.best()
        assert (None if best is None else found.texts[best]) == (
            want[0]["policy_params"] if want[0]["meets_constraints"] else None
        )


def test_six_decimals_decide_and_the_seventh_does_not() -> None:
    """A score better by 1e-9 bps loses to the smaller text; by 1e-5 bps it wins."""
    found = candidates([parse_policy({"kind": "time_stop", "max_hold_ms": ms}) for ms in (10, 9)])
    for nudge, first in ((1e-13, 0), (1e-9, 1)):
        exits = [Exit(1.0, 0, 1.0, px, HOUR, "horizon", 0.0) for px in (1.1, 1.1 + nudge)]
        truth, outcomes, rows = as_arrays([exits] * 10)
        (ranking,) = ranked([Group("x", rows, len(rows))], truth, outcomes, found, Constraints(), Objective())
        assert ranking.order[0] == first  # '…"max_hold_ms":10}' sorts before '…"max_hold_ms":9}'


# --- one content, however it is computed ------------------------------------------------------------------------------


@pytest.mark.parametrize(("threads", "shuffle", "row_group"), [(4, None, 200), (1, 5, None), (4, 6, 50)])
def test_threads_and_the_order_of_rows_change_nothing(
    lab: Lab,
    default_run: MonthResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
    shuffle: int | None,
    row_group: int | None,
) -> None:
    """Another home, rows shuffled, four threads on many row groups: the same bytes of frontier and best trades."""
    if row_group is not None:  # a month this small is one row group, and one row group is one thread's work
        monkeypatch.setattr("quantbot_pipeline.market.candle_files.ROW_GROUP", row_group)
    other = homes.make_home(tmp_path / "home", lab.market, threads=threads, shuffle=shuffle)
    groups = pq.ParquetFile(candle_files.month_file(other.candles.folder, "5m", MONTH)).num_row_groups
    assert groups == 1 if row_group is None else groups >= 5
    again = homes.run(other, "optimization", MONTH, SHORT)
    for name in ("frontier", "trades", "alerts"):
        assert homes.content(again, name) == homes.content(default_run, name), name


@pytest.mark.parametrize("policies_at_once", [1, 7, 200])
def test_a_search_that_does_not_fit_into_memory_is_done_in_parts(
    lab: Lab, default_run: MonthResult, policies_at_once: int
) -> None:
    """The memory limit holds the outcomes of so many policies only: the same bytes, and a full run's too."""
    calls = default_run.manifest.dataset.calls_count
    limit = f"{outcome_bytes(calls, policies_at_once) / 1e6:.9f}MB"
    small = lab.home.changed(memory_limit=limit)
    if policies_at_once > 1:
        again = homes.run(small, "optimization", MONTH, SHORT)
        for name in ("frontier", "trades"):
            assert homes.content(again, name) == homes.content(default_run, name), name
    config = SHORT | {"grid": SMALL_GRID, "both_orders": True}
    whole, parts = (homes.run(home, "full", MONTH, config) for home in (lab.home, small))
    assert parts.manifest.artifacts["errors"].rows == whole.manifest.artifacts["errors"].rows
    for name in ("paths", "trades", "summary", "frontier"):
        assert homes.content(parts, name) == homes.content(whole, name), name


@pytest.mark.parametrize("recipe", ["full", "walk-forward"])
def test_a_grid_larger_than_one_replay_holds_is_done_in_parts(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    """What is replayed beside the last part (the run's own policies, holding to the horizon) counts, too."""
    config = SHORT | {"grid": SMALL_GRID}
    whole = homes.run(lab.home, recipe, MONTH, config)
    for most in (7, 9, 11):
        monkeypatch.setattr(results, "MAX_POLICIES", most)
        parts = homes.run(lab.home, recipe, MONTH, config)
        for name in whole.manifest.artifacts.keys() - {"errors"}:
            assert homes.content(parts, name) == homes.content(whole, name), (name, most)


# --- the trades of the best policies ----------------------------------------------------------------------------------

TRADE_COLUMNS = (
    "entry_ts_ms", "entry_px", "exit_ts_ms", "exit_px", "exit_reason", "fills", "max_adverse_excursion_bps",
    "realized_return_bps", "gross_return_bps", "stop_out", "time_exposed_ms", "tail_capture",
)  # fmt: skip  # a table: what belongs together stands on one line


def assert_trades(
    rows: Sequence[Mapping[str, Any]], market: Market, config: Mapping[str, Any], params: Mapping[str, str]
) -> None:
    """Every trade is the oracle's; `params` has the canonical JSON of every policy id."""
    rules, c = homes.rules_of(market, config), reference.cost(config)
    replayed = {r.call.call_id: r for r in homes.replay(market, market.calls, rules)}
    for got in rows:
        one, policy = replayed[got["call_id"]], json.loads(params[got["policy_id"]])
        trade, numbers = homes.trade(one, policy, rules), reference.row(one, policy, rules, c)
        want = numbers._asdict() | {
            "entry_ts_ms": one.window.entry_ts,
            "entry_px": one.window.p0,
            "exit_ts_ms": trade.exit_ts,
            "exit_px": trade.exit_px,
            "fills": trade.fills,
        }
        assert got["caller_name"] == one.call.caller
        for name in TRADE_COLUMNS:
            assert_close(got[name], want[name], name, got)


def test_best_trades_are_each_callers_first_policy_on_its_own_calls(lab: Lab, default_run: MonthResult) -> None:
    frontier = homes.artifact(default_run, "frontier")
    first = {row["caller_name"]: row for row in frontier if row["rank"] == 1}
    trades = homes.artifact(default_run, "trades")
    assert all(t["policy_id"] == first[t["caller_name"]]["policy_id"] for t in trades)
    included = homes.replay(lab.market, lab.market.calls, homes.rules_of(lab.market, SHORT))
    assert sorted(t["call_id"] for t in trades) == sorted(r.call.call_id for r in included)
    assert_trades(trades, lab.market, SHORT, {row["policy_id"]: row["policy_params"] for row in frontier})
    for name, row in first.items():
        own = [t["realized_return_bps"] for t in trades if t["caller_name"] == name]
        if name != "__all__":
            assert row["avg_return_bps"] == pytest.approx(np.mean(own), rel=1e-9)


# --- full runs --------------------------------------------------------------------------------------------------------


def test_a_full_run_holds_what_the_single_runs_hold(lab: Lab) -> None:
    """Truth, trades and summary of the named policies, and the frontier of the grid, from one replay."""
    policies = [
        {"kind": "fixed_stop", "stop_pct": 0.07, "take_profit_pct": 0.4},
        {"kind": "time_stop", "max_hold_ms": HOUR},
    ]
    config = SHORT | {"grid": SMALL_GRID, "policies": policies, "both_orders": True}
    full = homes.run(lab.home, "full", MONTH, config)
    assert set(full.manifest.artifacts) == {"alerts", "paths", "features", "trades", "summary", "frontier", "errors"}
    truth = homes.run(lab.home, "path-only", MONTH, config)
    policy = homes.run(lab.home, "policy", MONTH, config)
    search = homes.run(lab.home, "optimization", MONTH, config)
    for single, names in ((truth, ("paths", "features")), (policy, ("trades", "summary")), (search, ("frontier",))):
        for name in ("alerts", *names):
            assert homes.content(full, name) == homes.content(single, name), name
    assert full.manifest.dataset.calls_excluded == search.manifest.dataset.calls_excluded == 4

    rows = homes.artifact(full, "frontier")
    assert_frontier(rows, expected(lab.market, config, policies_of(rows)))
    trades, summary = homes.artifact(full, "trades"), homes.artifact(full, "summary")
    assert_trades(trades, lab.market, config, {row["policy_id"]: row["policy_params"] for row in summary})
    pooled = {row["policy_params"]: row for row in rows if row["caller_name"] == "__all__"}
    for row in summary:
        own = [t for t in trades if t["policy_id"] == row["policy_id"]]
        assert row["trades_count"] == len(own) == len({r["call_id"] for r in homes.artifact(full, "paths")})
        again = pooled.get(row["policy_params"])
        if again is not None:  # a policy of the grid: the pooled row must not differ
            for name in ("avg_return_bps", "median_return_bps", "es95_bps", "stop_out_rate", "avg_tail_capture"):
                assert row[name] == again[name]
    assert any(row["policy_params"] in pooled for row in summary)


def test_both_orders_say_the_same_whichever_is_the_main_one(lab: Lab) -> None:
    """A run in the optimistic order compares with the pessimistic one, not with itself."""
    config = SHORT | {
        "policies": [{"kind": "fixed_stop", "stop_pct": 0.05, "take_profit_pct": 0.05}],
        "both_orders": True,
    }
    runs = {
        order: homes.artifact(homes.run(lab.home, "policy", MONTH, config | {"intrabar": order}), "trades")
        for order in ("pessimistic", "optimistic")
    }
    pairs = list(zip(runs["pessimistic"], runs["optimistic"], strict=True))
    for worse, better in pairs:
        differ = any(worse[name] != better[name] for name in ("exit_px", "exit_ts_ms", "exit_reason"))
        assert worse["ambiguous"] == better["ambiguous"] == differ
        assert worse["optimistic_return_bps"] == better["optimistic_return_bps"] == better["realized_return_bps"]
    assert {worse["ambiguous"] for worse, _ in pairs} == {True, False}


def test_a_stop_that_rises_and_breaks_within_one_candle_is_ambiguous(tmp_path: Path) -> None:
    """Both orders leave at the end of the data; had the high come first, the stop at 96.9 was hit."""
    begin = JANUARY + DAY
    candles = [
        Candle(begin, 100.0, 102.0, 96.0, 99.0),
        Candle(begin + 5 * MINUTE, 99.0, 99.5, 98.0, 99.0),
    ]
    market = Market("5m", [Call("a", "x", "token", begin - MINUTE)], {"token": candles})
    trail = {"kind": "trailing_stop", "activation_pct": 0.0, "trail_pct": 0.05}
    config = SHORT | {"policies": [trail], "both_orders": True}
    home = homes.make_home(tmp_path / "home", market)
    (trade,) = homes.artifact(homes.run(home, "policy", MONTH, config), "trades")
    assert (trade["exit_reason"], trade["ambiguous"]) == ("data_end", True)
    assert trade["realized_return_bps"] == trade["optimistic_return_bps"]


def test_a_month_without_included_calls_has_an_empty_frontier(tmp_path: Path) -> None:
    """Files with their schema and no rows, not missing ones."""
    calls = [Call("a", "x", "nothing", JANUARY + DAY), Call("b", "y", "nothing", JANUARY + DAY)]
    home = homes.make_home(tmp_path / "home", Market("5m", calls, {}))
    for recipe, names in (
        ("optimization", ("frontier", "trades")),
        ("full", ("frontier", "trades", "paths", "features")),
    ):
        made = homes.run(home, recipe, MONTH, {"grid": SMALL_GRID})
        assert made.manifest.dataset.calls_excluded == 2
        for name in names:
            assert (
                len(homes.artifact(made, name))
                == made.manifest.artifacts[name].rows
                == (2 if name == "features" else 0)
            )


def test_the_frontier_table_survives_odd_names(tmp_path: Path) -> None:
    """Text from outside is kept as it is: blanks, quotes, commas, case; callers in byte order."""
    rng = random.Random(3)
    names = ["b", "B", " b", "b ", 'x"y,\n', "ß", "__ALL__", "💎"]
    prices = {name: homes.token(rng, JANUARY + DAY, 60, "5m", HABITS["chop"], gaps=0.0) for name in ("m", "M")}
    calls = [Call(f"{i}", name, "mM"[i % 2], JANUARY + DAY + i) for i, name in enumerate(names)]
    home = homes.make_home(tmp_path / "home", Market("5m", calls, prices))
    config = SHORT | {"grid": SMALL_GRID}
    rows = homes.artifact(homes.run(home, "optimization", MONTH, config), "frontier")
    assert list(dict.fromkeys(row["caller_name"] for row in rows)) == ["__all__", *sorted(names, key=str.encode)]
    assert_frontier(rows, expected(Market("5m", calls, prices), config, policies_of(rows)))
    assert pa.array([r["distinct_mints"] for r in rows[:15]]).unique().to_pylist() == [2]
