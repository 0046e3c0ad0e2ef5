"""The formulas of the tear sheet: an account that stakes a fixed share on every call, its months and its trades.

Belongs here: pure functions of arrays. Returns are fractions. Every figure is defined in docs/tearsheet.md. What QuantStats
knows too is what it makes of the same series.
"""

import heapq
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
MONTHS_A_YEAR = 12
TAIL = 20  # the best and the worst 1 / TAIL of the trades


class Account(NamedTuple):
    """Equity after each close, in order of time; it begins at 1."""

    closed: Ints
    equity: Floats


def account(entry: Ints, exit_: Ints, returns: Floats, share: float) -> Account:
    """Return the account that stakes `share` of its cash on every trade; trades in order of entry.

    Before an entry all trades whose exit is not later are closed. Open trades stand at what was paid for them.
    """
    cash, total = 1.0, 1.0
    waiting: list[tuple[int, int]] = []
    stake = np.empty(len(entry))
    closed: list[tuple[int, float]] = []
    for i in [*range(len(entry)), None]:
        while waiting and (i is None or waiting[0][0] <= entry[i]):
            when, k = heapq.heappop(waiting)
            cash += stake[k] * (1 + returns[k])
            total += stake[k] * returns[k]
            closed.append((when, total))
        if i is not None:
            stake[i] = share * cash
            cash -= stake[i]
            heapq.heappush(waiting, (int(exit_[i]), i))
    return Account(np.array([when for when, _ in closed], np.int64), np.array([equity for _, equity in closed]))


def before(made: Account, moments: Ints) -> Floats:
    """Return the equity just before each moment."""
    place = np.searchsorted(made.closed, moments, side="left")
    return np.concatenate([[1.0], made.equity])[place]


def drawdowns(equity: Floats) -> Floats:
    """Return how far each value lies below the highest before it; the account's beginning at 1 counts."""
    highest = np.maximum.accumulate(np.concatenate([[1.0], equity]))[1:]
    below: Floats = equity / highest - 1
    return below


def longest_below(below: Floats) -> int:
    """Return the longest run of values under water."""
    longest = run = 0
    for value in below.tolist():
        run = run + 1 if value < 0 else 0
        longest = max(longest, run)
    return longest


def changes(equity: Floats) -> Floats:
    """Return the return of each period from the equity at its end; the first begins at 1."""
    made: Floats = equity / np.concatenate([[1.0], equity[:-1]]) - 1
    return made


class OfMonths(NamedTuple):
    """Figures of a series of monthly returns; None where so few months say nothing."""

    months: int
    total_return: float
    volatility: float | None
    sharpe: float | None
    sortino: float | None
    cagr: float | None


def of_months(returns: Floats) -> OfMonths:
    """Return the figures of monthly returns, annualized with 12; a ratio needs two months, a yearly return twelve."""
    n = len(returns)
    grown = float(np.prod(1 + returns))
    if n < 2:
        return OfMonths(n, grown - 1, None, None, None, None)
    mean, spread = float(returns.mean()), float(returns.std(ddof=1))
    below = math.sqrt(float((np.minimum(returns, 0) ** 2).sum()) / n)
    year = math.sqrt(MONTHS_A_YEAR)
    return OfMonths(
        months=n,
        total_return=grown - 1,
        volatility=spread * year,
        sharpe=mean / spread * year if spread > 0 else None,
        sortino=mean / below * year if below > 0 else None,
        cagr=grown ** (MONTHS_A_YEAR / n) - 1 if n >= MONTHS_A_YEAR and grown > 0 else None,
    )


class OfTrades(NamedTuple):
    """Figures of single trades, as fractions; None where the trades do not give it."""

    win_rate: float | None
    avg_win: float | None
    avg_loss: float | None
    payoff_ratio: float | None
    profit_factor: float | None
    tail_ratio: float | None
    skew: float | None
    without_best: float | None
    best_share: float | None


def of_trades(returns: Floats) -> OfTrades:
    """Return the figures of some trades; wins are returns above 0, losses below."""
    n = len(returns)
    wins, losses = returns[returns > 0], returns[returns < 0]
    gained, lost = float(wins.sum()), -float(losses.sum())
    best = np.sort(returns)[::-1]
    low, high = np.quantile(returns, [0.05, 0.95]).tolist() if n else (0.0, 0.0)
    return OfTrades(
        win_rate=len(wins) / (len(wins) + len(losses)) if len(wins) + len(losses) else None,
        avg_win=gained / len(wins) if len(wins) else None,
        avg_loss=-lost / len(losses) if len(losses) else None,
        payoff_ratio=(gained / len(wins)) / (lost / len(losses)) if len(wins) and len(losses) else None,
        profit_factor=gained / lost if lost > 0 else None,
        tail_ratio=abs(high / low) if low else None,
        skew=_skew(returns),
        without_best=float(best[1:].mean()) if n > 1 else None,
        best_share=float(np.maximum(best[: max(1, n // TAIL)], 0).sum()) / gained if gained > 0 else None,
    )


def _skew(values: Floats) -> float | None:
    """Return the adjusted Fisher-Pearson skewness, as pandas does."""
    n = len(values)
    left = values - values.mean() if n else values
    spread = float((left**2).sum())
    if n < 3 or spread <= 0:
        return None
    return float((left**3).sum()) / spread**1.5 * n * math.sqrt(n - 1) / (n - 2)


class Exposure(NamedTuple):
    """How much of the time something was open."""

    share: float
    mean_open: float
    most_open: int


def exposure(entry: Ints, exit_: Ints, begin: int, end: int) -> Exposure | None:
    """Return the share of the time from `begin` to `end` with an open trade, how many were open on average, and at most."""
    if not len(entry) or end <= begin:
        return None
    moments = np.concatenate([entry, exit_])
    steps = np.concatenate([np.ones(len(entry)), -np.ones(len(exit_))])
    order = np.lexsort([steps, moments])  # what closes at a moment makes room for what opens then
    moments, open_ = moments[order], np.cumsum(steps[order])
    lasting = np.diff(moments)
    covered = float(lasting[open_[:-1] > 0].sum())
    return Exposure(covered / (end - begin), float((lasting * open_[:-1]).sum()) / (end - begin), int(open_.max()))
