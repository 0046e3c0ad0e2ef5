"""Look-ahead: the data is cut off at a random moment, and no number dated before that moment may change.

The cut lab holds what somebody knew at the cut: the calls made by then, and the candles that had closed.
"""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.config import make_config
from quantbot_pipeline.months import month_of, month_start_ms, next_month
from quantbot_pipeline_tests.search.test_walk_forward import CHOICE, CONFIG, MONTHS, four_months, rows_of
from quantbot_pipeline_tests.support import homes
from quantbot_pipeline_tests.support.homes import DAY, HOUR, MAY, Market
from quantbot_pipeline_tests.support.sizes import sizes
from quantbot_pipeline_tests.torture.conftest import Tally

STEP = 300_000
POLICIES = [
    {"kind": "fixed_stop", "stop_pct": 0.1, "take_profit_pct": 0.3},
    {"kind": "trailing_stop", "activation_pct": 0.05, "trail_pct": 0.05},
    {"kind": "ladder", "levels": [{"multiple": 1.05, "fraction": 0.5}, {"multiple": 1.2, "fraction": 0.5}]},
    {"kind": "time_stop", "max_hold_ms": HOUR},
]
FULL = {name: value for name, value in CONFIG.items() if name != "rolling_months"} | {"policies": POLICIES}
HORIZON: int = CONFIG["horizon_ms"]
# Facts of a path that are known at the entry, and those that are known once their own time has come.
AT_ENTRY = ("p0", "entry_ts_ms", "entry_delay_ms", "alert_ts_ms", "mint", "caller_name", "chain")
TIMED = ("t_2x_ms", "t_3x_ms", "t_4x_ms")


def known_at(market: Market, cut: int) -> Market:
    """The market as it was known at the cut."""
    candles = {mint: [c for c in found if c.ts + STEP <= cut] for mint, found in market.candles.items()}
    calls = [call for call in market.calls if call.alert_ts < cut]
    return Market(market.interval, calls, {mint: found for mint, found in candles.items() if found})


class Numbers:
    """All numbers of a lab: paths, features and trades by call, and the walk-forward choices by month."""

    def __init__(self, home: Path, market: Market) -> None:
        self.lab = homes.make_home(home, market)
        self.paths: dict[str, Mapping[str, Any]] = {}
        self.features: dict[str, Mapping[str, Any]] = {}
        self.trades: dict[tuple[str, str], Mapping[str, Any]] = {}
        self.choices: dict[tuple[str, str, str], Mapping[str, Any]] = {}
        for month in MONTHS:
            if (made := self._run("full", month, FULL)) is not None:
                self.paths |= {row["call_id"]: row for row in homes.artifact(made, "paths")}
                self.features |= {row["call_id"]: row for row in homes.artifact(made, "features")}
                self.trades |= {(row["policy_id"], row["call_id"]): row for row in homes.artifact(made, "trades")}
            if (made := self._run("walk-forward", month, CONFIG)) is not None:
                self.choices |= {(month, *key): row for key, row in rows_of(made).items()}

    def _run(self, recipe: str, month: str, config: Mapping[str, Any]) -> Any:
        return run_month(self.lab, recipe, month, make_config(dict(config)))


def without_run(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "run_id"}


def compare(full: Numbers, cut_lab: Numbers, cut: int) -> tuple[int, list[tuple[Any, ...]]]:
    """(numbers compared, those that differ) of everything dated before the cut."""
    compared, wrong = 0, list[tuple[Any, ...]]()

    def same(before: Any, after: Any, what: object) -> None:
        nonlocal compared
        compared += 1
        if before != after:
            wrong.append((what, before, after))

    for call_id, row in cut_lab.features.items():
        same(without_run(full.features[call_id]), without_run(row), ("features", call_id))
    for call_id, row in full.paths.items():
        known = cut_lab.paths.get(call_id)
        if row["entry_ts_ms"] + STEP > cut:
            continue
        assert known is not None, call_id
        same([row[n] for n in AT_ENTRY], [known[n] for n in AT_ENTRY], ("entry", call_id))
        for name in TIMED:
            happened = row[name] is not None and row[name] <= cut
            same(row[name] if happened else None, known[name], (name, call_id))
        if row["entry_ts_ms"] + HORIZON <= cut:
            same(without_run(row), without_run(known), ("path", call_id))
    for key, row in full.trades.items():
        if row["exit_ts_ms"] >= cut:
            continue
        known = cut_lab.trades[key]
        # The share of the peak is dated by the window's end, not by the exit.
        late = {"tail_capture"} if full.paths[key[1]]["entry_ts_ms"] + HORIZON > cut else set()
        for name in row.keys() - {"run_id"} - late:
            same(row[name], known[name], (name, *key))
    for month_caller, row in full.choices.items():
        if month_start_ms(month_caller[0]) <= cut and month_caller in cut_lab.choices:
            same(
                [row[n] for n in CHOICE], [cut_lab.choices[month_caller][n] for n in CHOICE], ("choice", *month_caller)
            )
    return compared, wrong


@pytest.mark.parametrize("cuts", sizes(1, 50))
def test_nothing_before_the_cut_depends_on_what_comes_after(tmp_path: Path, cuts: int, tally: Tally) -> None:
    market, chance = four_months(), random.Random(11)
    full = Numbers(tmp_path / "full", market)
    compared, wrong = 0, list[tuple[Any, ...]]()
    for i in range(cuts):
        cut = chance.randrange(MONTHS["2024-02"] + DAY, MAY) // STEP * STEP
        n, differing = compare(full, Numbers(tmp_path / f"cut-{i}", known_at(market, cut)), cut)
        assert n > 1_000, "a cut that leaves nothing proves nothing"
        compared, wrong = compared + n, [*wrong, *((month_of(cut), *one) for one in differing)]
    tally("look-ahead: numbers dated before 50 random cuts", tried=compared, detected=0, lost=len(wrong))
    assert not wrong, wrong[:3]


def test_the_probe_sees_a_change_before_the_cut(tmp_path: Path) -> None:
    """A probe that finds nothing must be able to find something: one price an hour before the cut is another one."""
    market = four_months()
    cut = month_start_ms(next_month("2024-02"))
    mint = next(m for m, found in market.candles.items() if m.startswith("steady-2024-02") and found[-1].ts < cut)
    bent = [candle._replace(high=candle.high * 50) for candle in market.candles[mint]]
    other = known_at(market._replace(candles=market.candles | {mint: bent}), cut)
    _, wrong = compare(Numbers(tmp_path / "full", market), Numbers(tmp_path / "bent", other), cut)
    assert wrong
