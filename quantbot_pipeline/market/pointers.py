"""Files of inputs in an object store, and the small object `current.json` that says which of them count.

A file is created at a key of its own and never changed. A pointer names the files that belong together, and is swapped as a
whole: whoever is killed on the way has changed nothing. Belongs here: what a pointer says, publishing, sweeping. Does not: what
is in a file, and copies on this machine (`mirror`).
"""

import hashlib
import json
import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from quantbot_pipeline.bucket import Absent, Bucket, Stored
from quantbot_pipeline.errors import StoreError
from quantbot_pipeline.interrupts import put_off, stop_if_asked
from quantbot_pipeline.version import __version__
from quantbot_pipeline.versions import format_of, read_version

POINTER = "current.json"
LAST_BYTES = 65_536  # of a file; Arrow reads so many to find the footer, whatever comes before it
_KEY = re.compile(r"[a-z0-9=/-]{1,80}/[0-9a-f]{32}/[a-z]{1,20}\.parquet")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Entry(NamedTuple):
    """A file: its key, its bytes, and where each of its parts begins, with the SHA-256 of the part.

    The parts of a Parquet file are its row groups, and as the last one its last bytes with the footer; a small file is one part.
    """

    key: str
    size: int
    parts: tuple[tuple[int, str], ...]

    def span(self, part: int) -> tuple[int, int]:
        """Return where a part begins and ends."""
        ends = [start for start, _ in self.parts[1:]] + [self.size]
        return self.parts[part][0], ends[part]


@dataclass(frozen=True)
class Pointer:
    """What counts: {name: file}. retired: {key of a file that counted once: key of the one that took its place}."""

    files: Mapping[str, Entry] = field(default_factory=dict)
    retired: Mapping[str, str] = field(default_factory=dict)

    def with_files(self, new: Mapping[str, Entry]) -> "Pointer":
        """Return the pointer after some files have taken the places of others."""
        old = {self.files[name].key: entry.key for name, entry in new.items() if name in self.files}
        return Pointer({**self.files, **new}, {**self.retired, **old})

    def without(self, swept: Callable[[str], bool]) -> "Pointer":
        """Return the pointer without the retired files that are gone."""
        return Pointer(self.files, {old: key for old, key in self.retired.items() if not swept(old)})

    def to_bytes(self) -> bytes:
        """Return the pointer as JSON; no two are equal, since every key is new."""
        said = {
            "version": format_of("inputs").current,
            "written_by": __version__,
            "files": {name: {**entry._asdict()} for name, entry in sorted(self.files.items())},
            "retired": dict(sorted(self.retired.items())),
        }
        return json.dumps(said, separators=(",", ":")).encode()


NOTHING = Pointer()


