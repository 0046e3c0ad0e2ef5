"""The journal of notes in an object store: one object for each line, `.notes/<time>-<id>.json`, created once and never changed.

Lines count in the order of their keys: by the clocks of the machines that wrote them.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from quantbot_pipeline.bucket import Bucket
from quantbot_pipeline.runs.notes import NOTES, said_version


@dataclass(frozen=True)
class ObjectJournal:
    """The lines under `.notes/` of a bucket; `folder` holds copies of them."""

    bucket: Bucket
    folder: Path

    def content(self) -> bytes:
        """All lines, in the order of their keys; those that are not on this machine yet are fetched."""
        keys = [one.key for one in self.bucket.listing(f"{NOTES}/")]
        self.bucket.each(self._fetch, [key for key in keys if not (self.folder / key).exists()])
        return b"\n".join((self.folder / key).read_bytes() for key in keys)

    def _fetch(self, key: str) -> None:
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{uuid.uuid4().hex}")
        temporary.write_bytes(self.bucket.get(key))
        temporary.replace(path)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Create the object of a line."""
        key = f"{NOTES}/{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{uuid.uuid4().hex}.json"
        self.bucket.put_new(key, json.dumps({**said_version(), **entry}, ensure_ascii=False).encode())

    def signature(self) -> str:
        """A digest of the keys."""
        keys = "\n".join(one.key for one in self.bucket.listing(f"{NOTES}/"))
        return hashlib.sha256(keys.encode()).hexdigest()[:32]

    def writing(self, timeout_s: float) -> AbstractContextManager[object]:
        """Nothing is held: every line has a key of its own, and the last word counts."""
        return nullcontext()

    def is_there(self, run_id: str) -> bool:
        """Whether there is a run of this id in some month."""
        months = [name for name in self.bucket.folders("") if not name.startswith(".")]
        return any(self.bucket.listing(f"{month}/run_id={run_id}/") for month in months)
