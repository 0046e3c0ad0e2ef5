"""The sub-grid that all engines can do: 15 stops x 12 take profits, bought at the close, one call after the other.

Every exit is compared: the engine with the plain loop (all fields, bit for bit), the plain loop with vectorbt (candle and
price). vectorbt asks for the stop before it asks whether the candle opened beyond the take profit, so candles in which
the OPEN step of docs/semantics.md decides may differ in price: they are counted. Ten trailing stops follow for the speed.
"""

from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks import loops
from benchmarks.market import MINUTE_MS, START_MS, Market, random_market
from benchmarks.measuring import interleaved, median, rate, table, title
from quantbot_pipeline.replay import kernel, results
from quantbot_pipeline.replay.compile import compile_policies
from quantbot_pipeline.replay.policies import parse_policy

STOPS = tuple(round(0.02 * k, 2) for k in range(1, 16))
TAKES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
TRAILS = tuple(round(0.03 * k, 2) for k in range(1, 11))
RULES = results.Rules(interval_ms=MINUTE_MS, entry_close=True)
PER_ENGINE = {
    "engine": 45,
    "numba loop": 45,
    "Python loop": 4,
    "vectorbt": 20,
}  # calls of a run: it should take well over 1 ms
ROUNDS = (
    20  # of the engine over its calls: they are one row group, which a backtest replays when it is decoded, from cache
)


class Timed(NamedTuple):
    """An engine's work on the first `calls` calls."""

    calls: int
    work: Callable[[], object]


def run(options: Namespace) -> None:
    """Time and compare all engines on both kinds of policies."""
    market = random_market(np.random.default_rng(1), PER_ENGINE["engine"], options.candles + 1)
    vectorbt = _Vectorbt.load()
    pairs = [(stop, take) for stop in STOPS for take in TAKES]
    policies = [{"kind": "fixed_stop", "stop_pct": stop, "take_profit_pct": take} for stop, take in pairs]
    stops, takes = np.array([1 - s for s, _ in pairs]), np.array([1 + t for _, t in pairs])
    title(f"Sub-grid: {len(STOPS)} stops x {len(TAKES)} take profits, {options.candles} one-minute candles a call")
    own = _engine(market, policies)
    numba_loop = partial(loops.numba_loop, stops=stops, takes=takes)
    _compare(market, own, numba_loop, len(policies), vectorbt, {"sl_stop": 1 - stops, "tp_stop": takes - 1}, pairs)
    timed = {
        "engine": Timed(ROUNDS * PER_ENGINE["engine"], own.rounds),
        "plain numba loop": Timed(
            PER_ENGINE["numba loop"], partial(_loop, market, numba_loop, len(policies), "numba loop")
        ),
        "plain Python loop": Timed(PER_ENGINE["Python loop"], _python(market, stops, takes)),
    }
    levels = {"sl_stop": np.array([s for s, _ in pairs])[None, :], "tp_stop": np.array([t for _, t in pairs])[None, :]}
    _race(timed | _vectorbt_works(vectorbt, market, levels), len(policies), options.repeats)

    title(f"{len(TRAILS)} trailing stops from the entry on (speed only: vectorbt has no give-back rule)")
    trailing = [{"kind": "trailing_stop", "activation_pct": 0.0, "trail_pct": trail} for trail in TRAILS]
    own = _engine(market, trailing)
    keeps = np.array([1 - trail for trail in TRAILS])
    trailing_loop = partial(loops.numba_trailing_loop, keeps=keeps)
    _compare(market, own, trailing_loop, len(trailing), None, {}, [])
    timed = {
        "engine": Timed(ROUNDS * PER_ENGINE["engine"], own.rounds),
        "plain numba loop": Timed(
            PER_ENGINE["numba loop"], partial(_loop, market, trailing_loop, len(trailing), "numba loop")
        ),
    }
    levels = {"sl_stop": np.array(TRAILS)[None, :], "sl_trail": np.asarray(True)}
    _race(timed | _vectorbt_works(vectorbt, market, levels), len(trailing), options.repeats)


