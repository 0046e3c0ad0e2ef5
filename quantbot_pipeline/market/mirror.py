"""Inputs that are kept in an object store, as this machine sees them: a folder laid out as that of a home.

Of a month of candles the folder has the pointer and, for each file, an empty one of the same size: whoever opens one gets the
bytes from the store, part by part, each held against the SHA-256 of the pointer and kept as a copy. Belongs here: looking at
the store, parts. Does not: publishing (`pointers`), calls (`call_months`), and what is in a file.
"""

import base64
import hashlib
import io
import json
import os
import re
import threading
import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from quantbot_pipeline.bucket import Absent, Bucket
from quantbot_pipeline.copied import Room, is_here, write_whole
from quantbot_pipeline.durable import locked, sha256_file
from quantbot_pipeline.errors import StoreError
from quantbot_pipeline.market.opening import Opened, opened_elsewhere
from quantbot_pipeline.market.pointers import (
    NOTHING,
    POINTER,
    Entry,
    Found,
    Publisher,
    parse_pointer,
    read_pointer,
)

LOOK_S = 2.0  # within which the store is not looked at again
SIDECAR = f".{POINTER}"
_MONTH = re.compile(rf"candles/(interval=[0-9a-z]{{1,5}}/month=(?:\d{{4}}-\d{{2}}|none))/{re.escape(POINTER)}")
_NAMES = ("candles", "rejected", "wicks")


class Mirror:
    """The inputs under the URL of `bucket`, mirrored in `folder`; copies take `limit` bytes at most.

    age_s: how long a file stays that no longer counts, for a run in flight may read it.
    """

    def __init__(self, bucket: Bucket, folder: Path, limit: int, age_s: float, lock_timeout_s: float) -> None:
        self.bucket, self.folder, self.candles = bucket, folder, folder / "candles"
        self.publisher = Publisher(bucket, folder / ".probed.json", age_s)
        self._room = Room(folder, "parts/*/*", limit)
        self._lock_timeout_s = lock_timeout_s
        self._looked = -LOOK_S
        self._guard = threading.Lock()
        self._verified: set[str] = set()  # parts whose copies this process has seen to be whole
        opened_elsewhere(self.candles, self._open)

    @property
    def place(self) -> str:
        """The URL of the candles."""
        return f"{self.bucket.url}/candles"

    def require_honest_store(self) -> None:
        """Raise StoreError for a store that cannot be changed safely."""
        self.publisher.require_honest_store()

    # --- looking ---

    def look(self, *, now: bool = False) -> None:
        """Take over what changed in the store of candles. Within moments of the last look nothing is asked, unless `now`."""
        with self._guard:
            if not now and time.monotonic() - self._looked < LOOK_S:
                return
            listing = ((_MONTH.fullmatch(one.key), one.etag) for one in self.bucket.listing("candles/"))
            listed = {match[1]: etag for match, etag in listing if match is not None}
            here = {
                path.parent.relative_to(self.candles).as_posix(): _etag(path)
                for path in self.candles.glob(f"interval=*/month=*/{SIDECAR}")
            }
            changed = [month for month, etag in listed.items() if here.get(month) != etag]
            gone = here.keys() - listed.keys()
            if changed or gone:
                with self._changing():
                    self.bucket.each(self._take, sorted(changed))
                    for month in gone:
                        self._show(month, Found(NOTHING, None))
            self._looked = time.monotonic()

    def _changing(self) -> Any:
        """Hold the lock of the folder: nobody lays out what was read before something newer."""
        return locked(self.folder / ".look.lock", self._lock_timeout_s)

    def _take(self, month: str) -> Found:
        found = read_pointer(self.bucket, f"candles/{month}")
        self._show(month, found)
        return found

    def _show(self, month: str, found: Found) -> None:
        """Lay a month out. The pointer comes first: what is kept of a file is made anew when the file changes."""
        folder = self.candles / month
        if found.seen is not None:
            said = [base64.b64encode(found.seen.content).decode(), found.seen.etag]
            write_whole(folder / SIDECAR, json.dumps(said).encode())
        for name in _NAMES:
            path, entry = folder / f"{name}.parquet", found.pointer.files.get(name)
            if entry is None:
                path.unlink(missing_ok=True)
            else:
                _stand_in(path, entry)
        if found.seen is None:
            (folder / SIDECAR).unlink(missing_ok=True)

    # --- changing ---

    def month(self, interval: str, month: str) -> Found:
        """Return the pointer of a month as it is in the store now, and lay the month out so."""
        with self._changing():
            return self._take(f"interval={interval}/month={month}")

    def publish_month(self, interval: str, month: str, before: Found, new: Mapping[str, Path]) -> bool:
        """Let files take the places of a month's; False: another ingest was there first, so that they must be made again."""
        prefix = f"candles/interval={interval}/month={month}"
        if not self.publisher.publish(prefix, before, new):
            return False
        self.month(interval, month)
        self.publisher.sweep(prefix)
        return True

    # --- parts ---

    def _open(self, path: Path) -> Opened:
        """Open a file of candles as it is now. Raises StoreError for a folder that somebody emptied."""
        try:
            content, _ = json.loads(path.with_name(SIDECAR).read_bytes())
            entry = parse_pointer(base64.b64decode(content), str(path)).files[path.stem]
        except (OSError, ValueError, KeyError, TypeError):
            raise StoreError(f"{path}: not as it was laid out; delete {self.folder}, nothing is lost with it") from None
        return self.open(entry)

    def open(self, entry: Entry) -> Opened:
        """Open a file of the store; its parts are fetched when they are read."""
        return Opened(pa.PythonFile(_Parts(self, entry), mode="r"), lambda groups: self._fetch(entry, groups))

    def _fetch(self, entry: Entry, groups: Sequence[int]) -> None:
        parts = sorted({min(number, len(entry.parts) - 1) for number in groups})
        self.bucket.each(lambda number: self.part(entry, number), parts)

    def part(self, entry: Entry, number: int) -> Path:
        """Return the copy of a part of a file, fetched if it is not here. Raises StoreError for one that is not as promised."""
        start, end = entry.span(number)
        digest = entry.parts[number][1]
        path = self.folder / "parts" / digest[:2] / digest
        if is_here(path, end - start) and (digest in self._verified or sha256_file(path) == digest):
            self._verified.add(digest)
            return path
        where = f"{self.bucket.url}/{entry.key}"
        try:
            content = self.bucket.get_range(entry.key, start, end - start)
        except Absent:
            raise StoreError(f"{where}: gone, for another file took its place long ago; run again") from None
        if hashlib.sha256(content).hexdigest() != digest:
            raise StoreError(
                f"{where}: bytes {start:,} to {end:,} have another checksum than the pointer says; restore an earlier version of this object"
            )
        self._room.put(path, content)
        self._verified.add(digest)
        return path


