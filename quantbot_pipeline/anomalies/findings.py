"""What the detectors read and what they say: candles of one token, the month that is looked at, findings.

Belongs here: types and limits that several detectors share. Does not: any rule of a kind; each subject has its own file.
Source: docs/anomalies.md.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

DAY_MS = 86_400_000
LOOK_BACK_MS = 7 * DAY_MS  # of candles before the month
LOOK_BACK_CALLS_MS = 30 * DAY_MS  # of calls before a call
MINT, CALLER, PAIR, MARKET, TARGET = "mint", "caller", "pair", "market", "target"
WHOLE_MARKET = "all tokens"  # the subject of what concerns the market


class Series(NamedTuple):
    """Candles of one token, ascending in time, shapes (N,): ts int64 UTC ms of the open, the rest float64.

    Prices are above 0. volume is in whatever unit the source has; NaN where unknown.
    """

    mint: str
    ts: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats


class Span(NamedTuple):
    """The month that is looked at, `[start, end)` in UTC ms, and the length of its candles in ms.

    Series begin `LOOK_BACK_MS` before the start at the earliest and end before the end. A finding belongs to the month in which
    its last candle makes it known, so that candles of later months change no row.
    """

    start: int
    end: int
    interval_ms: int


class Finding(NamedTuple):
    """One row before it is known which calls it touches.

    from_ts, to_ts: UTC ms, the first odd moment and the end of the last one. score is at or past limit. reason: one sentence.
    details: finite numbers, texts and lists. tokens: whose windows it touches; calls: rows of the calls that it touches, where it
    knows them itself. is_error: it is an error whatever it touches.
    """

    kind: str
    subject_type: str
    subject: str
    from_ts: int
    to_ts: int
    score: float
    limit: float
    reason: str
    details: dict[str, Any]
    other: str | None = None
    tokens: tuple[str, ...] = ()
    calls: tuple[int, ...] | None = None
    is_error: bool = False


def steps_of(close: Floats) -> Floats:
    """Return `ln(close / previous close)` of every candle but the first, shape (N - 1,)."""
    return np.diff(np.log(close))


def utc(ts_ms: int) -> str:
    """Return a time of UTC to the minute, as sentences say it."""
    return str(np.datetime64(ts_ms, "ms").astype("datetime64[m]")).replace("T", " ")


def times(factor: float) -> str:
    """Return a factor of a price as sentences say it."""
    return f"{factor:,.3g}" if factor < 1000 else f"{factor:,.0f}"
