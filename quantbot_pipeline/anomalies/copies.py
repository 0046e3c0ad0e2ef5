"""`copied_calls`: a caller that follows another one more often than chance lets it. Source: docs/anomalies.md."""

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from quantbot_pipeline.anomalies.calls import Calls
from quantbot_pipeline.anomalies.findings import PAIR, Finding, Ints, Span

KIND = "copied_calls"
HOUR_MS = 3_600_000
SHUFFLES = 200
LEAST = 6  # times
FALSE_SHARE = 0.01  # of the pairs that are told (Benjamini-Hochberg)
NEAREST = 50  # calls before one that are looked at


def copied_calls(calls: Calls, span: Span) -> Iterator[Finding]:
    """Yield pairs (leader, follower) of which the second calls a token within an hour after the first, more often than chance.

    Chance is what callers would do that are shuffled within each mint's calls of the month: 200 shuffles, seed 0, a Poisson tail
    over their mean. Of a call the 50 calls before it are looked at.
    """
    from scipy.special import pdtrc

    rows = np.flatnonzero(calls.alert >= span.start - HOUR_MS)
    names, caller = np.unique(calls.caller[rows], return_inverse=True)
    mint = np.unique(calls.mint[rows], return_inverse=True)[1]
    before, after = _edges(mint, calls.alert[rows], span.start)
    if not len(before) or len(names) < 2:
        return
    seen = _followed(caller, before, after, len(names))
    mean = _by_chance(caller, mint, before, after, len(names), seen)
    p = {pair: float(pdtrc(n - 1, max(mean[pair], 1 / SHUFFLES))) for pair, n in seen.items()}
    limit = _limit(p, _pairs(caller, mint, len(names)))
    for pair in sorted(p, key=lambda pair: (names[pair[0]], names[pair[1]])):
        if p[pair] <= limit and seen[pair] >= LEAST:
            leader, follower = (str(names[i]) for i in pair)
            mine = np.unique(after[(caller[before] == pair[0]) & (caller[after] == pair[1])])
            yield _finding(leader, follower, rows[mine], calls.alert, mean[pair], p[pair])


def _edges(mint: Ints, alert: Ints, start: int) -> tuple[Ints, Ints]:
    """Return (earlier, later) positions of calls of one mint within an hour; the later one is of the month."""
    order = np.lexsort([np.arange(len(mint)), alert, mint])
    pairs = []
    for back in range(1, NEAREST + 1):
        one, other = order[:-back], order[back:]
        near = (mint[one] == mint[other]) & (alert[other] - alert[one] <= HOUR_MS)
        if not near.any():
            break
        near &= (alert[other] > alert[one]) & (alert[other] >= start)
        pairs.append((one[near], other[near]))
    if not pairs:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    before, after = (np.concatenate(part) for part in zip(*pairs, strict=True))
    return before, after


def _followed(caller: Ints, before: Ints, after: Ints, callers: int) -> Counter[tuple[int, int]]:
    """Return how many calls of the second caller came after one of the first, by (first, second)."""
    leader, follower = caller[before], caller[after]
    other = leader != follower
    # A call that follows two calls of one caller follows that caller once.
    once = np.unique(after[other] * callers + leader[other])
    return Counter(zip((once % callers).tolist(), caller[once // callers].tolist(), strict=True))


def _by_chance(
    caller: Ints, mint: Ints, before: Ints, after: Ints, callers: int, seen: Mapping[tuple[int, int], int]
) -> dict[tuple[int, int], float]:
    """Return the mean of what shuffled callers do, for the pairs that were seen."""
    rng = np.random.default_rng(0)
    total: Counter[tuple[int, int]] = Counter()
    by_mint = np.argsort(mint, kind="stable")
    for _ in range(SHUFFLES):
        shuffled = caller.copy()
        shuffled[by_mint] = caller[np.lexsort([rng.random(len(mint)), mint])]
        total.update(_followed(shuffled, before, after, callers))
    return {pair: total[pair] / SHUFFLES for pair in seen}


def _pairs(caller: Ints, mint: Ints, callers: int) -> int:
    """Return how many ordered pairs of callers have called a common mint: so many tests could have been made."""
    own = np.unique(mint.astype(np.int64) * callers + caller)
    groups: dict[int, list[int]] = {}
    for code in own.tolist():
        groups.setdefault(code // callers, []).append(code % callers)
    found: set[tuple[int, int]] = set()
    for members in groups.values():
        found.update((a, b) for a in members for b in members if a != b)
    return len(found)


def _limit(p: Mapping[tuple[int, int], float], tests: int) -> float:
    """Return the largest p that Benjamini-Hochberg accepts at 1 %; -1: none."""
    ordered = np.sort(np.fromiter(p.values(), np.float64, len(p)))
    good = np.flatnonzero(ordered <= FALSE_SHARE * np.arange(1, len(ordered) + 1) / tests)
    return float(ordered[good[-1]]) if len(good) else -1.0


def _finding(leader: str, follower: str, rows: Ints, alert: Ints, mean: float, p: float) -> Finding:
    times = alert[rows]
    return Finding(
        KIND,
        PAIR,
        leader,
        int(times.min()),
        int(times.max()) + 1,
        float(len(rows)),
        float(LEAST),
        f"The second caller called a token within an hour after the first one {len(rows)} times; {mean:.1f} were to be expected.",
        {"expected": mean, "p": p},
        other=follower,
        calls=tuple(rows.tolist()),
    )
