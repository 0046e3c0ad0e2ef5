"""A week of a lab that nobody looks after: its inputs, its victims, and one step of it after the other.

Belongs here: what is done to the lab. Does not: what must hold at the end; see `orchestration/test_week.py`.
"""

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorType, TickStatus

from quantbot_pipeline.months import iso_ms
from quantbot_pipeline.orchestration.closings import UNFINISHED
from quantbot_pipeline.orchestration.waiting import is_repeated
from quantbot_pipeline_tests.support.builders import Row, call, candles, write_csv
from quantbot_pipeline_tests.support.clocks import Clock
from quantbot_pipeline_tests.support.disks import filled
from quantbot_pipeline_tests.support.processes import children, pid_of
from quantbot_pipeline_tests.support.receivers import Receiver
from quantbot_pipeline_tests.support.servers import PATIENCE_S, Server, quantbot_ui

LONG_ENOUGH_S = 21.0  # `quantbot ui` gives up a program that ends three times within 20 s of its start
PROGRAMS = {"daemon": "dagster-daemon", "web server": "dagster_webserver", "code server": "code-server"}
WORKER = "run worker"
POWER_CUT = "all at once"
WORKER_S = 20.0  # so long a worker is waited for
WORKER_LIVES_S = 5.0
LONG_S = 2 * PATIENCE_S  # a run that died while it was starting is found after three minutes
STEP_S = 12 * 3600.0
CALLERS = ("alice", "bob", "carol")


class Drop(NamedTuple):
    """A file for the inbox: when, its name, and its rows; without rows it is no table at all."""

    step: int
    name: str
    rows: list[Row]


@dataclass
class Plan:
    """What is done, by step."""

    steps: int
    kills: int
    drops: list[Drop]
    full_disks: tuple[int, ...] = ()
    full_s: float = 8.0
    special: Mapping[int, Callable[["Week"], None]] = field(default_factory=dict)
    seed: int = 20300130


def token_of(month: str, number: int) -> str:
    return f"{month}-token-{number}"


def rows_of(month: str, numbers: range) -> tuple[list[Row], list[Row]]:
    """(calls, candles) of a month: each call on a token of its own, from the 3rd day on."""
    days = [3 + number % 20 for number in numbers]
    calls = [
        call(token_of(month, n), f"{month}-{day:02}T06:02", CALLERS[n % 3], call_id=f"{month}-{n}")
        for n, day in zip(numbers, days, strict=True)
    ]
    prices = [
        row
        for n, day in zip(numbers, days, strict=True)
        for row in candles(token_of(month, n), f"{month}-{day:02}", 700)
    ]
    return calls, prices


