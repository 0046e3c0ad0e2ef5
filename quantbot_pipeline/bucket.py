"""A place in an object store: create what is not there, read, list, delete, and one sentence for whatever goes wrong.

Belongs here: requests, repetitions, the probe of what a server honours. Does not: what is in an object. No error repeats the
client's own words: they may hold a signed address. obstore (the extra `cloud`) is imported by the first request.
"""

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
QUOTED, PLAIN = '"{}"', "{}"  # how an ETag is spelt in a condition: a RADOS Gateway takes it without quotes alone
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 3.0
# What of QUANTBOT_STORE_OPTIONS speaks of the connection; everything else is the store's own.
CLIENT_OPTIONS = frozenset(
    ("timeout", "connect_timeout", "allow_http", "allow_invalid_certificates", "proxy_url", "user_agent")
)
T = TypeVar("T")


class Absent(StoreError):
    """There is no such object."""


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
    _honoured: "list[Honours]" = field(default_factory=list, init=False, repr=False, compare=False)

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

    def read(self, key: str) -> tuple[bytes, str]:
        """Return the bytes of an object and their ETag, for `swap`. Raises Absent without one."""

        def found() -> tuple[bytes, str]:
            answer = self._client.get(self._store, key)
            return bytes(answer.bytes()), _bare(answer.meta["e_tag"])

        return self._repeated(found, key, "read", absent=True)

    def etag(self, key: str) -> str | None:
        """Return the ETag of an object without reading it; None where there is none."""
        try:
            return self._repeated(
                lambda: _bare(self._client.head(self._store, key)["e_tag"]), key, "looked at", absent=True
            )
        except Absent:
            return None

    def swap(self, key: str, content: bytes, etag: str | None) -> str | None:
        """Put an object in the place of the one with this ETag; None: where there is none. Return its ETag.

        None where another object is there: somebody was faster, so read again. An object with the same bytes is a success: an
        answer was lost. Raises StoreError for a store that does not swap, or does not answer.
        """
        mode: Any = "create" if etag is None else {"e_tag": self._spelt().format(etag)}
        return self._repeated(lambda: self._swap(key, content, mode), key, "swapped")

    def _swap(self, key: str, content: bytes, mode: Any) -> str | None:
        wrong = self._client.exceptions
        try:
            put = self._client.put(self._store, key, content, mode=mode, use_multipart=False)
            if put["e_tag"]:
                return _bare(put["e_tag"])
        except (wrong.PreconditionError, wrong.AlreadyExistsError):
            pass
        except (wrong.NotFoundError, FileNotFoundError):
            return None  # gone meanwhile; a bucket that is gone is said by the read that follows
        try:
            found, etag = self.read(key)
        except Absent:
            return None
        return etag if found == content else None

    def _spelt(self) -> str:
        """How an ETag is spelt that this store swaps by. Raises StoreError where there is no way."""
        honours = self.honours()
        if not (honours.quoted or honours.plain):
            raise StoreError(
                f"{self.url}: the store does not swap objects (no If-Match): nothing that changes can be shared there"
            )
        return QUOTED if honours.quoted else PLAIN

    def listing(self, prefix: str) -> list[Stored]:
        """Return all objects whose keys begin with a prefix, which ends with a slash or is empty, in order of their keys."""

        def listed() -> list[Stored]:
            found = [one for page in self._client.list(self._store, prefix=prefix or None) for one in page]
            return [Stored(one["path"], one["size"], _bare(one["e_tag"]), one["last_modified"]) for one in found]

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
            except Absent as e:  # while an object was created: look again
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

    def honours(self, note: Path | None = None) -> "Honours":
        """Return what the server honours, as it was tried once: by this machine where a file keeps it, else by this object.

        Raises StoreError for a store without conditional creation.
        """
        if not self._honoured:
            known = Honours.noted(note)
            self._honoured.append(known or self.probe())
            if note is not None and known is None:
                write_whole(note, json.dumps(self._honoured[0]._asdict()).encode())
        return self._honoured[0]

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
            return Honours(*(self._swaps(key, spelt) for spelt in (QUOTED, PLAIN)))
        finally:
            self.delete(key)

    def _swaps(self, key: str, spelt: str) -> bool:
        """Whether a swap works with the ETag spelt so: with the right one, and with a wrong one not."""
        mine = uuid.uuid4().hex.encode()
        try:
            etag = _bare(self._client.head(self._store, key)["e_tag"])
            for tag, content in ((etag, mine), ("0" * 32, b"swapped though the ETag was wrong")):
                mode = {"e_tag": spelt.format(tag)}
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

    @classmethod
    def noted(cls, note: Path | None) -> "Honours | None":
        """Return what a file says; None without one that says it."""
        try:
            said = json.loads(note.read_bytes()) if note is not None else {}
            return cls(said["quoted"] is True, said["plain"] is True)
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _bare(etag: str | None) -> str:
    """An ETag without its quotes: listings, answers and servers differ in them."""
    return (etag or "").strip('"')


def _status(error: Exception | None) -> str | None:
    """The status of an answer that became an error."""
    found = re.search(r"\b(?:status(?: code)?:?\s*|HTTP )([45]\d\d)\b", str(error), re.IGNORECASE)
    return found[1] if found else None


def _reason(error: Exception | None) -> str:
    """What kept a request from its answer, in our words."""
    if status := _status(error):
        return f"the store answered {status}"
    if isinstance(error, Absent):
        return "two creations at once"
    if re.search(r"timed? ?out", str(error), re.IGNORECASE):
        return "no answer in time"
    return "the connection failed"
