"""Closing months: each once, completely, after its last window has closed, whatever was off in between."""

import random
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from quantbot_pipeline.home import Home
from quantbot_pipeline.months import month_of, month_range, month_start_ms
from quantbot_pipeline.orchestration import schedules
from quantbot_pipeline.orchestration.closings import closes_at, look, months_due, widest_kinds
from quantbot_pipeline.orchestration.launch import open_instance
from quantbot_pipeline.orchestration.partitions import RANGE_END, RANGE_START, months_of, range_tags
from quantbot_pipeline.orchestration.resources import Lab
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.conftest import Quantbot

HOUR = 3_600_000
REACH = 49 * HOUR + 300_000
START = month_start_ms("2024-01")
END = month_start_ms("2026-01")


class Machine:
    """A machine that is off at random: what its schedule asks for, is made some hours later, unless it fails."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.made: dict[str, list[int | None]] = {}
        self.under_way: dict[str, int] = {}  # month: when its run ends
        self.asked: Counter[str] = Counter()
        self.closings: Counter[str] = Counter()

    def tick(self, now: int) -> None:
        for month, ends in list(self.under_way.items()):
            if ends <= now:
                del self.under_way[month]
                if self.random.random() < 0.9:  # the worker may be killed
                    self.made[month] = [ends] * 3
                    self.closings[month] += 1
        months = list(month_range("2024-01", month_of(now)))
        for month in months:
            self.made.setdefault(month, [None] * 3)
        for month in months_due(now, months, self.made, set(self.under_way), REACH):
            assert now >= closes_at(month, REACH)
            self.asked[month] += 1
            self.under_way[month] = now + self.random.randrange(1, 5) * HOUR

    def daily(self, now: int) -> None:
        """The run of the open month, and somebody's runs by hand, leave the windows of its last days open."""
        month = month_of(now)
        self.made.setdefault(month, [None] * 3)
        for kind in range(3):
            if self.random.random() < 0.5:
                self.made[month][kind] = now


@pytest.mark.parametrize("seed", range(6))
def test_two_years_with_random_downtimes_close_every_month_once_and_completely(seed: int) -> None:
    machine = Machine(seed)
    now, off_until = START, 0
    while now < max(END, off_until) + 10 * 24 * HOUR:
        if now >= off_until:
            if machine.random.random() < 0.003 and now < END:
                off_until = now + machine.random.randrange(1, 100 * 24) * HOUR
            else:
                machine.tick(now)
                if now % (24 * HOUR) == 0:
                    machine.daily(now)
        now += HOUR
    ended = [m for m in month_range("2024-01", "2025-12") if closes_at(m, REACH) <= now]
    assert len(ended) == 24
    for month in ended:
        assert machine.closings[month] == 1, month
        assert all(at is not None and at >= closes_at(month, REACH) for at in machine.made[month])


def test_a_month_is_not_closed_while_a_window_of_its_last_call_is_open() -> None:
    made = {"2024-02": [None, None, None]}
    march_3 = month_start_ms("2024-03") + 2 * 24 * HOUR
    assert months_due(march_3, made, made, set(), REACH) == []
    assert months_due(march_3 + 4 * HOUR, made, made, set(), REACH) == ["2024-02"]
    assert months_due(march_3 + 4 * HOUR, made, made, {"2024-02"}, REACH) == []
    early: dict[str, list[int | None]] = {"2024-02": [march_3 + 4 * HOUR, march_3 + 4 * HOUR, march_3]}
    assert months_due(march_3 + 4 * HOUR, early, early, set(), REACH) == ["2024-02"], "one kind has open windows"


def test_every_step_counts() -> None:
    """A new step of the table of run kinds is closed, too, without a word here."""
    assert [kind.name for kind in widest_kinds()][:3] == ["full", "v1-baseline", "walk-forward"]


def asked(home: Path, at: datetime) -> list[str]:
    """The months that the schedule asks for at a moment."""
    with open_instance(Home(Settings(home=home))) as instance:
        context = dg.build_schedule_context(instance=instance, scheduled_execution_time=at)
        found = schedules.closed_month(context, lab=Lab(home=str(home)))
        if isinstance(found, dg.SkipReason):
            return []
        assert isinstance(found, list)
        return [month for request in found for month in months_of(request.tags)]


def test_what_was_made_decides_and_not_the_tick(home: Path, quantbot: Quantbot) -> None:
    """Runs of the command line close months, too; those of another configuration do not."""
    late = datetime(2024, 3, 10, tzinfo=UTC)
    due = asked(home, late)
    assert due == ["2024-01", "2024-02"]
    first, last = due[0], due[-1]
    assert asked(home, datetime.fromisoformat(f"{first}-28T00:00:00+00:00")) == []
    span = ("--from", first, "--to", last)
    assert quantbot("backtest", "walk-forward", *span, "--taker-fee-bps", "99").status == 0
    for command in ("full", "baseline", "tune", "evidence", "model", "anomalies"):
        assert quantbot("backtest", command, "--from", last, "--to", last).status == 0
    assert asked(home, late) == due, "the walk-forward of another configuration closes nothing"
    assert quantbot("backtest", "walk-forward", "--from", last, "--to", last).status == 0
    assert asked(home, late) == due[:-1]
    assert quantbot("backfill", *span, "--only-changed").status == 0
    assert asked(home, late) == []


def test_a_closing_that_is_under_way_is_not_asked_for_again(home: Path) -> None:
    lab, late = Home(Settings(home=home)), datetime(2026, 1, 1, tzinfo=UTC)
    due = asked(home, late)
    with open_instance(lab) as instance:
        job = dg.job(name="everything")(lambda: None)
        waiting = instance.create_run_for_job(job, tags=range_tags(due[:1]), status=dg.DagsterRunStatus.STARTED)
        assert look(instance, lab, int(late.timestamp() * 1000), due) == due[1:]
        instance.report_run_canceled(waiting)
        assert look(instance, lab, int(late.timestamp() * 1000), due) == due


def test_a_home_without_calls_closes_its_partitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is missed where calls come later; with calls, months count from the first of them."""
    home = tmp_path / "empty"
    (home / "data").mkdir(parents=True)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("QUANTBOT_PARTITIONS_START", "2024-01")
    at = datetime(2024, 5, 1, tzinfo=UTC)
    assert asked(home, at) == ["2024-01", "2024-02", "2024-03"]
    with open_instance(Home(Settings(home=home))) as instance:
        context = dg.build_schedule_context(instance=instance, scheduled_execution_time=at)
        found = schedules.closed_month(context, lab=Lab(home=str(home)))
        assert isinstance(found, list)
        assert (found[0].tags[RANGE_START], found[0].tags[RANGE_END]) == ("2024-01", "2024-03")