class Week:
    """A running `quantbot ui` on a home, and all that happens to it."""

    def __init__(self, home: Path, receiver: Receiver, clock: Clock | None = None) -> None:
        self.home, self.receiver, self.clock = home, receiver, clock
        self.counts: Counter[str] = Counter()
        self._alive_since = dict.fromkeys(PROGRAMS, time.monotonic())
        self._died_early = dict.fromkeys(PROGRAMS, False)
        self._disturbed_s = 0.0
        self.environment = {
            "QUANTBOT_ALERT_URLS": receiver.url,
            "QUANTBOT_MIN_FREE_GB": "0.02",
            **(clock.environment if clock else {}),
        }
        self.server = self._start()

    def _start(self) -> Server:
        server = quantbot_ui(self.home, **self.environment)
        server.wait("code location", server.locations)
        return server

    def now_s(self) -> float:
        return self.clock.now_s() if self.clock else time.time()

    def close(self) -> None:
        self.server.stop()

    # --- what a step does ---------------------------------------------------------------------------------------------

    def run(self, plan: Plan) -> None:
        """All steps: files, the clock, a full disk, an operator, deaths; then a rest before the clock moves on."""
        moments = random.Random(plan.seed)
        with dg.DagsterInstance.get() as instance:
            for step in range(plan.steps):
                for drop in plan.drops:
                    if drop.step == step:
                        self.drop(drop)
                self.advance(STEP_S)
                if step in plan.full_disks:
                    with filled(self.home.parent):
                        time.sleep(plan.full_s)
                    self.counts["full disks"] += 1
                if step in plan.special:
                    plan.special[step](self)
                while self.deaths() < plan.kills * (step + 1) // plan.steps:
                    self.kill_some(instance, moments)
                self.settle(instance)
                self.say(step)

    def drop(self, drop: Drop) -> None:
        """Copy a file into the inbox, as people do: it grows under another name first."""
        inbox = self.home / "data" / "inbox"
        inbox.mkdir(parents=True, exist_ok=True)
        part = inbox / f"{drop.name}.part"
        if drop.rows:
            write_csv(part, drop.rows)
        else:
            part.write_bytes(b"PAR1, but nothing of the kind")
        part.rename(inbox / drop.name)
        self.counts["files"] += 1

    def kill_some(self, instance: dg.DagsterInstance, moments: random.Random) -> None:
        """SIGKILL for a worker, a program, or all at once, some time from now. A worker is waited for: it needs programs that live."""
        begin, wanted = time.monotonic(), moments.choice([WORKER, WORKER, *PROGRAMS, POWER_CUT, POWER_CUT])
        time.sleep(moments.uniform(0, 2))
        while time.monotonic() - begin < PATIENCE_S:
            victims = self._victims(instance)
            chosen = [victim for victim in victims if wanted in (victim[0], POWER_CUT)]
            if victims and not chosen and (wanted != WORKER or time.monotonic() - begin > WORKER_S):
                wanted = moments.choice(victims)[0]
            elif chosen and self._kill(chosen, moments.uniform(0, WORKER_LIVES_S if wanted == WORKER else 1)):
                return
            time.sleep(0.2)
        raise AssertionError(f"nothing to kill within {PATIENCE_S} s: {self.counts}")

    def _victims(self, instance: dg.DagsterInstance) -> list[tuple[str, int]]:
        """(name, process) of who may die now: of a program, no two lives in a row are short."""
        self.look()
        found, now = [(WORKER, pid) for pid in workers(instance)], time.monotonic()
        for name, word in PROGRAMS.items():
            if now - self._alive_since[name] >= LONG_ENOUGH_S or not self._died_early[name]:
                found += [(name, pid) for pid in children(self.server.process.pid, word)]
        return found

    def _kill(self, victims: list[tuple[str, int]], after_s: float) -> bool:
        """Whether any was still there at that moment; a later process with its number is left alone."""
        before = self.deaths()
        with contextlib.ExitStack() as open_files:
            processes = {}
            for name, pid in victims:
                with contextlib.suppress(ProcessLookupError):
                    processes[name, pid] = os.pidfd_open(pid)
                    open_files.callback(os.close, processes[name, pid])
            time.sleep(after_s)
            for (name, _), process in processes.items():
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(process, signal.SIGKILL)
                    self.counts[name] += 1
                    if name in PROGRAMS:
                        self._died_early[name] = time.monotonic() - self._alive_since[name] < LONG_ENOUGH_S
                        self._alive_since[name] = time.monotonic()
                    self._disturbed_s = self.now_s()
        return self.deaths() > before

    def deaths(self) -> int:
        return sum(self.counts[name] for name in (WORKER, *PROGRAMS))

    def advance(self, seconds: float) -> None:
        """Move the clock, where it can be moved."""
        if self.clock is not None:
            self.clock.advance(seconds)
        self._disturbed_s = self.now_s()

    def look(self) -> None:
        """Start `quantbot ui` again if it has given up, as a service manager does."""
        if self.server.process.poll() is not None:
            self.counts["quantbot ui started again"] += 1
            self.server.stop()
            self.server = self._start()

    def settle(self, instance: dg.DagsterInstance, patience_s: float = LONG_S) -> None:
        """Wait until every sensor has looked twice since the last death or move of the clock, and no run is under way or promised to be repeated.

        A file in the inbox is taken at the second look; a daemon that is killed again and again never gets so far.
        """
        deadline, calm = time.monotonic() + patience_s, 0
        while calm < 2:
            assert time.monotonic() < deadline, (
                f"not calm within {patience_s} s: {pending(instance)}\n{self.server.log.read_text()[-3000:]}"
            )
            time.sleep(1)
            self.look()
            calm = calm + 1 if have_looked(instance, self._disturbed_s) and not pending(instance) else 0

    def say(self, step: int | str) -> None:
        now = iso_ms(int(self.now_s() * 1000))
        print(time.strftime("%H:%M:%S"), f"step {step}, {now}:", dict(self.counts), flush=True)


def workers(instance: dg.DagsterInstance) -> list[int]:
    """The living processes of unfinished runs; a run of the command line is no worker."""
    begun = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
    pids = [pid for run in instance.get_runs(dg.RunsFilter(statuses=begun)) for pid in pid_of(instance, run)]
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def have_looked(instance: dg.DagsterInstance, since_s: float) -> bool:
    """Whether every sensor that is on has finished two looks that began after this moment."""
    sensors = instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
    running = [state for state in sensors if state.is_running]
    done = [TickStatus.SKIPPED, TickStatus.SUCCESS]
    return bool(running) and all(
        len(instance.get_ticks(s.instigator_origin_id, s.selector_id, after=since_s, limit=2, statuses=done)) == 2
        for s in running
    )


def pending(instance: dg.DagsterInstance) -> list[tuple[str, str, str]]:
    """(job, id, status) of runs that are under way, or that Dagster says it will repeat and has not."""
    runs = list(instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)))
    promised = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], tags={"dagster/will_retry": "true"})
    runs += [run for run in instance.get_runs(promised) if not is_repeated(instance, run)]
    return [(run.job_name, run.run_id, run.status.value) for run in runs]
