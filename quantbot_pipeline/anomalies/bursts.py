"""`call_burst`: a caller calls far more in an hour than it usually does. Source: docs/anomalies.md."""

import math
from collections.abc import Iterator

import numpy as np

from quantbot_pipeline.anomalies.calls import Calls, rows_by
from quantbot_pipeline.anomalies.findings import CALLER, LOOK_BACK_CALLS_MS, Finding, Ints, Span, utc

KIND = "call_burst"
HOUR_MS = 3_600_000
LEAST = 5  # calls in an hour
CHANCE = 0.001  # of one in 30 days, which have 720 hours
HOURS = LOOK_BACK_CALLS_MS // HOUR_MS
LEAST_BEFORE = 5  # calls before, to know what is usual
LEAST_HOURS = 24.0  # that a new caller counts as known for, at least


def call_bursts(calls: Calls, span: Span) -> Iterator[Finding]:
    """Yield hours with 5 calls or more that the caller's mean of the 30 days before does not explain.

    Counts are taken for negative binomial of size 1: `P(n or more) = (m / (1 + m))^n`. Hours that overlap are one finding. An hour
    belongs to the month of its last call.
    """
    for caller, rows in rows_by(calls.caller, calls.alert >= span.start - 2 * LOOK_BACK_CALLS_MS).items():
        alert = calls.alert[rows]
        first = np.searchsorted(alert, alert - HOUR_MS, side="right")  # of the hour that ends with each call
        counts = np.arange(1, len(rows) + 1) - first
        hits = []
        for last in np.flatnonzero((counts >= LEAST) & (alert >= span.start)).tolist():
            limit = _limit(alert, int(first[last]))
            if counts[last] >= limit:
                hits.append((int(first[last]), last, limit))
        yield from _bursts(caller, rows, alert, hits)


def _limit(alert: Ints, first: int) -> float:
    """Return how many calls in an hour are too many, given those before the hour; infinite where too few are known."""
    begin = int(np.searchsorted(alert, alert[first] - LOOK_BACK_CALLS_MS))
    known = first - begin
    if known < LEAST_BEFORE:
        return math.inf
    known_for = float(HOURS) if begin else float(alert[first] - alert[begin]) / HOUR_MS  # a new caller has no 30 days
    hours = min(float(HOURS), max(LEAST_HOURS, known_for))
    mean = known / hours
    return max(float(LEAST), math.log(CHANCE / HOURS) / math.log(mean / (1 + mean)))


def _bursts(caller: str, rows: Ints, alert: Ints, hits: list[tuple[int, int, float]]) -> Iterator[Finding]:
    while hits:
        mine = [hits.pop(0)]
        while hits and hits[0][0] <= mine[-1][1]:
            mine.append(hits.pop(0))
        begin, end = mine[0][0], mine[-1][1]
        first, last, limit = max(mine, key=lambda hit: hit[1] - hit[0] - hit[2])
        most = last - first + 1
        yield Finding(
            KIND,
            CALLER,
            caller,
            int(alert[begin]),
            int(alert[end]) + 1,
            float(most),
            limit,
            f"The caller made {most} calls within an hour around {utc(int(alert[first]))} UTC, far more than in the 30 days before.",
            {"calls": end - begin + 1},
            calls=tuple(rows[begin : end + 1].tolist()),
        )
