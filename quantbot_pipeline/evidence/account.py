"""The account: what a fixed share of the cash, staked on every bet, becomes.

Source: docs/evidence.md, "Account". Under the null its mean is at most 1, and by Ville's inequality it reaches 1/alpha with
a probability of at most alpha, however often one looks.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.compiled import compiled
from quantbot_pipeline.evidence.rules import CROWDED_CASH

Floats = npt.NDArray[np.float64]
_kernel = compiled(error_model="numpy")


def wealth(entry: npt.NDArray[np.int64], closed: npt.NDArray[np.int64], payoff: Floats, fractions: Floats) -> Floats:
    """Return W of every fraction, shape (F,), for bets in their order; `payoff` is z of each."""
    made = np.empty(len(fractions))
    _wealth(entry, np.ascontiguousarray(closed), np.ascontiguousarray(payoff), fractions, made)
    return made


@_kernel
def _wealth(entry: Any, closed: Any, payoff: Any, fractions: Any, out: Any) -> None:
    head, link = closings(entry, closed)
    play(payoff, fractions, head, link, np.empty((len(payoff), len(fractions))), out)


@_kernel
def closings(entry: Any, closed: Any) -> Any:
    """Return which bets close before each bet, as linked lists: `head[i]`, then `link`; -1 ends a list."""
    n = len(entry)
    head, link = np.full(n + 1, -1, np.int64), np.empty(n, np.int64)
    for k in range(n):
        low, high, step = k + 1, k + 1, 1
        while high < n and entry[high] < closed[k]:  # most bets are closed a few bets later
            low, high, step = high + 1, high + step, 2 * step
        high = min(high, n)
        while low < high:
            middle = (low + high) // 2
            if entry[middle] >= closed[k]:
                high = middle
            else:
                low = middle + 1
        link[k] = head[low]
        head[low] = k
    return head, link


@_kernel
def play(payoff: Any, fractions: Any, head: Any, link: Any, stake: Any, out: Any) -> None:
    """Fill `out` (F,) with W of every fraction. stake: (n, F), room for what is staked.

    The fractions go through the bets side by side: one account alone waits for its own last sum most of the time.
    """
    n = len(payoff)
    out[:] = 1.0
    for i in range(n + 1):
        k = head[i]
        while k >= 0:
            back = 1.0 + payoff[k]
            for f in range(len(fractions)):
                out[f] += stake[k, f] * back
            k = link[k]
        if i < n:
            for f in range(len(fractions)):
                staked = fractions[f] * out[f] if out[f] < CROWDED_CASH else 0.0
                out[f] -= staked
                stake[i, f] = staked


@_kernel
def family(entry: Any, closed: Any, x: Any, month: Any, hurdle: Any, fractions: Any, out: Any) -> None:
    """Fill `out` (P, F) with W of every policy on one caller's units. closed, x: (P, n); hurdle: (months, P)."""
    policies, n = x.shape
    payoff, stake = np.empty(n), np.empty((n, len(fractions)))
    for p in range(policies):
        for i in range(n):
            payoff[i] = (1.0 + x[p, i]) / (1.0 + hurdle[month[i], p]) - 1.0
        head, link = closings(entry, closed[p])
        play(payoff, fractions, head, link, stake, out[p])
