"""What a replay reads and leaves behind, as arrays: rules, candles, the truth of each call, the exits of each policy.

Belongs here: the shapes, units and dtypes of these arrays, and how results of several replays become one. Does not: compiled
code; so whoever only needs the types does not load the compiler.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.vocabulary import NO_CANDLES


class Rules(NamedTuple):
    """What holds for every call and policy of a replay; times in ms, `entry_close` and `optimistic` as flags."""

    interval_ms: int = 300_000
    latency_ms: int = 60_000
    entry_close: bool = False
    horizon_ms: int = 172_800_000
    max_entry_delay_ms: int = 3_600_000
    min_coverage: float = 0.0
    optimistic: bool = False
    stop_slippage_bps: float = 0.0


class Candles(NamedTuple):
    """Valid candles of any number of tokens, each token's rows contiguous and ascending in time; shapes (N,)."""

    ts: npt.NDArray[np.int64]
    open: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    close: npt.NDArray[np.float64]


class Truth(NamedTuple):
    """Per call, shape (C,). Times are int64 ms, -1 where there is none; NaN where a float has no value."""

    status: npt.NDArray[np.uint8]
    p0: npt.NDArray[np.float64]
    entry_ts: npt.NDArray[np.int64]
    candles: npt.NDArray[np.int64]
    observed: npt.NDArray[np.int64]
    censored: npt.NDArray[np.uint8]
    peak: npt.NDArray[np.float64]  # a price: the highest high, or the entry price
    t_peak: npt.NDArray[np.int64]
    t_multiple: npt.NDArray[np.int64]  # (C, 3): 2x, 3x, 4x
    dd_bps: npt.NDArray[np.float64]
    dd_to_2x_bps: npt.NDArray[np.float64]
    t_activity: npt.NDArray[np.int64]

    def of_calls(self, rows: slice) -> "Truth":
        """The truth of some calls only."""
        return Truth(*(array[rows] for array in self))  # type: ignore[arg-type]


MAX_POLICIES = 65_535  # of one replay, so that two bytes tell the exits of a call apart


class Exits(NamedTuple):
    """Ways to leave a position, all of one shape. `ts` in UTC ms, `mae_bps` in basis points of the entry price."""

    ts: npt.NDArray[np.int64]
    px: npt.NDArray[np.float64]
    reason: npt.NDArray[np.uint8]
    fills: npt.NDArray[np.uint16]
    mae_bps: npt.NDArray[np.float64]

    def take(self, index: npt.NDArray[np.int64]) -> "Exits":
        """The exits with these numbers, in the shape of `index`."""
        return Exits(self.ts[index], self.px[index], self.reason[index], self.fills[index], self.mae_bps[index])


class Outcomes(NamedTuple):
    """What each of P policies made of each of C calls.

    Hundreds of policies leave one call in a few dozen ways, so these are kept once: call c ends in one of the `distinct[c]`
    exits from `first[c]` on, policy p in number `which[c, p]` of them. Shapes (C,), (C,), (C, P) and, of `exits`, (E,). An excluded
    call has no exit, and whatever `which` says of it means nothing.
    """

    first: npt.NDArray[np.int64]
    distinct: npt.NDArray[np.int64]
    which: npt.NDArray[np.integer]
    exits: Exits

    def at(self, rows: npt.NDArray[np.int64], columns: "npt.NDArray[np.int64] | slice | int" = slice(None)) -> Exits:
        """The exits of included calls: (len(rows), columns) for a slice of the policies, (len(rows),) for one of each call."""
        which = self.which[rows, columns].astype(np.int64)
        first = self.first[rows]
        index = which + (first[:, None] if which.ndim == 2 else first)
        return self.exits.take(index)

    def part(self, calls: slice, policies: slice) -> "Outcomes":
        """The outcomes of some calls and policies only."""
        return self._replace(first=self.first[calls], distinct=self.distinct[calls], which=self.which[calls, policies])

    def of_policies(self, chosen: slice) -> "Outcomes":
        """The outcomes of some policies only."""
        return self.part(slice(None), chosen)

    def of_chosen(self, rows: npt.NDArray[np.int64], column: npt.NDArray[np.int64]) -> "Outcomes":
        """One policy per call, shape (len(rows), 1)."""
        return self._replace(
            first=self.first[rows], distinct=self.distinct[rows], which=self.which[rows, column][:, None]
        )


