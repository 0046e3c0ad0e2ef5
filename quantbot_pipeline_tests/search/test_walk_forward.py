"""Walk-forward against a recomputation call by call, and the proof that no choice depends on what came later.

Belongs here: `walk-forward` runs over four months of a small real home: who trains on what, which policy is chosen, what
it earned, and that a run of many months in one process equals runs of one month each.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quantbot_pipeline.backtest.month import MonthResult
from quantbot_pipeline.backtest.remembered import ReplayCache
from quantbot_pipeline.home import Home
from quantbot_pipeline.replay.results import outcome_bytes
from quantbot_pipeline.search.leaning import leaned
from quantbot_pipeline_tests.support import homes, reference
from quantbot_pipeline_tests.support.homes import APRIL, DAY, FEBRUARY, HOUR, JANUARY, MARCH, MAY, MINUTE, Call, Market
from quantbot_pipeline_tests.support.naive import Candle
from quantbot_pipeline_tests.support.reference import assert_close

MONTHS = {"2024-01": JANUARY, "2024-02": FEBRUARY, "2024-03": MARCH, "2024-04": APRIL}
HORIZON = 4 * HOUR
POLICIES: list[dict[str, Any]] = [
    {"kind": "fixed_stop", "stop_pct": 0.1, "take_profit_pct": 0.5},
    {"kind": "fixed_stop", "stop_pct": 0.25},
    {"kind": "time_stop", "max_hold_ms": 30 * MINUTE},
    {"kind": "time_stop", "max_hold_ms": 2 * HOUR, "take_profit_pct": 0.2},
    {"kind": "trailing_stop", "activation_pct": 0.1, "trail_pct": 0.05},
    {"kind": "trailing_stop", "activation_pct": 0.3, "trail_pct": 0.1, "hard_stop_pct": 0.2},
    {
        "kind": "ladder",
        "levels": [{"multiple": 1.2, "fraction": 0.5}, {"multiple": 1.6, "fraction": 0.5}],
        "stop_pct": 0.15,
    },
]
FAMILIES = (
    "stops", "take_profits", "holds_ms", "hold_take_profits", "activations", "trails", "hard_stops", "ladders", "ladder_stops",
    "combo_holds_ms",
)  # fmt: skip  # a table: what belongs together stands on one line
CONFIG: dict[str, Any] = {
    "horizon_ms": HORIZON,
    "rolling_months": 2,
    "grid": {key: [] for key in FAMILIES} | {"policies": POLICIES},
}
PUMP, UP, DOWN, CHOP = (
    (1.05, 1.02, 1.0, 0.99),
    (1.03, 1.01, 1.0, 0.995),
    (0.985, 0.997, 1.0),
    (0.95, 1.06, 1.0, 1.02, 0.99),
)
# What a caller's tokens do in each month, and how many it calls there.
CALLERS: dict[str, list[tuple[tuple[float, ...], int]]] = {
    "steady": [(UP, 12), (UP, 11), (UP, 11), (UP, 12)],
    "turner": [(PUMP, 12), (DOWN, 4), (CHOP, 9), (DOWN, 10)],  # anchored and rolling see different pasts
    "loser": [(DOWN, 12), (DOWN, 12), (DOWN, 12), (UP, 10)],  # nothing is feasible
    "rare": [(CHOP, 4), (UP, 4), (CHOP, 4), (UP, 4)],  # ten only over three months: pooled unless anchored in April
    "newcomer": [(CHOP, 0), (CHOP, 0), (CHOP, 0), (UP, 6)],  # no past of its own
    "gone": [(CHOP, 12), (CHOP, 12), (CHOP, 0), (CHOP, 0)],  # trains the pool, is not tested
}


def four_months() -> Market:
    """Calls spread over each month, some in its last hours (their windows reach over its end), some without candles."""
    rng = random.Random(23)
    calls, candles = [], {}
    ends = [*list(MONTHS.values())[1:], MAY]
    for number, (caller, months) in enumerate(CALLERS.items()):
        for (moves, n), (month, start), end in zip(months, MONTHS.items(), ends, strict=True):
            for i in range(n):
                begin = start + (2 + i * 2) * DAY + number * HOUR
                if i >= n - 2:
                    begin = (
                        end - (n - i) * 2 * HOUR - 30 * MINUTE
                    )  # 4.5 hours before the month's end: kept; 2.5: purged
                mint = f"{caller}-{month}-{i}"
                candles[mint] = homes.token(rng, begin, 60 if rng.random() < 0.8 else 24, "5m", moves)
                calls.append(Call(mint, caller, mint, begin + rng.randrange(60_000)))
        calls.append(Call(f"{caller}-lost", caller, "nothing", MARCH + number * HOUR))
    # A call whose window ends exactly when April begins may teach April; one a candle later may not.
    for name, begin in (("exact", APRIL - HORIZON), ("over", APRIL - HORIZON + 5 * MINUTE)):
        candles[name] = homes.token(rng, begin, 60, "5m", UP, gaps=0.0)
        calls.append(Call(name, "steady", name, begin - MINUTE))
    calls.append(Call("ghost", "ghost", "nothing", APRIL + DAY))  # in April without a single candle
    return Market("5m", calls, candles)


class Lab(NamedTuple):
    """A home, and the market in it."""

    home: Home
    market: Market


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The four months in a real home; tests only add runs."""
    market = four_months()
    return Lab(homes.make_home(tmp_path_factory.mktemp("walk") / "home", market), market)


