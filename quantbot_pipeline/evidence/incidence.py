"""How long a double takes, against a stop and silence: cumulative incidence with competing ends.

Sources: docs/evidence.md, "Hit rates and times"; Aalen and Johansen, 1978. A Kaplan-Meier curve with the stop as
censoring answers another question.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.evidence.intervals import Z95

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
CENSORED, HIT, STOP, SILENT = range(4)
MINUTE, HOUR = 60_000, 3_600_000
TIMES_MS = (5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR, 8 * HOUR, 24 * HOUR, 48 * HOUR)
DUST = 1e-12


class Point(NamedTuple):
    """The incidences up to a time, the interval of the hits, and how many calls are at risk then."""

    t_ms: int
    hit: float
    low: float
    high: float
    stop: float
    silent: float
    at_risk: int


class Curve(NamedTuple):
    """Points of the curves, and the median time of those that hit."""

    points: list[Point]
    median_ms: int | None


class _Steps(NamedTuple):
    """At each event time, ascending: calls at risk, all events, hits, S before it, and F of each cause after it (3, E)."""

    time: Ints
    risk: Ints
    ends: Ints
    hits: Ints
    before: Floats
    reached: Floats


def incidence(time: Ints, event: Ints, horizon_ms: int, times: Sequence[int] = TIMES_MS) -> Curve:
    """Return the curves of a caller's units: the time of each end, and which end it was."""
    steps = _steps(time, event)
    points = []
    for t in (t for t in times if t <= horizon_ms):
        n = int(np.searchsorted(steps.time, t, side="right"))
        hit, stop, silent = (float(row[n - 1]) if n else 0.0 for row in steps.reached)
        low, high = _interval(steps, n, hit)
        points.append(Point(t, hit, low, high, stop, silent, int((time >= t).sum())))
    return Curve(points, _median(steps))


def _steps(time: Ints, event: Ints) -> _Steps:
    moments = np.unique(time[event != CENSORED])
    ascending = np.sort(time)
    risk = len(time) - np.searchsorted(ascending, moments)
    place = np.searchsorted(moments, time)
    ends = np.array([np.bincount(place[event == k], minlength=len(moments)) for k in (HIT, STOP, SILENT)], np.int64)
    before, reached = np.empty(len(moments)), np.empty((3, len(moments)))
    alive, so_far = 1.0, np.zeros(3)
    for i, (r, d) in enumerate(zip(risk, ends.T, strict=True)):
        before[i] = alive
        so_far += alive * d / r
        reached[:, i] = so_far
        alive *= 1 - d.sum() / r
    return _Steps(moments, risk, ends.sum(axis=0), ends[0], before, reached)


def _interval(steps: _Steps, n: int, hit: float) -> tuple[float, float]:
    """Return the 95 % interval of the incidence of hits after n event times."""
    if hit <= 0 or hit >= 1 - DUST:
        return hit, hit
    r, d, hits, before = steps.risk[:n], steps.ends[:n], steps.hits[:n], steps.before[:n]
    rest = hit - steps.reached[0, :n]
    all_ended = d == r
    first = np.where(all_ended, 0.0, rest**2 * d / (r * np.where(all_ended, 1, r - d)))
    # As floats: the cube of many calls is beyond an int64.
    variance = (
        first + before**2 * hits * (r - hits) / r.astype(float) ** 3 - 2 * rest * before * hits / r.astype(float) ** 2
    )
    width = Z95 * math.sqrt(max(0.0, float(variance.sum()))) / (hit * math.log(hit))
    return hit ** math.exp(-width), hit ** math.exp(width)


def _median(steps: _Steps) -> int | None:
    """Return the median time of those that hit."""
    hits = steps.reached[0]
    if not len(hits) or hits[-1] <= 0:
        return None
    return int(steps.time[np.argmax(hits >= hits[-1] / 2)])
