"""Wilson intervals: known values, and that they never leave [0, 1] or exclude the rate."""

import pytest

from quantbot_pipeline.evidence.intervals import wilson


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_published_values(hits: int, n: int, low: float, high: float) -> None:
    assert wilson(hits, n) == pytest.approx((low, high), abs=5e-5)


def test_bounds_hold_the_rate() -> None:
    for n in range(1, 40):
        for hits in range(n + 1):
            low, high = wilson(hits, n) or (2.0, -1.0)
            assert 0 <= low <= hits / n <= high <= 1


def test_nothing_observed_says_nothing() -> None:
    assert wilson(0, 0) is None
