"""The sample market: six generated months of calls and candles with the habits of memecoins, for the demo and tests.

Belongs here: who the sample callers are (`CALLERS`), what their tokens do, and the two files in which both are handed
over. Does not: validation or storage; the files go through `ingest_calls` and `ingest_candles` like a user's own.
Nothing here is real, and every part says so: callers are named `sample:…`, mints start with `SAMPLE`, the calls' source
is `generated`, and so begin the names of the files. What a backtest finds here is what was put in: it says nothing
about a real market.

Equal seeds give equal tables on every machine: all numbers follow from `random()` of one PCG64 stream by comparisons,
+ - * / and sqrt alone, which IEEE 754 rounds alike everywhere. No exp, log, pow or normal deviate, whose last bit
differs between mathematics libraries. Prices are then rounded to seven significant digits.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]

SOURCE = "generated"
CALLS_FILE = "generated_calls.csv"
CANDLES_FILE = "generated_candles_5m.parquet"
MINT_PREFIX = "SAMPLE"

HOUR_MS = 3_600_000
STEP_MS = 300_000
BEGIN_MS = 1_767_225_600_000  # 2026-01-01
END_MS = 1_782_864_000_000  # 2026-07-01: no candle later, so the last windows are cut as by the day of a download


class Caller(NamedTuple):
    """A caller's skill: which kinds of tokens it picks (percent of its calls, the rest are duds) and when.

    `from_h` and `to_h` bound the hours from a token's event to the call: the start of a pump, trend or bleed, the
    moment of a rug. Negative is early.
    """

    name: str
    calls: int
    pump: int
    trend: int
    rug: int
    dead: int
    from_h: float
    to_h: float
    habit: str


CALLERS = (
    Caller("sample:alpha_hunter", 90, 32, 22, 10, 10, -6.0, 0.2, "real edge: finds pumps before they start"),
    Caller("sample:rare_gem", 30, 54, 22, 6, 4, -3.0, 0.0, "the strongest edge, in few calls a month"),
    Caller("sample:steady_trend", 78, 8, 56, 10, 8, -2.0, 8.0, "a modest edge: small moves, few disasters"),
    Caller("sample:fast_follower", 66, 34, 14, 16, 14, 0.4, 2.4, "a good list, read while the pump already runs"),
    Caller("sample:late_larry", 72, 45, 10, 12, 10, 3.0, 12.0, "calls what has pumped: mostly the way down"),
    Caller("sample:firehose", 144, 16, 16, 24, 14, -8.0, 14.0, "calls everything: many calls, no edge"),
    Caller("sample:coin_flip", 72, 15, 20, 20, 13, -6.0, 20.0, "the control: the market's own mix, at random times"),
    Caller("sample:rug_shill", 48, 6, 6, 75, 6, -8.0, -0.5, "paid to call what is rugged soon after"),
)
TOKENS = {"pump": 36, "trend": 48, "rug": 46, "dead": 30, "dud": 70}
UNLISTED = {"never": 4, "late": 3}  # duds without a candle, and duds whose first candle comes hours after the calls
INVALID_ROWS = 16

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
# Literals, because a power computed by the mathematics library may be off by a bit. DIGITS[i] turns a price in
# [DECADES[i - 1], DECADES[i]) into a number of seven digits; all of them are exact doubles.
DECADES = np.array([float(f"1e{e}") for e in range(-14, 7)])
DIGITS = np.array([float(f"1e{k}") for k in range(21, -1, -1)])


class _Token(NamedTuple):
    mint: str
    kind: str
    listing: str  # normal, late, never
    event_ms: int


class _Shape(NamedTuple):
    """What a kind of token does at given hours from its event: the level of its price, the spread of one 5m factor."""

    level: Floats
    spread: Floats
    last_h: float  # the token stops trading here


def write_sample(folder: Path, seed: int = 7) -> tuple[Path, Path]:
    """Write the sample market into `folder` and return the files of calls and of 5m candles, ready to ingest."""
    calls, candles = generate(seed)
    folder.mkdir(parents=True, exist_ok=True)
    calls_path, candles_path = folder / CALLS_FILE, folder / CANDLES_FILE
    pa.csv.write_csv(calls, calls_path)
    labelled = candles.replace_schema_metadata({"quantbot.source": SOURCE, "quantbot.seed": str(seed)})
    pq.write_table(labelled, candles_path, compression="zstd")
    return calls_path, candles_path


def generate(seed: int = 7) -> tuple[pa.Table, pa.Table]:
    """The calls (caller_name, mint, chain, alert_ts_ms, created_at, source) and candles (mint, ts_ms, OHLC, volume).

    Calls are ordered by time, candles by token and time. A few candle rows are invalid on purpose, and a few calls have
    no candles or none in time, so that a reader sees how errors are counted.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    tokens = _tokens(rng)
    caller, token, alert_ms = _calls(rng, tokens)
    return _calls_table(tokens, caller, token, alert_ms), _candles_table(rng, tokens, token, alert_ms)


