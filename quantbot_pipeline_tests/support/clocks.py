"""A clock that a test sets for the processes that it starts: `clock.c`, compiled and preloaded, reads from a file how far theirs is off.

Only the time of day is shifted, and the time of a file that was flushed: pauses, patience and the machine's count since its start are
real, and so are the times of files that nobody flushed.
"""

import os
import shutil
import struct
import subprocess
import time
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")
COMPILER = shutil.which("cc") or shutil.which("gcc")
MISSING = "needs a C compiler (Debian's package gcc)"


class Clock:
    """The time of day as processes see it that are started with `environment`."""

    def __init__(self, folder: Path, start_s: float) -> None:
        library, self._file = folder / "clock.so", folder / "clock"
        command = [
            str(COMPILER),
            "-shared",
            "-fPIC",
            "-O1",
            "-Wall",
            "-Werror",
            "-o",
            str(library),
            str(SOURCE),
            "-ldl",
        ]
        subprocess.run(command, check=True)
        self._ahead_ns = 0
        self._file.write_bytes(bytes(8))
        self.advance(start_s - time.time())
        self.environment = {"LD_PRELOAD": str(library), "QB_TEST_CLOCK": str(self._file)}

    def now_s(self) -> float:
        return time.time() + self._ahead_ns / 1e9

    def advance(self, seconds: float) -> None:
        self._ahead_ns += round(seconds * 1e9)
        file = os.open(self._file, os.O_WRONLY)
        os.pwrite(file, struct.pack("=q", self._ahead_ns), 0)  # in place: the processes have mapped it
        os.close(file)