def _race(timed: dict[str, Timed], policies: int, repeats: int) -> None:
    spent = interleaved({name: one.work for name, one in timed.items()}, repeats)
    rates = {name: timed[name].calls * policies / median(times) for name, times in spent.items()}
    table(
        ["", "evaluations per CPU-second", "the engine is faster by"],
        [
            [name, rate(value), "" if name == "engine" else f"{rates['engine'] / value:,.0f} x"]
            for name, value in rates.items()
        ],
    )


# --- the engine and the loops -----------------------------------------------------------------------------------------


class _Engine(NamedTuple):
    outcomes: results.Outcomes
    replay: Callable[[], results.Outcomes]

    def rounds(self) -> None:
        """All calls, several times."""
        for _ in range(ROUNDS):
            self.replay()


def _engine(market: Market, policies: list[dict[str, Any]]) -> _Engine:
    calls, n = market.open.shape
    truth, outcomes = results.empty_truth(calls), results.empty_outcomes(calls, len(policies))
    lo, rows = np.arange(calls, dtype=np.int64) * n, np.arange(calls)
    work = partial(
        kernel.replay,
        market.flat(),
        np.full(calls, START_MS - RULES.latency_ms),
        lo,
        lo + n,
        rows,
        RULES,
        compile_policies([parse_policy(p) for p in policies]),
        truth,
        outcomes,
    )

    def replay() -> results.Outcomes:
        return results.with_exits(outcomes, [(rows, work())])

    return _Engine(replay(), replay)


def _window(market: Market, call: int) -> tuple[Market, float]:
    """The window's candles of a call, and the price at which it was bought: the close of the first candle."""
    return Market(*(column[call, 1:] for column in market)), float(market.close[call, 0])


def _exits(market: Market, call: int, loop: Callable[..., None], policies: int) -> loops.Exits:
    window, p0 = _window(market, call)
    out = loops.no_exits(policies)
    loop(*window, p0, censored=_censored(market), out=out)
    return out


def _censored(market: Market) -> bool:
    observed = (market.open.shape[1] - 1) * MINUTE_MS
    return observed < RULES.horizon_ms - RULES.interval_ms


def _loop(market: Market, loop: Callable[..., None], policies: int, name: str) -> None:
    for call in range(PER_ENGINE[name]):
        _exits(market, call, loop, policies)


def _python(market: Market, stops: npt.NDArray[np.float64], takes: npt.NDArray[np.float64]) -> Callable[[], None]:
    """The loop on Python's own lists and floats: it is three times slower on numpy's."""
    windows = [_window(market, call) for call in range(PER_ENGINE["Python loop"])]
    plain = [([column.tolist() for column in window], p0) for window, p0 in windows]

    def work() -> None:
        for (open_, high, low, close), p0 in plain:
            loops.python_loop(
                open_,
                high,
                low,
                close,
                p0,
                stops.tolist(),
                takes.tolist(),
                _censored(market),
                loops.no_exits(len(stops)),
            )

    return work


def _compare(
    market: Market,
    own: _Engine,
    loop: Callable[..., None],
    policies: int,
    vectorbt: "_Vectorbt | None",
    levels: dict[str, npt.NDArray[np.float64]],
    pairs: list[tuple[float, float]],
) -> None:
    """Raise where two engines differ; print how many exits were compared."""
    checked = at_open = excused = 0
    calls = PER_ENGINE["vectorbt"] if vectorbt else PER_ENGINE["numba loop"]
    for call in range(calls):
        want = _exits(market, call, loop, policies)
        exit_ts = START_MS + MINUTE_MS * (want.at + 1 + ~want.at_open)
        got = own.outcomes.at(np.array([call]))
        for name, mine, theirs in (
            ("exit time", got.ts[0], exit_ts),
            ("price", got.px[0], want.price),
            ("reason", got.reason[0], want.reason),
            ("excursion", got.mae_bps[0], want.mae_bps),
        ):
            if not np.array_equal(mine, theirs):
                raise AssertionError(f"call {call}: the engine's {name} is not that of the plain loop")
        checked += policies
        at_open += int(want.at_open.sum())
        if vectorbt:
            index, price = vectorbt.exits(market, call, levels)
            differs = (index != want.at + 1) | (price != want.price)
            if np.any(differs & ~(want.at_open & (index == want.at + 1))):
                cell = pairs[int(np.flatnonzero(differs & ~want.at_open)[0])]
                raise AssertionError(f"call {call}, stop and take profit {cell}: vectorbt leaves elsewhere")
            excused += int(differs.sum())
    print(f"{checked:,} exits compared: the engine's are the plain loop's, bit for bit")
    if vectorbt:
        print(
            f"and vectorbt's in candle and price, but for {excused} of the {at_open} exits at an open: "
            "there the OPEN step takes the profit and vectorbt the stop of the same candle"
        )
    print()


