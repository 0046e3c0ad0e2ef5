"""A run whose process is gone is found dead, by whoever looks; one that lives is left alone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.launcher.base import WorkerStatus

from quantbot_pipeline.home import Home
from quantbot_pipeline.orchestration import launch
from quantbot_pipeline.orchestration.launch import open_instance
from quantbot_pipeline.orchestration.local import run_launcher
from quantbot_pipeline.orchestration.local.run_launcher import LocalRunLauncher, is_alive
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.conftest import Quantbot


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def test_a_process_lives_until_it_is_killed_even_while_nobody_has_reaped_it(sleeper: "subprocess.Popen[bytes]") -> None:
    now = time.time()
    assert is_alive(sleeper.pid, now)
    sleeper.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is a zombie
    if sys.platform == "linux":
        assert not is_alive(sleeper.pid, now)
    sleeper.wait()
    assert not is_alive(sleeper.pid, now)


@pytest.mark.skipif(sys.platform != "linux", reason="when a process started is known from /proc")
def test_a_later_process_with_the_same_number_is_another_one(sleeper: "subprocess.Popen[bytes]") -> None:
    assert not is_alive(sleeper.pid, time.time() - 2 * run_launcher.EARLY_S)


@pytest.mark.skipif(sys.platform != "linux", reason="when a process started is known from /proc")
def test_a_wall_clock_that_was_set_makes_no_living_run_dead(sleeper: "subprocess.Popen[bytes]") -> None:
    launched = launch.launched_tag()[launch.LAUNCHED_TAG]
    for hours in (-24, -1, 1, 24):  # as the clock was when the run said its number
        assert is_alive(sleeper.pid, time.time() + 3600 * hours, launched)


@pytest.mark.skipif(sys.platform != "linux", reason="when a process started is known from /proc")
def test_a_process_of_another_time_is_not_the_one_that_was_launched(sleeper: "subprocess.Popen[bytes]") -> None:
    boot, since = launch.launched_tag()[launch.LAUNCHED_TAG].split()
    now = time.time()
    assert is_alive(sleeper.pid, now, f"{boot} {since}")
    assert not is_alive(sleeper.pid, now, f"{boot[::-1]} {since}")  # before the machine was started again
    assert not is_alive(sleeper.pid, now, f"{boot} {float(since) - 2 * run_launcher.START_S:.2f}")
    assert is_alive(sleeper.pid, now, "what somebody wrote there")  # then the clock must do


def test_the_command_line_says_when_it_launched_a_run(home: Path, quantbot: Quantbot) -> None:
    assert quantbot("backtest", "path-only", "--from", "2024-01", "--to", "2024-01").status == 0
    with open_instance(Home(Settings(home=home))) as instance:
        (run,) = instance.get_runs()
        assert set(launch.launched_tag()) <= set(run.tags)
        assert isinstance(instance.run_launcher, LocalRunLauncher)
        assert instance.run_launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING


def test_the_instance_of_a_home_knows_whether_a_run_lives(home: Path, sleeper: "subprocess.Popen[bytes]") -> None:
    with open_instance(Home(Settings(home=home))) as instance:
        found = instance.run_launcher
        assert isinstance(found, LocalRunLauncher)
        run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
        assert found.supports_check_run_worker_health
        assert found.check_run_worker_health(run).status == WorkerStatus.RUNNING  # has not said its process yet
        data = EngineEventData.in_process(sleeper.pid)
        instance.report_engine_event("Started process for run", run, data)
        assert found.check_run_worker_health(run).status == WorkerStatus.RUNNING
        sleeper.kill()
        sleeper.wait()
        dead = found.check_run_worker_health(run)
        assert (dead.status, dead.msg) == (WorkerStatus.FAILED, f"process {sleeper.pid} is gone")


@dg.op
def nothing() -> None: ...


@dg.job
def job() -> None:
    nothing()