@pytest.fixture(scope="module")
def single(lab: Lab) -> dict[str, MonthResult]:
    """Every month in a run of its own, nothing shared."""
    return {month: homes.run(lab.home, "walk-forward", month, CONFIG) for month in MONTHS}


def rows_of(made: MonthResult) -> dict[tuple[str, str], dict[str, Any]]:
    """{(caller, scheme): row}."""
    rows = homes.artifact(made, "walk_forward")
    found = {(row["caller_name"], row["scheme"]): row for row in rows}
    assert len(found) == len(rows)
    return found


# --- the recomputation ------------------------------------------------------------------------------------------------

MEASURES = ("avg_return_bps", "median_return_bps", "stop_out_rate", "es95_bps")


class Past(NamedTuple):
    """The choice from a train set: a policy or none, and what it had earned there."""

    policy: dict[str, Any] | None
    stats: Mapping[str, Any]


def leaning(
    own: Mapping[str, float | None], everyone: Mapping[str, float | None], n: int, more: int
) -> dict[str, float | None]:
    """Every statistic as if `more` calls of everybody were the caller's own."""
    found: dict[str, float | None] = {}
    for name, x in own.items():
        y = everyone[name]
        found[name] = y if x is None else x if y is None else (n * x + more * y) / (n + more)
    return found


