"""The candle detectors in plain Python, candle by candle: the shortest exact description of docs/anomalies.md.

Every function returns {(subject, other, from, to): (score, limit)}.
"""

import math
from collections.abc import Sequence
from statistics import median

import numpy as np

from quantbot_pipeline.anomalies.findings import DAY_MS, Finding, Series, Span

Told = dict[tuple[str, str | None, int, int], tuple[float, float]]
WEEK = 7 * DAY_MS


def told(findings: Sequence[Finding], kind: str) -> Told:
    """Return findings of a kind in the oracle's words."""
    return {(f.subject, f.other, f.from_ts, f.to_ts): (f.score, f.limit) for f in findings if f.kind == kind}


def price_spike(c: Series, span: Span) -> Told:
    found: Told = {}
    steps = [math.nan] + [abs(math.log(c.close[i] / c.close[i - 1])) for i in range(1, len(c.ts))]
    for i in range(1, len(c.ts) - 1):
        near = all(c.ts[j + 1] - c.ts[j] <= 6 * span.interval_ms for j in (i - 1, i))
        if not near or c.ts[i + 1] < span.start:
            continue
        factor = max(c.high[i] / max(c.high[i - 1], c.high[i + 1]), min(c.low[i - 1], c.low[i + 1]) / c.low[i])
        usual = [steps[j] for j in range(1, i)][-288:]
        if factor < 1.5 or len(usual) < 24:
            continue
        moving = [steps[j] for j in range(1, i) if c.ts[j - 1] >= c.ts[i] - WEEK and steps[j] > 0]
        quartile = float(np.quantile(moving, 0.25)) if moving else 0.0
        sigma = max(1.4826 * median(usual), 5e-4, quartile)
        if math.log(factor) >= 12 * sigma:
            limit = max(math.log(1.5), 12 * sigma)
            found[c.mint, None, int(c.ts[i]), int(c.ts[i]) + span.interval_ms] = (math.log(factor), limit)
    return found


def unit_change(c: Series, span: Span) -> Told:
    found: Told = {}
    for i in range(24, len(c.ts) - 23):
        jump = math.log(c.open[i] / c.close[i - 1])
        if abs(jump) < math.log(4) - 1e-12 or c.ts[i + 23] < span.start:
            continue
        moved = math.log(median(c.close[i : i + 24]) / median(c.close[i - 24 : i]))
        if abs(moved - jump) <= 0.35 * abs(jump):
            found[c.mint, None, int(c.ts[i - 1]), int(c.ts[i])] = (abs(jump), math.log(4))
    return found


def flat_line(c: Series, span: Span) -> Told:
    found: Told = {}
    run: list[int] = []
    for i in range(1, len(c.ts) + 1):
        still = i < len(c.ts) and c.open[i] == c.high[i] == c.low[i] == c.close[i] == c.close[i - 1] and c.volume[i] > 0
        if run and (not still or c.ts[i] - c.ts[i - 1] > 4 * span.interval_ms):
            end = int(c.ts[run[-1]]) + span.interval_ms
            if len(run) >= 24 and end > span.start:
                found[c.mint, None, int(c.ts[run[0]]), end] = (float(len(run)), 24.0)
            run = []
        if still:
            run.append(i)
    return found