def parse_pointer(content: bytes, where: str) -> Pointer:
    """The inverse of `Pointer.to_bytes`. Raises StoreError for what is none, and for one of a newer major version."""
    try:
        said = json.loads(content)
        version, program = said.get("version"), said.get("written_by")
        read_version("inputs", version, where, StoreError, program)
        files = {str(name): _entry(one) for name, one in said["files"].items()}
        retired = {str(old): str(new) for old, new in said["retired"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise StoreError(
            f"{where}: damaged, or not written by quantbot; restore an earlier version of this object"
        ) from None
    return Pointer(files, retired)


def _entry(said: Any) -> Entry:
    entry = Entry(str(said["key"]), int(said["size"]), tuple((int(at), str(sha)) for at, sha in said["parts"]))
    starts = [at for at, _ in entry.parts]
    sound = starts[0] == 0 and starts == sorted(set(starts)) and starts[-1] < entry.size
    if not sound or not _KEY.fullmatch(entry.key) or not all(_SHA256.fullmatch(sha) for _, sha in entry.parts):
        raise ValueError
    return entry


def entry_of(key: str, path: Path) -> Entry:
    """Describe a Parquet file that is about to be published at a key."""
    size, metadata = path.stat().st_size, pq.read_metadata(path)
    groups = range(metadata.num_row_groups) if size > LAST_BYTES else ()
    starts = [_start(metadata.row_group(number)) for number in groups]
    last = min(size - 8 - metadata.serialized_size, size - LAST_BYTES)
    starts = [0, *(start for start in starts[1:] if start < last), last] if starts else [0]
    parts = []
    with path.open("rb") as file:
        for start, end in zip(starts, [*starts[1:], size], strict=True):
            parts.append((start, hashlib.sha256(file.read(end - start)).hexdigest()))
    return Entry(key, size, tuple(parts))


def _start(group: Any) -> int:
    """Where the bytes of a row group begin."""
    columns = [group.column(i) for i in range(group.num_columns)]
    return min(c.dictionary_page_offset if c.has_dictionary_page else c.data_page_offset for c in columns)


class Seen(NamedTuple):
    """An object that changes, as it was read."""

    content: bytes
    etag: str


class Found(NamedTuple):
    """A pointer as it was read, and the object that it was read from; None: there is none yet."""

    pointer: Pointer
    seen: Seen | None


def read_pointer(bucket: Bucket, prefix: str) -> Found:
    """Return the pointer of a prefix. Raises StoreError when it cannot be read."""
    key = f"{prefix}/{POINTER}"
    try:
        seen = Seen(*bucket.read(key))
    except Absent:
        return Found(NOTHING, None)
    return Found(parse_pointer(seen.content, f"{bucket.url}/{key}"), seen)


@dataclass(frozen=True)
class Publisher:
    """Publishes files under a bucket. note: file that keeps what the store honours; age_s: after which a sweep may remove files."""

    bucket: Bucket
    note: Path
    age_s: float

    def require_honest_store(self) -> None:
        """Raise StoreError for a store that does not create and swap under conditions: two writers could undo each other."""
        honours = self.bucket.honours(self.note)
        if not (honours.quoted or honours.plain):
            raise StoreError(
                f"{self.bucket.url}: the store swaps no object under a condition (no If-Match): inputs cannot be kept there"
            )

    def publish(self, prefix: str, before: Found, new: Mapping[str, Path]) -> bool:
        """Let some files take the places of those of their names, all at once; False: somebody else was there first.

        Raises StoreError when the store does not take them; the pointer is then as it was, or it is said to be unknown.
        """
        began, bucket = time.monotonic(), self.bucket
        entries = {name: entry_of(_new_key(prefix, name), path) for name, path in new.items()}
        bucket.each(lambda name: bucket.upload(entries[name].key, new[name]), sorted(new))
        stop_if_asked()
        there = {one.key: one.size for one in bucket.listing(f"{prefix}/")}
        for entry in entries.values():
            if there.get(entry.key) != entry.size:
                raise StoreError(f"{bucket.url}/{entry.key}: not there as it was written; run again")
        if time.monotonic() - began > self.age_s / 2:  # a sweep may be at work
            raise StoreError(
                f"{bucket.url}/{prefix}: not changed: the upload took longer than half of QUANTBOT_STAGING_MAX_AGE_S; run again"
            )
        content = before.pointer.with_files(entries).without(lambda key: key not in there).to_bytes()
        with put_off():
            return self._swap(f"{prefix}/{POINTER}", content, before.seen)

    def _swap(self, key: str, content: bytes, seen: Seen | None) -> bool:
        try:
            self.bucket.honours(self.note)
            return self.bucket.swap(key, content, None if seen is None else seen.etag) is not None
        except StoreError as e:
            raise StoreError(
                f"{self.bucket.url}/{key}: unknown whether the ingest counted, for no answer came; ingest the same again, "
                f"which changes nothing that is there ({str(e).split(': ', 1)[-1]})"
            ) from None

    def sweep(self, prefix: str) -> int:
        """Remove files under a prefix that no run in flight may read any more; return how many.

        A file that never counted goes when it is old, one that counted once when its successor is older still: that one was
        written before it took the place. Ages are told by the store's clock.
        """
        found = {one.key: one for one in self.bucket.listing(f"{prefix}/")}
        files = [key for key in found if key.endswith(".parquet")]
        pointers = {
            where: read_pointer(self.bucket, where)
            for where in sorted({key.rsplit("/", 1)[0] for key in found if key.endswith(f"/{POINTER}")})
        }
        used = {entry.key for one in pointers.values() for entry in one.pointer.files.values()}
        unused = [key for key in files if key not in used]
        if not unused:
            return 0
        retired = {old: new for one in pointers.values() for old, new in one.pointer.retired.items()}
        aged = self._aged(found, retired)
        dead = [key for key in unused if aged(key)]
        self.bucket.each(self.bucket.delete, dead)
        return len(dead)

    def _aged(self, found: Mapping[str, Stored], retired: Mapping[str, str]) -> Callable[[str], bool]:
        now = self.bucket.now()

        def aged(key: str) -> bool:
            if key not in retired:
                return (now - found[key].written).total_seconds() >= self.age_s
            successor = found.get(retired[key])  # gone: it was swept itself, so that this one is older still
            return successor is None or (now - successor.written).total_seconds() >= 1.5 * self.age_s

        return aged


def _new_key(prefix: str, name: str) -> str:
    """A key that nobody else uses, for a file of a name such as `month=2024-01/alerts`."""
    *folders, last = name.split("/")
    return "/".join((prefix, *folders, uuid.uuid4().hex, f"{last}.parquet"))
