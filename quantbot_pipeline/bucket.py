"""A place in an object store: create what is not there, read, list, delete, and one sentence for whatever goes wrong.

Belongs here: requests, repetitions, the probe of what a server honours. Does not: what is in an object. No error repeats the
client's own words: they may hold a signed address. obstore (the extra `cloud`) is imported by the first request.
"""

import contextlib
import json
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from quantbot_pipeline.copied import write_whole
from quantbot_pipeline.errors import InputError, IntegrityError, StoreError
from quantbot_pipeline.interrupts import stop_if_asked

TRIES = 6  # of a write: the client gives up on a PUT that timed out, since it cannot know whether it counted
AT_ONCE = 8  # requests
IN_ONE_PIECE = 16_000_000  # bytes of a file; a larger one would take longer than an answer may
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 3.0
# What of QUANTBOT_STORE_OPTIONS speaks of the connection; everything else is the store's own.
CLIENT_OPTIONS = frozenset(
    ("timeout", "connect_timeout", "allow_http", "allow_invalid_certificates", "proxy_url", "user_agent")
)
PROBED = ".probed.json"  # what the store honours, as it was tried once by this machine
T = TypeVar("T")


class Absent(StoreError):
    """There is no such object."""


class Contended(StoreError):
    """The store refused two changes at once; the next try is for one of them."""


class Seen(NamedTuple):
    """What an object was when it was read: its bytes, and how the store names this state of it. version: of GCS, or None."""

    content: bytes
    etag: str
    version: str | None


class Stored(NamedTuple):
    """An object in a listing: its key, its size in bytes, its ETag, and when it was last written by the store's clock."""

    key: str
    size: int
    etag: str
    written: datetime