class Recomputed:
    """One market under one configuration; single outcomes are computed once."""

    def __init__(self, market: Market, config: Mapping[str, Any]) -> None:
        self.market, self.config, self.rules, self.c = (
            market,
            config,
            homes.rules_of(market, config),
            reference.cost(config),
        )
        self.replayed = homes.replay(market, market.calls, self.rules)
        self._rows: dict[tuple[str, str], reference.Row] = {}

    def rows(self, policy: Mapping[str, Any], calls: list[homes.Replayed]) -> list[reference.Row]:
        """The trades of a policy on some calls."""
        text, found = reference.canonical(policy), []
        for one in calls:
            key = (text, one.call.call_id)
            if key not in self._rows:
                self._rows[key] = reference.row(one, policy, self.rules, self.c)
            found.append(self._rows[key])
        return found

    def choose(self, train: list[homes.Replayed], pool: Sequence[homes.Replayed] = ()) -> Past:
        """Rank 1 of the train frontier if there is one and it is feasible; leaning on the pool, but shown as of the train set."""
        if not train:
            return Past(None, {})
        stats = {reference.canonical(p): reference.aggregates(self.rows(p, train)) for p in POLICIES}
        own, more = stats, self.config.get("pool_calls", 0) if pool else 0
        if more:
            everyone = {reference.canonical(p): reference.aggregates(self.rows(p, list(pool))) for p in POLICIES}
            stats = {text: leaning(own[text], everyone[text], len(train), more) for text in own}
        limits = reference.limits(self.config.get("constraints", {}), [one.peak for one in train])
        kind = self.config.get("objective", {}).get("kind", "growth")
        first = reference.ranked(stats, len(train) + more, len({one.call.mint for one in train}), limits, kind)[0]
        text = first["policy_params"]
        return Past(json.loads(text), own[text]) if first["meets_constraints"] else Past(None, {})

    def month(self, month: str) -> dict[tuple[str, str], dict[str, Any]]:
        """Every row of a month's walk-forward."""
        start, names = MONTHS[month], list(MONTHS)
        first_rolling = names[max(0, names.index(month) - self.config["rolling_months"])]
        end = [*MONTHS.values(), MAY][names.index(month) + 1]
        callers = {call.caller for call in homes.month_calls(self.market, start, end)}
        found = {}
        for scheme, since in (("anchored", JANUARY), ("rolling", MONTHS[first_rolling])):
            train = [
                one
                for one in self.replayed
                if since <= one.call.alert_ts < start and one.window.entry_ts + self.config["horizon_ms"] <= start
            ]
            everyone = self.choose(train)
            for caller in ["__all__", *callers]:
                own = [one for one in train if caller in ("__all__", one.call.caller)]
                test = [
                    one
                    for one in self.replayed
                    if start <= one.call.alert_ts < end and caller in ("__all__", one.call.caller)
                ]
                pooled = not own or len(own) + (caller != "__all__") * self.config.get("pool_calls", 0) < 10
                past = everyone if pooled or caller == "__all__" else self.choose(own, train)
                found[caller, scheme] = {
                    "pooled": pooled,
                    "train_calls": len(train if pooled else own),
                    "test_calls": len(test),
                    "policy_params": past.policy and reference.canonical(past.policy),
                    **{f"in_sample_{name}": past.stats.get(name) for name in MEASURES},
                    **self.judge(past.policy, test, "out_of_sample"),
                    **self.judge({"kind": "time_stop", "max_hold_ms": self.config["horizon_ms"]}, test, "hold"),
                    **self.judge(everyone.policy, test, "pooled"),
                }
                promised, earned = (
                    past.stats.get("avg_return_bps"),
                    found[caller, scheme]["out_of_sample_avg_return_bps"],
                )
                efficiency = earned / promised if promised is not None and promised > 0 else None
                found[caller, scheme]["efficiency"] = efficiency
        return found

    def judge(self, policy: Mapping[str, Any] | None, test: list[homes.Replayed], prefix: str) -> dict[str, Any]:
        """What a policy did on some calls; none, or no call, earns 0."""
        ended = ("data_end_share", "stressed_avg_return_bps") if prefix == "out_of_sample" else ()
        if policy is None or not test:
            nothing = {f"{prefix}_{name}": None for name in ended}
            return {f"{prefix}_trades": 0} | {f"{prefix}_{name}": 0.0 for name in MEASURES} | nothing
        stats = reference.aggregates(self.rows(policy, test))
        return {f"{prefix}_trades": len(test)} | {f"{prefix}_{name}": stats[name] for name in (*MEASURES, *ended)}


def assert_rows(
    got: Mapping[tuple[str, str], Mapping[str, Any]], want: Mapping[tuple[str, str], Mapping[str, Any]]
) -> None:
    """The same rows, every column of the recomputation."""
    assert set(got) == set(want)
    for key, one in want.items():
        for name, value in one.items():
            assert_close(got[key][name], value, name, key)


VARIATIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "rolling by one month": {"rolling_months": 1},
    "rolling by more months than there are": {"rolling_months": 7},
    "median objective, other limits": {
        "objective": {"kind": "median"},
        "constraints": {"max_stop_out_rate": 0.2, "min_trades": 12, "min_p95_drawdown_bps": -1_500.0},
    },
    "anything is feasible": {
        "constraints": {"min_avg_return_bps": -1e4, "max_stop_out_rate": 1.0, "min_p95_drawdown_bps": -1e4}
    },
    "tokens and ends of data are limited": {
        "constraints": {"min_distinct_mints": 15, "max_data_end_share": 0.2, "min_stressed_avg_return_bps": -1_500.0}
    },
    "leaning on three calls of everybody": {"pool_calls": 3},
    "leaning on more than anybody has, by the median": {"pool_calls": 60, "objective": {"kind": "median"}},
    "entry at the close, dear": {"entry": "close", "taker_fee_bps": 80.0, "stop_slippage_bps": 100.0},
}


@pytest.mark.parametrize("variation", list(VARIATIONS))
def test_every_row_is_the_recomputation(lab: Lab, variation: str) -> None:
    """All callers and both schemes, pasts of no month to three."""
    config = CONFIG | VARIATIONS[variation]
    recomputed = Recomputed(lab.market, config)
    cache: ReplayCache = {}
    for month in MONTHS if variation == "defaults" else list(MONTHS)[2:]:
        assert_rows(rows_of(homes.run(lab.home, "walk-forward", month, config, cache)), recomputed.month(month))


