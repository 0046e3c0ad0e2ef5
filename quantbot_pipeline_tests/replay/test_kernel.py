"""The engine against the oracle, bit for bit, on candles made to hit every rule of docs/semantics.md at its edge.

Belongs here: what holds for every candle, policy and call: equality with `naive`, invariants, and metamorphic laws
(scaling, no look-ahead, order, threads). A rule with numbers that a person can check belongs in `WORKED`.

Prices live on lattices whose points are the levels themselves, so that ties are common; policies of one scenario are
compiled together, so that they share tables. Everything is derandomized: the same examples on every run.
"""

import math
import random
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantbot_pipeline import vocabulary
from quantbot_pipeline.replay import kernel, results
from quantbot_pipeline.replay.compile import compile_policies
from quantbot_pipeline.replay.policies import DEFAULT_POLICIES, parse_policy
from quantbot_pipeline.replay.results import Candles, Exits, Outcomes, Rules
from quantbot_pipeline.vocabulary import CALL_STATUSES, EXIT_REASONS
from quantbot_pipeline_tests.support import naive

PROPERTY = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
INTERVAL = 60_000
UNWRITTEN = -7  # what excluded rows of the outcomes must still hold after a replay
PROTECTIVE = ("stop_loss", "hard_stop", "trailing_stop")


class Scenario(NamedTuple):
    """Candles of several tokens, calls `(token, alert_ts)` on them (token -1 has no candles), policies, rules."""

    tokens: list[list[naive.Candle]]
    calls: list[tuple[int, int]]
    policies: list[dict[str, Any]]
    rules: Rules
    activity_move_pct: float = 0.10


# --- running the engine on a scenario ---------------------------------------------------------------------------------


def as_arrays(tokens: Sequence[Sequence[naive.Candle]]) -> tuple[Candles, list[int]]:
    """All tokens one after the other, and where each of them begins (and the last one ends)."""
    flat = [candle for token in tokens for candle in token]
    columns = np.array(flat, dtype=np.float64).reshape(-1, 5).T.copy()
    ts = np.array([candle.ts for candle in flat], dtype=np.int64)
    bounds = np.cumsum([0] + [len(token) for token in tokens]).tolist()
    return Candles(ts, columns[1], columns[2], columns[3], columns[4]), bounds


def unwritten_outcomes(calls: int, policies: int) -> Outcomes:
    """Outcomes in which a row that nobody wrote can be told."""
    outcomes = results.empty_outcomes(calls, policies)
    for column in outcomes[:3]:
        column[:] = np.array(UNWRITTEN).astype(column.dtype)
    return outcomes


def run(scenario: Scenario, optimistic: bool = False) -> tuple[results.Truth, Outcomes]:
    """The scenario through the engine, all policies and calls in one go."""
    candles, bounds = as_arrays(scenario.tokens)
    slices = [(bounds[token], bounds[token + 1]) if token >= 0 else (0, 0) for token, _ in scenario.calls]
    return replay_slices(scenario, candles, [alert for _, alert in scenario.calls], slices, optimistic)


def replay_slices(
    scenario: Scenario, candles: Candles, alerts: list[int], slices: list[tuple[int, int]], optimistic: bool
) -> tuple[results.Truth, Outcomes]:
    """The scenario's policies on calls whose slices of the candles are given."""
    compiled = compile_policies([parse_policy(p) for p in scenario.policies], scenario.activity_move_pct)
    truth, outcomes = results.empty_truth(len(alerts)), unwritten_outcomes(len(alerts), len(scenario.policies))
    lo, hi = np.array(slices, dtype=np.int64).reshape(-1, 2).T.copy()
    rows = np.arange(len(alerts), dtype=np.int64)
    rules = scenario.rules._replace(optimistic=optimistic)
    exits = kernel.replay(candles, np.array(alerts, dtype=np.int64), lo, hi, rows, rules, compiled, truth, outcomes)
    return truth, results.with_exits(outcomes, [(rows, exits)])


def raised_of(scenario: Scenario, optimistic: bool) -> np.ndarray:
    """Which trades have a candle in which a trailing stop may have risen and been broken, shape (calls, policies)."""
    candles, bounds = as_arrays(scenario.tokens)
    slices = [(bounds[token], bounds[token + 1]) if token >= 0 else (0, 0) for token, _ in scenario.calls]
    compiled = compile_policies([parse_policy(p) for p in scenario.policies], scenario.activity_move_pct)
    n, rules = len(scenario.calls), scenario.rules._replace(optimistic=optimistic)
    truth, outcomes = results.empty_truth(n), results.empty_outcomes(n, len(scenario.policies))
    lo, hi = np.array(slices, dtype=np.int64).reshape(-1, 2).T.copy()
    alerts, rows = np.array([alert for _, alert in scenario.calls], dtype=np.int64), np.arange(n, dtype=np.int64)
    exits = kernel.replay(candles, alerts, lo, hi, rows, rules, compiled, truth, outcomes)
    found = np.zeros((n, len(scenario.policies)), dtype=bool)
    kernel.raised_and_broken(candles, alerts, lo, hi, rows, rules, compiled, truth, outcomes, exits, found)
    return found


def exits_of(truth: results.Truth, outcomes: Outcomes) -> Exits:
    """The exits of the included calls, shape (calls, policies)."""
    return outcomes.at(np.flatnonzero(truth.status == vocabulary.INCLUDED))


def as_bytes(*results: tuple[np.ndarray, ...]) -> list[bytes]:
    """Every bit of truth and outcomes, NaN included."""
    return [np.ascontiguousarray(column).tobytes() for result in results for column in result]


