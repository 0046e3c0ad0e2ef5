"""The hurdle: what a policy had been paying on other callers' calls when a month began.

Source: docs/evidence.md, "Hurdle". It takes a rising market out of a caller's record.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.compiled import compiled
from quantbot_pipeline.evidence.rules import MIN_HURDLE_CALLERS, EvidenceRules
from quantbot_pipeline.evidence.units import Units

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Window(NamedTuple):
    """The hurdles of one month: h of each caller with a unit in its window and, last, of everybody else, (callers + 1, P)."""

    callers: tuple[str, ...]
    h: Floats


Make = Callable[[], Window]
Remember = Callable[[int, Ints, Make], Window]


def _make_it(month: int, known: Ints, make: Make) -> Window:
    return make()


def hurdles(
    units: Units,
    x: Floats,
    starts: Sequence[int],
    numbers: Sequence[int],
    names: Sequence[str],
    rules: EvidenceRules,
    horizon_ms: int,
    remember: Remember = _make_it,
) -> Floats:
    """Return h, shape (callers, months, policies).

    x: (P, N) capped returns of resolved units. starts, numbers: of each month its start (UTC ms) and its number on the
    calendar (12 a year). remember: is given a month, its window's units and what makes their hurdles, and may know them.
    """
    made = np.zeros((len(names), len(starts), len(x)))
    control = np.array([not rules.control or name in rules.control for name in names])
    calendar = np.array(numbers, np.int64)
    for m, start in enumerate(starts):
        known = np.flatnonzero(
            ~units.missing
            & (calendar[units.month] >= calendar[m] - rules.hurdle_months)
            & (units.entry + horizon_ms <= start)
            & control[units.caller]
        )
        if len(known) >= rules.hurdle_min_units:
            window = remember(m, known, partial(_window, units.caller[known], x, known, names, rules))
            place = {name: i for i, name in enumerate(window.callers)}
            made[:, m] = window.h[[place.get(name, len(place)) for name in names]]
    return made


def _window(caller: Ints, x: Floats, known: Ints, names: Sequence[str], rules: EvidenceRules) -> Window:
    counts = np.array([rules.hurdle_min_units, rules.hurdle_caller_units, MIN_HURDLE_CALLERS])
    present, first = np.unique(caller, return_index=True)
    h = np.empty((len(present) + 1, len(x)))
    _month(np.ascontiguousarray(x[:, known]), np.append(first, len(caller)), counts, h)
    return Window(tuple(names[c] for c in present.tolist()), h)


_kernel = compiled(error_model="numpy")


@_kernel
def _month(x: Any, bounds: Any, counts: Any, out: Any) -> None:
    """Fill `out` (callers + 1, P). x: (P, n) of the known units, caller after caller; bounds: where each caller's begin."""
    callers = len(bounds) - 1
    n = bounds[1:] - bounds[:-1]
    mean, spread, others = np.zeros(callers), np.zeros(callers), np.empty(callers)
    for p in range(len(x)):
        row = x[p]
        for k in range(callers):
            spread[k] = total = 0.0
            for i in range(bounds[k], bounds[k + 1]):
                total += row[i]
            mean[k] = total / n[k]
            for i in range(bounds[k], bounds[k + 1]):
                spread[k] += (row[i] - mean[k]) ** 2
        for c in range(callers + 1):
            out[c, p] = _without(c, n, mean, spread, others, counts)


@_kernel
def _without(c: Any, n: Any, mean: Any, spread: Any, others: Any, counts: Any) -> Any:
    """Return the hurdle of caller c: of the units of all callers but it; past the last caller, of all."""
    count, total, enough = 0, 0.0, 0
    for k in range(len(n)):
        if k != c:
            count += n[k]
            total += n[k] * mean[k]
            if n[k] >= counts[1]:
                others[enough] = mean[k]
                enough += 1
    if count < counts[0]:
        return 0.0
    pooled, squares = total / count, 0.0
    for k in range(len(n)):
        if k != c:
            squares += spread[k] + n[k] * (mean[k] - pooled) ** 2
    bound = pooled - np.sqrt(squares / (count - 1)) / np.sqrt(count)
    if enough >= counts[2]:
        bound = min(bound, np.median(others[:enough]))
    return max(0.0, bound)
