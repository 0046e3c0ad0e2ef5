"""A program that the campaign asks the same thing many times: it has everything imported and forks whoever does the work."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quantbot_pipeline_tests.support.labs import environment

Serving = subprocess.Popen[str]


@contextmanager
def serving(program: str, home: Path, *arguments: str, **more: str) -> Iterator[Serving]:
    """The Python program on this home, once it has said `ready`; it ends with all that it has forked."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, home, *arguments], env=environment(home, **more), text=True, start_new_session=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip  # a table: what belongs together stands on one line
    try:
        assert said(process) == "ready"
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def ask(process: Serving, question: Any) -> Any:
    """One line of JSON there and one back."""
    assert process.stdin is not None
    print(json.dumps(question), file=process.stdin, flush=True)
    return json.loads(said(process))


def said(process: Serving) -> str:
    """The next line that it says."""
    assert process.stdout is not None
    return process.stdout.readline().strip()
