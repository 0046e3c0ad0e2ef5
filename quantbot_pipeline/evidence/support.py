"""In-sample support of a caller's best rules: tests that care for the many rules tried. It is never the verdict.

Sources: docs/evidence.md, "In-sample support"; Hansen, "A test for superior predictive ability", 2005; Romano and Wolf,
"Stepwise multiple testing as formalized data snooping", 2005; Bailey and López de Prado, "The deflated Sharpe ratio", 2014.
"""

import hashlib
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.compiled import compiled
from quantbot_pipeline.evidence.clusters import DAY_MS, by_day, cluster_error
from quantbot_pipeline.evidence.rules import EvidenceRules

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
MIN_DAYS, LEVEL, LEAST_ERROR = 5, 0.95, 1e-12
MIN_SHARPE, LEAST_VARIANCE, EULER = 10, 1e-9, 0.5772156649015329


class Support(NamedTuple):
    """The p-value of the best rule (SPA), how many rules StepM leaves, and the deflated Sharpe ratio of the best."""

    spa_p: float | None
    stepm_policies: int | None
    deflated_sharpe: float | None


def support(name: str, entry: Ints, x: Floats, text_order: Ints, rules: EvidenceRules) -> Support:
    """Return the support of a caller. x: (P, n) without hurdle; text_order: the byte order of the policies' texts."""
    spa, stepm = _resampled(name, entry, x, rules)
    return Support(spa, stepm, deflated_sharpe(np.ascontiguousarray(x.T), text_order))


def draw_counts(name: str, groups: int, rules: EvidenceRules) -> Floats:
    """Return how often each draw takes each cluster, (draws, groups); a function of the seed and the name alone."""
    counts = np.zeros((rules.draws, groups))
    _count(random_words(f"{rules.seed}|spa|{name}", rules.draws * groups), counts)
    return counts


def random_words(label: str, count: int) -> npt.NDArray[np.uint64]:
    """Return so many random 64-bit words, a function of the label alone."""
    digest = hashlib.sha256(label.encode()).digest()
    words: npt.NDArray[np.uint64] = np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(count)
    return words


_kernel = compiled(error_model="numpy")


@_kernel
def _count(words: Any, counts: Any) -> None:
    draws, groups = counts.shape
    for b in range(draws):
        for i in range(groups):
            high = words[b * groups + i] >> np.uint64(32)
            counts[b, np.int64((high * np.uint64(groups)) >> np.uint64(32))] += 1.0


@_kernel
def _greatest(drawn: Any, less: Any, out: Any) -> None:
    """Fill `out` (draws, 2) with the greatest of each draw's values, less each row of `less` (2, P)."""
    for b in range(len(drawn)):
        for k in range(2):
            out[b, k] = drawn[b, 0] - less[k, 0]
            for p in range(1, drawn.shape[1]):
                out[b, k] = max(out[b, k], drawn[b, p] - less[k, p])


def _distinct(x: Floats) -> tuple[Ints, Ints]:
    """Return one policy of all those that earn the same on every call, and how many these are: half of a grid, often."""
    rows = np.ascontiguousarray(x).view(np.dtype((np.void, 8 * x.shape[1]))).ravel()
    _, first, count = np.unique(rows, return_index=True, return_counts=True)
    return first, count


def _resampled(name: str, entry: Ints, x: Floats, rules: EvidenceRules) -> tuple[float | None, int | None]:
    if len(np.unique(entry // DAY_MS)) < MIN_DAYS:
        return None, None
    first, alike = _distinct(x)
    sums, counts = by_day(entry, np.ascontiguousarray(x[first].T))
    # One more call that loses everything: a sample that has not met its first rug proves too much.
    sums, counts = np.vstack([sums, np.full((1, len(first)), -1.0)]), np.append(counts, 1.0)
    groups = len(counts)
    mean = sums.sum(axis=0) / counts.sum()
    error = np.maximum(LEAST_ERROR, cluster_error(sums, counts, mean))
    t = mean / error
    taken = draw_counts(name, groups, rules)
    taken /= (taken @ counts)[:, None]
    drawn = taken @ (sums / error)  # in units of each policy's error
    centre = np.where(t >= -math.sqrt(2 * math.log(math.log(groups))), mean, 0.0)
    greatest = np.empty((rules.draws, 2))
    _greatest(drawn, np.array([centre / error, t]), greatest)
    best = max(0.0, float(t.max()))
    p = (1 + int((np.maximum(0.0, greatest[:, 0]) >= best).sum())) / (rules.draws + 1)
    return p, _stepm(t, alike, drawn, greatest[:, 1])


def _stepm(t: Floats, alike: Ints, drawn: Floats, greatest: Floats) -> int:
    """Return how many policies are rejected, step after step. greatest: of each draw, less t, over all of them."""
    left = np.ones(len(t), bool)
    while left.any():
        rejected = left & (t > np.quantile(greatest, LEVEL))
        if not rejected.any():
            break
        left &= ~rejected
        greatest = (drawn[:, left] - t[left]).max(axis=1) if left.any() else greatest
    return int(alike[~left].sum())


def deflated_sharpe(x: Floats, text_order: Ints) -> float | None:
    """Return the probability that the best policy's Sharpe ratio is more than luck among so many; None if undefined."""
    from scipy.special import ndtr, ndtri

    n, policies = x.shape
    if n < MIN_SHARPE or policies < 2:
        return None
    varies = x.max(axis=0) > x.min(axis=0)
    sd = np.where(varies, x.std(axis=0, ddof=1), 1.0)
    ratio = np.where(varies, x.mean(axis=0) / sd, 0.0)
    order = np.argsort(text_order)
    best = int(order[np.argmax(ratio[order])])
    if not varies[best]:
        return None
    luck = (1 - EULER) * ndtri(1 - 1 / policies) + EULER * ndtri(1 - 1 / (policies * math.e))
    off = x[:, best] - x[:, best].mean()
    variance = (off**2).mean()
    skew, kurtosis = (off**3).mean() / variance**1.5, (off**4).mean() / variance**2
    sharpe = float(ratio[best])
    width = math.sqrt(max(LEAST_VARIANCE, 1 - skew * sharpe + (kurtosis - 1) / 4 * sharpe**2))
    return float(ndtr((sharpe - ratio[order].std(ddof=1) * luck) * math.sqrt(n - 1) / width))
