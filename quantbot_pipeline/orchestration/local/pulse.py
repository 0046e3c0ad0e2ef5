"""Whether the code server still answers: a process that hangs lives, and nobody but its callers would notice.

Dagster's code server is two processes: one takes the questions and passes them on to the other, which has loaded the code. The
question that is asked here goes through both.

Belongs here: asking, and ending what hangs. Does not: starting; see `services`.
"""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

ASK_S = 5.0
SILENT_S = 60.0  # a busy machine takes seconds to answer
RELOAD_S = 60
START_S = 180.0  # for the first answer; a busy machine needs ten


class Pulse:
    """When the code server last answered. A thread asks, since a question to one that hangs takes a minute."""

    def __init__(self, door: Path) -> None:
        self._door = door
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="pulse of the code server", daemon=True)
        self.expect()

    def expect(self) -> None:
        """Begin anew: the code server was started this moment."""
        self._started, self._answered = time.monotonic(), 0.0

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._over.set()

    def reload(self) -> None:
        """Have the code server load the code location anew; the web server and the daemon notice by themselves."""
        # Dagster's own client: there is no public one.
        from dagster._grpc.client import DagsterGrpcClient

        DagsterGrpcClient(socket=str(self._door)).reload_code(timeout=RELOAD_S)
        self.expect()

    def silent_s(self) -> float:
        """For how long there was no answer."""
        return time.monotonic() - max(self._started, self._answered)

    def is_gone(self) -> bool:
        """Whether the code server was silent for longer than any that works."""
        return self.silent_s() > (SILENT_S if self._answered else START_S)

    def _ask(self) -> None:
        # Dagster's own client: there is no public one.
        from dagster._grpc.client import DagsterGrpcClient

        client = DagsterGrpcClient(socket=str(self._door))
        while not self._over.wait(ASK_S):
            asked = self._started
            with contextlib.suppress(Exception):  # no answer is what is counted, whatever it is due to
                client.ping("")
                if asked == self._started:
                    self._answered = time.monotonic()


def kill_with_children(pid: int) -> None:
    """Kill a process and its own children, but not theirs: those of a code server execute runs."""
    children: list[int] = []
    with contextlib.suppress(OSError):
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    for victim in (pid, *children):
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