@pytest.mark.parametrize("month", ["2024-01", "2024-04"])
def test_the_test_trades_of_every_choice_are_written(lab: Lab, single: dict[str, MonthResult], month: str) -> None:
    """Under each scheme: those of the choice of all callers pooled, named so, and those of each caller's own choice."""
    rows = rows_of(single[month])
    trades = homes.artifact(single[month], "trades")
    for key, row in rows.items():
        own = [t for t in trades if (t["caller_name"], t["scheme"]) == key]
        assert len(own) == row["out_of_sample_trades"]
        assert {t["policy_id"] for t in own} <= {row["policy_id"]}
        if own:
            returns = [t["realized_return_bps"] for t in own]
            assert_close(float(np.median(returns)), row["out_of_sample_median_return_bps"], "median", key)
            assert_close(float(np.mean(returns)), row["out_of_sample_avg_return_bps"], "mean", key)
    assert len(trades) == sum(row["out_of_sample_trades"] for row in rows.values())


def test_the_market_shows_what_it_was_made_for(lab: Lab, single: dict[str, MonthResult]) -> None:
    """Purged calls, pooled and own choices, no trade, schemes that differ, callers without a past or a test."""
    march, april = rows_of(single["2024-03"]), rows_of(single["2024-04"])
    assert all(row["policy_params"] is None for row in rows_of(single["2024-01"]).values()), "no past, no trade"
    assert april["loser", "anchored"]["policy_id"] is None
    assert april["loser", "anchored"]["out_of_sample_trades"] == 0
    assert april["loser", "anchored"]["efficiency"] is None
    assert april["loser", "anchored"]["hold_trades"] == april["loser", "anchored"]["pooled_trades"] == 10
    assert (
        march["rare", "anchored"]["pooled"],
        april["rare", "anchored"]["pooled"],
        april["rare", "rolling"]["pooled"],
    ) == (True, False, True)
    assert april["newcomer", "rolling"]["pooled"]
    assert april["newcomer", "rolling"]["policy_id"] == april["__all__", "rolling"]["policy_id"]
    assert not {"gone"} & {caller for caller, _ in april}
    assert april["ghost", "rolling"]["test_calls"] == 0
    assert april["turner", "anchored"]["policy_id"] != april["turner", "rolling"]["policy_id"]
    assert len({row["policy_id"] for row in [*march.values(), *april.values()]}) >= 3, "not one policy for all"
    efficiencies = [row["efficiency"] for row in april.values() if row["efficiency"] is not None]
    assert min(efficiencies) < 0 < max(efficiencies)


def test_calls_whose_window_reaches_into_the_month_are_purged(lab: Lab, single: dict[str, MonthResult]) -> None:
    """Of the calls `exact` and `over` only the first trains April; the last call of each month never trains the next."""
    alerts = {call.call_id: call for call in lab.market.calls}
    assert alerts["exact"].alert_ts + MINUTE + HORIZON == APRIL
    want = (
        sum(
            1
            for call in lab.market.calls
            if call.caller == "steady" and call.alert_ts < APRIL and call.mint != "nothing"
        )
        - 1
    )
    entered = homes.replay(
        lab.market, [c for c in lab.market.calls if c.caller == "steady"], homes.rules_of(lab.market, CONFIG)
    )
    late = [one.call.call_id for one in entered if APRIL - HORIZON < one.window.entry_ts < APRIL]
    assert "over" in late
    assert "exact" not in late
    assert len(late) >= 2
    assert rows_of(single["2024-04"])["steady", "anchored"]["train_calls"] == want - len(late) + 1


# --- never sees the future --------------------------------------------------------------------------------------------

CHOICE = (
    "policy_id",
    "policy_params",
    "pooled_policy_id",
    "pooled",
    "train_calls",
    *(f"in_sample_{name}" for name in MEASURES),
)


def cut(market: Market, start: int) -> Market:
    """No candle opens at or after `start`."""
    kept = {mint: [c for c in candles if c.ts < start] for mint, candles in market.candles.items()}
    return market._replace(candles={mint: candles for mint, candles in kept.items() if candles})


def bent(market: Market, start: int) -> Market:
    """From `start` on every price is another one."""
    rng = random.Random(99)

    def other(candle: Candle) -> Candle:
        if candle.ts < start:
            return candle
        factor = rng.choice((1e-3, 0.5, 2.0, 40.0))
        return Candle(candle.ts, *(price * factor for price in candle[1:]))

    return market._replace(candles={mint: [other(c) for c in candles] for mint, candles in market.candles.items()})


