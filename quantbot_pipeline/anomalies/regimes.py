"""`regime`: a caller whose outcomes are not what they were. Source: docs/anomalies.md."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from quantbot_pipeline.anomalies.calls import Calls, Flags, rows_by
from quantbot_pipeline.anomalies.findings import CALLER, Finding, Ints, Span

KIND = "regime"
ODDS = 2.5  # by which they must have fallen or risen
LIMIT = 5.0
LEAST = 50  # settled calls behind a base rate
OUTCOMES = {"hit_2x": "doubled", "win": "won"}
WORSE, BETTER = 0, 1


class Alarm(NamedTuple):
    """A sum that passed the limit at call `at`; it had left 0 at call `since`. base: the rate before; share: that of since..at."""

    at: int
    since: int
    direction: int
    score: float
    base: float
    share: float


def regimes(calls: Calls, span: Span) -> Iterator[Finding]:
    """Yield callers of which one of two outcomes, `hit_2x` or `win`, is rarer or more frequent than before.

    Outcomes come in the order in which windows end. An alarm belongs to the month in which the window ends that raises it.
    """
    settled = calls.settled(span.end)
    for caller, rows in rows_by(calls.caller, settled).items():
        ordered = rows[np.argsort(calls.end[rows], kind="stable")]
        for outcome, words in OUTCOMES.items():
            values = (calls.hit_2x if outcome == "hit_2x" else calls.win)[ordered]
            for alarm in alarms(values):
                if calls.end[ordered[alarm.at]] > span.start:
                    yield _finding(caller, outcome, words, alarm, ordered, calls)


def alarms(values: Sequence[bool] | Flags) -> list[Alarm]:
    """Return the alarms of two Bernoulli CUSUMs, of odds divided by 2.5 and times 2.5, with limit 5, in their order.

    The base rate is that of all calls since the beginning or the last alarm, 50 at least, the present one left out. After an alarm
    everything begins anew.
    """
    found: list[Alarm] = []
    known = hits = 0
    sums, since = [0.0, 0.0], [0, 0]
    for at, value in enumerate(values):
        if known >= LEAST:
            base = (hits + 0.5) / (known + 1)
            for direction, odds in enumerate((1 / ODDS, ODDS)):
                other = odds * base / (1 - base + odds * base)
                if sums[direction] <= 0:
                    since[direction] = at
                step = math.log(other / base) if value else math.log((1 - other) / (1 - base))
                sums[direction] = max(0.0, sums[direction] + step)
            worst = int(sums[BETTER] > sums[WORSE])
            if sums[worst] >= LIMIT:
                share = float(np.mean(np.asarray(values[since[worst] : at + 1], float)))
                found.append(Alarm(at, since[worst], worst, sums[worst], base, share))
                known, hits, sums = 0, 0, [0.0, 0.0]
                continue
        known, hits = known + 1, hits + bool(value)
    return found


def _finding(
    caller: str,
    outcome: str,
    words: str,
    alarm: Alarm,
    ordered: Ints,
    calls: Calls,
) -> Finding:
    mine = ordered[alarm.since : alarm.at + 1]
    more = "rarer" if alarm.direction == WORSE else "more frequent"
    return Finding(
        KIND,
        CALLER,
        caller,
        int(calls.alert[mine].min()),
        int(calls.end[ordered[alarm.at]]),
        alarm.score,
        LIMIT,
        f"Calls that {words} became {more}: {alarm.share:.0%} of the last {len(mine)} settled calls, {alarm.base:.0%} before.",
        {
            "outcome": outcome,
            "direction": "down" if alarm.direction == WORSE else "up",
            "before": alarm.base,
            "since": alarm.share,
        },
        calls=tuple(np.sort(mine).tolist()),
    )
