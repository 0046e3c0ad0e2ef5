"""Runs of `tune` against a recomputation call by call: who is chosen, what was promised, what it earned, the verdict to date."""

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantbot_pipeline.backtest.month import MonthResult
from quantbot_pipeline.backtest.remembered import ReplayCache
from quantbot_pipeline.home import Home
from quantbot_pipeline.runs.inspection import inspect_run
from quantbot_pipeline_tests.search.test_tuning import DAY, z_of
from quantbot_pipeline_tests.search.test_walk_forward import CONFIG, MONTHS, cut, four_months, leaning
from quantbot_pipeline_tests.support import homes, reference
from quantbot_pipeline_tests.support.homes import JANUARY, MAY, Market

Rows = dict[tuple[str, str], dict[str, Any]]
TUNE = dict(CONFIG)
K = 20


class Made:
    """The market, its home, and the tune runs of all months made by one process."""

    def __init__(self, folder: Path) -> None:
        self.market = four_months()
        self.home: Home = homes.make_home(folder / "home", self.market)
        cache: ReplayCache = {}
        self.runs = {month: homes.run(self.home, "tune", month, TUNE, cache) for month in MONTHS}
        self.rows = {month: rows_of(run) for month, run in self.runs.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("tune"))


def rows_of(run: MonthResult) -> Rows:
    rows = homes.artifact(run, "tuned")
    found = {(row["scheme"], row["caller_name"]): row for row in rows}
    assert len(found) == len(rows)
    return found


def growth(made: Made, policy: Mapping[str, Any] | None, calls: list[homes.Replayed]) -> list[float]:
    """What each call adds to the growth score under a policy; none is no trade."""
    if policy is None:
        return [0.0] * len(calls)
    rules, c = homes.rules_of(made.market, TUNE), reference.cost(TUNE)
    rows = [reference.row(one, policy, rules, c) for one in calls]
    return [float(reference.aggregates([row])["growth_score"] or 0.0) for row in rows]


def parsed(text: str | None) -> dict[str, Any] | None:
    return None if text is None else json.loads(text)


def calls_of(made: Made, month: str, caller: str) -> list[homes.Replayed]:
    end = [*MONTHS.values(), MAY][list(MONTHS).index(month) + 1]
    calls = [c for c in homes.month_calls(made.market, MONTHS[month], end) if caller in ("__all__", c.caller)]
    return homes.replay(made.market, calls, homes.rules_of(made.market, TUNE))


def train(made: Made, month: str, scheme: str, caller: str) -> list[homes.Replayed]:
    names, start = list(MONTHS), MONTHS[month]
    since = JANUARY if scheme == "anchored" else MONTHS[names[max(0, names.index(month) - TUNE["rolling_months"])]]
    calls = [c for c in made.market.calls if since <= c.alert_ts < start and caller in ("__all__", c.caller)]
    replayed = homes.replay(made.market, calls, homes.rules_of(made.market, TUNE))
    return [one for one in replayed if one.window.entry_ts + TUNE["horizon_ms"] <= start]


def test_a_promise_is_the_leaned_score_of_the_train_calls(made: Made) -> None:
    rules, c = homes.rules_of(made.market, TUNE), reference.cost(TUNE)
    promised = 0
    for scheme in ("anchored", "rolling"):
        everyone = train(made, "2024-04", scheme, "__all__")
        for (of, caller), row in made.rows["2024-04"].items():
            if of != scheme:
                continue
            own = train(made, "2024-04", scheme, caller) or everyone  # who has none is given everybody's choice
            assert row["train_calls"] == len(own) and row["evaluations"] == 4_096 and row["pool_calls"] == K
            policy = parsed(row["policy_params"])
            if policy is None:
                continue
            stats = [
                reference.aggregates([reference.row(one, policy, rules, c) for one in calls])
                for calls in (own, everyone)
            ]
            score = leaning(stats[0], stats[1], len(own), 0 if len(own) == len(everyone) else K)
            assert row["promise_bps"] == pytest.approx(score["growth_score"], rel=1e-9)
            assert score["avg_return_bps"] is not None and score["avg_return_bps"] > 0
            assert score["stop_out_rate"] is not None and score["stop_out_rate"] <= 0.40
            promised += 1
    assert promised > 5


def test_beside_stand_the_walk_forwards_choices_leaning_and_not(made: Made) -> None:
    for month in ("2024-01", "2024-03", "2024-04"):
        for prefix, more in (("grid_", K), ("unleaned_", 0)):
            walked = homes.artifact(
                homes.run(made.home, "walk-forward", month, CONFIG | {"pool_calls": more}), "walk_forward"
            )
            for row in walked:
                beside = made.rows[month][row["scheme"], row["caller_name"]]
                assert beside[f"{prefix}policy_id"] == row["policy_id"], (month, row["caller_name"], more)
                assert beside["test_calls"] == row["test_calls"]