def recalled(market: Market, start: int) -> Market:
    """The callers of the month have one other call each, on a token that did not exist; nobody calls after it."""
    rng = random.Random(7)
    past = [call for call in market.calls if call.alert_ts < start]
    end = next(ms for ms in [*MONTHS.values(), MAY] if ms > start)
    callers = sorted({call.caller for call in homes.month_calls(market, start, end)})
    later = [Call(f"new-{name}", name, f"new-{name}", start + (i + 1) * DAY) for i, name in enumerate(callers)]
    fresh = {call.mint: homes.token(rng, call.alert_ts, 60, "5m", CHOP) for call in later}
    return market._replace(calls=past + later, candles=market.candles | fresh)


def both(market: Market, start: int) -> Market:
    """Other calls and no old candle."""
    return recalled(cut(market, start), start)


@pytest.mark.parametrize(
    ("month", "change"), [("2024-02", cut), *(("2024-04", change) for change in (cut, bent, recalled, both))]
)
def test_the_choice_does_not_know_the_future(
    lab: Lab, single: dict[str, MonthResult], tmp_path: Path, month: str, change: Callable[[Market, int], Market]
) -> None:
    """Whatever happens from the start of M on, every caller's choice for M and all that it rests on is the same."""
    market = change(lab.market, MONTHS[month])
    assert market != lab.market
    before, after = (
        rows_of(single[month]),
        rows_of(homes.run(homes.make_home(tmp_path / "home", market), "walk-forward", month, CONFIG)),
    )
    assert set(after) == set(before)
    assert any(row["policy_id"] is not None for row in before.values())
    for key, row in before.items():
        assert {name: after[key][name] for name in CHOICE} == {name: row[name] for name in CHOICE}, key
    assert any(after[key]["hold_avg_return_bps"] != before[key]["hold_avg_return_bps"] for key in before)


# --- a range of months in one process ---------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [list(MONTHS), list(reversed(MONTHS))])
def test_a_shared_cache_changes_nothing(lab: Lab, single: dict[str, MonthResult], order: list[str]) -> None:
    """Months one after the other in one process, forwards and backwards, write what single runs write."""
    cache: ReplayCache = {}
    for month in order:
        made = homes.run(lab.home, "walk-forward", month, CONFIG, cache)
        assert homes.content(made, "walk_forward") == homes.content(single[month], "walk_forward"), month
        assert made.manifest.dataset.fingerprint == single[month].manifest.dataset.fingerprint


@pytest.mark.parametrize("policies_at_once", [0, 3, 6])
def test_a_history_that_does_not_fit_into_memory_is_learned_from_in_parts(
    lab: Lab, single: dict[str, MonthResult], policies_at_once: int
) -> None:
    """A part of the grid at a time, on all months: the same bytes, and nothing is kept for the next month."""
    cache: ReplayCache = {}
    bytes_at_once = outcome_bytes(len(lab.market.calls), policies_at_once)
    small = lab.home.changed(memory_limit=f"{bytes_at_once / 1e6:.9f}MB")
    made = homes.run(small, "walk-forward", "2024-04", CONFIG, cache)
    assert homes.content(made, "walk_forward") == homes.content(single["2024-04"], "walk_forward")
    assert cache == {}


def test_a_cache_is_not_shared_between_configurations(lab: Lab, single: dict[str, MonthResult]) -> None:
    """Nor between a whole month and a part of it."""
    cache: ReplayCache = {}
    other = CONFIG | {"taker_fee_bps": 300.0, "stop_slippage_bps": 900.0}
    part = CONFIG | {"to_ms": MARCH + 9 * DAY}
    for config, month in ((other, "2024-03"), (part, "2024-03"), (CONFIG, "2024-04")):
        made = homes.run(lab.home, "walk-forward", month, config, cache)
        fresh = homes.run(lab.home, "walk-forward", month, config)
        assert homes.content(made, "walk_forward") == homes.content(fresh, "walk_forward")
    assert homes.content(made, "walk_forward") == homes.content(single["2024-04"], "walk_forward")