def _etag(sidecar: Path) -> str | None:
    try:
        return str(json.loads(sidecar.read_bytes())[1])
    except (OSError, ValueError, TypeError, IndexError):
        return None


def _stand_in(path: Path, entry: Entry) -> None:
    """Lay out an empty file. Its size and time follow from its content, so that every machine tells the same change."""
    said = hashlib.sha256(repr(entry).encode()).digest()
    time_ns = 10**18 + int.from_bytes(said[:7], "little")  # from 2001 to 2003
    temporary = path.with_name(f".{path.name}.laid")
    with temporary.open("wb") as file:
        file.truncate(entry.size)
    os.utime(temporary, ns=(time_ns, time_ns))
    temporary.replace(path)


class _Parts(io.RawIOBase):
    """A file of the store, for reading."""

    def __init__(self, mirror: Mirror, entry: Entry) -> None:
        self._mirror, self._entry, self._at = mirror, entry, 0
        self._starts = [start for start, _ in entry.parts]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._entry.size}[whence]
        self._at = base + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Return so many bytes, or those up to the end; each comes from the copy of its part."""
        end = self._entry.size if size is None or size < 0 else min(self._at + size, self._entry.size)
        pieces = []
        while self._at < end:
            number = bisect_right(self._starts, self._at) - 1
            start, stop = self._entry.span(number)
            with self._mirror.part(self._entry, number).open("rb") as file:
                file.seek(self._at - start)
                piece = file.read(min(end, stop) - self._at)
            if not piece:
                raise StoreError(f"{self._mirror.bucket.url}/{self._entry.key}: its copy here is cut short; run again")
            pieces.append(piece)
            self._at += len(piece)
        return b"".join(pieces)