def wash_volume(c: Series, span: Span) -> Told:
    length = 12 * span.interval_ms
    blocks: dict[int, list[int]] = {}
    for i, ts in enumerate(c.ts.tolist()):
        blocks.setdefault(ts // length, []).append(i)

    def pressure(rows: Sequence[int], volume: float) -> float:
        reach = math.log(max(c.high[i] for i in rows) / min(c.low[i] for i in rows))
        return math.log(volume) - math.log(max(reach, 1e-4))

    volumes = {at: 12 * sum(c.volume[i] for i in rows) / len(rows) for at, rows in blocks.items()}
    hits = []
    for i in range(len(c.ts) - 11):
        rows = range(i, i + 12)
        at, volume = int(c.ts[i]) // length, sum(c.volume[j] for j in rows)
        week = [b for b in volumes if at - WEEK // length <= b < at and not math.isnan(volumes[b])]
        if c.ts[i + 11] < span.start or c.ts[i + 11] - c.ts[i] >= 18 * span.interval_ms or len(week) < 48:
            continue
        usual = median(volumes[b] for b in week)
        if not volume >= 8 * usual > 0:
            continue
        known = [pressure(blocks[b], volumes[b]) for b in week if volumes[b] > 0]
        if len(known) < 48:
            continue
        middle = median(known)
        limit = middle + 8 * 1.4826 * median(abs(k - middle) for k in known)
        if pressure(rows, volume) >= limit:
            hits.append((i, pressure(rows, volume), limit))
    found: Told = {}
    while hits:
        own = [hits.pop(0)]
        while hits and hits[0][0] - own[-1][0] < 12:
            own.append(hits.pop(0))
        _, score, limit = max(own, key=lambda hit: hit[1] - hit[2])
        end = int(c.ts[own[-1][0] + 11]) + span.interval_ms
        found[c.mint, None, int(c.ts[own[0][0]]), end] = (score, limit)
    return found


def holes(c: Series, span: Span) -> list[tuple[int, int]]:
    pairs = zip(c.ts[:-1].tolist(), c.ts[1:].tolist(), strict=True)
    return [(a + span.interval_ms, b) for a, b in pairs if b - a > span.interval_ms]


def outage(tokens: Sequence[Series], span: Span) -> tuple[Told, dict[int, set[str]]]:
    """Return the outages of the month, and {begin: tokens} of all that the data show."""
    step = span.interval_ms
    long = [(b, e, c.mint) for c in tokens for b, e in holes(c, span) if e - b >= 6 * step]
    windows = {b: [h for h in long if b <= h[0] <= b + step] for b, *_ in long}
    found: Told = {}
    all_of: dict[int, set[str]] = {}
    for begin, mine in sorted(windows.items(), key=lambda item: (-len(item[1]), item[0])):
        if any(abs(begin - other) <= 2 * step for other in all_of):
            continue
        alive = sum(any(begin - DAY_MS <= ts < begin for ts in c.ts.tolist()) for c in tokens)
        needed = max(5, math.ceil(alive / 2))
        if len(mine) < needed:
            continue
        all_of[begin] = {mint for *_, mint in mine}
        back = sorted(e for _, e, _ in mine)[needed - 1]
        if back >= span.start:
            found["all tokens", None, begin, back] = (float(len(mine)), float(needed))
    return found, all_of


def gap(c: Series, outages: dict[int, set[str]], span: Span) -> Told:
    found: Told = {}
    step = span.interval_ms
    left = [
        (b, e)
        for b, e in holes(c, span)
        if e >= span.start and not any(c.mint in mints and at <= b <= at + step for at, mints in outages.items())
    ]
    for b, e in left:
        n = (e - b) // step
        shorter = [(y - x) // step for x, y in left if (y - x) // step < n]
        mean = sum(shorter) / len(shorter) if shorter else 1.0
        expected = len(left) * (1 - 1 / mean) ** (n - 1)
        if n > 6 and expected < 0.01:
            found[c.mint, None, b, e] = (float(n), 0.0)
    return found


def duplicate_series(tokens: Sequence[Series], span: Span) -> dict[tuple[str, str], list[int]]:
    """Return the equal days (since 1970) of every pair with one."""
    days: dict[tuple[str, int], tuple[object, ...]] = {}
    for c in tokens:
        for day in range(span.start // DAY_MS, span.end // DAY_MS):
            rows = [i for i, ts in enumerate(c.ts.tolist()) if ts // DAY_MS == day]
            steps = [round(math.log(c.close[i] / c.close[i - 1]), 6) for i in rows[1:]]
            if len(rows) >= 48 and len(set(steps)) >= 24:
                days[c.mint, day] = (tuple(int(c.ts[i]) for i in rows), tuple(steps))
    found: dict[tuple[str, str], list[int]] = {}
    for (mint, day), own in days.items():
        for (other, its), print_ in days.items():
            if mint < other and day == its and own == print_:
                found.setdefault((mint, other), []).append(day)
    return found


def time_shift(tokens: Sequence[Series], span: Span) -> dict[tuple[str, int], int]:
    """Return {(mint, lag in candles): weeks that say so}, two at least."""
    size = WEEK // span.interval_ms
    farthest = min(14 * 3_600_000 // span.interval_ms, size // 2)
    said: dict[tuple[str, int], int] = {}
    for week in range(4):
        begin = span.start + week * WEEK
        if begin + WEEK > span.end:
            break
        matrix = np.array([_week(c, begin, size, span) for c in tokens])
        for row, c in enumerate(tokens):
            others = np.delete(matrix, row, axis=0)
            market = [float(np.median(v[~np.isnan(v)])) if (~np.isnan(v)).sum() >= 4 else math.nan for v in others.T]
            lag = _best_lag(matrix[row], np.array(market), farthest)
            if lag is not None:
                said[c.mint, lag] = said.get((c.mint, lag), 0) + 1
    return {key: weeks for key, weeks in said.items() if weeks >= 2}


def _week(c: Series, begin: int, size: int, span: Span) -> list[float]:
    close = dict(zip(c.ts.tolist(), c.close.tolist(), strict=True))
    at = [begin + i * span.interval_ms for i in range(size)]
    inside = lambda ts: ts - span.interval_ms >= span.start and ts in close and ts - span.interval_ms in close
    steps = [
        float(np.float32(math.log(close[ts] / close[ts - span.interval_ms]))) if inside(ts) else math.nan for ts in at
    ]
    known = [s for s in steps if not math.isnan(s)]
    if len(known) < size / 2:
        return [math.nan] * size
    limit = 4 * float(np.std(known))
    return [max(-limit, min(limit, s)) if not math.isnan(s) else s for s in steps]


def _best_lag(
    own: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    market: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    farthest: int,
) -> int | None:
    n = int((~np.isnan(own) & ~np.isnan(market)).sum())
    if n < len(own) / 2:
        return None
    x, y = np.nan_to_num(own - np.nanmean(own)), np.nan_to_num(market - np.nanmean(market))
    scale = math.sqrt(float((x * x).sum() * (y * y).sum()))
    r = {
        lag: sum(x[t] * y[t - lag] for t in range(len(x)) if 0 <= t - lag < len(y)) / scale
        for lag in range(-farthest, farthest + 1)
    }
    best = max((lag for lag in r if lag), key=lambda lag: r[lag])
    return best if r[best] >= 0.25 and (r[best] - r[0]) * math.sqrt(n) >= 6 else None


def interval_mismatch(coarse: Series, fine: Series, coarse_ms: int, fine_ms: int) -> tuple[int, int]:
    """Return (candles compared, candles that differ)."""
    by_ts = {ts: i for i, ts in enumerate(fine.ts.tolist())}
    compared = differ = 0
    for i, ts in enumerate(coarse.ts.tolist()):
        rows = [by_ts.get(ts + k * fine_ms, -1) for k in range(coarse_ms // fine_ms)]
        if min(rows) < 0:
            continue
        compared += 1
        made = (fine.open[rows[0]], max(fine.high[rows]), min(fine.low[rows]), fine.close[rows[-1]])
        given = (coarse.open[i], coarse.high[i], coarse.low[i], coarse.close[i])
        differ += any(abs(a / b - 1) > 0.01 for a, b in zip(made, given, strict=True))
    return compared, differ
