"""Sums over the days of the entries: calls of one day share their market."""

import numpy as np
import numpy.typing as npt

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