def _tokens(rng: np.random.Generator) -> list[_Token]:
    """All tokens in the order of their events, which lie evenly over the half-year."""
    kinds = [(kind, "normal") for kind, n in TOKENS.items() for _ in range(n)]
    kinds += [("dud", listing) for listing, n in UNLISTED.items() for _ in range(n)]
    first, last = BEGIN_MS + 10 * HOUR_MS, END_MS - 30 * HOUR_MS  # no call before January or after June
    spacing = (last - first) / len(kinds)
    tokens = []
    for i, k in enumerate(_shuffled(rng, len(kinds))):
        kind, listing = kinds[k]
        tokens.append(_Token(_mint(rng), kind, listing, int(first + (i + rng.random()) * spacing)))
    return tokens


def _mint(rng: np.random.Generator) -> str:
    letters = (rng.random(44 - len(MINT_PREFIX)) * len(BASE58)).astype(np.int64)
    return MINT_PREFIX + "".join(BASE58[i] for i in letters)


def _shuffled(rng: np.random.Generator, n: int) -> Times:
    # Not `permutation`: only the bits of a stream are promised to stay the same in later versions of numpy.
    return np.argsort(rng.random(n), kind="stable")


def _calls(rng: np.random.Generator, tokens: list[_Token]) -> tuple[Times, Times, Times]:
    """(index of the caller, index of the token, alert_ts_ms) of every call, by time; a caller calls a token once."""
    pools = {kind: np.array([i for i, t in enumerate(tokens) if t.kind == kind]) for kind in TOKENS}
    events = np.array([t.event_ms for t in tokens])
    callers, called, alerts = [], [], []
    for number, caller in enumerate(CALLERS):
        picked = np.concatenate(
            [pools[kind][_shuffled(rng, len(pools[kind]))[:n]] for kind, n in _picks(caller).items()]
        )
        hours = caller.from_h + (caller.to_h - caller.from_h) * rng.random(len(picked))
        callers.append(np.full(len(picked), number))
        called.append(picked)
        alerts.append(events[picked] + (hours * HOUR_MS).astype(np.int64))
    caller_of, token_of, alert_ms = np.concatenate(callers), np.concatenate(called), np.concatenate(alerts)
    order = np.argsort(alert_ms, kind="stable")
    return caller_of[order], token_of[order], alert_ms[order]


def _picks(caller: Caller) -> dict[str, int]:
    """How many tokens of each kind a caller calls."""
    shares = {"pump": caller.pump, "trend": caller.trend, "rug": caller.rug, "dead": caller.dead}
    picks = {kind: round(caller.calls * share / 100) for kind, share in shares.items()}
    return picks | {"dud": caller.calls - sum(picks.values())}


def _calls_table(tokens: list[_Token], caller: Times, token: Times, alert_ms: Times) -> pa.Table:
    iso = np.datetime_as_string(alert_ms.astype("datetime64[ms]"), unit="ms")
    return pa.table(
        {
            "caller_name": [CALLERS[i].name for i in caller],
            "mint": [tokens[i].mint for i in token],
            "chain": ["solana"] * len(token),
            "alert_ts_ms": alert_ms,
            "created_at": [f"{t}Z" for t in iso],
            "source": [SOURCE] * len(token),
        }
    )


