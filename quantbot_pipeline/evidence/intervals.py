"""Confidence intervals of rates: how little a few calls say."""

import math

Z95 = 1.959963984540054  # the 97.5th percentile of the normal distribution


def wilson(hits: int, n: int) -> tuple[float, float] | None:
    """The 95% Wilson score interval of `hits` out of `n`, in [0, 1]; None without observations.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", 1927. Unlike the usual
    p ± z*se it stays inside [0, 1] and is honest at 0 or n hits.
    """
    if not n:
        return None
    rate, z2 = hits / n, Z95 * Z95
    centre = rate + z2 / (2 * n)
    spread = Z95 * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n))
    low, high = (centre - spread) / (1 + z2 / n), (centre + spread) / (1 + z2 / n)
    return (0.0 if hits == 0 else low), (1.0 if hits == n else high)
