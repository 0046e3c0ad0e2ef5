"""The shared catalog as an object: downloaded when its ETag changed, and swapped by it."""

import uuid
from dataclasses import dataclass
from pathlib import Path

from quantbot_pipeline.bucket import Absent, Bucket
from quantbot_pipeline.catalog.shared import OvertakenError, noted_tag, put_in_place

OBJECT = "backtest_catalog.duckdb"


@dataclass(frozen=True)
class ObjectCatalog:
    """The catalog as an object of a bucket."""

    bucket: Bucket

    @property
    def place(self) -> str:
        """The URL of the object."""
        return f"{self.bucket.url}/{OBJECT}"

    def pull(self, path: Path) -> str | None:
        """Download the object if it changed: one request where it did not."""
        etag = self.bucket.etag(OBJECT)
        if etag is None or noted_tag(path) == etag:
            return etag
        try:
            content, etag = self.bucket.read(OBJECT)
        except Absent:
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.pulled")
        try:
            temporary.write_bytes(content)
            put_in_place(temporary, path, etag)
        finally:
            temporary.unlink(missing_ok=True)
        return etag

    def offer(self, private: Path, tag: str | None) -> str:
        """Swap the object, if it has this ETag still."""
        self.bucket.honours(private.with_name(".shared-catalog.probed.json"))
        etag = self.bucket.swap(OBJECT, private.read_bytes(), tag)
        if etag is None:
            raise OvertakenError(f"{self.place}: another machine was faster; run again")
        return etag
