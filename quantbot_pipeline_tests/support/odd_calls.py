"""Calls as the detectors of callers see them, made up, and those detectors in plain Python."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from quantbot_pipeline.anomalies.calls import Calls
from quantbot_pipeline.anomalies.findings import DAY_MS, Span
from quantbot_pipeline_tests.support.odd_markets import MINUTES_5, START

HOUR = 3_600_000
SPAN = Span(START, START + 31 * DAY_MS, MINUTES_5)


class Made(NamedTuple):
    """One call: who, what, when (UTC ms), and what became of it."""

    caller: str
    mint: str
    alert: int
    hit: bool = False
    win: bool = False
    late: bool = False
    missing: bool = False
    included: bool = True


def calls_of(made: Sequence[Made], horizon_ms: int = 2 * DAY_MS) -> Calls:
    """Return calls in the order of their alerts."""
    rows = sorted(made, key=lambda call: call.alert)
    n = len(rows)
    alert = np.array([call.alert for call in rows], np.int64)
    included = np.array([call.included for call in rows], bool)
    hit = np.array([call.hit for call in rows], bool)
    double = np.where(hit, alert + HOUR, -1)
    fields: dict[str, Any] = {
        "mint": np.array([call.mint for call in rows], object),
        "caller": np.array([call.caller for call in rows], object),
        "alert": alert,
        "status": np.where(included, 0, 1).astype(np.uint8),
        "p0": np.ones(n),
        "entry": np.where(included, alert, -1),
        "end": np.where(included, alert + horizon_ms, -1 + horizon_ms),
        "t_peak": double,
        "t_multiple": np.stack([double, np.full(n, -1), np.full(n, -1)], axis=1),
        "dd_bps": np.zeros(n),
        "exit_ts": np.full(n, -1),
        "exit_reason": np.zeros(n, np.uint8),
        "win": np.array([call.win for call in rows], bool),
        "late": np.array([call.late for call in rows], bool),
        "missing": np.array([call.missing for call in rows], bool),
    }
    return Calls(**fields)


def naive_bursts(made: Sequence[Made], span: Span) -> set[tuple[str, int, int]]:
    """Return {(caller, first alert, last alert)} of bursts: calls of hours that are too full and overlap."""
    found = set()
    for caller in {call.caller for call in made}:
        alerts = sorted(call.alert for call in made if call.caller == caller)
        full = []
        for i, at in enumerate(alerts):
            hour = [j for j in range(i + 1) if alerts[j] > at - HOUR]
            first = alerts[hour[0]]
            earlier = [a for a in alerts[: hour[0]] if a >= first - 30 * DAY_MS]
            if at < span.start or len(hour) < 5 or len(earlier) < 5:
                continue
            new = len(earlier) == hour[0]
            hours = max(24.0, (first - earlier[0]) / HOUR) if new else 720.0
            mean = len(earlier) / min(720.0, hours)
            if 720 * (mean / (1 + mean)) ** len(hour) <= 0.001 * (1 + 1e-9):
                full.append((hour[0], i))
        while full:
            begin, end = full.pop(0)
            while full and full[0][0] <= end:
                end = full.pop(0)[1]
            found.add((caller, alerts[begin], alerts[end]))
    return found


def naive_follows(made: Sequence[Made], span: Span) -> dict[tuple[str, str], int]:
    """Return how many calls of the month of the second caller came within an hour after a call of the first, by mint."""
    counts: dict[tuple[str, str], int] = {}
    for call in made:
        if call.alert < span.start:
            continue
        leaders = {
            other.caller
            for other in made
            if other.mint == call.mint and other.caller != call.caller and 0 < call.alert - other.alert <= HOUR
        }
        for leader in leaders:
            counts[leader, call.caller] = counts.get((leader, call.caller), 0) + 1
    return counts


def naive_alarms(values: Sequence[bool]) -> list[tuple[int, int]]:
    """Return (call, direction) of the alarms: every call looks back to the last alarm and adds up anew."""
    found: list[tuple[int, int]] = []
    begin = 0
    for at in range(len(values)):
        for direction, odds in ((0, 1 / 2.5), (1, 2.5)):
            total = 0.0
            for i in range(begin + 50, at + 1):
                base = (sum(values[begin:i]) + 0.5) / (i - begin + 1)
                other = odds * base / (1 - base + odds * base)
                total = max(0.0, total + math.log(other / base if values[i] else (1 - other) / (1 - base)))
            if total >= 5:
                found.append((at, direction))
                begin = at + 1
                break
    return found
