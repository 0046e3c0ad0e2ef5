"""A Postgres server for tests: Debian's, in a scratch folder, on a Unix socket; gone with everything in it when the test is done.

initdb refuses root, so that the server runs as the user `postgres` where the tests are root's.
"""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

PLACES = "/usr/lib/postgresql/*/bin"  # where Debian has it; elsewhere it is on the PATH
# Nothing is kept: a test needs no flush to the disk.
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=16MB", "max_connections=60")


class Postgres:
    """A running server; `folder` has its socket."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def url(self, database: str) -> str:
        """The URL of a database, as SQLAlchemy and libpq read it."""
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def make_database(self) -> str:
        """Make a database of a new name; return its URL."""
        name = f"d{uuid.uuid4().hex}"
        self._run("psql", "-qc", f"CREATE DATABASE {name}", "postgres")
        return self.url(name)

    def _run(self, program: str, *arguments: str) -> None:
        command = [_program(program), "-h", str(self.folder), "-U", "postgres", *arguments]
        subprocess.run(command, check=True, capture_output=True, text=True)


@contextlib.contextmanager
def postgres_server() -> Iterator[Postgres]:
    """A server of its own; skips the test where Postgres is not installed."""
    initdb, pg_ctl, user = _program("initdb"), _program("pg_ctl"), _unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # short: the path of a socket has 107 bytes at most
    try:
        if user:
            shutil.chown(folder, "postgres")
        data, log = str(folder / "data"), str(folder / "log")
        _must([*user, initdb, "-D", data, "-U", "postgres", "-A", "trust", "-N", "--no-locale", "-E", "UTF8"])
        options = " ".join(f"-c {one}" for one in FAST) + f" -c listen_addresses='' -k {folder}"
        _must([*user, pg_ctl, "-D", data, "-l", log, "-o", options, "-w", "start"])
        try:
            yield Postgres(folder)
        finally:
            _must([*user, pg_ctl, "-D", data, "-m", "immediate", "-w", "stop"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _program(name: str) -> str:
    found = sorted(Path("/").glob(f"{PLACES[1:]}/{name}"))
    program = str(found[-1]) if found else shutil.which(name)
    if program is None:
        pytest.skip("needs Postgres (on Debian: apt-get install postgresql)")
    return program


def _unprivileged() -> Sequence[str]:
    """What goes before a command that must not be root's."""
    if os.geteuid() != 0:
        return ()
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("needs the user postgres: initdb refuses root")
    return ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")


def _must(command: Sequence[str]) -> None:
    """Run a command in a folder that its user may enter. What it says goes nowhere: the server would hold a pipe open."""
    with tempfile.TemporaryFile() as said:
        done = subprocess.run(command, cwd="/tmp", stdout=said, stderr=said)
        said.seek(0)
        assert done.returncode == 0, said.read().decode(errors="replace")
