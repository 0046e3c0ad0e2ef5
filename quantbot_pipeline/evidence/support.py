"""In-sample support of a caller's best rules: tests that care for the many rules tried. It is never the verdict.

Sources: docs/evidence.md, "In-sample support"; Hansen, "A test for superior predictive ability", 2005; Romano and Wolf,
"Stepwise multiple testing as formalized data snooping", 2005; Bailey and López de Prado, "The deflated Sharpe ratio", 2014.
"""

import hashlib
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.evidence.clusters import by_day, cluster_error
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
    """Return the support of a caller. x: (n, P) without hurdle; text_order: the byte order of the policies' texts."""
    spa, stepm = _resampled(name, entry, x, rules)
    return Support(spa, stepm, deflated_sharpe(x, text_order))


def draw_counts(name: str, groups: int, rules: EvidenceRules) -> Floats:
    """Return how often each draw takes each cluster, (draws, groups); a function of the seed and the name alone."""
    digest = hashlib.sha256(f"{rules.seed}|spa|{name}".encode()).digest()
    words = np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(rules.draws * groups)
    drawn = (((words >> np.uint64(32)) * np.uint64(groups)) >> np.uint64(32)).astype(np.int64)
    place = drawn.reshape(rules.draws, groups) + np.arange(rules.draws)[:, None] * groups
    return np.bincount(place.ravel(), minlength=rules.draws * groups).reshape(rules.draws, groups).astype(float)


def _resampled(name: str, entry: Ints, x: Floats, rules: EvidenceRules) -> tuple[float | None, int | None]:
    sums, counts = by_day(entry, x)
    if len(counts) < MIN_DAYS:
        return None, None
    # One more call that loses everything: a sample that has not met its first rug proves too much.
    sums, counts = np.vstack([sums, np.full((1, x.shape[1]), -1.0)]), np.append(counts, 1.0)
    groups = len(counts)
    mean = sums.sum(axis=0) / counts.sum()
    error = np.maximum(LEAST_ERROR, cluster_error(sums, counts, mean))
    t = mean / error
    drawn = draw_counts(name, groups, rules)
    # In units of each policy's error, and in place: these arrays are draws times policies large.
    scaled = (drawn / (drawn @ counts)[:, None]) @ (sums / error)
    centre = np.where(t >= -math.sqrt(2 * math.log(math.log(groups))), mean, 0.0)
    best = max(0.0, float(t.max()))
    drawn_best = np.maximum(0.0, (scaled - centre / error).max(axis=1))
    p = (1 + int((drawn_best >= best).sum())) / (rules.draws + 1)
    scaled -= t
    return p, _stepm(t, scaled)


def _stepm(t: Floats, drawn: Floats) -> int:
    """Return how many policies are rejected, step after step."""
    left = np.ones(len(t), bool)
    while left.any():
        rejected = left & (t > np.quantile((drawn if left.all() else drawn[:, left]).max(axis=1), LEVEL))
        if not rejected.any():
            break
        left &= ~rejected
    return int((~left).sum())


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
