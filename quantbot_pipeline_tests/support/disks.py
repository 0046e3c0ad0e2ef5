"""Disks of a test's own: a tmpfs that can be filled, and how much room is left on it. Needs the right to mount."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path


def mount(*arguments: object) -> bool:
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def disk(folder: Path, size_mb: int) -> Iterator[bool]:
    """A disk of this size below a new folder, or the folder alone; whether it is a disk."""
    folder.mkdir()
    if not mount("-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", folder):
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextlib.contextmanager
def filled(folder: Path) -> Iterator[None]:
    """No byte free on the disk below the folder, for the time of the block."""
    ballast = folder / "ballast"
    try:
        with ballast.open("wb") as f:
            size = 0
            for chunk in (1 << 26, 1 << 20, 1 << 12):  # others write meanwhile, so what is free is no number to rely on
                with contextlib.suppress(OSError):
                    while True:
                        os.posix_fallocate(f.fileno(), size, chunk)
                        size += chunk
        yield
    finally:
        ballast.unlink()
