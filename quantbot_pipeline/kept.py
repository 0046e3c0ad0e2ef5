"""What a process keeps of files that do not change, so that the recipes of a month and the months of a range read them once."""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

# A file that changed so recently may change again without a new time: the clock of a file system ticks every few ms.
SETTLED_NS = 100_000_000

NEVER = math.inf  # the weight of what must not be kept
Identity = tuple[tuple[int, ...], ...]
T = TypeVar("T")


def identity_of(files: Sequence[Path]) -> Identity:
    """Return device, inode, size, mtime and ctime of every file; an empty tuple stands for a file that is not there."""
    return tuple(_stat(path) for path in files)


def _stat(path: Path) -> tuple[int, ...]:
    try:
        stat = path.stat()
    except OSError:
        return ()
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


class Kept(Generic[T]):
    """Things made of files, each for as long as its files stay the same; the ones used longest ago go first.

    weigh: what a made thing counts; all that are kept count `room` at most. A heavier thing, `NEVER` above all, is made and
    not kept. What is kept is shared between threads, so that nobody may change it.
    """

    def __init__(self, room: int, weigh: Callable[[T], float] = lambda _: 1) -> None:
        self._room, self._weigh = room, weigh
        self._made: OrderedDict[Hashable, tuple[Identity, float, T]] = OrderedDict()
        self._weight = 0.0
        self._lock = threading.Lock()

    def get(self, key: Hashable, files: Sequence[Path], make: Callable[[], T]) -> T:
        """Return what `make` made of these files, anew if one of them has changed since."""
        found = identity_of(files)
        with self._lock:
            kept = self._made.get(key)
            if kept is not None and kept[0] == found:
                self._made.move_to_end(key)
                return kept[2]
        made = make()
        if _is_settled(found) and identity_of(files) == found:
            self._keep(key, found, made)
        return made

    def _keep(self, key: Hashable, files: Identity, made: T) -> None:
        weight = self._weigh(made)
        with self._lock:
            self._drop(key)
            if weight > self._room:
                return
            self._made[key] = (files, weight, made)
            self._weight += weight
            while self._weight > self._room:
                self._drop(next(iter(self._made)))

    def _drop(self, key: Hashable) -> None:
        gone = self._made.pop(key, None)
        if gone is not None:
            self._weight -= gone[1]


def _is_settled(files: Identity) -> bool:
    """Whether no file has a time of the last moment, or of a time to come."""
    return all(max(file[3:]) < time.time_ns() - SETTLED_NS for file in files if file)