def concatenate(truths: Sequence[Truth], outcomes: Sequence[Outcomes]) -> tuple[Truth, Outcomes]:
    """Several replays with the same policies as one."""
    return joined_truth(truths), Outcomes(
        first=np.concatenate([o.first + n for o, n in zip(outcomes, _exits_before(outcomes), strict=True)]),
        distinct=np.concatenate([o.distinct for o in outcomes]),
        which=np.concatenate([o.which for o in outcomes]),
        exits=_joined([o.exits for o in outcomes]),
    )


def joined_truth(truths: Sequence[Truth]) -> Truth:
    """The truth of several months as one."""
    return Truth(*(np.concatenate(parts) for parts in zip(*truths, strict=True)))


def side_by_side(outcomes: Sequence[Outcomes]) -> Outcomes:
    """The outcomes of different policies on the same calls as one: a call's exits follow each other, part after part."""
    if len(outcomes) == 1:
        return outcomes[0]
    counts = np.array([o.distinct for o in outcomes])
    before = np.cumsum(counts, axis=0) - counts
    distinct = counts.sum(axis=0)
    first = np.cumsum(distinct) - distinct
    source = [_exits_of_calls(o.first + n, o.distinct) for o, n in zip(outcomes, _exits_before(outcomes), strict=True)]
    target = [_exits_of_calls(first + shift, o.distinct) for o, shift in zip(outcomes, before, strict=True)]
    order = np.empty(distinct.sum(), dtype=np.int64)
    order[np.concatenate(target)] = np.concatenate(source)
    exits = _joined([o.exits for o in outcomes]).take(order)
    kind = np.uint16 if distinct.max(initial=0) <= MAX_POLICIES else np.uint32
    which = [o.which.astype(kind) + shift.astype(kind)[:, None] for o, shift in zip(outcomes, before, strict=True)]
    return Outcomes(first, distinct, np.concatenate(which, axis=1), exits)


def _exits_of_calls(first: npt.NDArray[np.int64], distinct: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The numbers of all exits, call after call."""
    return np.repeat(first - np.cumsum(distinct) + distinct, distinct) + np.arange(distinct.sum())


def _exits_before(outcomes: Sequence[Outcomes]) -> npt.NDArray[np.int64]:
    sizes = np.array([len(o.exits.ts) for o in outcomes])
    return np.cumsum(sizes) - sizes


def _joined(parts: Sequence[Exits]) -> Exits:
    return Exits(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def empty_truth(calls: int) -> Truth:
    """Room for the truth of `calls` calls, all of them marked `no_candles` until replayed."""
    missing = np.full(calls, -1, dtype=np.int64)
    nan = np.full(calls, np.nan)
    return Truth(
        status=np.full(calls, NO_CANDLES, dtype=np.uint8),
        p0=nan.copy(),
        entry_ts=missing.copy(),
        candles=np.zeros(calls, dtype=np.int64),
        observed=missing.copy(),
        censored=np.zeros(calls, dtype=np.uint8),
        peak=nan.copy(),
        t_peak=missing.copy(),
        t_multiple=np.full((calls, 3), -1, dtype=np.int64),
        dd_bps=nan.copy(),
        dd_to_2x_bps=nan.copy(),
        t_activity=missing.copy(),
    )


def outcome_bytes(calls: int, policies: int) -> int:
    """About the most that these outcomes take, with what an aggregation derives of their exits.

    A call with 450 policies of the default grid has 10 to 30 exits and seldom more than a hundred; few policies share none.
    """
    exits = min(policies, 12 + policies // 3)
    return calls * (2 * policies + 60 * exits)


def empty_outcomes(calls: int, policies: int) -> Outcomes:
    """Room for the outcomes of up to MAX_POLICIES policies on every call; no call has an exit yet. Raises ValueError for more."""
    if policies > MAX_POLICIES:
        raise ValueError(f"{policies} policies in one replay; at most {MAX_POLICIES}")
    none = np.zeros(calls, dtype=np.int64)
    exits = Exits(
        ts=np.empty(0, np.int64),
        px=np.empty(0),
        reason=np.empty(0, np.uint8),
        fills=np.empty(0, np.uint16),
        mae_bps=np.empty(0),
    )
    return Outcomes(none, none.copy(), np.zeros((calls, policies), dtype=np.uint16), exits)


def with_exits(outcomes: Outcomes, parts: Sequence[tuple[npt.NDArray[np.int64], Exits]]) -> Outcomes:
    """`outcomes` with the exits of all replays that wrote into it: (rows, exits) of each; every row in one of them at most."""
    first, before = outcomes.first.copy(), len(outcomes.exits.ts)
    for rows, exits in parts:
        first[rows] += before
        before += len(exits.ts)
    return outcomes._replace(first=first, exits=_joined([outcomes.exits, *(exits for _, exits in parts)]))