def test_part_of_a_month_is_tested_on_the_whole_past(lab: Lab, single: dict[str, MonthResult]) -> None:
    """`--from`/`--to` choose which calls are tested; the choice stays the one made before the month began."""
    config = CONFIG | {"from_ms": APRIL + 5 * DAY, "to_ms": APRIL + 15 * DAY}
    whole, part = rows_of(single["2024-04"]), rows_of(homes.run(lab.home, "walk-forward", "2024-04", config))
    for key, row in part.items():
        assert {name: row[name] for name in CHOICE} == {name: whole[key][name] for name in CHOICE}, key
    tested = [c for c in homes.month_calls(lab.market, APRIL + 5 * DAY, APRIL + 15 * DAY) if c.caller == "steady"]
    assert 0 < part["steady", "anchored"]["test_calls"] == len(tested) < whole["steady", "anchored"]["test_calls"]


def test_threads_and_the_order_of_rows_change_nothing(lab: Lab, single: dict[str, MonthResult], tmp_path: Path) -> None:
    other = homes.make_home(tmp_path / "home", lab.market, threads=4, shuffle=1)
    made = homes.run(other, "walk-forward", "2024-04", CONFIG)
    assert homes.content(made, "walk_forward") == homes.content(single["2024-04"], "walk_forward")


def test_efficiency_is_null_unless_the_promise_was_positive(lab: Lab) -> None:
    """With every policy feasible some callers are promised a loss: the quotient of two losses would look like a gain."""
    anything = CONFIG | VARIATIONS["anything is feasible"]
    rows = rows_of(homes.run(lab.home, "walk-forward", "2024-04", anything)).values()
    losers = [
        row for row in rows if row["in_sample_avg_return_bps"] is not None and row["in_sample_avg_return_bps"] <= 0
    ]
    assert losers
    assert all(row["efficiency"] is None for row in losers)
    for row in rows:
        if row not in losers:  # without a test trade 0 / promise = 0
            quotient = row["out_of_sample_avg_return_bps"] / row["in_sample_avg_return_bps"]
            assert np.isclose(row["efficiency"], quotient, rtol=1e-12)


# --- leaning on the pool ----------------------------------------------------------------------------------------------


def test_leaning_on_nobody_is_a_run_of_before_to_the_last_bit(lab: Lab, single: dict[str, MonthResult]) -> None:
    for month in ("2024-03", "2024-04"):
        again = homes.run(lab.home, "walk-forward", month, CONFIG | {"pool_calls": 0})
        assert "pool_calls" not in again.manifest.parameters
        assert again.manifest.parameters == single[month].manifest.parameters
        for name in ("walk_forward", "trades"):
            assert homes.content(again, name) == homes.content(single[month], name)


def test_leaning_lets_few_calls_speak_and_is_part_of_what_identifies_a_run(
    lab: Lab, single: dict[str, MonthResult]
) -> None:
    """Four calls of a caller with twenty of everybody are enough; without them the pooled choice stood in."""
    made = homes.run(lab.home, "walk-forward", "2024-03", CONFIG | {"pool_calls": 20})
    alone, leaning = rows_of(single["2024-03"])["rare", "rolling"], rows_of(made)["rare", "rolling"]
    assert (alone["pooled"], leaning["pooled"]) == (True, False)
    assert 0 < leaning["train_calls"] < 10 < alone["train_calls"]
    assert made.manifest.parameters["pool_calls"] == 20
    assert made.manifest.parameters["config_hash"] != single["2024-03"].manifest.parameters["config_hash"]
    everybody = [rows_of(run)["__all__", "rolling"] for run in (made, single["2024-03"])]
    assert len({str(row | {"run_id": ""}) for row in everybody}) == 1, "all callers lean on nobody"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    own=hnp.arrays(np.float64, (3, 4), elements=st.floats(-1e6, 1e6) | st.just(float("nan"))),
    pool=hnp.arrays(np.float64, (3, 4), elements=st.floats(-1e6, 1e6) | st.just(float("nan"))),
    n=st.integers(1, 500),
    more=st.integers(0, 500),
)
def test_a_leaned_statistic_lies_between_the_two(own: Any, pool: Any, n: int, more: int) -> None:
    stats = np.stack([pool, own])
    found = leaned(stats, [900, n], 0, more)
    assert np.array_equal(found[0], pool, equal_nan=True)
    if not more:
        assert found is stats
        return
    low, high = np.fmin(own, pool), np.fmax(own, pool)
    slack = 1e-9 * np.maximum(np.abs(low), np.abs(high))
    known = ~np.isnan(low)
    assert np.array_equal(np.isnan(found[1]), ~known)
    assert np.all((found[1] >= low - slack)[known] & (found[1] <= high + slack)[known])
