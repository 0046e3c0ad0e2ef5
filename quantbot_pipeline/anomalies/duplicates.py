"""`duplicate_series`: two mints with the same price steps, whatever the price unit. Source: docs/anomalies.md."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from quantbot_pipeline.anomalies.findings import DAY_MS, PAIR, Finding, Series, Span, steps_of, utc

KIND = "duplicate_series"
CANDLES = 48  # of a UTC day
DIFFERENT = 24  # steps among them
DECIMALS = 6  # of a log step

Print = tuple[int, bytes]  # a UTC day, in days since 1970, and a digest of times and steps


def day_prints(candles: Series, span: Span) -> list[Print]:
    """Return a print of each UTC day of the month with 48 candles or more and 24 different steps or more.

    Two tokens have the same print if the day's candles have the same times, and log steps that are equal when rounded to 1e-6.
    """
    first = int(np.searchsorted(candles.ts, span.start))
    if len(candles.ts) - first < CANDLES:
        return []
    ts = candles.ts[first:]
    steps = np.round(steps_of(candles.close[first:]), DECIMALS) + 0.0  # no negative zero
    cuts = np.flatnonzero(np.diff(ts // DAY_MS)) + 1
    prints = []
    for begin, end in zip([0, *cuts.tolist()], [*cuts.tolist(), len(ts)], strict=True):
        own = steps[begin : end - 1]
        if end - begin >= CANDLES and len(np.unique(own)) >= DIFFERENT:
            digest = hashlib.blake2b(ts[begin:end].tobytes() + own.tobytes(), digest_size=16).digest()
            prints.append((int(ts[begin]) // DAY_MS, digest))
    return prints


def duplicates(prints: Mapping[str, Sequence[Print]]) -> Iterator[Finding]:
    """Yield one finding for each pair of mints with equal days; of several equal mints the first stands beside each other.

    prints: what `day_prints` gives, by mint.
    """
    owners: dict[Print, list[str]] = {}
    for mint in sorted(prints):
        for own in prints[mint]:
            owners.setdefault(own, []).append(mint)
    days: dict[tuple[str, str], list[int]] = {}
    for (day, _), mints in owners.items():
        for other in mints[1:]:
            days.setdefault((mints[0], other), []).append(day)
    for (mint, other), equal in sorted(days.items()):
        yield _finding(mint, other, sorted(equal))


def _finding(mint: str, other: str, days: list[int]) -> Finding:
    begin, end = days[0] * DAY_MS, (days[-1] + 1) * DAY_MS
    counted = "1 day" if len(days) == 1 else f"{len(days)} days"
    return Finding(
        KIND,
        PAIR,
        mint,
        begin,
        end,
        float(len(days)),
        1.0,
        f"Both tokens have the same price steps on {counted} from {utc(begin)[:10]} on: one of them is a copy.",
        {"days": [utc(day * DAY_MS)[:10] for day in days]},
        other=other,
        tokens=(mint, other),
    )