def test_what_was_earned_is_the_mean_growth_of_the_test_calls(made: Made) -> None:
    hold = {"kind": "time_stop", "max_hold_ms": TUNE["horizon_ms"]}
    for month in ("2024-01", "2024-04"):
        for (_, caller), row in made.rows[month].items():
            calls = calls_of(made, month, caller)
            assert row["test_calls"] == len(calls)
            for name, policy in (
                ("out_of_sample_bps", parsed(row["policy_params"])),
                ("grid_bps", parsed(row["grid_policy_params"])),
                ("unleaned_bps", parsed(row["unleaned_policy_params"])),
                ("hold_bps", hold),
            ):
                earned = growth(made, policy, calls)
                assert row[name] == pytest.approx(sum(earned) / len(earned) if earned else 0.0, rel=1e-9, abs=1e-6)


def test_the_verdict_is_of_all_test_calls_to_date(made: Made) -> None:
    for scheme in ("anchored", "rolling"):
        values: dict[str, list[float]] = defaultdict(list)
        entries: list[int] = []
        for month, rows in made.rows.items():
            for (of, caller), row in rows.items():
                if of != scheme or caller == "__all__":
                    continue
                calls = calls_of(made, month, caller)
                ways = [growth(made, parsed(row[f"{p}policy_params"]), calls) for p in ("", "grid_", "unleaned_")]
                hold = growth(made, {"kind": "time_stop", "max_hold_ms": TUNE["horizon_ms"]}, calls)
                entries += [one.window.entry_ts for one in calls]
                for name, first, second in (("difference_z", 0, 1), ("leaning_z", 1, 2)):
                    values[name] += [a - b for a, b in zip(ways[first], ways[second], strict=True)]
                values["hold_z"] += [a - b for a, b in zip(ways[1], hold, strict=True)]
            for name in ("difference_z", "leaning_z", "hold_z"):
                z = z_of(entries, values[name], 2 * DAY)
                found = {row[name] for (of, _), row in rows.items() if of == scheme}
                assert len(found) == 1
                assert found.pop() == (None if z is None else pytest.approx(z, rel=1e-6, abs=1e-9)), (month, name)


def test_a_month_alone_says_what_a_range_says_and_reads_what_was_made(made: Made, tmp_path: Path) -> None:
    """Choices of earlier months are read from their runs; without runs they are made anew, and are the same."""
    again = homes.run(made.home, "tune", "2024-04", TUNE)
    lone = homes.run(homes.make_home(tmp_path / "lone", made.market, threads=2, shuffle=3), "tune", "2024-02", TUNE)
    assert homes.content(again, "tuned") == homes.content(made.runs["2024-04"], "tuned")
    assert homes.content(lone, "tuned") == homes.content(made.runs["2024-02"], "tuned")
    assert not inspect_run(again.run_dir, ["tuned"]).faults["tuned"]


def test_a_choice_does_not_know_its_month(made: Made, tmp_path: Path) -> None:
    """Without the candles and calls from the month's first day on, all but what was earned stays."""
    earlier = cut(made.market, MONTHS["2024-02"])
    calls = [c for c in made.market.calls if MONTHS["2024-02"] <= c.alert_ts < MONTHS["2024-03"]]
    blind = Market(earlier.interval, [*earlier.calls, *calls], earlier.candles)
    found = rows_of(homes.run(homes.make_home(tmp_path / "blind", blind), "tune", "2024-02", TUNE))
    for key, row in made.rows["2024-02"].items():
        for name in ("policy_id", "grid_policy_id", "unleaned_policy_id", "promise_bps", "plateau_bps", "train_calls"):
            assert found[key][name] == row[name], (key, name)


def test_parts_change_nothing(made: Made) -> None:
    small = homes.run(made.home.changed(memory_limit="0.5MB"), "tune", "2024-02", TUNE)
    assert homes.content(small, "tuned") == homes.content(made.runs["2024-02"], "tuned")


def test_nothing_feasible_is_no_trade_with_its_sentence(made: Made) -> None:
    run = homes.run(made.home, "tune", "2024-02", TUNE | {"constraints": {"min_avg_return_bps": 1e9}})
    for row in rows_of(run).values():
        assert row["policy_id"] is None and row["out_of_sample_bps"] == 0.0
        assert row["verdict"] == "not shown" and row["difference_z"] is None
    assert not inspect_run(run.run_dir, ["tuned"]).faults["tuned"]
    assert np.isfinite([row["hold_bps"] for row in rows_of(run).values()]).all()
