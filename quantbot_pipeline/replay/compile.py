"""Policies reduced to the arrays of thresholds that the kernel walks with.

Belongs here: which numbers the kernel needs of a policy, and how equal thresholds of many policies become one.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.replay.policies import Policy
from quantbot_pipeline.vocabulary import HARD_STOP, STOP_LOSS

ZERO_REMAINDER = 1e-12
MAX_HOLD_MS = 1 << 60  # longer than any window, and entry + hold still fits an int64


class CompiledPolicies(NamedTuple):
    """Policies as arrays for the engine; thresholds are shared, every table ends with a sentinel that never fires.

    down: (D+1,) float64 stop factors `1-s`, descending, sentinel -1. up: (U+1,) float64 factors of take profits, ladder
    levels, activations and truth multiples, ascending, sentinel inf. hold: (H+1,) int64 ms, ascending, sentinel
    MAX_HOLD_MS. pair_up, pair_keep: (T,) slot of the activation and `1-trail`, by activation, tight to wide; `pair_keep`
    has a sentinel more. Every entry is an event; its slot (uint32) counts through down, up, hold and pairs, in this order.
    Per policy (P,): the slots stop, take, hold_slot, complete, trail (of its first trailing rule) and rung (of its first
    ladder level), and stop_reason (uint8); trail_lo/hi and rung_lo/hi delimit its part of `trails` (slots) and of `rung_up` (slots), `rung_fraction`.
    truth: (5,) slots of 2x, 3x, 4x and of the upper and lower activity level.
    """

    down: npt.NDArray[np.float64]
    up: npt.NDArray[np.float64]
    hold: npt.NDArray[np.int64]
    pair_up: npt.NDArray[np.uint32]
    pair_keep: npt.NDArray[np.float64]
    stop: npt.NDArray[np.uint32]
    stop_reason: npt.NDArray[np.uint8]
    take: npt.NDArray[np.uint32]
    hold_slot: npt.NDArray[np.uint32]
    complete: npt.NDArray[np.uint32]
    trail: npt.NDArray[np.uint32]
    trail_lo: npt.NDArray[np.uint32]
    trail_hi: npt.NDArray[np.uint32]
    trails: npt.NDArray[np.uint32]
    rung: npt.NDArray[np.uint32]
    rung_lo: npt.NDArray[np.uint32]
    rung_hi: npt.NDArray[np.uint32]
    rung_up: npt.NDArray[np.uint32]
    rung_fraction: npt.NDArray[np.float64]
    truth: npt.NDArray[np.uint32]


class _Terms(NamedTuple):
    """One policy reduced to what the engine knows: levels as factors of the entry price."""

    stop: float | None
    stop_reason: int
    take: float | None
    hold: int | None
    trails: tuple[tuple[float, float], ...]
    rungs: tuple[tuple[float, float], ...]


def compile_policies(policies: Sequence[Policy], activity_move_pct: float = 0.10) -> CompiledPolicies:
    """De-duplicate the thresholds of all policies into sorted tables; O(1) work per policy and call remains."""
    terms = [_terms(p) for p in policies]
    activity_up, activity_down = 1 + activity_move_pct, 1 - activity_move_pct
    down = sorted({t.stop for t in terms if t.stop is not None} | {activity_down}, reverse=True)
    ups = {2.0, 3.0, 4.0, activity_up}
    ups |= {t.take for t in terms if t.take is not None}
    ups |= {multiple for t in terms for multiple, _ in t.rungs}
    ups |= {activation for t in terms for activation, _ in t.trails}
    up = sorted(ups)
    hold = sorted({t.hold for t in terms if t.hold is not None})
    pairs = sorted({pair for t in terms for pair in t.trails}, key=lambda pair: (pair[0], -pair[1]))
    down_slot, up_slot, hold_slot, pair_slot = _slots(down, up, hold, pairs)
    trail_ends = np.cumsum([0] + [len(t.trails) for t in terms]).astype(np.uint32)
    rung_ends = np.cumsum([0] + [len(t.rungs) for t in terms]).astype(np.uint32)
    return CompiledPolicies(
        down=np.array([*down, -1.0]),
        up=np.array([*up, np.inf]),
        hold=np.array([*hold, MAX_HOLD_MS], dtype=np.int64),
        pair_up=_u32(up_slot[activation] for activation, _ in pairs),
        pair_keep=np.array([*(keep for _, keep in pairs), 0.0]),
        stop=_u32(down_slot[t.stop] for t in terms),
        stop_reason=np.array([t.stop_reason for t in terms], dtype=np.uint8),
        take=_u32(up_slot[t.take] for t in terms),
        hold_slot=_u32(hold_slot[t.hold] for t in terms),
        complete=_u32(up_slot[_completing(t)] for t in terms),
        trail=_u32(pair_slot[t.trails[0] if t.trails else None] for t in terms),
        trail_lo=trail_ends[:-1],
        trail_hi=trail_ends[1:],
        trails=_u32(pair_slot[pair] for t in terms for pair in t.trails),
        rung=_u32(up_slot[t.rungs[0][0] if t.rungs else None] for t in terms),
        rung_lo=rung_ends[:-1],
        rung_hi=rung_ends[1:],
        rung_up=_u32(up_slot[multiple] for t in terms for multiple, _ in t.rungs),
        rung_fraction=np.array([fraction for t in terms for _, fraction in t.rungs], dtype=np.float64),
        truth=_u32([up_slot[2.0], up_slot[3.0], up_slot[4.0], up_slot[activity_up], down_slot[activity_down]]),
    )


def compiled_key(policy: Policy) -> tuple[object, ...]:
    """Equal for two policies that trade alike on every path (only the name of a stop may differ): de-duplicates a grid."""
    terms = _terms(policy)
    return tuple(terms._replace(stop_reason=STOP_LOSS))


def _slots(*tables: Sequence[Any]) -> Iterator[dict[Any, int]]:
    """Event slots of the entries of each table, counted through; None stands for the sentinel at its end."""
    first = 0
    for table in tables:
        yield {value: first + i for i, value in enumerate([*table, None])}
        first += len(table) + 1


def _u32(values: Iterable[int]) -> npt.NDArray[np.uint32]:
    return np.array(list(values), dtype=np.uint32)


def _terms(policy: Policy) -> _Terms:
    """Reduce a policy to one stop, one take profit, one hold: the highest, the lowest and the smallest of them."""
    terms = policy.terms()
    stops = dict.fromkeys(terms.hard_stops, HARD_STOP) | dict.fromkeys(
        terms.stops, STOP_LOSS
    )  # a tie goes to stop_loss
    stop = max(stops, default=None)
    hold = min(terms.holds, default=None)
    return _Terms(
        stop,
        STOP_LOSS if stop is None else stops[stop],
        min(terms.takes, default=None),
        None if hold is None else min(hold, MAX_HOLD_MS),
        tuple(sorted(set(terms.trails))),
        terms.rungs,
    )


def _completing(terms: _Terms) -> float | None:
    """The multiple of the ladder level whose fill empties the position, if any: it depends on fractions alone."""
    remainder = 1.0
    for multiple, fraction in terms.rungs:
        remainder -= min(fraction, remainder)
        if remainder <= ZERO_REMAINDER:
            return multiple
    return None


class Levels(NamedTuple):
    """Policies of one stop, one take profit, one hold and one trailing rule as arrays (P,); NaN: without that level.

    stop, take, activation, trail: fractions of the entry price and of the maximum (float64). hold: ms (int64), never absent.
    """

    stop: npt.NDArray[np.float64]
    take: npt.NDArray[np.float64]
    hold: npt.NDArray[np.int64]
    activation: npt.NDArray[np.float64]
    trail: npt.NDArray[np.float64]

    def of(self, chosen: slice) -> "Levels":
        """Return some of the policies."""
        stop, take, hold, activation, trail = self
        return Levels(stop[chosen], take[chosen], hold[chosen], activation[chosen], trail[chosen])


def compile_levels(levels: Levels, activity_move_pct: float = 0.10) -> CompiledPolicies:
    """Compile thousands of policies at once: what `compile_policies` makes of the same policies, without an object for each."""
    activity_up, activity_down = 1 + activity_move_pct, 1 - activity_move_pct
    stops, takes, activations, kept = 1 - levels.stop, 1 + levels.take, 1 + levels.activation, 1 - levels.trail
    trailing = np.flatnonzero(~np.isnan(levels.trail))
    down = np.unique(np.append(stops[~np.isnan(stops)], activity_down))[::-1]
    up = np.unique([2.0, 3.0, 4.0, activity_up, *takes[~np.isnan(takes)], *activations[trailing]])
    hold = np.unique(np.minimum(levels.hold, MAX_HOLD_MS))
    used = np.stack([activations[trailing], -kept[trailing]], axis=1)
    pairs, place = np.unique(used, axis=0, return_inverse=True)
    up_first, hold_first = len(down) + 1, len(down) + len(up) + 2
    pair_first = hold_first + len(hold) + 1
    none_up = np.full(len(levels.hold), up_first + len(up))
    ends = np.cumsum([0, *~np.isnan(levels.trail)])
    own = pair_first + place.reshape(-1)
    trail = np.full(len(levels.hold), pair_first + len(pairs))
    trail[trailing] = own
    nothing = np.zeros(len(levels.hold), np.uint32)
    return CompiledPolicies(
        down=np.append(down, -1.0),
        up=np.append(up, np.inf),
        hold=np.append(hold, MAX_HOLD_MS).astype(np.int64),
        pair_up=_slots_of(up_first + np.searchsorted(up, pairs[:, 0])),
        pair_keep=np.append(-pairs[:, 1], 0.0),
        stop=_slots_of(np.where(np.isnan(stops), len(down), np.searchsorted(-down, -stops))),
        stop_reason=np.full(len(levels.hold), STOP_LOSS, np.uint8),
        take=_slots_of(np.where(np.isnan(takes), none_up, up_first + np.searchsorted(up, takes))),
        hold_slot=_slots_of(hold_first + np.searchsorted(hold, np.minimum(levels.hold, MAX_HOLD_MS))),
        complete=_slots_of(none_up),
        trail=_slots_of(trail),
        trail_lo=_slots_of(ends[:-1]),
        trail_hi=_slots_of(ends[1:]),
        trails=_slots_of(own),
        rung=_slots_of(none_up),
        rung_lo=nothing,
        rung_hi=nothing.copy(),
        rung_up=np.empty(0, np.uint32),
        rung_fraction=np.empty(0),
        truth=_slots_of(
            np.append(
                up_first + np.searchsorted(up, [2.0, 3.0, 4.0, activity_up]), np.searchsorted(-down, -activity_down)
            )
        ),
    )


def _slots_of(values: npt.NDArray[np.integer]) -> npt.NDArray[np.uint32]:
    return values.astype(np.uint32)
