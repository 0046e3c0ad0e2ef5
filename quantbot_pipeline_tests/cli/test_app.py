"""The conventions of a command line: a version, `-h` everywhere, `python -m`, and completion in the shell."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

import quantbot_pipeline.cli.main  # noqa: F401  (the commands add themselves to the app)
from quantbot_pipeline.cli.app import app
from quantbot_pipeline.version import __version__
from quantbot_pipeline_tests.conftest import Quantbot
from quantbot_pipeline_tests.support.labs import QUANTBOT, environment


def paths(command: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the words of every command and group, `quantbot` itself as ()."""
    below = getattr(command, "commands", {})
    return [path, *(found for name in below for found in paths(below[name], (*path, name)))]


COMMANDS = paths(typer.main.get_command(app))


def test_the_version_is_one_line(quantbot: Quantbot) -> None:
    assert quantbot("--version") == (0, f"quantbot {__version__}\n", "")


def test_every_command_answers_to_h_as_to_help(quantbot: Quantbot) -> None:
    assert len(COMMANDS) > 20
    for path in COMMANDS:
        short, long = quantbot(*path, "-h"), quantbot(*path, "--help")
        assert short == long
        assert (short.status, short.err) == (0, "")
        assert short.out.startswith(f"Usage: {' '.join(('quantbot', *path))} "), short


def test_the_package_is_run_as_the_command_is(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "quantbot_pipeline", "--version"], env=environment(tmp_path), cwd=tmp_path,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip  # a table: what belongs together stands on one line
    assert (done.returncode, done.stdout, done.stderr) == (0, f"quantbot {__version__}\n", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the disk that is always full is Linux's")
def test_output_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """The last of it is written when the command has ended: a process that goes at once must not lose it in silence."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "quantbot_pipeline", "--version"], env=environment(tmp_path), cwd=tmp_path, stdout=full,
            stderr=subprocess.PIPE, text=True, timeout=60,
        )  # fmt: skip  # a table: what belongs together stands on one line
    assert done.returncode == 1
    assert done.stderr.startswith("quantbot: the disk of --home: No space left on device")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("quantbot ba", ["backfill", "backtest"]),
        ("quantbot backtest pol", ["policy"]),
        ("quantbot leaderboard --inter", ["--interval"]),
        ("quantbot nothing-like-it", []),
    ],
)
def test_a_shell_completes_commands_and_options(tmp_path: Path, typed: str, offered: list[str]) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" ")), "_QUANTBOT_COMPLETE": "complete_bash"}
    done = subprocess.run(
        [QUANTBOT], env=environment(tmp_path, **words), cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == offered
    assert done.stderr == ""
