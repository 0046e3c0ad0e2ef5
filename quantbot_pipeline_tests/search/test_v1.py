"""The V1 baseline against a slow account: one event after the other, as docs/semantics.md, "V1 baseline", tells it.

Belongs here: the capital path on random calls, and `v1-baseline` runs on a small real home with exits from the oracle.
"""

import heapq
import itertools
import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbot_pipeline.backtest.month import MonthResult
from quantbot_pipeline.home import Home
from quantbot_pipeline.replay.capital import SKIPS, capital_path
from quantbot_pipeline.search.v1 import Account, Optimized, Params, grouped_params
from quantbot_pipeline_tests.support import homes, reference
from quantbot_pipeline_tests.support.homes import DAY, HOUR, JANUARY, MINUTE, Call, Market
from quantbot_pipeline_tests.support.naive import Candle
from quantbot_pipeline_tests.support.reference import assert_close

PROPERTY = settings(derandomize=True, deadline=None, max_examples=150)
MONTH = "2024-01"
TP, SL = (1.5, 2.0, 2.5, 3.0, 4.0, 5.0), (0.85, 0.88, 0.90, 0.92, 0.95)
C0 = 10_000.0


# --- the slow account -------------------------------------------------------------------------------------------------


class Position(NamedTuple):
    """A call that wants to be bought: when, when it is sold, and what fraction it earns after costs."""

    entry_ts: int
    call_id: str
    exit_ts: int
    realized: float


class Event(NamedTuple):
    """One line of the account's book: cash, and what is open at cost, after it."""

    ts: int
    event: str
    call_id: str
    size: float
    cash: float
    equity: float


class Book(NamedTuple):
    """An account that has come to its end: skipped calls by reason, calls bought with their size."""

    final: float
    bought: dict[str, float]
    skipped: dict[str, str]
    events: list[Event]


def simulate(positions: Iterable[Position], sl_mult: float) -> Book:
    """A queue of events: buys as given, sells put in when bought; at equal times sells come before buys."""
    cash, opened, bought, skipped, events = C0, {}, {}, {}, []  # type: ignore[var-annotated]
    order = sorted(positions, key=lambda p: (p.entry_ts, p.call_id.encode()))
    buy = [(p.entry_ts, 1, i) for i, p in enumerate(order)]
    heapq.heapify(buy)
    while buy:
        ts, is_buy, i = heapq.heappop(buy)
        position = order[i]
        if not is_buy:
            size = opened.pop(position.call_id)
            cash += size * (1 + position.realized)
            events.append(Event(ts, "close", position.call_id, size, cash, cash + sum(opened.values())))
            continue
        size = min(200 / (1 - sl_mult), 0.04 * cash, cash)
        if len(opened) == 25:
            skipped[position.call_id] = "max_positions"
        elif size < 10:
            skipped[position.call_id] = "below_min_size"
        else:
            cash -= size
            opened[position.call_id] = bought[position.call_id] = size
            events.append(Event(ts, "open", position.call_id, size, cash, cash + sum(opened.values())))
            heapq.heappush(buy, (position.exit_ts, 0, i))
    return Book(cash, bought, skipped, events)


# --- the capital path on random calls ---------------------------------------------------------------------------------


class Mood(NamedTuple):
    """How many calls over how many hours, how long they are held, what they earn."""

    sizes: tuple[int, ...]
    hours: int
    held: tuple[int, ...]
    earned: tuple[float, ...]


MOODS = (
    Mood((0, 1, 3, 30), 4, (0, 1, 5), (-1.0, -0.15, -0.05, 0.0, 0.3)),
    Mood((60,), 20, (0, 1, 5, 48), (-1.0, -0.15, -0.05, 0.0, 0.3, 4.0)),
    Mood((30, 60), 48, (48,), (-0.99, -0.1, 1.0)),
    Mood((130,), 400, (0, 1), (-1.0, -1.0, -0.999)),  # ruin
    Mood((130,), 40, (1, 5), (-1.0, -0.9, 0.1)),
    Mood((60,), 400, (0, 1, 5), (0.5, 4.0, 19.0, -0.12)),  # riches
)


