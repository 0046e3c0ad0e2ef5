"""Types and small formulas that every file of this room uses."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

FAR = 30.0  # a logit beyond it is a probability that a double cannot tell from 0 or 1


def expit(logit: Floats) -> Floats:
    """Return probabilities in (0, 1) of logits; the same bits for a call alone and among others."""
    return 1.0 / (1.0 + np.exp(-np.clip(logit, -FAR, FAR)))


def base_logit(hits: float, calls: int) -> float:
    """Return the logit of the rate `(hits + 0.5) / (calls + 1)`."""
    return float(np.log((hits + 0.5) / (calls - hits + 0.5)))


def logit(probability: Floats) -> Floats:
    """Return the logits of probabilities in (0, 1)."""
    return np.log(probability / (1.0 - probability))


def known(values: Floats) -> Floats:
    """Return the values that are not missing."""
    return values[~np.isnan(values)]


def range_of(x: Floats) -> tuple[Floats, Floats]:
    """Return the 1st and the 99th percentile of each column, shape (F,); NaN for a column without values."""
    low, high = np.full(x.shape[1], np.nan), np.full(x.shape[1], np.nan)
    for column in range(x.shape[1]):
        values = known(x[:, column])
        if len(values):
            low[column], high[column] = np.quantile(values, [0.01, 0.99])
    return low, high


def telling(x: Floats) -> Ints:
    """Return the columns with two different values or more; the others tell nothing."""
    return np.array([j for j in range(x.shape[1]) if len(np.unique(known(x[:, j]))) > 1], np.int64)
