"""A month's candles decoded and all its calls and policies replayed in one pass, a thread per row group."""

import contextlib
import functools
import logging
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quantbot_pipeline.backtest.inputs import MonthInputs, match_calls
from quantbot_pipeline.backtest.record import Record
from quantbot_pipeline.config import BacktestConfig
from quantbot_pipeline.home import Home
from quantbot_pipeline.market.candle_reader import Load, Watch, known_mints
from quantbot_pipeline.replay.policies import Policy
from quantbot_pipeline.vocabulary import INTERVALS_MS

if TYPE_CHECKING:
    from quantbot_pipeline.replay import results
    from quantbot_pipeline.replay.compile import CompiledPolicies

log = logging.getLogger(__name__)


class Replayed(NamedTuple):
    """A month replayed; `outcomes` has one column per policy, so have `other_order` and `raised` if both orders were asked for.

    raised: trades in one candle of which a trailing stop may have risen and been broken.
    """

    month: MonthInputs
    rules: "results.Rules"
    truth: "results.Truth"
    outcomes: "results.Outcomes"
    other_order: "results.Outcomes | None"
    raised: npt.NDArray[np.bool_] | None


def replay_month(
    home: Home,
    inputs: MonthInputs,
    config: BacktestConfig,
    policies: "Sequence[Policy] | CompiledPolicies",
    record: Record,
    *,
    both_orders: bool = False,
    watch: Watch | None = None,
) -> Replayed:
    """Decode the month's candles, show them to `watch`, and replay all calls and policies in one pass, a thread per row group."""
    from quantbot_pipeline.replay import kernel, results
    from quantbot_pipeline.replay.compile import CompiledPolicies, compile_policies

    _ready_engine()
    calls, plan = inputs.calls, inputs.plan
    if not isinstance(policies, CompiledPolicies):
        policies = compile_policies(policies, config.activity_move_pct)
    compiled = policies
    count = len(compiled.stop)
    rules = _rules(config)
    truth = results.empty_truth(calls.num_rows)
    orders = [(rules, results.empty_outcomes(calls.num_rows, count))]
    if both_orders:
        orders.append((rules._replace(optimistic=not rules.optimistic), results.empty_outcomes(calls.num_rows, count)))
    raised = np.zeros((calls.num_rows, count), dtype=bool) if both_orders else None
    alert = calls["alert_ts_ms"].to_numpy()

    def work(load: Load) -> tuple[float, float, list[tuple[npt.NDArray[np.int64], list[results.Exits]]]]:
        decoding = replaying = 0.0
        parts = []
        mark = time.perf_counter()
        for piece in load():
            decoded = time.perf_counter()
            lo, hi, rows = match_calls(piece, inputs.by_mint)
            if len(rows):
                candles = results.Candles(*piece.arrays())
                made = [kernel.replay(candles, alert[rows], lo, hi, rows, r, compiled, truth, o) for r, o in orders]
                if raised is not None:
                    kernel.raised_and_broken(
                        candles, alert[rows], lo, hi, rows, rules, compiled, truth, orders[0][1], made[0], raised
                    )
                parts.append((rows, made))
            decoding += decoded - mark
            mark = time.perf_counter()
            replaying += mark - decoded
        return decoding, replaying, parts

    begun, loads = time.perf_counter(), plan.loads(watch)
    with ThreadPoolExecutor(home.settings.threads) as pool:
        spent = list(pool.map(work, loads))
    wall = time.perf_counter() - begun
    outcomes = [
        results.with_exits(empty, [(rows, made[i]) for *_, parts in spent for rows, made in parts])
        for i, (_, empty) in enumerate(orders)
    ]
    _note(record, wall, {"slice": sum(d for d, *_ in spent), "execution": sum(r for _, r, _ in spent)})
    _tell_no_entry_from_no_candles(home, calls, truth, config.interval)
    record.say(f"{inputs.month}: {count} policies over {len(loads)} row groups in {wall:.3f} s")
    return Replayed(inputs, rules, truth, outcomes[0], outcomes[1] if both_orders else None, raised)


def _note(record: Record, wall: float, spent: dict[str, float]) -> None:
    """Note the wall time, split as the work of the threads was: they overlap."""
    for name, seconds in spent.items():
        record.add(name, wall * seconds / (sum(spent.values()) or 1.0))


def _rules(config: BacktestConfig) -> "results.Rules":
    from quantbot_pipeline.replay.results import Rules

    return Rules(
        interval_ms=INTERVALS_MS[config.interval],
        latency_ms=config.latency_ms,
        entry_close=config.entry == "close",
        horizon_ms=config.horizon_ms,
        max_entry_delay_ms=config.max_entry_delay_ms,
        min_coverage=config.min_coverage,
        optimistic=config.intrabar == "optimistic",
        stop_slippage_bps=config.stop_slippage_bps,
    )


@functools.cache
def _ready_engine() -> None:
    """Have the engine compiled before threads need it, and say so when that takes a while (the first time ever)."""
    from quantbot_pipeline.replay.kernel import must_compile, warm_up

    _take_the_faster_allocator()
    if not must_compile():
        warm_up()
        return
    notice = threading.Timer(
        2.0, log.warning, ["compiling the replay engine once, about ten seconds; later starts load it"]
    )
    notice.daemon = True
    notice.start()
    try:
        warm_up()
    finally:
        notice.cancel()


def _take_the_faster_allocator() -> None:
    """Let Arrow allocate with jemalloc, where it has it and nobody chose: decoding takes a tenth less than with its mimalloc."""
    if "ARROW_DEFAULT_MEMORY_POOL" not in os.environ:
        with contextlib.suppress(NotImplementedError):
            pa.set_memory_pool(pa.jemalloc_memory_pool())


def _tell_no_entry_from_no_candles(home: Home, calls: pa.Table, truth: "results.Truth", interval: str) -> None:
    """A mint without candles in the months read may have some elsewhere: then the call has no entry, not no candles."""
    from quantbot_pipeline.vocabulary import NO_CANDLES, NO_ENTRY

    absent = np.flatnonzero(truth.status == NO_CANDLES)
    if len(absent):
        mints = calls["mint"].take(pa.array(absent)).to_pylist()
        known = known_mints(home.candles.folder, interval, list(set(mints)))
        truth.status[[row for row, mint in zip(absent, mints, strict=True) if mint in known]] = NO_ENTRY


def of_policies(replayed: Replayed, first: int, last: int | None) -> Replayed:
    """The same replay with some of its policies only."""

    chosen, other = slice(first, last), replayed.other_order
    return replayed._replace(
        outcomes=replayed.outcomes.of_policies(chosen),
        other_order=None if other is None else other.of_policies(chosen),
        raised=None if replayed.raised is None else replayed.raised[:, chosen],
    )