def trade_of(outcomes: Outcomes, row: int, policy: int) -> tuple[int, float, str, int, float]:
    """One cell of the outcomes as the oracle writes it."""
    number, exits = int(outcomes.which[row, policy]), outcomes.exits
    assert number < outcomes.distinct[row]
    x = int(outcomes.first[row]) + number
    return (
        int(exits.ts[x]),
        float(exits.px[x]),
        EXIT_REASONS[exits.reason[x]],
        int(exits.fills[x]),
        float(exits.mae_bps[x]),
    )


# --- the comparison ---------------------------------------------------------------------------------------------------


def compare(scenario: Scenario, tally: Counter[Any]) -> None:
    """Engine == oracle for every call, policy and order, and the invariants; counts what the scenario reached."""
    trades: dict[bool, dict[tuple[int, int], naive.Trade]] = {False: {}, True: {}}
    windows: list[naive.Window] = []
    for optimistic in (False, True):
        rules = scenario.rules._replace(optimistic=optimistic)
        truth, outcomes = run(scenario, optimistic)
        raised = raised_of(scenario, optimistic)
        for row, (token, alert_ts) in enumerate(scenario.calls):
            window = naive.naive_window(scenario.tokens[token] if token >= 0 else [], alert_ts, rules)
            windows.append(window)
            assert CALL_STATUSES[truth.status[row]] == window.status
            tally["status", window.status] += 1
            if window.status != "included":
                for column in outcomes[:3]:
                    assert (column[row] == np.array(UNWRITTEN).astype(column.dtype)).all()
                continue
            compare_truth(truth, row, window, naive.naive_truth(window, rules, scenario.activity_move_pct), rules)
            for k, policy in enumerate(scenario.policies):
                trade = naive.naive_trade(window, policy, rules)
                assert trade_of(outcomes, row, k) == trade[:5], (policy, window, rules)
                trades[optimistic][row, k] = trade
                assert raised[row, k] == naive.naive_raised(window, policy, rules), (policy, window, rules)
                tally["raised and broken", bool(raised[row, k])] += 1
                count(tally, optimistic, window, trade)
    for key, pessimistic in trades[False].items():
        optimistic_trade = trades[True][key]
        assert optimistic_trade.exit_px >= pessimistic.exit_px
        for trade in (pessimistic, optimistic_trade):
            assert trade.mae_bps <= 0
            assert trade.exit_ts >= windows[key[0]].entry_ts
            assert trade.fills >= 1
            assert trade.exit_px >= 0
        tally["orders differ"] += optimistic_trade != pessimistic