# --- vectorbt ---------------------------------------------------------------------------------------------------------


class _Vectorbt(NamedTuple):
    """vectorbt's modules, and the names of its engines that are installed: Rust (an extra of its own) and numba."""

    vbt: Any
    dispatch: Any
    engines: list[str]

    @classmethod
    def load(cls) -> "_Vectorbt | None":
        """None, with a message, where it is not installed."""
        try:
            import vectorbt
            from vectorbt._engine import is_rust_available
            from vectorbt.portfolio import dispatch
        except ImportError as e:
            print(f"vectorbt is left out: {e}; install it beside to compare")
            return None
        return cls(vectorbt, dispatch, ["rust", "numba"] if is_rust_available() else ["numba"])

    def kernel(self, market: Market, call: int, levels: dict[str, npt.NDArray[Any]], name: str) -> npt.NDArray[np.void]:
        """Order records of the compiled simulation, with as little around it as its signature allows."""
        n, columns = market.open.shape[1], levels["sl_stop"].size
        entries, exits = _signals(n)
        candles = {k: v[call][:, None] for k, v in market._asdict().items()}
        return self.dispatch.simulate_from_signals(
            (n, columns),
            np.ones(columns, np.int64),
            np.full(columns, 1e6),
            _call_sequence(n, columns),
            entries=entries[:, None],
            exits=exits[:, None],
            size=np.asarray(1.0),
            max_orders=2 * columns,
            max_logs=1,
            engine=name,
            **candles,
            **levels,
        )[0]

    def from_signals(self, market: Market, call: int, levels: dict[str, npt.NDArray[Any]], name: str) -> Any:
        """What its documentation shows."""
        import pandas as pd

        entries, exits = _signals(market.open.shape[1])
        candles = {k: pd.Series(v[call]) for k, v in market._asdict().items()}
        return self.vbt.Portfolio.from_signals(
            entries=pd.Series(entries),
            exits=pd.Series(exits),
            size=1.0,
            init_cash=1e6,
            engine=name,
            **candles,
            **levels,
        ).order_records

    def exits(self, market: Market, call: int, levels: dict[str, npt.NDArray[Any]]) -> tuple[Any, Any]:
        """(candle, price) of every column's exit; all its engines must agree, and `from_signals` with the kernel."""
        wide = {name: values[None, :] for name, values in levels.items()}
        found = [self.kernel(market, call, wide, name) for name in self.engines[:1]]
        if call == 0:
            found += [self.kernel(market, call, wide, name) for name in self.engines[1:]]
            found += [self.from_signals(market, call, wide, name) for name in self.engines]
        for records in found[1:]:
            if not np.array_equal(records, found[0]):
                raise AssertionError("vectorbt's engines differ from each other")
        sold = found[0][found[0]["side"] == 1]
        sold = sold[np.argsort(sold["col"], kind="stable")]
        return sold["idx"], sold["price"]


def _signals(n: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Buy at the close of the first candle, sell what is left at the close of the last."""
    entries, exits = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    entries[0] = exits[-1] = True
    return entries, exits


def _call_sequence(n: int, columns: int) -> npt.NDArray[np.int64]:
    return np.zeros((n, columns), np.int64)


def _vectorbt_works(vectorbt: _Vectorbt | None, market: Market, levels: dict[str, Any]) -> dict[str, Timed]:
    if vectorbt is None:
        return {}
    calls = PER_ENGINE["vectorbt"] // 2

    def work(method: Callable[..., Any], name: str) -> None:
        for call in range(calls):
            method(market, call, levels, name)

    return {
        f"vectorbt {text}, {name}": Timed(calls, partial(work, method, name))
        for text, method in (("kernel", vectorbt.kernel), ("from_signals", vectorbt.from_signals))
        for name in vectorbt.engines
    }
