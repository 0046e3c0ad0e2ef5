"""A small lab for tests of the command line and of Dagster: a home with four months of calls, and ways to run `quantbot`.

Belongs here: the home's inputs, the installed entry point as a process, `main()` in this process. Fixtures are in `conftest`.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from quantbot_pipeline.home import Home
from quantbot_pipeline_tests.support.builders import Row, call, candles, make_home

# April has no call: a range over it is cut into two stretches. May's calls are in a month of their own.
MONTHS = ("2024-01", "2024-02", "2024-03", "2024-05")
CALLERS = ("alice", "bob", "carol")
CALLS_PER_MONTH = 6
QUANTBOT = Path(sys.executable).with_name("quantbot")


class Done(NamedTuple):
    """How a command ended: exit status, standard output, standard error."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        """Standard output, all of it, as JSON; the command must have succeeded."""
        assert self.status == 0, self
        return json.loads(self.out)

    @property
    def complaint(self) -> str:
        """The one line that a wrong input gets, and nothing else anywhere."""
        assert (self.status, self.out) == (2, ""), self
        assert "Traceback" not in self.err, self
        assert self.err.count("\n") == 1, self
        assert self.err.startswith("quantbot: "), self
        return self.err.removeprefix("quantbot: ").rstrip()


def make_lab(home: Path) -> Home:
    """A home with 6 calls of 3 callers in each of MONTHS, every call on a token of its own; one of May's has no candles."""
    calls: list[Row] = []
    rows: list[Row] = []
    for month in MONTHS:
        for i in range(CALLS_PER_MONTH):
            mint = f"{month}-token-{i}"
            calls.append(call(mint, f"{month}-{3 + 3 * i:02}T06:02", CALLERS[i % 3], call_id=f"{month}-{i}"))
            if (month, i) != ("2024-05", 0):
                rows += candles(mint, f"{month}-{3 + 3 * i:02}", 700)
    return make_home(home, calls, rows)


def environment(home: Path, **more: str) -> dict[str, str]:
    """The environment of a newcomer: nothing set but the home, and Dagster's state in it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("QUANTBOT_", "DAGSTER_"))}
    return kept | {"QUANTBOT_HOME": str(home), "QUANTBOT_THREADS": "1"} | more


def start(home: Path, *arguments: object, **more: str) -> "subprocess.Popen[str]":
    """The installed `quantbot` as a process, in a session of its own."""
    return subprocess.Popen(
        [QUANTBOT, *map(str, arguments)], env=environment(home, **more), cwd=home, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=_heed_ctrl_c,
    )  # fmt: skip  # a table: what belongs together stands on one line


def _heed_ctrl_c() -> None:
    """Tests that run in the background of a shell inherit that Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finish(process: "subprocess.Popen[str]") -> Done:
    """Wait for a process of `start`."""
    out, err = process.communicate(timeout=120)
    return Done(process.returncode, out, err)


def run(home: Path, *arguments: object, **more: str) -> Done:
    """The installed `quantbot`, from start to end."""
    return finish(start(home, *arguments, **more))


def run_dirs(home: Path) -> set[Path]:
    """All run directories of a home, whatever their state."""
    return set((home / "runs").glob("20*/run_id=*"))
