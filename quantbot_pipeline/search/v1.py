"""The V1 baseline: one account per caller, thirty parameter pairs, the best by final capital; and the grouped account.

It selects and tests on the same calls: a baseline to compare with, not evidence. Source: docs/semantics.md, "V1 baseline".
"""

import json
from collections.abc import Sequence
from itertools import product
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quantbot_pipeline.replay.capital import (
    SKIPPED_BELOW_MIN_SIZE,
    SKIPPED_MAX_POSITIONS,
    SKIPS,
    START_CAPITAL,
    TAKEN,
    CapitalPath,
    capital_path,
)
from quantbot_pipeline.replay.policies import Policy, parse_policy
from quantbot_pipeline.replay.results import Outcomes, Truth
from quantbot_pipeline.replay.statistics import RANKING_STATS, STATS, aggregate, realized_return_bps
from quantbot_pipeline.search.frontier import Group
from quantbot_pipeline.vocabulary import ALL_CALLERS

TP_MULTS = (1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
SL_MULTS = (0.85, 0.88, 0.90, 0.92, 0.95)
MAX_HOLD_HRS = 48
EXTREME_SL, EXTREME_TP = 0.88, 4.0


class Params(NamedTuple):
    """One pair of the grid: multiples of the entry price at which to take profit and to stop."""

    tp_mult: float
    sl_mult: float

    def policy(self) -> Policy:
        """The exits as a policy of the engine."""
        fixed = {"kind": "fixed_stop", "stop_pct": 1 - self.sl_mult, "take_profit_pct": self.tp_mult - 1}
        hold = {"kind": "time_stop", "max_hold_ms": MAX_HOLD_HRS * 3_600_000}
        return parse_policy({"kind": "combo", "policies": [fixed, hold]})

    def text(self) -> str:
        """Canonical JSON of the parameters."""
        values = {"max_hold_hrs": MAX_HOLD_HRS, "sl_mult": self.sl_mult, "tp_mult": self.tp_mult}
        return json.dumps(
            {k: int(v) if float(v).is_integer() else v for k, v in values.items()},
            sort_keys=True,
            separators=(",", ":"),
        )

    def name(self) -> str:
        """The policy id of V1 rows; every digit counts, or a grouped mean would share the id of another pair."""
        tp, sl = (repr(value).removesuffix(".0") for value in self)
        return f"v1_tp{tp}_sl{sl}_h{MAX_HOLD_HRS}"


GRID = tuple(Params(tp, sl) for tp, sl in product(TP_MULTS, SL_MULTS))


class Account(NamedTuple):
    """One group's account under one pair: the path, the calls in order of entry, and statistics of the taken trades."""

    group: Group
    params: Params
    calls: npt.NDArray[np.int64]
    path: CapitalPath
    stats: npt.NDArray[np.float64]


class Optimized(NamedTuple):
    """One group's accounts, best first, and what is odd about the best one."""

    accounts: list[Account]
    collapsed: bool
    extreme: bool

    @property
    def flags(self) -> str:
        """`collapsed`, `extreme`, both or neither."""
        return ",".join(name for name, is_set in (("collapsed", self.collapsed), ("extreme", self.extreme)) if is_set)


def entry_order(truth: Truth, call_ids: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Position of every call in order of (entry_ts_ms, call_id in byte order)."""
    ids = np.array([text.encode() for text in call_ids.to_pylist()], dtype=object)
    position = np.empty(len(ids), dtype=np.int64)
    position[sorted(range(len(ids)), key=lambda i: (truth.entry_ts[i], ids[i]))] = np.arange(len(ids))
    return position


def run_account(
    group: Group,
    params: Params,
    column: int,
    truth: Truth,
    outcomes: Outcomes,
    position: npt.NDArray[np.int64],
    c: float,
) -> Account:
    """The account of one group under one pair, whose outcomes are in `column`."""
    calls = group.rows[np.argsort(position[group.rows], kind="stable")]
    exits = outcomes.at(calls, column)
    realized = realized_return_bps(exits.px, truth.p0[calls], c) / 10_000
    path = capital_path(truth.entry_ts[calls], exits.ts, realized, 1 - params.sl_mult)
    taken = calls[path.decision == TAKEN]
    if not len(taken):
        return Account(group, params, calls, path, np.full(RANKING_STATS, np.nan))
    single = outcomes.of_policies(slice(column, column + 1))
    stats = aggregate(truth, single, taken, np.array([len(taken)], dtype=np.int64), c, stats=RANKING_STATS)[0, 0]
    return Account(group, params, calls, path, stats)


def optimize(
    groups: Sequence[Group], truth: Truth, outcomes: Outcomes, position: npt.NDArray[np.int64], c: float
) -> list[Optimized]:
    """Every caller's thirty accounts, best first; `outcomes` holds the policies of GRID in its order."""
    result = []
    for group in groups:
        accounts = [run_account(group, params, i, truth, outcomes, position, c) for i, params in enumerate(GRID)]
        accounts.sort(key=lambda a: (-a.path.final_capital, a.params.tp_mult, -a.params.sl_mult))
        result.append(Optimized(accounts, *flags_of(accounts[0])))
    return result


def flags_of(best: Account) -> tuple[bool, bool]:
    """(collapsed, extreme) of a best account."""
    collapsed = best.path.final_capital < START_CAPITAL
    return collapsed, best.params.sl_mult < EXTREME_SL or best.params.tp_mult > EXTREME_TP


def grouped_params(optimized: Sequence[Optimized]) -> tuple[list[Group], Params] | None:
    """The callers left after both filters and the mean of their best parameters; None if no caller is left."""
    left = [o.accounts[0] for o in optimized if not (o.collapsed or o.extreme)]
    if not left:
        return None
    # Exact mean: callers who agree on 0.95 must not get a stop one rounding away from it.
    average = Params(mean(a.params.tp_mult for a in left), mean(a.params.sl_mult for a in left))
    return [a.group for a in left], average


def frontier_rows(optimized: Sequence[Optimized], calls: pa.Table, truth: Truth) -> list[dict[str, Any]]:
    """Rows of the `frontier` artifact without `run_id`: every account, by caller and rank."""
    mints = np.array(calls["mint"].to_pylist(), dtype=object)
    callers = np.array(calls["caller_name"].to_pylist(), dtype=object)
    rows: list[dict[str, Any]] = []
    for one in optimized:
        for i, account in enumerate(one.accounts):
            taken = account.calls[account.path.decision == TAKEN]
            name = account.group.name
            left_out = (truth.status != 0) & ((callers == name) | (name == ALL_CALLERS))
            values: dict[str, Any] = {
                k: None if np.isnan(v) else float(v) for k, v in zip(STATS[:RANKING_STATS], account.stats, strict=True)
            }
            feasible = bool(account.path.final_capital >= START_CAPITAL)
            rows.append(
                values
                | {
                    "caller_name": name,
                    "policy_params": account.params.text(),
                    "policy_id": account.params.name(),
                    "meets_constraints": feasible,
                    "objective_score": float(account.path.final_capital),
                    "rank": i + 1,
                    "trades": len(taken),
                    "calls_excluded": int(left_out.sum()),
                    "distinct_mints": len(set(mints[taken])),
                    "censored_count": int(truth.censored[taken].sum()),
                    "violations": "" if feasible else "final_capital",
                    "is_pareto": False,
                    "flags": one.flags,
                    "skipped_max_positions": int((account.path.decision == SKIPPED_MAX_POSITIONS).sum()),
                    "skipped_below_min_size": int((account.path.decision == SKIPPED_BELOW_MIN_SIZE).sum()),
                }
            )
    return rows


def equity_rows(account: Account, call_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the `equity` artifact without `run_id`: every open and close of one account as they happened."""
    path, name = account.path, account.group.name
    return [
        {
            "caller_name": name,
            "policy_id": account.params.name(),
            "ts_ms": int(path.event_ts[e]),
            "event": "open" if path.event_opens[e] else "close",
            "call_id": call_ids[account.calls[path.event_call[e]]],
            "size": float(path.size[path.event_call[e]]),
            "cash": float(path.event_cash[e]),
            "equity": float(path.event_equity[e]),
        }
        for e in range(len(path.event_call))
    ]


def skip_counts(account: Account) -> dict[str, int]:
    """{reason: calls} that the account could not buy."""
    return {SKIPS[d]: int((account.path.decision == d).sum()) for d in (SKIPPED_MAX_POSITIONS, SKIPPED_BELOW_MIN_SIZE)}