def compare_truth(truth: results.Truth, row: int, window: naive.Window, want: naive.Truth, rules: Rules) -> None:
    """Every number of the truth layer; `peak` of the engine is a price, the multiple is its quotient with p0."""
    null = lambda ts: None if ts == -1 else int(ts)
    t_2x, t_3x, t_4x = (null(ts) for ts in truth.t_multiple[row])
    dd_to_2x_bps = float(truth.dd_to_2x_bps[row])
    got = naive.Truth(
        float(truth.peak[row] / truth.p0[row]),
        null(truth.t_peak[row]),
        t_2x,
        t_3x,
        t_4x,
        float(truth.dd_bps[row]),
        None if math.isnan(dd_to_2x_bps) else dd_to_2x_bps,
        null(truth.t_activity[row]),
    )
    assert got == want, (window, rules)
    assert (truth.p0[row], truth.entry_ts[row]) == (window.p0, window.entry_ts)
    assert truth.candles[row] / (rules.horizon_ms // rules.interval_ms) == window.coverage
    assert (truth.observed[row], bool(truth.censored[row])) == (window.observed, window.censored)


def count(tally: Counter[Any], optimistic: bool, window: naive.Window, trade: naive.Trade) -> None:
    """What this evaluation reached, for the tests that must not be vacuous."""
    order = "optimistic" if optimistic else "pessimistic"
    exit_candle = window.candles[trade.candle]
    tally["evaluations", order] += 1
    tally[order, trade.reason, trade.step] += 1
    tally["exit block", order, trade.candle // kernel.BLOCK] += 1
    tally["window", len(window.candles)] += 1
    tally["fills", min(trade.fills, 4)] += 1
    if trade.fills == 1 and trade.step == "inside":
        tally["touched exactly", trade.reason] += trade.exit_px in (exit_candle.low, exit_candle.high)
    if trade.candle and exit_candle.ts > window.candles[trade.candle - 1].ts + INTERVAL:
        tally["exit after a gap", trade.reason] += 1


# --- scenarios from a seed --------------------------------------------------------------------------------------------


class Numbers(NamedTuple):
    """The parameters from which policies are made; few, so that the policies of a scenario share thresholds."""

    stops: Sequence[float]
    takes: Sequence[float]
    multiples: Sequence[float]
    activations: Sequence[float]
    trails: Sequence[float]


# Binary fractions: with prices that are binary fractions too, every level of every entry price is on the lattice.
BINARY = Numbers(
    stops=(0.0625, 0.125, 0.25, 0.5),
    takes=(0.0625, 0.125, 0.25, 0.5, 1.0, 2.0),
    multiples=(1.0625, 1.125, 1.25, 1.5, 2.0, 3.0, 4.0),
    activations=(0, 0.0625, 0.125, 0.25, 0.5, 1.0),
    trails=(0.0625, 0.125, 0.25, 0.5),
)
# 1 + 0.14 is not 1.14, 1 + 0.39 not 1.39: levels one bit apart, which may or may not be one price.
DECIMAL = Numbers(
    stops=(0.05, 0.1, 0.14, 0.2, 0.5),
    takes=(0.05, 0.1, 0.14, 0.2, 0.39, 0.5, 1.0, 2.14),
    multiples=(1.05, 1.1, 1.14, 1.2, 1.39, 1.5, 2.0, 2.14, 3.0, 4.0),
    activations=(0.0, 0.05, 0.1, 0.14, 0.2, 0.39, 1.0),
    trails=(0.02, 0.05, 0.1, 0.14, 0.25, 0.5),
)
# A stop or trail so small that its level is the price itself, one so large that it is next to nothing.
EXTREME = Numbers(
    stops=(1e-17, 1e-9, 0.01, 0.3, 0.999999),
    takes=(1e-9, 0.003, 0.37, 7.0, 1e6),
    multiples=(1.0000001, 1.003, 1.37, 2.0, 8.0, 1e6),
    activations=(0.0, 1e-17, 1e-9, 0.003, 0.37, 7.0, 1e6),
    trails=(1e-17, 1e-9, 0.01, 0.3, 0.999999),
)
NUMBERS = {"binary": BINARY, "decimal": DECIMAL, "extreme": EXTREME}
FRACTIONS = (
    (1.0,),
    (0.5,),
    (0.5, 0.5),
    (0.5, 0.5000000009),  # sums to more than 1 within the slack
    (0.6, 0.3999999999),  # leaves 1e-10, which is not nothing
    (0.6, 0.4 - 1e-13),  # leaves 1e-13, which is
    (0.25, 0.25, 0.25),
    (0.1, 0.2, 0.7),
    (0.3, 0.3, 0.4),
    (0.1, 0.1, 0.1, 0.7),
    (0.5, 0.5, 1e-10),  # the last level never fills
)


def lattice(base: float, numbers: Numbers) -> list[float]:
    """Every level of a position bought at `base`, ascending, by the contract's own expressions."""
    ups = {base * (1 + t) for t in (*numbers.takes, *numbers.activations)} | {base * m for m in numbers.multiples}
    prices = ups | {base} | {base * (1 - s) for s in numbers.stops}
    prices |= {top * (1 - t) for top in ups | {base} for t in numbers.trails}
    return sorted(price for price in prices if base / 8 <= price <= base * 8)


def lattice_candles(rng: random.Random, count: int, base: float, numbers: Numbers) -> list[naive.Candle]:
    """A walk over the lattice that keeps coming back to `base`, calm or wild, with gaps in time and in price."""
    prices = lattice(base, numbers)
    home = prices.index(base)
    busy = rng.choice((0.02, 0.1, 0.4, 0.9) if count > 30 else (0.4, 0.9))
    step = rng.choice((1, 3, len(prices) // 4, len(prices)))
    jump = rng.choice((0.0, 0.05, 0.3))
    near = lambda i, reach: min(max(i + rng.randint(-reach, reach), 0), len(prices) - 1)
    candles: list[naive.Candle] = []
    at = home
    for ts in timestamps(rng, count):
        opened = near(at, step) if rng.random() < jump else at
        if rng.random() < busy:
            closed, top, bottom = (near(opened, step) for _ in range(3))
        else:
            closed = top = bottom = opened
        four = [prices[i] for i in (opened, closed, top, bottom)]
        candles.append(naive.Candle(ts, four[0], max(four), min(four), four[1]))
        at = home if rng.random() < 0.1 else closed
    return candles


def random_candles(rng: random.Random, count: int, base: float) -> list[naive.Candle]:
    """A geometric walk: prices that equal no level, at any scale."""
    volatility = rng.choice((0.001, 0.02, 0.15))
    shock = lambda: math.exp(rng.gauss(0, volatility))
    candles: list[naive.Candle] = []
    close = base
    for ts in timestamps(rng, count):
        opened = close * shock() if rng.random() < 0.1 else close
        close = opened * shock() * (rng.choice((0.6, 1.6)) if rng.random() < 0.01 else 1)
        four = (opened, close, opened * shock(), close * shock())
        candles.append(naive.Candle(ts, opened, max(four), min(four), close))
    return candles


def timestamps(rng: random.Random, count: int) -> list[int]:
    """Ascending open times on the grid, with gaps of one candle up to longer than a block."""
    gap = rng.choice((0.0, 0.02, 0.3))
    ts = 1_700_000_040_000 + rng.randint(0, 5) * INTERVAL
    times = []
    for _ in range(count):
        times.append(ts)
        ts += INTERVAL * (rng.choice((2, 3, 7, 40)) if rng.random() < gap else 1)
    return times


def random_policy(rng: random.Random, numbers: Numbers, kind: str | None = None) -> dict[str, Any]:
    """A policy of one of the kinds; optional keys are absent, null or set."""

    def optional(key: str, values: Sequence[float]) -> dict[str, Any]:
        return rng.choice(({}, {key: None}, {key: rng.choice(values)}, {key: rng.choice(values)}))

    match kind or rng.choice(("fixed_stop", "time_stop", "trailing_stop", "ladder", "combo", "combo", "combo")):
        case "fixed_stop":
            stop = {"stop_pct": rng.choice(numbers.stops)}
            return {"kind": "fixed_stop", **stop, **optional("take_profit_pct", numbers.takes)}
        case "time_stop":
            candles = rng.choice((1, 2, 3, 5, 31, 32, 33, 64, 1_000))
            hold = rng.choice((1, candles * INTERVAL - 1, candles * INTERVAL, candles * INTERVAL + 1, 10**30))
            spelling = rng.choice((int, int, int, float))
            return {"kind": "time_stop", "max_hold_ms": spelling(hold), **optional("take_profit_pct", numbers.takes)}
        case "trailing_stop":
            trail = {"activation_pct": rng.choice(numbers.activations), "trail_pct": rng.choice(numbers.trails)}
            return {"kind": "trailing_stop", **trail, **optional("hard_stop_pct", numbers.stops)}
        case "ladder":
            fractions = rng.choice(FRACTIONS)
            multiples = rng.sample(numbers.multiples, len(fractions))
            levels = [{"multiple": m, "fraction": f} for m, f in zip(multiples, fractions, strict=True)]
            return {"kind": "ladder", "levels": levels, **optional("stop_pct", numbers.stops)}
        case _:
            kinds = rng.choices(("fixed_stop", "time_stop", "trailing_stop", "trailing_stop"), k=rng.randint(1, 4))
            kinds += ["ladder"] if rng.random() < 0.6 else []
            rng.shuffle(kinds)
            return {"kind": "combo", "policies": [random_policy(rng, numbers, kind) for kind in kinds]}


def random_scenario(
    seed: int, prices: str, window: int, entry_close: bool, slippage: float, policies: int = 26
) -> Scenario:
    """Three tokens, thirteen calls (a few of them excluded), `policies` policies, windows of about `window` candles."""
    rng = random.Random(f"{seed} {prices} {window} {entry_close} {slippage}")
    numbers = NUMBERS[rng.choice(("binary", "decimal", "extreme")) if prices == "random" else prices]
    bases = (1.0, 0.125, 3.0) if numbers is BINARY else (1.0, 0.1, 2.832e-05, 0.227, 5.1652, 61_234.5)
    tokens = []
    for _ in range(3):
        count = window + rng.choice((0, 1, 2, 3, 21))
        base = rng.choice(bases)
        draw = random_candles(rng, count, base) if prices == "random" else lattice_candles(rng, count, base, numbers)
        tokens.append(draw)
    latency = rng.choice((0, 60_000, 90_001))
    calls = [(-1, tokens[0][0].ts), (1, tokens[1][-1].ts + 1), (2, tokens[2][0].ts - 5_000_000)]
    for _ in range(10):
        token = rng.randrange(3)
        last = len(tokens[token]) - 1
        entry = tokens[token][min(rng.choice((0, 0, 0, 1, 2, rng.randint(0, last))), last)]
        calls.append((token, entry.ts - latency - rng.choice((0, 0, 1, INTERVAL // 2, -1))))
    rng.shuffle(calls)
    rules = Rules(
        interval_ms=INTERVAL,
        latency_ms=latency,
        entry_close=entry_close,
        horizon_ms=window * INTERVAL + rng.choice((0, 0, 1, INTERVAL - 1)),
        max_entry_delay_ms=rng.choice((3_600_000, 3_600_000, 3_600_000, latency, latency + 7 * INTERVAL)),
        min_coverage=rng.choice((0.0,) * 6 + (0.5, 1.0)),
        stop_slippage_bps=slippage,
    )
    chosen = [random_policy(rng, numbers) for _ in range(policies)]
    return Scenario(tokens, calls, chosen, rules, rng.choice((0.10, 0.10, 0.25, 0.01)))


WINDOWS = (1, 2, 5, 31, 32, 33, 64, 65, 100)  # around the 32 candles of a block
SCENARIOS = {
    "seed": st.integers(0, 2**32 - 1),
    "prices": st.sampled_from(("binary", "decimal", "extreme", "random")),
    "window": st.sampled_from(WINDOWS),
    "entry_close": st.booleans(),
    "slippage": st.sampled_from((0.0, 0.0, 10.0, 777.7)),
}


# --- equality ---------------------------------------------------------------------------------------------------------

REACHABLE = (
    *(("time_stop", step) for step in ("open", "close")),
    *((reason, step) for reason in PROTECTIVE for step in ("open", "inside")),
    ("trailing_stop", "give_back"),
    *((reason, step) for reason in ("take_profit", "ladder_complete") for step in ("open", "inside")),
    ("horizon", "close"),
    ("data_end", "close"),
)


def test_engine_equals_the_oracle() -> None:
    """At least 20,000 evaluations in each order agree to the last bit, and between them they reach every rule."""
    tally: Counter[Any] = Counter()

    @settings(PROPERTY, max_examples=220)
    @given(st.builds(random_scenario, **SCENARIOS))
    def check(scenario: Scenario) -> None:
        compare(scenario, tally)

    check()
    for order in ("pessimistic", "optimistic"):
        assert tally["evaluations", order] >= 20_000
        for reason, step in REACHABLE:
            assert tally[order, reason, step] >= 20, (order, reason, step)
        for block in (0, 1, 2):
            assert tally["exit block", order, block] >= 100, (order, block)
    assert {key[1:] for key in tally if key[0] in ("pessimistic", "optimistic")} == set(REACHABLE)
    assert all(tally["status", status] >= 10 for status in CALL_STATUSES)
    assert all(tally["window", candles] >= 100 for candles in WINDOWS)
    assert all(tally["fills", fills] >= 100 for fills in (1, 2, 3, 4))
    assert all(tally["touched exactly", reason] >= 5 for reason in (*PROTECTIVE, "take_profit", "ladder_complete"))
    assert all(tally["exit after a gap", reason] >= 5 for reason in EXIT_REASONS)
    assert tally["orders differ"] >= 500


def test_long_windows_of_random_prices() -> None:
    """Windows of many blocks, one hot token with many calls: the block sweep skips most of what the oracle reads."""
    tally: Counter[Any] = Counter()
    for seed, volatile in ((1, False), (2, True)):
        rng = random.Random(seed)
        numbers = (
            DECIMAL if volatile else EXTREME._replace(takes=(0.01, 0.02, 0.05), multiples=(1.01, 1.02, 1.03, 1.05))
        )
        token = random_candles(rng, 900, 0.227)
        calls = [(0, token[rng.randrange(500)].ts - 60_000) for _ in range(12)]
        rules = Rules(interval_ms=INTERVAL, horizon_ms=700 * INTERVAL, stop_slippage_bps=10.0)
        compare(Scenario([token], calls, [random_policy(rng, numbers) for _ in range(30)], rules), tally)
    assert sum(n for key, n in tally.items() if key[0] == "exit block" and key[2] >= 5) >= 20


PRICE = st.sampled_from(lattice(1.0, BINARY))


@st.composite
def small_scenarios(draw: st.DrawFn) -> Scenario:
    """Few candles, drawn one by one: a failure shrinks to something one can work out by hand."""
    candles: list[naive.Candle] = []
    ts = 0
    for gap, *four in draw(st.lists(st.tuples(st.integers(0, 3), PRICE, PRICE, PRICE, PRICE), min_size=1, max_size=6)):
        ts += gap * INTERVAL
        candles.append(naive.Candle(ts, four[0], max(four), min(four), four[1]))
        ts += INTERVAL
    rng = random.Random(draw(st.integers(0, 2**16)))
    rules = Rules(
        interval_ms=INTERVAL,
        latency_ms=0,
        entry_close=draw(st.booleans()),
        horizon_ms=draw(st.integers(1, 12)) * INTERVAL,
        stop_slippage_bps=draw(st.sampled_from((0.0, 1_250.0))),
    )
    policies = [random_policy(rng, BINARY) for _ in range(draw(st.integers(1, 12)))]
    return Scenario([candles], [(0, 0), (0, INTERVAL)], policies, rules)


@settings(PROPERTY, max_examples=300)
@given(small_scenarios())
def test_engine_equals_the_oracle_on_few_candles(scenario: Scenario) -> None:
    compare(scenario, Counter())


# --- examples that a person can check ---------------------------------------------------------------------------------


class Worked(NamedTuple):
    """Candles `(minute, open, high, low, close)`; `want`: exit minute, exit price, reason, fills, MAE in bps."""

    name: str
    candles: list[tuple[int, float, float, float, float]]
    policy: dict[str, Any]
    want: tuple[float, float, str, int, float]
    rules: dict[str, Any] = {}  # noqa: RUF012  (never written)


def fixed(stop: float, take: float | None = None) -> dict[str, Any]:
    """A fixed stop."""
    return {"kind": "fixed_stop", "stop_pct": stop, "take_profit_pct": take}


def trail(activation: float, trail_pct: float, hard: float | None = None) -> dict[str, Any]:
    """A trailing stop."""
    return {"kind": "trailing_stop", "activation_pct": activation, "trail_pct": trail_pct, "hard_stop_pct": hard}


def hold(minutes: float) -> dict[str, Any]:
    """A time stop."""
    return {"kind": "time_stop", "max_hold_ms": minutes * INTERVAL}


def ladder(*levels: tuple[float, float], stop: float | None = None) -> dict[str, Any]:
    """A ladder of `(multiple, fraction)`."""
    return {"kind": "ladder", "levels": [{"multiple": m, "fraction": f} for m, f in levels], "stop_pct": stop}


def combo(*rules: dict[str, Any]) -> dict[str, Any]:
    """All of the rules."""
    return {"kind": "combo", "policies": list(rules)}


CALM = (0, 1.0, 1.0, 1.0, 1.0)
DOUBLE = (0, 1.0, 2.0, 1.0, 2.0)
BOTH = [(0, 1.0, 2.0, 0.5, 1.0)]
P_TIE = 0.227  # 0.227 * 1.14 == 0.227 * (1 + 0.14), though 1.14 != 1 + 0.14
WORKED = [
    Worked("stop touched exactly", [(0, 1, 1, 0.75, 1)], fixed(0.25), (1, 0.75, "stop_loss", 1, -2_500)),
    Worked("gap through the stop", [CALM, (1, 0.5, 1, 0.25, 1)], fixed(0.25), (1, 0.5, "stop_loss", 1, -5_000)),
    Worked("stop slips", [(0, 1, 1, 0.75, 1)], fixed(0.25), (1, 0.375, "stop_loss", 1, -6_250), {"slip": 5_000.0}),
    Worked("no slip on profit", [(0, 1, 2, 1, 1)], fixed(0.25, 1.0), (1, 2, "take_profit", 1, 0), {"slip": 5_000.0}),
    Worked("conflict, pessimistic", BOTH, fixed(0.25, 0.5), (1, 0.75, "stop_loss", 1, -2_500)),
    Worked("conflict, optimistic", BOTH, fixed(0.25, 0.5), (1, 1.5, "take_profit", 1, -5_000), {"optimistic": True}),
    Worked(
        "optimistic: the ladder, then the stop takes the rest",
        BOTH,
        ladder((1.5, 0.25), (4, 0.75), stop=0.25),
        (1, 0.25 * 1.5 + 0.75 * 0.75, "stop_loss", 2, -2_500),
        {"optimistic": True},
    ),
    Worked(
        "open beyond the take profit: one fill, no ladder level",
        [CALM, (1, 3, 3, 1, 1)],
        combo(fixed(0.5, 1.0), ladder((1.5, 0.5))),
        (1, 3, "take_profit", 1, 0),
    ),
    Worked(
        "ladder levels strictly below the take profit fill first, an equal one never",
        [(0, 1, 4, 1, 4)],
        combo(fixed(0.5, 1.0), ladder((3, 0.125), (2, 0.125), (1.5, 0.5))),
        (1, 0.5 * 1.5 + 0.5 * 2, "take_profit", 2, 0),
    ),
    Worked(
        "equal is a matter of prices, not of factors",
        [(0, P_TIE, 1, P_TIE, 1)],
        combo(fixed(0.5, 0.14), ladder((1.14, 0.5))),
        (1, P_TIE * 1.14, "take_profit", 1, 0),
    ),
    Worked(
        "ladder emptied at an open",
        [CALM, (1, 3, 3, 0.25, 1)],
        ladder((2, 0.5), (1.5, 0.5)),
        (1, 3, "ladder_complete", 2, 0),
    ),
    Worked(
        "ladder emptied inside: its low counts",
        [(0, 1, 3, 0.75, 1)],
        ladder((2, 0.5), (1.5, 0.5)),
        (1, 1.75, "ladder_complete", 2, -2_500),
    ),
    Worked(
        "a remainder of 1e-13 is nothing",
        [DOUBLE, (1, 2, 2, 2, 2)],
        ladder((1.5, 0.5), (2, 0.5 - 1e-13)),
        (1, 0.5 * 1.5 + (0.5 - 1e-13) * 2, "ladder_complete", 2, 0),
    ),
    Worked("M knows earlier highs only", [DOUBLE, (1, 2, 3, 1.5, 3)], trail(1, 0.25), (2, 1.5, "trailing_stop", 1, 0)),
    Worked("not active below the activation", [DOUBLE, (1, 1, 1, 1, 1)], trail(1.5, 0.25), (2, 1, "horizon", 1, 0)),
    Worked("give-back", [(0, 1, 2, 0.75, 1.25)], trail(1, 0.25), (1, 1.5, "trailing_stop", 1, -2_500)),
    Worked("give-back at equality", [(0, 1, 2, 1, 1.5)], trail(1, 0.25), (1, 1.5, "trailing_stop", 1, 0)),
    Worked("give-back slips", [(0, 1, 2, 1, 1)], trail(1, 0.25), (1, 0.75, "trailing_stop", 1, 0), {"slip": 5_000.0}),
    Worked(
        "give-back comes before the deadline",
        [(0, 1, 2, 1, 1.5)],
        combo(trail(1, 0.25), hold(1)),
        (1, 1.5, "trailing_stop", 1, 0),
    ),
    Worked(
        "the highest of the active trails",
        [DOUBLE, (1, 2, 2, 1, 1)],
        combo(trail(0, 0.5), trail(1, 0.125), trail(2, 0.0625)),
        (2, 1.75, "trailing_stop", 1, 0),
    ),
    Worked("trail at activation 0", [CALM, (1, 1, 1, 0.5, 1)], trail(0, 0.25), (2, 0.75, "trailing_stop", 1, -2_500)),
    Worked(
        "a trail that ties with the stop",
        [(0, 1, 1, 0.5, 1)],
        combo(trail(0, 0.25), fixed(0.25)),
        (1, 0.75, "stop_loss", 1, -2_500),
    ),
    Worked(
        "a trail that ties with its hard stop",
        [(0, 1, 1, 0.5, 1)],
        trail(0, 0.25, 0.25),
        (1, 0.75, "hard_stop", 1, -2_500),
    ),
    Worked(
        "a stop that ties with a hard stop",
        [(0, 1, 1, 0.5, 1)],
        combo(trail(2, 0.5, 0.25), fixed(0.25)),
        (1, 0.75, "stop_loss", 1, -2_500),
    ),
    Worked(
        "the highest stop names the reason",
        [(0, 1, 1, 0.5, 1)],
        combo(trail(2, 0.5, 0.125), fixed(0.25)),
        (1, 0.875, "hard_stop", 1, -1_250),
    ),
    Worked("hold ends at a close", [CALM, (1, 1, 1, 1, 1.25), (2, 1, 1, 1, 1)], hold(2), (2, 1.25, "time_stop", 1, 0)),
    Worked("hold that ends inside a candle", [CALM, (1, 1, 1, 1, 1.25)], hold(1.5), (2, 1.25, "time_stop", 1, 0)),
    Worked("hold falls into a gap", [CALM, (5, 1.5, 2, 0.5, 2)], hold(2), (5, 1.5, "time_stop", 1, 0)),
    Worked(
        "deadline, then stop, then profit, at one open",
        [CALM, (5, 0.5, 2, 0.5, 2)],
        combo(hold(2), fixed(0.25)),
        (5, 0.5, "time_stop", 1, -5_000),
    ),
    Worked(
        "window shorter than the horizon by one candle",
        [CALM, (1, 1, 1, 1, 1)],
        fixed(0.5),
        (2, 1, "horizon", 1, 0),
        {"horizon": 3},
    ),
    Worked("and by two: the data ended", [CALM, (1, 1, 1, 1, 1)], fixed(0.5), (2, 1, "data_end", 1, 0), {"horizon": 4}),
    Worked(
        "entry at the close: nothing inside that candle is used",
        [(0, 3, 4, 0.25, 1), (1, 1, 1, 0.5, 1)],
        combo(trail(0.5, 0.25), fixed(0.25, 0.5)),
        (2, 0.75, "stop_loss", 1, -2_500),
        {"entry_close": True},
    ),
]


@pytest.mark.parametrize("worked", WORKED, ids=lambda worked: worked.name)
def test_worked_examples(worked: Worked) -> None:
    """Engine and oracle both give the numbers that the page gives by hand."""
    token = [naive.Candle(minute * INTERVAL, *map(float, prices)) for minute, *prices in worked.candles]
    last = worked.candles[-1][0] + 1
    rules = Rules(
        interval_ms=INTERVAL,
        latency_ms=0,
        horizon_ms=worked.rules.get("horizon", last) * INTERVAL,
        entry_close=worked.rules.get("entry_close", False),
        optimistic=worked.rules.get("optimistic", False),
        stop_slippage_bps=worked.rules.get("slip", 0.0),
    )
    exit_minute, *rest = worked.want
    want = (exit_minute * INTERVAL, *rest)
    assert naive.naive_trade(naive.naive_window(token, 0, rules), worked.policy, rules)[:5] == want
    _, outcomes = run(Scenario([token], [(0, 0)], [worked.policy], rules), rules.optimistic)
    assert trade_of(outcomes, 0, 0) == want


def test_defaults_are_those_of_the_contract() -> None:
    assert Rules(interval_ms=300_000) == Rules(300_000, 60_000, False, 172_800_000, 3_600_000, 0.0, False, 0.0)


# --- metamorphic laws -------------------------------------------------------------------------------------------------


@settings(PROPERTY, max_examples=40)
@given(st.builds(random_scenario, **SCENARIOS), st.sampled_from((-20, -3, 1, 17)))
def test_a_power_of_two_changes_no_return(scenario: Scenario, exponent: int) -> None:
    """Scaling all prices by 2**k scales exit prices exactly and leaves every ratio, time and reason as it was."""
    factor = 2.0**exponent
    scaled = [[naive.Candle(c.ts, *(price * factor for price in c[1:])) for c in token] for token in scenario.tokens]
    for optimistic in (False, True):
        truth, outcomes = run(scenario, optimistic)
        truth2, outcomes2 = run(scenario._replace(tokens=scaled), optimistic)
        included = truth.status == vocabulary.INCLUDED
        assert (truth2.status == truth.status).all()
        assert (truth2.p0[included] == truth.p0[included] * factor).all()
        assert (truth2.peak[included] == truth.peak[included] * factor).all()
        exits, exits2 = exits_of(truth, outcomes), exits_of(truth2, outcomes2)
        assert (exits2.px == exits.px * factor).all()
        rest = [name for name in truth._fields if name not in ("p0", "peak")]
        assert as_bytes(tuple(getattr(truth, name)[included] for name in rest)) == as_bytes(
            tuple(getattr(truth2, name)[included] for name in rest)
        )
        assert as_bytes(exits) == as_bytes(exits2._replace(px=exits2.px / factor))


def later_candles(rng: random.Random, token: Sequence[naive.Candle], keep: int, more: int) -> list[naive.Candle]:
    """The first `keep` candles, other prices at the times of the rest, and `more` candles after them."""
    times = [candle.ts for candle in token[keep:]]
    start = token[-1].ts + INTERVAL
    times += [start + i * INTERVAL for i in range(more)]
    prices = [token[0].open * factor for factor in (0.01, 0.5, 1.0, 2.0, 100.0)]
    future = []
    for ts in times:
        four = rng.choices(prices, k=4)
        future.append(naive.Candle(ts, four[0], max(four), min(four), four[1]))
    return [*token[:keep], *future]


def test_nothing_after_the_exit_matters() -> None:
    """No look-ahead: a trade is decided by the candles up to its exit.

    Whatever follows the exit candle may be cut off or rewritten, and of an exit at the open even the rest of that
    candle. Only `horizon` and `data_end` are about the end of the candles: there the exit candle is the window's last,
    so rewriting what follows changes nothing, while a further candle inside the window would (none is added to them).
    """
    seen: Counter[str] = Counter()

    @settings(PROPERTY, max_examples=40)
    @given(st.builds(random_scenario, **SCENARIOS, policies=st.just(8)))
    def check(scenario: Scenario) -> None:
        scenario = scenario._replace(rules=scenario.rules._replace(min_coverage=0.0))  # of the window, not of a trade
        rng = random.Random(0)
        for optimistic in (False, True):
            rules = scenario.rules._replace(optimistic=optimistic)
            alerts: list[int] = []
            tokens: list[list[naive.Candle]] = []
            want: list[tuple[int, tuple[int, float, str, int, float]]] = []
            for token_index, alert_ts in scenario.calls:
                token = scenario.tokens[token_index] if token_index >= 0 else []
                window = naive.naive_window(token, alert_ts, rules)
                for k, policy in enumerate(scenario.policies if window.status == "included" else []):
                    trade = naive.naive_trade(window, policy, rules)
                    end = window.first + trade.candle + 1
                    variants = [token[:end], later_candles(rng, token, end, more=0)]
                    if trade.reason not in ("horizon", "data_end"):
                        variants.append(later_candles(rng, token, end, more=40))
                    if trade.step == "open":
                        at = token[end - 1]
                        wild = at._replace(high=at.open * 50, low=at.open / 50, close=at.open * 7)
                        variants.append([*token[: end - 1], wild, *token[end:]])
                    tokens += variants
                    alerts += [alert_ts] * len(variants)
                    want += [(k, trade[:5])] * len(variants)
                    seen[trade.reason] += 1
            candles, bounds = as_arrays(tokens)
            _, outcomes = replay_slices(scenario, candles, alerts, list(pairwise(bounds)), optimistic)
            for row, (k, trade_values) in enumerate(want):
                assert trade_of(outcomes, row, k) == trade_values, (scenario.policies[k], tokens[row], rules)

    check()
    assert all(seen[reason] >= 10 for reason in EXIT_REASONS), seen


@settings(PROPERTY, max_examples=40)
@given(st.builds(random_scenario, **SCENARIOS), st.randoms(use_true_random=False))
def test_neither_order_nor_company_matters(scenario: Scenario, rng: random.Random) -> None:
    """Calls and policies may come in any order, with others or without: each cell stays the same."""
    for optimistic in (False, True):
        truth, outcomes = run(scenario, optimistic)
        calls = rng.sample(range(len(scenario.calls)), len(scenario.calls))
        policies = rng.sample(range(len(scenario.policies)), rng.randint(1, len(scenario.policies)))
        mixed = scenario._replace(
            calls=[scenario.calls[i] for i in calls], policies=[scenario.policies[k] for k in policies]
        )
        truth2, outcomes2 = run(mixed, optimistic)
        assert as_bytes(tuple(column[calls] for column in truth)) == as_bytes(truth2)
        order = np.array(calls)[truth2.status == vocabulary.INCLUDED]
        want = outcomes.at(order)
        assert as_bytes(tuple(column[:, policies] for column in want)) == as_bytes(exits_of(truth2, outcomes2))


@pytest.mark.parametrize("optimistic", [False, True])
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_threads_write_the_same_bytes(threads: int, optimistic: bool) -> None:
    """Disjoint rows from any number of threads, in any order, equal one pass; rows nobody asks for stay untouched."""
    scenario = random_scenario(7, "decimal", 100, False, 10.0)
    scenario = scenario._replace(
        calls=[(token, alert + shift * INTERVAL) for shift in range(40) for token, alert in scenario.calls]
    )
    want_truth, want_outcomes = run(scenario, optimistic)
    candles, bounds = as_arrays(scenario.tokens)
    compiled = compile_policies([parse_policy(p) for p in scenario.policies], scenario.activity_move_pct)
    total = len(scenario.calls)
    spare = 3
    truth, outcomes = results.empty_truth(total + spare), unwritten_outcomes(total + spare, len(scenario.policies))
    shuffled = random.Random(threads).sample(range(total), total)

    def work(part: list[int]) -> tuple[np.ndarray, Exits]:
        rows = np.array(part, dtype=np.int64)
        tokens = [scenario.calls[row][0] for row in part]
        lo = np.array([bounds[token] if token >= 0 else 0 for token in tokens], dtype=np.int64)
        hi = np.array([bounds[token + 1] if token >= 0 else 0 for token in tokens], dtype=np.int64)
        alerts = np.array([scenario.calls[row][1] for row in part], dtype=np.int64)
        rules = scenario.rules._replace(optimistic=optimistic)
        return rows, kernel.replay(candles, alerts, lo, hi, rows, rules, compiled, truth, outcomes)

    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(work, [shuffled[i::13] for i in range(13)]))
    untouched = [tuple(column[total:] for column in result) for result in (truth, outcomes[:3])]
    assert as_bytes(*untouched) == as_bytes(
        results.empty_truth(spare), unwritten_outcomes(spare, len(scenario.policies))[:3]
    )
    assert as_bytes(tuple(column[:total] for column in truth)) == as_bytes(want_truth)
    got = exits_of(want_truth, results.with_exits(outcomes, parts))
    assert as_bytes(got) == as_bytes(exits_of(want_truth, want_outcomes))


def test_exits_may_be_joined_in_turns() -> None:
    scenario = random_scenario(5, "decimal", 60, False, 0.0)
    truth, outcomes = run(scenario)
    _, empty = run(scenario._replace(calls=[]))
    rows = np.arange(len(scenario.calls))
    first = results.empty_outcomes(2 * len(rows), len(scenario.policies))
    for column, own in zip(first[:3], outcomes[:3], strict=True):
        column[: len(rows)] = column[len(rows) :] = own
    in_turns = results.with_exits(
        results.with_exits(first, [(rows, outcomes.exits)]), [(rows + len(rows), outcomes.exits)]
    )
    included = np.flatnonzero(truth.status == vocabulary.INCLUDED)
    assert len(included) and not len(empty.exits.ts)
    for part in (included, included + len(rows)):
        assert as_bytes(in_turns.at(part)) == as_bytes(outcomes.at(included))


def test_no_policies_and_no_calls_are_nothing_special() -> None:
    """Path-only runs have no policies; an empty month has no calls. Neither is special."""
    scenario = random_scenario(3, "decimal", 33, False, 0.0)
    with_policies, _ = run(scenario)
    without, outcomes = run(scenario._replace(policies=[]))
    assert as_bytes(without) == as_bytes(with_policies)
    assert outcomes.which.shape == (len(scenario.calls), 0)
    assert exits_of(without, outcomes).px.shape == (int((without.status == vocabulary.INCLUDED).sum()), 0)
    truth, _ = run(scenario._replace(calls=[]))
    assert len(truth.status) == 0


@pytest.mark.parametrize("slower", [5, 15, 60])
def test_engine_equals_the_oracle_on_other_intervals(slower: int) -> None:
    """The same scenarios on 5m, 15m and 1h candles, with the policies that a run uses when nobody chose any."""
    for seed in range(5):
        scenario = random_scenario(seed, "decimal", 65, seed % 2 == 1, 10.0)
        times = ("interval_ms", "latency_ms", "horizon_ms", "max_entry_delay_ms")
        rules = scenario.rules._replace(**{key: getattr(scenario.rules, key) * slower for key in times})
        tokens = [[candle._replace(ts=candle.ts * slower) for candle in token] for token in scenario.tokens]
        calls = [(token, alert_ts * slower) for token, alert_ts in scenario.calls]
        policies = [*DEFAULT_POLICIES, *scenario.policies]
        compare(Scenario(tokens, calls, policies, rules, scenario.activity_move_pct), Counter())
