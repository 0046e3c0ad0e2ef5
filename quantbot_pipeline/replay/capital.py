"""The capital path: what an account earns when every call needs cash and cash is limited.

Belongs here: the order of entries and closes, position sizes, skips, the equity curve. Exits come from `engine`. Source:
docs/semantics.md, "V1 baseline".
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.compiled import compiled

START_CAPITAL = 10_000.0
MAX_POSITIONS = 25
MIN_SIZE = 10.0
RISK_PER_TRADE = 200.0
MAX_SHARE = 0.04

TAKEN, SKIPPED_MAX_POSITIONS, SKIPPED_BELOW_MIN_SIZE = 0, 1, 2
SKIPS = ("", "max_positions", "below_min_size")


class CapitalPath(NamedTuple):
    """The account of K calls in order of entry. Per call, (K,): what became of it, and the size bought (0 if skipped).

    Per event, (E,), closes and opens as they happened: which call (index into the K), whether it opened, when (UTC ms),
    the cash afterwards, and the equity: cash plus open positions at cost.
    """

    final_capital: float
    decision: npt.NDArray[np.uint8]
    size: npt.NDArray[np.float64]
    event_call: npt.NDArray[np.int64]
    event_opens: npt.NDArray[np.bool_]
    event_ts: npt.NDArray[np.int64]
    event_cash: npt.NDArray[np.float64]
    event_equity: npt.NDArray[np.float64]


def capital_path(
    entry_ts: npt.NDArray[np.int64],
    exit_ts: npt.NDArray[np.int64],
    realized: npt.NDArray[np.float64],
    risk_fraction: float,
) -> CapitalPath:
    """Run the account over calls sorted by (entry_ts, call_id).

    entry_ts, exit_ts: (K,) UTC ms; realized: (K,) returns as fractions; risk_fraction: `1 − sl_mult`, the loss at the stop.
    """
    return CapitalPath(*_run(entry_ts, exit_ts, realized, risk_fraction))


@compiled()
def _run(entry_ts, exit_ts, realized, risk_fraction):  # type: ignore[no-untyped-def]
    n = len(entry_ts)
    decision, size = np.zeros(n, np.uint8), np.zeros(n)
    event_call, event_opens, event_ts = np.empty(2 * n, np.int64), np.empty(2 * n, np.bool_), np.empty(2 * n, np.int64)
    event_cash, event_equity = np.empty(2 * n), np.empty(2 * n)
    positions = np.empty(MAX_POSITIONS, np.int64)
    open_count, events = 0, 0
    cash, invested = START_CAPITAL, 0.0
    for k in range(n + 1):
        # Close what has ended by this entry (everything after the last one), earliest exit first, then in order of entry.
        while open_count > 0:
            first = 0
            for j in range(1, open_count):
                a, b = positions[j], positions[first]
                if exit_ts[a] < exit_ts[b] or (exit_ts[a] == exit_ts[b] and a < b):
                    first = j
            call = positions[first]
            if k < n and exit_ts[call] > entry_ts[k]:
                break
            cash += size[call] * (1 + realized[call])
            invested -= size[call]
            open_count -= 1
            positions[first] = positions[open_count]
            event_call[events], event_opens[events], event_ts[events] = call, False, exit_ts[call]
            event_cash[events], event_equity[events] = cash, cash + (invested if open_count else 0.0)
            events += 1
        if k == n:
            break
        if open_count >= MAX_POSITIONS:
            decision[k] = SKIPPED_MAX_POSITIONS
            continue
        wanted = min(RISK_PER_TRADE / risk_fraction, MAX_SHARE * cash, cash)
        if wanted < MIN_SIZE:
            decision[k] = SKIPPED_BELOW_MIN_SIZE
            continue
        size[k] = wanted
        cash -= wanted
        invested += wanted
        positions[open_count] = k
        open_count += 1
        event_call[events], event_opens[events], event_ts[events] = k, True, entry_ts[k]
        event_cash[events], event_equity[events] = cash, cash + invested
        events += 1
    return (
        cash,
        decision,
        size,
        event_call[:events],
        event_opens[:events],
        event_ts[:events],
        event_cash[:events],
        event_equity[:events],
    )
