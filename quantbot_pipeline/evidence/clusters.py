"""Sums over the days of the entries: calls of one day share their market."""

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.evidence.intervals import Z95

Floats = npt.NDArray[np.float64]
DAY_MS = 86_400_000


def by_day(entry: npt.NDArray[np.int64], x: Floats) -> tuple[Floats, Floats]:
    """Return (S, c): sums over each UTC day, ascending, of the columns of x (n, P), and how many calls there are."""
    days, place = np.unique(entry // DAY_MS, return_inverse=True)
    order = np.argsort(place, kind="stable")
    counts = np.bincount(place, minlength=len(days))
    sums = np.add.reduceat(x[order], np.cumsum(counts) - counts, axis=0) if len(days) else np.empty((0, x.shape[1]))
    return sums, counts.astype(float)


def cluster_error(sums: Floats, counts: Floats, mean: Floats) -> Floats:
    """Return the standard error of each mean; needs two clusters."""
    groups = len(counts)
    left = sums - mean * counts[:, None]
    made: Floats = np.sqrt(groups / (groups - 1) * (left**2).sum(axis=0)) / counts.sum()
    return made


def day_interval(entry: npt.NDArray[np.int64], values: Floats) -> tuple[float, float] | None:
    """Return the 95 % interval of a mean; its standard error is over the UTC days of the entries. None with fewer than two days."""
    sums, counts = by_day(entry, values[:, None])
    if len(counts) < 2:
        return None
    mean = float(values.mean())
    error = float(cluster_error(sums, counts, np.array([mean]))[0])
    return mean - Z95 * error, mean + Z95 * error
