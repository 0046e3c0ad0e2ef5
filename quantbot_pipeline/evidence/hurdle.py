"""The hurdle: what a policy had been paying on other callers' calls when a month began.

Source: docs/evidence.md, "Hurdle". It takes a rising market out of a caller's record.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.compiled import compiled
from quantbot_pipeline.evidence.rules import MIN_HURDLE_CALLERS, EvidenceRules
from quantbot_pipeline.evidence.units import Units

Floats = npt.NDArray[np.float64]


def hurdles(
    units: Units,
    x: Floats,
    starts: Sequence[int],
    numbers: Sequence[int],
    names: Sequence[str],
    rules: EvidenceRules,
    horizon_ms: int,
) -> Floats:
    """Return h, shape (callers, months, policies).

    x: (P, N) capped returns of resolved units. starts, numbers: of each month its start (UTC ms) and its number on the
    calendar (12 a year).
    """
    callers = len(names)
    made = np.zeros((callers, len(starts), len(x)))
    control = np.array([not rules.control or name in rules.control for name in names])
    counts = np.array([rules.hurdle_min_units, rules.hurdle_caller_units, MIN_HURDLE_CALLERS])
    calendar = np.array(numbers, np.int64)
    for m, start in enumerate(starts):
        known = (
            ~units.missing
            & (calendar[units.month] >= calendar[m] - rules.hurdle_months)
            & (units.entry + horizon_ms <= start)
            & control[units.caller]
        )
        if known.sum() >= rules.hurdle_min_units:
            bounds = np.searchsorted(units.caller[known], np.arange(callers + 1))
            _month(np.ascontiguousarray(x[:, known]), bounds, counts, made[:, m])
    return made


_kernel = compiled(error_model="numpy")


@_kernel
def _month(x: Any, bounds: Any, counts: Any, out: Any) -> None:
    """Fill `out` (callers, P). x: (P, n) of the known units, caller after caller; bounds: where each caller's begin."""
    callers = len(bounds) - 1
    n = bounds[1:] - bounds[:-1]
    mean, spread, others = np.zeros(callers), np.zeros(callers), np.empty(callers)
    for p in range(len(x)):
        row = x[p]
        for k in range(callers):
            mean[k] = spread[k] = 0.0
            if n[k] == 0:
                continue
            total = 0.0
            for i in range(bounds[k], bounds[k + 1]):
                total += row[i]
            mean[k] = total / n[k]
            for i in range(bounds[k], bounds[k + 1]):
                spread[k] += (row[i] - mean[k]) ** 2
        for c in range(callers):
            out[c, p] = _without(c, n, mean, spread, others, counts)


@_kernel
def _without(c: Any, n: Any, mean: Any, spread: Any, others: Any, counts: Any) -> Any:
    """Return the hurdle of caller c: of the units of all callers but it."""
    count, total, enough = 0, 0.0, 0
    for k in range(len(n)):
        if k != c and n[k] > 0:
            count += n[k]
            total += n[k] * mean[k]
            if n[k] >= counts[1]:
                others[enough] = mean[k]
                enough += 1
    if count < counts[0]:
        return 0.0
    pooled, squares = total / count, 0.0
    for k in range(len(n)):
        if k != c and n[k] > 0:
            squares += spread[k] + n[k] * (mean[k] - pooled) ** 2
    bound = pooled - np.sqrt(squares / (count - 1)) / np.sqrt(count)
    if enough >= counts[2]:
        bound = min(bound, np.median(others[:enough]))
    return max(0.0, bound)