@dataclass(frozen=True)
class Bucket:
    """The objects under a URL such as `s3://bucket/prefix`; `options` are those of QUANTBOT_STORE_OPTIONS, beside the cloud's own variables."""

    url: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)

    @cached_property
    def _client(self) -> Any:
        try:
            import obstore.store
        except ImportError:
            raise InputError(
                f"{self.url}: object stores need the extra cloud: pip install 'quantbot-pipeline[cloud]'"
            ) from None
        return obstore

    @cached_property
    def _store(self) -> Any:
        from_url = self._client.store.from_url
        from datetime import timedelta

        client = {"timeout": "30s", "connect_timeout": "5s"} | {
            key: value for key, value in self.options.items() if key in CLIENT_OPTIONS
        }
        own = {key: value for key, value in self.options.items() if key not in CLIENT_OPTIONS}
        pauses = {
            "init_backoff": timedelta(seconds=FIRST_PAUSE_S),
            "max_backoff": timedelta(seconds=LONGEST_PAUSE_S),
            "base": 2,
        }
        retries: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=60), "backoff": pauses}
        try:
            return from_url(self.url, config=own or None, client_options=client, retry_config=retries)
        except Exception as e:  # unknown keys, a URL of another kind: the client's words may hold values
            raise InputError(
                f"{self.url}: not a store that can be opened ({type(e).__name__}); check the URL and QUANTBOT_STORE_OPTIONS"
            ) from None

    # --- requests ---

    def put_new(self, key: str, content: bytes) -> None:
        """Create an object. One that is there already with the same bytes is a success: an answer was lost.

        Raises IntegrityError where other bytes are there, StoreError when the store does not take it.
        """
        self._repeated(lambda: self._create(key, content), key, "written")

    def _create(self, key: str, content: bytes) -> None:
        try:
            self._client.put(self._store, key, content, mode="create", use_multipart=False)
        except self._client.exceptions.AlreadyExistsError:
            found = self.get(key)  # absent: another creation was at work, and is tried again
            if found != content:
                raise IntegrityError(f"{self.url}/{key}: there already, with other bytes") from None

    def get(self, key: str) -> bytes:
        """Return the bytes of an object. Raises Absent without one, StoreError when the store does not answer."""
        return self._repeated(lambda: bytes(self._client.get(self._store, key).bytes()), key, "read", absent=True)

    def see(self, key: str) -> Seen:
        """Return an object together with its ETag, for a `swap`. Raises as `get`."""

        def seen() -> Seen:
            answer = self._client.get(self._store, key)
            return Seen(bytes(answer.bytes()), (answer.meta["e_tag"] or "").strip('"'), answer.meta["version"])

        return self._repeated(seen, key, "read", absent=True)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return a part of an object. Raises as `get`, and StoreError for an object that ends before."""
        return self._repeated(
            lambda: bytes(self._client.get_range(self._store, key, start=start, length=length)),
            key,
            "read",
            absent=True,
        )

    def upload(self, key: str, path: Path) -> None:
        """Write a file to a key that is nobody else's; a large one goes in parts, which no condition covers."""
        if path.stat().st_size <= IN_ONE_PIECE:
            self.put_new(key, path.read_bytes())
        else:
            self._repeated(lambda: self._client.put(self._store, key, path, use_multipart=True), key, "written")

    def swap(self, key: str, content: bytes, seen: Seen | None, honours: "Honours") -> bool:
        """Replace an object that is still as it was seen (None: absent); False: somebody else was there first.

        content: unlike any that was ever there, so that our own is known again when an answer was lost.
        """
        if seen is None:
            try:
                self.put_new(key, content)
            except IntegrityError:
                return False
            return True
        mode = _condition(honours.spell(seen.etag), seen.version)
        return self._repeated(lambda: self._swapped(key, content, seen, mode), key, "written", absent=True)

    def _swapped(self, key: str, content: bytes, seen: Seen, mode: Any) -> bool:
        refused = (self._client.exceptions.PreconditionError, self._client.exceptions.AlreadyExistsError)
        try:
            self._client.put(self._store, key, content, mode=mode, use_multipart=False)
        except refused as e:
            found = self.see(key)
            if found.etag == seen.etag:  # two swaps at once, and neither counted
                raise Contended from e
            return found.content == content
        return True

    def listing(self, prefix: str) -> list[Stored]:
        """Return all objects whose keys begin with a prefix, which ends with a slash or is empty, in order of their keys."""

        def listed() -> list[Stored]:
            found = [one for page in self._client.list(self._store, prefix=prefix or None) for one in page]
            return [
                Stored(one["path"], one["size"], (one["e_tag"] or "").strip('"'), one["last_modified"]) for one in found
            ]

        return sorted(self._repeated(listed, prefix, "listed"))

    def folders(self, prefix: str) -> list[str]:
        """Return the names that lie directly under a prefix and hold objects, ascending."""
        found = self._repeated(
            lambda: self._client.list_with_delimiter(self._store, prefix=prefix or None)["common_prefixes"],
            prefix,
            "listed",
        )
        return sorted(str(path).rstrip("/").rsplit("/", 1)[-1] for path in found)

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no fault."""

        def removed() -> None:
            try:
                self._client.delete(self._store, key)
            except (self._client.exceptions.NotFoundError, FileNotFoundError):
                return

        self._repeated(removed, key, "deleted")

    def _repeated(self, request: Callable[[], T], key: str, what: str, *, absent: bool = False) -> T:
        """The answer to a request, which is repeated where that may help. `absent`: an object that is not there is `Absent`."""
        wrong = self._client.exceptions
        last: Exception | None = None
        for attempt in range(TRIES):
            if attempt:
                stop_if_asked()
                time.sleep(min(FIRST_PAUSE_S * 2**attempt, LONGEST_PAUSE_S))
            try:
                return request()
            except (wrong.NotFoundError, FileNotFoundError):
                if absent:
                    raise Absent(f"{self.url}/{key}: no such object") from None
                raise StoreError(f"{self.url}: no such bucket; create it, or mend the URL") from None
            except (wrong.PermissionDeniedError, wrong.UnauthenticatedError):
                raise StoreError(
                    f"{self.url}: access refused; check the credentials in the environment, and their rights"
                ) from None
            except (wrong.InvalidPathError, wrong.NotSupportedError, wrong.UnknownConfigurationKeyError) as e:
                raise StoreError(f"{self.url}/{key}: not {what} ({type(e).__name__})") from None
            except (Absent, Contended) as e:  # while an object was created or swapped: look again
                last = e
            except wrong.BaseError as e:
                if (status := _status(e)) == "404":
                    raise StoreError(f"{self.url}: no such bucket; create it, or mend the URL") from None
                if status in ("401", "403"):
                    raise StoreError(
                        f"{self.url}: access refused; check the credentials in the environment, and their rights"
                    ) from None
                last = e
        raise StoreError(f"{self.url}/{key}: not {what} in {TRIES} tries: {_reason(last)}; run again") from None

    def each(self, work: Callable[[T], object], items: Sequence[T]) -> None:
        """Do work on items, several at once. Raises the first error after what has begun is done."""
        if len(items) <= 1:
            for item in items:
                work(item)
            return
        with ThreadPoolExecutor(min(AT_ONCE, len(items))) as pool:
            for done in [pool.submit(work, item) for item in items]:
                done.result()

    # --- the probe ---

    def honours(self, folder: Path) -> "Honours":
        """Return what the server honours; it is probed once, and `folder` keeps the answer. Raises as `probe`."""
        note = folder / PROBED
        with contextlib.suppress(OSError, ValueError, TypeError):
            return Honours(**json.loads(note.read_bytes()))
        found = self.probe()
        write_whole(note, json.dumps(found._asdict()).encode())
        return found

    def probe(self) -> "Honours":
        """Try what the server honours, on an object of our own that is gone afterwards.

        Raises StoreError for a store without conditional creation: two writers could both believe that they committed.
        """
        key = f".probe/{uuid.uuid4().hex}"
        try:
            self.put_new(key, b"1")
            try:
                self.put_new(key, b"2")
            except IntegrityError:
                pass
            else:
                raise StoreError(
                    f"{self.url}: the store overwrites what should be created (no If-None-Match): runs cannot be kept there"
                )
            if self.get(key) != b"1":
                raise StoreError(
                    f"{self.url}: the store does not give back what was written: runs cannot be kept there"
                )
            return Honours(*(self._swaps(key, spelt) for spelt in ('"{}"', "{}")))
        finally:
            self.delete(key)

    def _swaps(self, key: str, spelt: str) -> bool:
        """Whether a swap works with the ETag spelt so: with the right one, and with a wrong one not."""
        mine = uuid.uuid4().hex.encode()
        try:
            meta = self._client.head(self._store, key)
            etag = (meta["e_tag"] or "").strip('"')
            for tag, content in ((etag, mine), ("0" * 32, b"swapped though the ETag was wrong")):
                mode: Any = _condition(spelt.format(tag), meta["version"])
                self._client.put(self._store, key, content, mode=mode, use_multipart=False)
        except self._client.exceptions.BaseError:
            return self.get(key) == mine
        return False

    def now(self) -> datetime:
        """Return the time by the store's clock."""
        key = f".probe/{uuid.uuid4().hex}"
        self.put_new(key, b"")
        try:
            return next(one.written for one in self.listing(".probe/") if one.key == key)
        finally:
            self.delete(key)


class Honours(NamedTuple):
    """Whether a store swaps an object (If-Match) when its ETag is given with quotes, and without."""

    quoted: bool
    plain: bool

    def spell(self, etag: str) -> str:
        """Return an ETag as the store takes it."""
        return f'"{etag}"' if self.quoted else etag


def _condition(etag: str, version: str | None) -> dict[str, str]:
    """The state that an object must be in to be replaced; GCS goes by the version, the others by the ETag."""
    return {"e_tag": etag} | ({"version": version} if version else {})


def _status(error: Exception | None) -> str | None:
    """The status of an answer that became an error."""
    found = re.search(r"\b(?:status(?: code)?:?\s*|HTTP )([45]\d\d)\b", str(error), re.IGNORECASE)
    return found[1] if found else None


def _reason(error: Exception | None) -> str:
    """What kept a request from its answer, in our words."""
    if status := _status(error):
        return f"the store answered {status}"
    if isinstance(error, Absent | Contended):
        return "two writers at once"
    if re.search(r"timed? ?out", str(error), re.IGNORECASE):
        return "no answer in time"
    return "the connection failed"