def _candles_table(rng: np.random.Generator, tokens: list[_Token], token: Times, alert_ms: Times) -> pa.Table:
    mints, parts = [], []
    for i, t in enumerate(tokens):
        alerts = alert_ms[token == i]
        if t.listing == "never" or not len(alerts):
            continue
        mints.append(t.mint)
        parts.append(_token_candles(rng, t, int(alerts[0]), int(alerts[-1])))
    sizes = [len(part[0]) for part in parts]
    ts = np.concatenate([part[0] for part in parts])
    prices = [_significant(np.concatenate([part[c] for part in parts])) for c in range(1, 5)]
    volume = np.rint(np.concatenate([part[5] for part in parts]) * 100) / 100
    _spoil(rng, ts, *prices)
    mint = pa.DictionaryArray.from_arrays(np.repeat(np.arange(len(mints), dtype=np.int32), sizes), mints)
    columns = [mint.cast(pa.string()), ts, *prices, volume]
    return pa.table(columns, names=["mint", "ts_ms", "open", "high", "low", "close", "volume"])


def _token_candles(
    rng: np.random.Generator, token: _Token, first_ms: int, last_ms: int
) -> tuple[Times, Floats, Floats, Floats, Floats, Floats]:
    """One token's (ts, open, high, low, close, volume), from hours before its event and calls to days after them."""
    early = (5 + 3 * rng.random()) * HOUR_MS
    begin = last_ms + early if token.listing == "late" else min(first_ms, token.event_ms) - early
    end = last_ms + (90 + 24 * rng.random()) * HOUR_MS
    ts = np.arange(int(begin) // STEP_MS * STEP_MS, min(int(end), END_MS), STEP_MS)
    hours = (ts - token.event_ms) / HOUR_MS
    shape = _SHAPES[token.kind](rng, hours)
    kept = _traded(rng, hours, shape.last_h)
    ts, level, spread = ts[kept], shape.level[kept], shape.spread[kept]
    open_, close = _opens_and_closes(rng, token.kind, ts, level, spread)
    high = np.maximum(open_, close) * _wick(rng, spread)
    low = np.minimum(open_, close) / _wick(rng, spread)
    volume = 20_000 * spread * level / (0.05 + rng.random(len(ts)))
    return ts, open_, high, low, close, volume


def _opens_and_closes(
    rng: np.random.Generator, kind: str, ts: Times, level: Floats, spread: Floats
) -> tuple[Floats, Floats]:
    """A random walk around the level. A pool's price moves by trades alone, so a candle opens where the last closed."""
    scale = np.array([1e-6, 1e-5, 1e-4, 1e-3])[int(4 * rng.random())] * (1 + 9 * rng.random())
    close = scale * level * np.cumprod(1 + spread * _shock(rng, len(ts)))
    missing = np.minimum(np.diff(ts) / STEP_MS - 1, 6)
    open_ = close.copy()
    open_[1:] = close[:-1] * (1 + (0.001 + 0.006 * missing) * _shock(rng, len(ts) - 1))
    if kind == "rug" and rng.random() < 0.2:
        falls = np.diff(level, prepend=level[0]) < -0.5 * level[0]
        open_[falls] = close[falls] * 1.1  # the pool was drained between two candles: no stop is filled on the way
    return open_, close


def _wick(rng: np.random.Generator, spread: Floats) -> Floats:
    return 1 + 0.6 * spread * np.abs(_shock(rng, len(spread)))


def _traded(rng: np.random.Generator, hours: Floats, last_h: float) -> npt.NDArray[np.bool_]:
    """Which candles exist: thin tokens miss some at random, a third falls silent for hours, all end at `last_h`."""
    density = 0.75 + 0.24 * rng.random()
    busy = 1 / (1 + hours * hours / 36)
    kept = rng.random(len(hours)) < density + (0.995 - density) * busy
    silent_from, silent_h = 20 + 40 * rng.random(), 1 + 4 * rng.random()
    if rng.random() < 1 / 3:
        kept &= (hours < silent_from) | (hours >= silent_from + silent_h)
    return kept & (hours < last_h)


def _shock(rng: np.random.Generator, n: int) -> Floats:
    """Heavy-tailed deviates of spread about 1, at most 4.2: Student's t of two degrees of freedom, its ends cut off."""
    u = 0.98 * (2 * rng.random(n) - 1)
    return 0.85 * u / np.sqrt(1 - u * u)


def _rise(hours: Floats, duration: float) -> Floats:
    """From 0 to 1 during the first `duration` hours, smoothly."""
    s = np.clip(hours / duration, 0, 1)
    return s * s * (3 - 2 * s)


def _fade(hours: Floats, rest: float, half_life: float) -> Floats:
    """From 1 at hour 0 towards `rest`, quickly at first."""
    return rest + (1 - rest) / (1 + np.maximum(hours, 0) / half_life)


def _pump(rng: np.random.Generator, hours: Floats) -> _Shape:
    peak = min(12.0, 2.0 / float(np.sqrt(1 - rng.random())))  # a Pareto tail: one in four goes past 4x
    duration = 0.8 + 4.2 * rng.random()
    after = hours - duration
    level = (1 + (peak - 1) * _rise(hours, duration)) * _fade(after, 0.1 + 0.3 * rng.random(), 2 + 8 * rng.random())
    # A shakeout on the way up: a stop that trails tightly is thrown out before the peak.
    middle, depth = duration * (0.3 + 0.5 * rng.random()), 0.15 + 0.4 * rng.random()
    level *= 1 - depth * np.clip(1 - np.abs(hours - middle) / (0.25 * duration), 0, 1)
    return _Shape(level, 0.011 + 0.036 / (1 + after * after / 9), np.inf)


def _trend(rng: np.random.Generator, hours: Floats) -> _Shape:
    peak, duration = 1.25 + rng.random(), 18 + 40 * rng.random()
    level = (1 + (peak - 1) * np.clip(hours / duration, 0, 1)) * _fade(hours - duration, 0.5, 20)
    return _Shape(level, np.full(len(hours), 0.011), np.inf)


def _rug(rng: np.random.Generator, hours: Floats) -> _Shape:
    peak, left = 1.1 + 1.1 * rng.random(), 0.03 + 0.06 * rng.random()
    level = (1 + (peak - 1) * _rise(hours + 10, 10)) * np.where(hours >= 0, left, 1)
    lingers = rng.random() < 0.5
    return _Shape(level, np.full(len(hours), 0.014), 24 + 60 * rng.random() if lingers else 2 + 16 * rng.random())


def _dud(rng: np.random.Generator, hours: Floats) -> _Shape:
    level = _fade(hours + 6, 0.2 + 0.4 * rng.random(), 15 + 40 * rng.random())
    return _Shape(level, np.full(len(hours), 0.010 + 0.006 * rng.random()), np.inf)


def _dead(rng: np.random.Generator, hours: Floats) -> _Shape:
    level = _fade(hours + 6, 0.05 + 0.2 * rng.random(), 8 + 12 * rng.random())
    return _Shape(level, np.full(len(hours), 0.014), 20 + 25 * rng.random())


_SHAPES = {"pump": _pump, "trend": _trend, "rug": _rug, "dud": _dud, "dead": _dead}


def _significant(prices: Floats) -> Floats:
    """Prices rounded to seven significant digits."""
    digits = DIGITS[np.searchsorted(DECADES, prices, side="right")]
    return np.rint(prices * digits) / digits


def _spoil(rng: np.random.Generator, ts: Times, open_: Floats, high: Floats, low: Floats, close: Floats) -> None:
    """Make a few rows invalid, each in one of four ways that ingest must refuse."""
    rows = np.unique((rng.random(INVALID_ROWS) * len(ts)).astype(np.int64))
    high[rows[0::4]] = low[rows[0::4]] / 2
    open_[rows[1::4]] = 0.0
    close[rows[2::4]] = np.nan
    ts[rows[3::4]] += 61_000
