"""Planted callers, small: what docs/evidence.md promises of callers whose edge is known."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from quantbot_pipeline.evidence.account import wealth
from quantbot_pipeline.evidence.hurdle import hurdles
from quantbot_pipeline.evidence.judging import Case, Delayed, judge
from quantbot_pipeline.evidence.rules import EvidenceRules
from quantbot_pipeline.evidence.support import draw_counts
from quantbot_pipeline.evidence.units import Calls, find_units
from quantbot_pipeline.replay.results import empty_truth
from quantbot_pipeline.vocabulary import NO_CANDLES

Floats = npt.NDArray[np.float64]
HOUR, DAY = 3_600_000, 86_400_000
HORIZON, MONTH = 48 * HOUR, 30 * DAY
POLICIES = 20
RULES = EvidenceRules(draws=200)


class Planted:
    """Callers whose calls last the horizon and pay what the test says; months of 30 days."""

    def __init__(self, months: int, seed: int = 0) -> None:
        self.months, self.rng = months, np.random.default_rng(seed)
        self.rows: list[tuple[str, str, int, Floats, bool]] = []

    def noise(self, n: int) -> Floats:
        """What policies pay on tokens without an edge, (n, P): rugs, pumps, and 0 on average in every rule."""
        token = self.rng.choice([-0.6, -0.2, 0.1, 0.6, 2.4], size=n, p=[0.3, 0.3, 0.2, 0.12, 0.08])
        own = self.rng.choice([-0.1, 0.1], size=(n, POLICIES))
        return token[:, None] - float(np.dot([-0.6, -0.2, 0.1, 0.6, 2.4], [0.3, 0.3, 0.2, 0.12, 0.08])) + own

    def add(self, name: str, x: Floats, *, missing: float = 0.0, alike: int = 1, last: int | None = None) -> None:
        """Spread calls evenly over the months; `alike` ones name one token within a day."""
        n, span = len(x), (last or self.months) * MONTH
        for i in range(n):
            at = (i // alike) * alike * span // n + (i % alike) * HOUR
            gone = bool(self.rng.random() < missing)
            self.rows.append((name, f"{name}-{i // alike}", at, np.maximum(x[i], -1.0), gone))

    def judged(self, rules: EvidenceRules = RULES) -> dict[str, dict[str, Any]]:
        """The rows by caller."""
        names = sorted({row[0] for row in self.rows}, key=str.encode)
        tokens = {mint: i for i, mint in enumerate(dict.fromkeys(row[1] for row in self.rows))}
        n, truth = len(self.rows), empty_truth(len(self.rows))
        alert = np.array([row[2] for row in self.rows], np.int64)
        truth.entry_ts[:], truth.observed[:] = alert, HORIZON
        truth.status[:] = [NO_CANDLES if row[4] else 0 for row in self.rows]
        caller = np.array([names.index(row[0]) for row in self.rows])
        calls = Calls(
            caller, np.array([tokens[row[1]] for row in self.rows]), alert // MONTH, alert, np.arange(n), truth
        )
        units = find_units(calls, 0, HORIZON)
        units = units.of(units.resolved)
        x = np.array([row[3] for row in self.rows])[units.row].T.copy()
        x = np.where(units.missing, -1.0, np.minimum(x, rules.cap))
        starts = [m * MONTH for m in range(self.months)]
        hurdle = hurdles(units, x, starts, range(self.months), names, rules, HORIZON)
        return {row["caller_name"]: row for row in judge(self._case(names, calls, units, x, hurdle), rules).evidence}

    def _case(self, names: Sequence[str], calls: Calls, units: Any, x: Floats, hurdle: Floats) -> Case:
        chosen = np.where(units.month > 0, 0, -1)
        known = ~units.missing
        closed = np.broadcast_to(units.entry + HORIZON, x.shape).copy()
        now = Delayed(known, x[0], units.entry)
        return Case(
            names=names,
            units=units,
            closed=closed,
            x=x,
            hurdle=hurdle,
            chosen=chosen,
            idle=np.zeros(len(chosen), bool),
            gross=1 + x[0],
            liquidity=np.full(len(chosen), np.nan),
            hits=x[0][:, None] >= np.array([1, 2, 3]),
            calls=np.bincount(calls.caller),
            unresolved=np.zeros(len(names), int),
            calendar=np.arange(self.months),
            text_order=np.arange(POLICIES),
            ends=(units.caller[known], np.full(known.sum(), HORIZON), np.zeros(known.sum(), int)),
            delayed={0: now},
            latency_ms=0,
            horizon_ms=HORIZON,
            cost=0.0,
        )


@pytest.mark.parametrize("seed", range(3))
def test_nobody_is_claimed_among_callers_without_an_edge(seed: int) -> None:
    world = Planted(6, seed)
    for i in range(40):
        world.add(f"c{i}", world.noise(6 * int(world.rng.integers(5, 60))))
    rows = world.judged()
    assert sum(row["verdict"] == "evidence" for row in rows.values()) == 0
    assert max(row["e_value"] for row in rows.values()) < 20


def crowd(months: int, seed: int = 0) -> Planted:
    """A world with plain callers, whose records make the hurdle."""
    world = Planted(months, seed)
    for i in range(6):
        world.add(f"plain{i}", world.noise(40 * months))
    return world


def test_a_loss_of_5_percent_a_call_is_none_after_a_year() -> None:
    """Four bets are open at once and share the cash: 60 calls a month take all of the year."""
    world = crowd(12)
    world.add("bad", world.rng.choice([-0.25, 0.15], size=(60 * 12, POLICIES)))
    assert world.judged()["bad"]["verdict"] == "none"


def test_an_edge_of_every_rule_is_evidence_and_a_loss_is_not() -> None:
    world = crowd(12)
    world.add("good", world.noise(120 * 12) + 0.1)
    world.add("bad", world.noise(60 * 12) - 0.05)
    rows = world.judged()
    assert rows["good"]["verdict"] == "evidence"
    assert rows["good"]["choice_low_bps"] < 1_000 < rows["good"]["choice_high_bps"]
    assert rows["bad"]["verdict"] in ("none", "inconclusive")
    assert rows["bad"]["e_none"] > 1
    assert all(row["verdict"] != "evidence" for name, row in rows.items() if name != "good")


def test_one_token_called_many_times_in_a_day_is_one_unit() -> None:
    world = crowd(6)
    once = np.repeat(world.noise(4 * 6), 8, axis=0)
    world.add("echo", once, alike=8)
    row = world.judged()["echo"]
    assert (row["calls"], row["units"]) == (4 * 6 * 8, 4 * 6)
    assert row["verdict"] != "evidence"


def test_a_lucky_hundredfold_is_no_evidence() -> None:
    world = crowd(6)
    x = world.noise(60 * 6) - 0.03
    x[100] = 99.0
    world.add("lucky", x)
    row = world.judged()["lucky"]
    assert row["verdict"] != "evidence"
    assert row["e_value"] < 20


@pytest.mark.parametrize("seed", range(3))
def test_one_policy_that_looks_good_by_luck_is_no_evidence(seed: int) -> None:
    """The best of the grid has t > 1.6, as the best of many has without an edge; the search is paid for."""
    world = crowd(6, seed)
    x = world.noise(50 * 6)
    best = int(x.mean(axis=0).argmax())
    x[:, best] += 1.7 * x[:, best].std() / np.sqrt(len(x)) - x[:, best].mean()
    world.add("picked", x)
    row = world.judged()["picked"]
    assert row["verdict"] != "evidence"
    assert row["spa_p"] >= 0.05
    assert row["stepm_policies"] == 0


def test_a_few_splendid_calls_lack_calls() -> None:
    world = crowd(6)
    world.add("few", np.full((12, POLICIES), 0.2) + world.rng.choice([-0.3, 0.3], size=(12, POLICIES)))
    row = world.judged()["few"]
    assert (row["verdict"], row["flags"], row["towards"]) == ("inconclusive", "few_calls", "evidence")
    assert 18 <= row["calls_needed"] <= 150


def test_candles_that_are_missing_where_tokens_died_are_flagged() -> None:
    world = crowd(6)
    x = world.noise(100 * 6)
    died = x.mean(axis=1) < -0.3
    for i, (row, gone) in enumerate(zip(x, died, strict=True)):
        world.rows.append(("survivor", f"s{i}", i * 6 * MONTH // len(x), np.maximum(row, -1.0), bool(gone)))
    found = world.judged()["survivor"]
    assert found["verdict"] != "evidence"
    assert "missing_data" in found["flags"]
    assert found["e_known"] > found["e_threshold"] > found["e_value"]


def test_an_edge_that_ends_is_fading() -> None:
    world = crowd(12)
    before, after = world.noise(60 * 6) + 0.15, world.noise(60 * 6) - 0.05
    world.add("was", np.concatenate([before, after]))
    row = world.judged()["was"]
    assert row["e_recent"] < 1
    assert row["flags"] == ("fading" if row["verdict"] == "evidence" else "")


def test_a_rising_market_raises_e_zero_alone() -> None:
    world = Planted(12, 4)
    for i in range(8):
        world.add(f"c{i}", world.noise(80 * 12) + 0.06)
    rows = world.judged()
    assert all(row["e_zero"] > 5 * row["e_value"] for row in rows.values())
    assert all(row["verdict"] != "evidence" for row in rows.values())


def test_crowded_bets_share_the_cash_and_a_rich_account_rests() -> None:
    together = wealth(np.zeros(3, np.int64), np.ones(3, np.int64), np.full(3, -1.0), np.array([0.5]))
    assert together[0] == 0.125
    rich = wealth(np.arange(100), np.arange(100), np.full(100, 3.0), np.array([0.8]))
    assert 1e12 <= rich[0] < 1e13


def test_draws_follow_the_seed_and_the_name_alone() -> None:
    one = draw_counts("alice", 7, RULES)
    assert (one == draw_counts("alice", 7, RULES)).all()
    assert (one.sum(axis=1) == 7).all()
    assert (one != draw_counts("bob", 7, RULES)).any()
    assert (one != draw_counts("alice", 7, RULES.model_copy(update={"seed": 1}))).any()


def test_rivals_move_no_figure_of_ones_own() -> None:
    alone, among = crowd(6, 3), crowd(6, 3)
    own = alone.noise(60 * 6) + 0.1
    for world in (alone, among):
        world.add("own", own)
    for i in range(3):
        among.add(f"rival{i}", among.noise(80 * 6) + 0.2)
    one, other = alone.judged()["own"], among.judged()["own"]
    assert one["e_threshold"] != other["e_threshold"]
    for name in ("e_zero", "spa_p", "stepm_policies", "choice_low_bps", "choice_mean_bps", "choice_high_bps", "e_none"):
        assert one[name] == other[name], name
