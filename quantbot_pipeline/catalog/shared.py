"""A catalog that several machines share: each has a copy in a file of its own, brings it up and puts it in the place of the newest.

Nobody waits for anybody. A machine pulls the newest state, applies what is new, and offers it on the condition that its own is still
the newest. Whoever loses pulls again and applies its own. Readers pull when the state changed.
Belongs here: what such a place can do, and which state the local file is. Does not: a kind of place (`object_catalog`), nor what is
in a catalog (`sync`).
"""

import json
import random
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

from quantbot_pipeline.errors import StoreError
from quantbot_pipeline.interrupts import stop_if_asked
from quantbot_pipeline.versions import format_of, parse_version

TRIES = 30  # to publish; eight machines at once take about four
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
T = TypeVar("T")


class OvertakenError(StoreError):
    """Another machine published a catalog meanwhile."""


def require_not_newer(said: str | None, where: Path | str) -> None:
    """Leave a shared catalog of a newer version: made anew by this one, it would be made anew by every machine in turn."""
    known = format_of("catalog").current
    found, own = parse_version(said or ""), parse_version(known)
    if found is not None and own is not None and found > own:
        raise StoreError(
            f"{where}: the shared catalog is of version {said}, and this quantbot writes {known}: upgrade this machine"
        )


class SharedCatalog(Protocol):
    """Where several machines keep one catalog. A tag names one state of it."""

    @property
    def place(self) -> str:
        """How it is named in messages."""
        ...

    def pull(self, path: Path) -> str | None:
        """Have the newest state in the file `path`; return its tag, None where there is no catalog yet."""
        ...

    def offer(self, private: Path, tag: str | None) -> str:
        """Make a file the newest state, in the place of that with the tag. Raises OvertakenError when it is no longer there."""
        ...


def until_published(attempt: Callable[[], T], place: str) -> T:
    """Repeat an attempt that other machines overtake, after a random pause, so that two do not meet again. Raises StoreError."""
    for nth in range(TRIES):
        if nth:
            stop_if_asked()
            time.sleep(random.uniform(0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**nth)))  # noqa: S311
        try:
            return attempt()
        except OvertakenError:
            continue
    raise StoreError(f"{place}: other machines were faster {TRIES} times; run again")


class Offering:
    """The way of one sync: pull the newest state, offer the file that was made of it, remember which state the file is."""

    def __init__(self, shared: SharedCatalog, path: Path) -> None:
        self._shared, self._path = shared, path
        self._tag: str | None = None
        self._published: tuple[str, list[int]] | None = None

    def pulled(self) -> bool:
        """Whether there is a catalog; its newest state is in the local file then."""
        self._tag = self._shared.pull(self._path)
        return self._tag is not None

    def __call__(self, private: Path) -> None:
        """Offer a file that is about to take the place of the local one. Raises OvertakenError."""
        self._published = self._shared.offer(private, self._tag), _identity(private)

    def settle(self) -> None:
        """Remember the state of the local file, after it was published."""
        if self._published is not None:
            _write_note(self._path, *self._published)


def put_in_place(temporary: Path, path: Path, tag: str) -> None:
    """Let a file take the place of the local one; whoever is killed in between downloads again."""
    identity = _identity(temporary)  # a rename keeps it
    temporary.replace(path)
    _write_note(path, tag, identity)


def noted_tag(path: Path) -> str | None:
    """Return the tag of the local file; None where nobody noted it for this very file."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        said = json.loads(_note_of(path).read_bytes())
        if said["file"] == _identity(path):
            return str(said["tag"])
    return None


def _identity(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_ino, stat.st_size, stat.st_mtime_ns]


def _note_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.shared.json")


def _write_note(path: Path, tag: str, identity: list[int]) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.note")
    temporary.write_text(json.dumps({"tag": tag, "file": identity}))
    temporary.replace(_note_of(path))
