"""Whole commands as a user waits for them, of this state and of an earlier one (`--before COMMIT`), in pairs and in turns.

CPU seconds of the process and its children, imports included. Both states run in the same environment, each with its own copy of
every home. The first, unmeasured round of each compiles what it has to compile.
"""

import argparse
import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks import measuring
from benchmarks.backfill import COPY_MONTHS, write_market
from quantbot_pipeline.home import Home
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.support.labs import make_lab

ROOT = Path(__file__).resolve().parents[1]


# The kinds of run of a backfill that both states have: `quantbot backfill` makes more than it did.
COMMON = ("full", "baseline", "walk-forward", "evidence")


class Command(NamedTuple):
    """home: the template. fresh: on a new copy each time, else on one where the command has run before. most: the ratio allowed.

    words: of each command that is run, in turn.
    """

    name: str
    home: str
    words: tuple[tuple[str, ...], ...]
    fresh: bool
    most: float


def run(options: argparse.Namespace) -> None:
    """Measure every command and print CPU seconds, with a state to compare with also their ratio."""
    measuring.title(f"Commands as whole processes{f', against {options.before}' if options.before else ''}")
    with tempfile.TemporaryDirectory(prefix="quantbot-bench-") as folder, _states(options.before) as states:
        made: dict[str, list[str]] = {}
        rows: list[tuple[str, ...]] = []
        missed: list[str] = []
        for command in _commands(options.months):
            if command.home not in made:
                made[command.home] = _make_home(Path(folder) / command.home, command.home)
            spent = _measured(command, Path(folder), made[command.home], states, options.repeats)
            now = measuring.median(spent["now"])
            if "before" not in spent:
                rows.append((command.name, f"{now:.2f}"))
                continue
            ratio = measuring.median([n / b for n, b in zip(spent["now"], spent["before"], strict=True)])
            before = measuring.median(spent["before"])
            rows.append((command.name, f"{now:.2f}", f"{before:.2f}", f"{ratio:.2f}", f"{command.most:.2f}"))
            missed += [command.name] if ratio > command.most else []
            print(f"{command.name}: {ratio:.2f}", file=sys.stderr, flush=True)
    head = ("command", "CPU s", "before", "ratio", "at most")
    measuring.table(head if options.before else head[:2], rows)
    if missed:
        raise SystemExit(f"slower than was promised: {', '.join(missed)}")


def _commands(months: int) -> list[Command]:
    """The commands, the long ones last; `months` is the smaller backfill, the larger has 60."""
    backfill = tuple(("backtest", kind) for kind in (*COMMON, "catalog-sync"))
    path_only = ("backtest", "path-only", "--from", "2024-01", "--to", "2024-01")
    return [
        Command("path-only of a small month", "small", (path_only,), True, 0.6),
        Command("second demo", "empty", (("demo",),), False, 0.5),
        Command("leaderboard", "empty", (("leaderboard",),), False, 0.5),
        Command("catalog-query", "empty", (("backtest", "catalog-query"),), False, 0.5),
        Command(f"backfill of {months} months", f"months-{months}", backfill, True, 0.55),
        Command("backfill of 60 months", "months-60", backfill, True, 0.45),
        Command("dashboard of 60 months", "months-60", (("dashboard",),), False, 0.6),
    ]


def _make_home(folder: Path, name: str) -> list[str]:
    """Write the inputs of a home; return its months, if it is one of many."""
    folder.mkdir()
    if name == "small":
        make_lab(folder)
    if not name.startswith("months-"):
        return []
    return write_market(Home(Settings(home=folder)), -(-int(name.removeprefix("months-")) // COPY_MONTHS))


def _measured(
    command: Command, folder: Path, months: list[str], states: dict[str, Path], repeats: int
) -> dict[str, list[float]]:
    """CPU seconds of each state; the first round is not counted."""
    spent: dict[str, list[float]] = {state: [] for state in states}
    span = ("--from", months[0], "--to", months[-1]) if command.fresh and months else ()
    for round_ in range(-1, repeats):
        for state, root in states.items():
            home = folder / f"{command.home}-{state}"
            if command.fresh:
                shutil.rmtree(home, ignore_errors=True)
            if not home.exists():
                shutil.copytree(folder / command.home, home)
            seconds = sum(_cpu_of(root, _words(words, span, home)) for words in command.words)
            spent[state] += [seconds] if round_ >= 0 else []
    return spent


def _words(words: tuple[str, ...], span: tuple[str, ...], home: Path) -> list[str]:
    """What is typed; a sync takes no range."""
    return [*words, *(() if words[-1] == "catalog-sync" else span), "--home", str(home)]


def _cpu_of(root: Path, words: list[str]) -> float:
    """Run `quantbot` of a checkout; its user and system seconds."""
    # Of a user who has set nothing: the home alone decides.
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("QUANTBOT_", "DAGSTER_", "PYTHON"))}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "quantbot_pipeline", *words],
        cwd=root,
        env=kept,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} of {root}: {done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@contextlib.contextmanager
def _states(commit: str | None) -> Iterator[dict[str, Path]]:
    """{state: its checkout}: this one, and that of the commit in a worktree for as long as it is measured."""
    if commit is None:
        yield {"now": ROOT}
        return
    with tempfile.TemporaryDirectory(prefix="quantbot-before-") as folder:
        before = Path(folder) / "checkout"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(before), commit], check=True)
        try:
            yield {"before": before, "now": ROOT}
        finally:
            subprocess.run([*git, "remove", "--force", str(before)], check=True)
