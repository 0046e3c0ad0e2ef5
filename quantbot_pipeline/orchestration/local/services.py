"""What `quantbot ui` runs: Dagster's code server, web server and daemon on one home, watched and ended together.

`dagster dev` did the same and is superseded; its successor, `dg dev`, brings two dozen packages. The three programs are those
of a deployment (see `deploy/systemd/`), and share one code server.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from quantbot_pipeline.durable import scratch_folder
from quantbot_pipeline.errors import InputError, StoreError
from quantbot_pipeline.orchestration.launch import LOCATION
from quantbot_pipeline.orchestration.local.pulse import START_S, Pulse, kill_with_children

WORKSPACE = """load_from:
  - grpc_server:
      socket: {socket}
      location_name: {location}
"""
CODE_SERVER = "code server"
SHORT_S = 20.0  # a program that ends so soon after its start, and again at the next, would only go on so
PATIENCE = 3
GRACE_S = 15.0  # between the request to stop and the end
LOOK_S = 0.5
CHORE_S = 15.0


def serve(
    host: str,
    port: int,
    say: Callable[[str], object],
    chore: Callable[[], bool | None] = lambda: None,
    *,
    read_only: bool = False,
) -> None:
    """Run all three until Ctrl-C or SIGTERM. A program that ends by itself is started again, unless it cannot stay up.

    A code server that does not answer any more is ended, and so started again. `chore` is done every CHORE_S seconds;
    where it returns true, the code location is loaded anew. What it raises is said, and ends nothing. `read_only` leaves out the daemon, and the web server then changes nothing.

    DAGSTER_HOME and QUANTBOT_HOME are those of the environment. Raises InputError for an address that cannot be had,
    StoreError when a program does not stay up.
    """
    _check_free(host, port)
    asked: list[int] = []  # to stop; an exception in the middle of starting or stopping would leave a program behind
    before = {
        number: signal.signal(number, lambda number, _: asked.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    with scratch_folder(Path(tempfile.gettempdir()), "quantbot-ui-") as folder:  # a socket's path must be short
        door, workspace = folder / "code", folder / "workspace.yaml"
        workspace.write_text(WORKSPACE.format(socket=door, location=LOCATION))
        watch = _Watch(_commands(host, port, door, workspace, read_only), door, say, asked)
        try:
            watch.start()
            say(f"Dagster UI: http://{host}:{port}  (stop it with Ctrl-C)")
            rested = time.monotonic()
            while not asked:
                time.sleep(LOOK_S)
                if time.monotonic() - rested > CHORE_S:
                    rested = time.monotonic()
                    try:
                        if chore():
                            watch.reload()
                    except Exception as e:
                        say(f"{type(e).__name__}: {str(e)[:200]}")
                watch.look()
            say("stopping (Ctrl-C again: at once)")
        finally:
            watch.stop()
            for number, handler in before.items():
                signal.signal(number, handler)


class _Watch:
    """The programs as they run: started in their order, started again when they end, and ended together."""

    def __init__(
        self, programs: dict[str, list[str]], door: Path, say: Callable[[str], object], asked: Sequence[int]
    ) -> None:
        self._programs, self._door, self._say, self._asked = programs, door, say, asked
        self._running: dict[str, tuple[subprocess.Popen[bytes], float]] = {}
        self._short = dict.fromkeys(programs, 0)  # lives in a row
        self._pulse = Pulse(door)

    def start(self) -> None:
        """Start all; the other programs need the code server from the beginning."""
        for name in self._programs:
            self._start(name)
            if name == CODE_SERVER:
                _wait_for(self._door, self._running[name][0], self._asked)
        self._pulse.start()

    def look(self) -> None:
        """Start again what has ended; end a code server that has not answered for long."""
        for name, (process, since) in self._running.items():
            if name == CODE_SERVER and process.poll() is None and self._pulse.is_gone():
                self._say(f"the {name} has not answered for {self._pulse.silent_s():.0f} s and is ended")
                kill_with_children(process.pid)
                process.wait()
            if process.poll() is None or self._asked:
                continue
            self._short[name] = self._short[name] + 1 if time.monotonic() - since < SHORT_S else 0
            how = f"the {name} ended with status {process.returncode}"
            if self._short[name] == PATIENCE:
                raise StoreError(f"{how}, {PATIENCE} times soon after its start; its log is above")
            self._say(f"{how} and is started again")
            self._start(name)

    def reload(self) -> None:
        """Have the code location loaded anew."""
        self._pulse.reload()
        self._say("the code location is loaded anew")

    def stop(self) -> None:
        """End all."""
        self._pulse.stop()
        _stop([process for process, _ in self._running.values()], self._asked)

    def _start(self, name: str) -> None:
        self._running[name] = _start(self._programs[name]), time.monotonic()
        if name == CODE_SERVER:
            self._pulse.expect()


def _check_free(host: str, port: int) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the web server: its last one's just closed
            probe.bind(address)
    except OSError as e:
        raise InputError(f"{host}:{port}: {e.strerror or e}; choose another --host or --port") from None


def _commands(host: str, port: int, door: Path, workspace: Path, read_only: bool = False) -> dict[str, list[str]]:
    """The programs in the order of their start: the other two ask the code server."""
    python = [sys.executable, "-m"]
    programs = {
        CODE_SERVER: [
            *python,
            "dagster",
            "code-server",
            "start",
            "-s",
            str(door),
            "-m",
            LOCATION,
            "--location-name",
            LOCATION,
            "--log-level",
            "warning",
        ],
        "web server": [*python, "dagster_webserver", "-h", host, "-p", str(port), "-w", str(workspace)],
    }
    if read_only:
        programs["web server"].append("--read-only")
    else:
        programs["daemon"] = [str(Path(sys.executable).with_name("dagster-daemon")), "run", "-w", str(workspace)]
    return programs


# Signals are the child's own; on Linux, a `quantbot ui` that is killed leaves no daemon behind that nobody sees.
# The child does this itself, not between fork and exec: this process has threads of gRPC, which a fork may abort.
AS_CHILD = """
import ctypes, os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_DFL)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG, which outlives exec
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


def _start(command: Sequence[str]) -> "subprocess.Popen[bytes]":
    launcher = [sys.executable, "-I", "-S", "-c", AS_CHILD, str(os.getpid())]
    return subprocess.Popen([*launcher, *command], stdin=subprocess.DEVNULL)


def _wait_for(door: Path, process: "subprocess.Popen[bytes]", asked: Sequence[int]) -> None:
    """Until the code server takes connections, or somebody asked to stop."""
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline and not asked:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(door))
            except OSError:
                time.sleep(0.1)
            else:
                return
    if not asked:
        raise StoreError("the code server did not start; its log is above")


def _stop(processes: Sequence["subprocess.Popen[bytes]"], asked: Sequence[int]) -> None:
    """Ask all to stop, and end who does not soon, or when asked a second time. In a terminal Ctrl-C has asked all already."""
    before, deadline = len(asked), time.monotonic() + GRACE_S
    for process in processes:
        process.terminate()
    while any(process.poll() is None for process in processes):
        if time.monotonic() > deadline or len(asked) > max(before, 1):
            for process in processes:
                process.kill()
        time.sleep(0.1)
