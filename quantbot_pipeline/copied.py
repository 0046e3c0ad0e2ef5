"""Copies on this machine of what lies in an object store: put in place whole, and kept within a limit.

Belongs here: the room that copies may take. Does not: what is copied, and how it is verified. What was used longest ago goes
first. Nothing is lost with a copy: it is fetched again.
"""

import os
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

IN_USE_S = 60.0  # a copy that was used so recently stays, whatever the limit
_ROOM = threading.Lock()  # what is fetched at once takes its room one after the other
_taken: dict[tuple[str, str], int] = {}  # bytes of copies in a room, as this process counts them since it last looked


@dataclass(frozen=True)
class Room:
    """The files of `folder` that match `pattern`: `limit` bytes at most."""

    folder: Path
    pattern: str
    limit: int

    def put(self, path: Path, content: bytes) -> None:
        """Put a copy in place, whole."""
        with _ROOM:
            self._make_room(len(content))
            write_whole(path, content)

    def make_room(self, size: int) -> None:
        """Remove what was used longest ago, until the copies and so many bytes more are within the limit."""
        with _ROOM:
            self._make_room(size)

    def _make_room(self, size: int) -> None:
        if not self._is_due(size):
            return
        found = []
        for path in self.folder.glob(self.pattern):
            with suppress(OSError):  # another process makes room, too
                stat = path.stat()
                found.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in found)
        for used, freed, path in sorted(found):
            if total + size <= self.limit or time.time() - used < IN_USE_S:
                break
            path.unlink(missing_ok=True)
            total -= freed
        _taken[self._key] = total + size

    @property
    def _key(self) -> tuple[str, str]:
        return str(self.folder), self.pattern

    def _is_due(self, size: int) -> bool:
        """Whether the folder must be looked at: at first, and when what was added since may be too much."""
        known = _taken.get(self._key)
        if known is not None and known + size <= self.limit:
            _taken[self._key] = known + size
            return False
        return True


def is_here(path: Path, size: int | None) -> bool:
    """Whether there is a copy, of so many bytes where that is known; it counts as used now."""
    with suppress(OSError):
        if size in (None, path.stat().st_size):
            os.utime(path)
            return True
    return False


def write_whole(path: Path, content: bytes) -> None:
    """Put a copy in place, whole. It is not flushed: a copy that a crash tears has another size or checksum."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    temporary.write_bytes(content)
    temporary.replace(path)