@st.composite
def accounts(draw: st.DrawFn) -> tuple[list[Position], float]:
    """Calls on a coarse clock (equal times, positions of no length), in moods from ruin to riches."""
    mood = draw(st.sampled_from(MOODS))
    # A generator of our own: a hundred calls drawn one by one are too much for hypothesis to keep.
    rng = random.Random(draw(st.integers(0, 10**6)))
    positions = []
    for i in range(rng.choice(mood.sizes)):
        entry = rng.randint(0, mood.hours) * HOUR
        exit_ts = entry + rng.choice(mood.held) * HOUR
        positions.append(Position(entry, f"{rng.randint(0, 4)}-{i % 7}-{i}", exit_ts, rng.choice(mood.earned)))
    return positions, draw(st.sampled_from(SL))


def test_the_capital_path_is_the_slow_accounts() -> None:
    """Every decision, size, event and the final capital; the examples reach both skips and the cap on the risk."""
    tally: Counter[str] = Counter()

    @PROPERTY
    @given(accounts())
    def check(account: tuple[list[Position], float]) -> None:
        positions, sl_mult = account
        ordered = sorted(positions, key=lambda p: (p.entry_ts, p.call_id.encode()))
        columns = [np.array([p[i] for p in ordered]) for i in (0, 2, 3)]
        path = capital_path(
            columns[0].astype(np.int64), columns[1].astype(np.int64), columns[2].astype(float), 1 - sl_mult
        )
        book = simulate(positions, sl_mult)
        assert path.final_capital == pytest.approx(book.final, rel=1e-9, abs=1e-9)
        assert [SKIPS[d] for d in path.decision] == [book.skipped.get(p.call_id, "") for p in ordered]
        np.testing.assert_allclose(path.size, [book.bought.get(p.call_id, 0.0) for p in ordered], rtol=1e-9)
        assert [
            (int(ts), "open" if opens else "close", ordered[k].call_id)
            for ts, opens, k in zip(path.event_ts, path.event_opens, path.event_call, strict=True)
        ] == [e[:3] for e in book.events]
        np.testing.assert_allclose(path.event_cash, [e.cash for e in book.events], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(path.event_equity, [e.equity for e in book.events], rtol=1e-9, atol=1e-9)
        assert (path.event_cash >= 0).all()
        tally.update(book.skipped.values())
        tally["capped by risk"] += any(abs(size - 200 / (1 - sl_mult)) < 1e-9 for size in book.bought.values())
        tally["no length"] += any(p.entry_ts == p.exit_ts for p in positions)

    check()
    assert min(tally[k] for k in ("max_positions", "below_min_size", "capped by risk", "no length")) >= 5, tally


def test_cash_returns_before_a_buy_at_the_same_time() -> None:
    """The twenty-sixth call finds a place exactly when the first position ends, and not one ms earlier."""
    first = [Position(0, f"{i:02}", 100 if i == 7 else 200, 0.0) for i in range(25)]
    for at, reason in ((99, "max_positions"), (100, "")):
        positions = [*first, Position(at, "zz", 300, 0.0)]
        entry, exit_ = (np.array([p[i] for p in positions], dtype=np.int64) for i in (0, 2))
        path = capital_path(entry, exit_, np.zeros(26), 0.1)
        assert SKIPS[path.decision[-1]] == reason == simulate(positions, 0.9).skipped.get("zz", "")
        assert path.final_capital == pytest.approx(C0)


def test_the_smallest_size_is_bought() -> None:
    """A size of exactly 10 is enough: only less is skipped."""
    entry = np.arange(120, dtype=np.int64)
    path = capital_path(entry, entry, np.full(120, -1.0), 0.15)
    bought = path.size[path.size > 0]
    assert bought.min() >= 10 > bought.min() * 0.96
    assert (path.decision[len(bought) :] == SKIPS.index("below_min_size")).all()
    assert path.final_capital == pytest.approx(C0 * 0.96 ** len(bought))


# --- a baseline run on a small home -----------------------------------------------------------------------------------

# What one candle does to the price: `wild` ones reach stop and take profit at once.
MOVES = {"chopper": (0.93, 1.09, 1.0, 1.02, 0.97), "faller": (0.96, 0.99, 1.0), "wild": (0.7, 1.0, 1.9)}
# How deep a token of these callers dips before it rises to its peak and is gone.
HUMPS = {"early": (0.93, 2.1), "patient": (0.885, 3.3), "dreamer": (0.97, 6.0)}


def hump(rng: random.Random, begin: int, dip: float, peak: float) -> list[Candle]:
    """A dip, a rise in ten hours, a fall from one candle to the next; one in four falls at once."""
    path = [1.0, dip, *(dip + (peak - dip) * i / 10 for i in range(1, 11)), *(0.2,) * 40]
    if rng.random() < 0.25:
        path = [1.0, 0.95, 0.8, *(0.5,) * 48]
    scale = rng.choice((1.0, 2.5e-7))
    path = [scale * p * rng.choice((1.0, 1.001)) for p in path]
    return [Candle(begin + i * HOUR, a, max(a, b), min(a, b), b) for i, (a, b) in enumerate(itertools.pairwise(path))]


def january() -> Market:
    """Callers whose best pairs differ; one that exhausts its cash, one with too many positions, one that never moves."""
    rng = random.Random(5)
    calls, candles = [], {}

    def add(caller: str, i: int, begin: int, made: list[Candle]) -> None:
        candles[f"{caller}{i}"] = made
        calls.append(
            Call(f"{caller}/{rng.randrange(10**6):06}", caller, f"{caller}{i}", begin + rng.randrange(HOUR - 61_000))
        )

    for caller, moves in MOVES.items():
        for i in range(14):
            begin = JANUARY + 2 * DAY + i * 9 * HOUR
            add(caller, i, begin, homes.token(rng, begin + HOUR, 50 if i % 4 else 20, "1h", moves))
    for caller, (dip, peak) in HUMPS.items():
        for i in range(16):
            begin = JANUARY + 3 * DAY + i * 3 * HOUR
            add(caller, i, begin, hump(rng, begin + HOUR, dip, peak))
    for i in range(110):  # all is lost at once, a hundred times over
        begin = JANUARY + DAY + i * 2 * HOUR
        add("rugger", i, begin, homes.rug(begin + HOUR, 4, "1h", left=1e-9))
    flat = (1.0, 1.0, 1.0, 1.0)
    for i in range(40):  # nothing leaves before 48 hours: no more than 25 fit
        begin = JANUARY + 5 * DAY + (i // 2) * HOUR
        add("sleeper", i, begin, [Candle(begin + (h + 1) * HOUR, *flat) for h in range(50)])
    calls += [Call("gone1", "sleeper", "nothing", JANUARY), Call("gone2", "nobody", "nothing", JANUARY)]
    calls.append(
        Call("again", "chopper", "chopper3", calls[3].alert_ts)
    )  # two calls of one caller at one time on one token
    return Market("1h", calls, candles)


class Lab(NamedTuple):
    """A home, the market in it, and the baseline run of its month."""

    home: Home
    market: Market
    made: MonthResult


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The January market with its default baseline."""
    market = january()
    home = homes.make_home(tmp_path_factory.mktemp("v1") / "home", market)
    return Lab(home, market, homes.run(home, "v1-baseline", MONTH, {"interval": "1h"}))


def pair_policy(tp_mult: float, sl_mult: float) -> dict[str, Any]:
    """The exits of a pair, as the contract words them."""
    stop = {"kind": "fixed_stop", "stop_pct": 1 - sl_mult, "take_profit_pct": tp_mult - 1}
    return {"kind": "combo", "policies": [stop, {"kind": "time_stop", "max_hold_ms": 48 * HOUR}]}


class Backtest(NamedTuple):
    """A pair on some calls: its book, and the trades behind what was bought."""

    tp_mult: float
    sl_mult: float
    book: Book
    rows: dict[str, reference.Row]


def backtest(market: Market, config: Mapping[str, Any], callers: Iterable[str], tp: float, sl: float) -> Backtest:
    """The slow account on the oracle's exits."""
    rules, c = homes.rules_of(market, config)._replace(optimistic=False), reference.cost(config)
    positions, rows = [], {}
    for one in homes.replay(market, [call for call in market.calls if call.caller in callers], rules):
        trade = homes.trade(one, pair_policy(tp, sl), rules)
        rows[one.call.call_id] = reference.row(one, pair_policy(tp, sl), rules, c)
        realized = rows[one.call.call_id].realized_return_bps / 10_000
        positions.append(Position(one.window.entry_ts, one.call.call_id, trade.exit_ts, realized))
    return Backtest(tp, sl, simulate(positions, sl), rows)


def best_first(market: Market, config: Mapping[str, Any], caller: str) -> list[Backtest]:
    """All thirty pairs: highest final capital, then lower take profit, then higher stop."""
    tested = [backtest(market, config, [caller], tp, sl) for tp in TP for sl in SL]
    return sorted(tested, key=lambda t: (-t.book.final, t.tp_mult, -t.sl_mult))


@pytest.fixture(scope="module")
def tested(lab: Lab) -> dict[str, list[Backtest]]:
    """The thirty pairs of every caller with included calls, best first."""
    names = sorted({call.caller for call in lab.market.calls} - {"nobody"}, key=str.encode)
    return {name: best_first(lab.market, {}, name) for name in names}


def flags_of(best: Backtest) -> str:
    """What is odd about a best pair."""
    collapsed, extreme = best.book.final < C0, best.sl_mult < 0.88 or best.tp_mult > 4
    return ",".join(name for name, holds in (("collapsed", collapsed), ("extreme", extreme)) if holds)


def params_of(row: Mapping[str, Any]) -> tuple[float, float]:
    """(tp_mult, sl_mult) of a frontier row."""
    values = json.loads(row["policy_params"])
    assert set(values) == {"max_hold_hrs", "sl_mult", "tp_mult"}
    assert values["max_hold_hrs"] == 48
    return values["tp_mult"], values["sl_mult"]


def assert_account(row: Mapping[str, Any], want: Backtest, flags: str, market: Market) -> None:
    """One row of the frontier is the slow account."""
    where = (row["caller_name"], want.tp_mult, want.sl_mult)
    assert row["objective_score"] == pytest.approx(want.book.final, rel=1e-9), where
    assert row["meets_constraints"] == (want.book.final >= C0)
    assert row["flags"] == flags
    assert row["trades"] == len(want.book.bought)
    skips = Counter(want.book.skipped.values())
    assert (row["skipped_max_positions"], row["skipped_below_min_size"]) == (
        skips["max_positions"],
        skips["below_min_size"],
    )
    mint = {call.call_id: call.mint for call in market.calls}
    assert row["distinct_mints"] == len({mint[call_id] for call_id in want.book.bought})
    stats = reference.aggregates([want.rows[call_id] for call_id in want.book.bought])
    for name in (
        "avg_return_bps",
        "median_return_bps",
        "stop_out_rate",
        "es95_bps",
        "p95_drawdown_bps",
        "avg_tail_capture",
    ):
        assert_close(row[name], stats[name], name, where)


def rows_by_caller(made: MonthResult) -> dict[str, list[dict[str, Any]]]:
    """The frontier, by caller, in its order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in homes.artifact(made, "frontier"):
        found.setdefault(row["caller_name"], []).append(row)
    return found


def test_all_thirty_pairs_of_every_caller(lab: Lab, tested: dict[str, list[Backtest]]) -> None:
    """Final capital, trades, skips, flags and rank; the best is first, ties go to lower tp_mult, then higher sl_mult."""
    assert lab.made.manifest.parameters["strategy_id"] == "v1-baseline"
    found = rows_by_caller(lab.made)
    assert list(found) == ["__all__", *tested], "a caller without included calls has no rows"
    for name, pairs in tested.items():
        assert [params_of(row) for row in found[name]] == [(t.tp_mult, t.sl_mult) for t in pairs]
        assert [row["rank"] for row in found[name]] == list(range(1, 31))
        flags = flags_of(pairs[0])
        for row, want in zip(found[name], pairs, strict=True):
            assert_account(row, want, flags, lab.market)
    # The market was made to show all of this:
    assert [params_of(row) for row in found["sleeper"]] == [(tp, sl) for tp in TP for sl in reversed(SL)], "all tie"
    assert found["sleeper"][0]["skipped_max_positions"] == 15
    assert found["rugger"][0]["skipped_below_min_size"] > 10
    assert {rows[0]["flags"] for rows in found.values()} >= {"", "collapsed", "extreme"}
    assert {row["calls_excluded"] for row in found["sleeper"]} == {1}


def test_grouped_evaluation_uses_the_mean_of_the_best_pairs(lab: Lab, tested: dict[str, list[Backtest]]) -> None:
    """On the calls of the callers that neither collapsed nor are extreme, one account for all of them."""
    left = {name: pairs[0] for name, pairs in tested.items() if not flags_of(pairs[0])}
    assert len(left) >= 2
    tp = sum(best.tp_mult for best in left.values()) / len(left)
    sl = sum(best.sl_mult for best in left.values()) / len(left)
    assert len({best.sl_mult for best in left.values()} | {best.tp_mult for best in left.values()}) > 2, "a real mean"
    (row,) = rows_by_caller(lab.made)["__all__"]
    assert params_of(row) == pytest.approx((tp, sl), rel=1e-12)
    want = backtest(lab.market, {}, left, *params_of(row))
    assert_account(row, want, flags_of(want), lab.market)
    assert row["rank"] == 1


def test_skips_and_flags_are_reported(lab: Lab, tested: dict[str, list[Backtest]]) -> None:
    """errors.parquet counts, per caller, what its best account could not buy, and says what is odd about it."""
    details = homes.reported(lab.made, "optimization")
    counts = {d["caller_name"]: d for d in details if "flags" not in d}
    flagged = {d["caller_name"]: d["flags"] for d in details if "flags" in d}
    for name, pairs in tested.items():
        skips = Counter(pairs[0].book.skipped.values())
        got = {k: v for k, v in counts.get(name, {}).items() if k != "caller_name"}
        assert got == dict(skips)
        assert flagged.get(name, "") == flags_of(pairs[0])
    assert counts["sleeper"]["max_positions"] == 15
    assert counts["rugger"]["below_min_size"] > 0


def test_the_equity_curve_is_the_best_accounts_book(lab: Lab, tested: dict[str, list[Backtest]]) -> None:
    """Every open and close, cash never negative, the last cash is the final capital, nothing stays open."""
    curves: dict[str, list[dict[str, Any]]] = {}
    for row in homes.artifact(lab.made, "equity"):
        curves.setdefault(row["caller_name"], []).append(row)
    first = {name: rows[0] for name, rows in rows_by_caller(lab.made).items()}
    assert list(curves) == list(first)
    for name, curve in curves.items():
        assert {row["policy_id"] for row in curve} == {first[name]["policy_id"]}
        assert min(row["cash"] for row in curve) >= 0
        assert curve[-1]["cash"] == pytest.approx(curve[-1]["equity"]) == pytest.approx(first[name]["objective_score"])
        opens = {row["call_id"]: row["size"] for row in curve if row["event"] == "open"}
        closes = {row["call_id"]: row["size"] for row in curve if row["event"] == "close"}
        assert opens == closes
        assert len(opens) == first[name]["trades"]
        assert all(a["ts_ms"] <= b["ts_ms"] for a, b in itertools.pairwise(curve))
        if name in tested:
            assert_curve(curve, tested[name][0].book.events)


def assert_curve(curve: Sequence[Mapping[str, Any]], events: Sequence[Event]) -> None:
    """The artifact's rows are the book's lines."""
    assert [(r["ts_ms"], r["event"], r["call_id"]) for r in curve] == [e[:3] for e in events]
    for got, want in zip(curve, events, strict=True):
        for name in ("size", "cash", "equity"):
            assert got[name] == pytest.approx(getattr(want, name), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    "config",
    [
        {"taker_fee_bps": 120.0, "slippage_bps": 80.0, "stop_slippage_bps": 500.0},
        {"horizon_ms": 10 * HOUR, "entry": "close"},
        {"intrabar": "optimistic"},  # the contract: V1 is pessimistic
    ],
)
def test_the_baseline_under_other_configurations(lab: Lab, config: dict[str, Any]) -> None:
    """Costs and windows reach the accounts; the order inside a candle is always the pessimistic one."""
    found = rows_by_caller(homes.run(lab.home, "v1-baseline", MONTH, {"interval": "1h"} | config))
    for name in ("early", "wild"):
        pairs = best_first(lab.market, config, name)
        assert [params_of(row) for row in found[name]] == [(t.tp_mult, t.sl_mult) for t in pairs]
        for row, want in zip(found[name], pairs, strict=True):
            assert_account(row, want, flags_of(pairs[0]), lab.market)


@pytest.mark.parametrize("callers", range(1, 40))
def test_callers_who_agree_are_grouped_on_exactly_their_pair(callers: int) -> None:
    """A running sum of 0.95s divided by their number is often 0.9499999999999998: another stop, under the same id."""
    best = Params(1.5, 0.95)
    account = Account._make([None, best, None, None, None])  # of a best account only the pair matters here
    grouped = grouped_params([Optimized([account], collapsed=False, extreme=False)] * callers)
    assert grouped is not None and grouped[1] == best and grouped[1].name() == "v1_tp1.5_sl0.95_h48"


def test_different_pairs_have_different_ids() -> None:
    """Means of grids differ in late digits."""
    pairs = [Params(5 / 3, 0.91), Params(1.66667, 0.91), Params(2.0, 0.91), Params(2.0, 0.9100000000000001)]
    assert len({pair.name() for pair in pairs}) == len(pairs)
    assert pairs[2].name() == "v1_tp2_sl0.91_h48"


def test_without_a_caller_left_nothing_is_grouped(tmp_path: Path) -> None:
    """All collapsed: their rows and curves stand, `__all__` has none; and no call at all gives empty files."""
    begin = JANUARY + DAY
    market = Market(
        "5m", [Call("a", "x", "m", begin), Call("b", "y", "n", begin)], {"m": homes.rug(begin + 5 * MINUTE, 30, "5m")}
    )
    made = homes.run(homes.make_home(tmp_path / "one", market), "v1-baseline", MONTH, {})
    assert list(rows_by_caller(made)) == ["x"]
    assert {row["flags"] for row in homes.artifact(made, "frontier")} == {"collapsed"}
    made = homes.run(
        homes.make_home(tmp_path / "none", market._replace(calls=market.calls[1:])), "v1-baseline", MONTH, {}
    )
    assert homes.artifact(made, "frontier") == homes.artifact(made, "equity") == []
