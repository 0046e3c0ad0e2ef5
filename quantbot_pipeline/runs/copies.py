"""Verified copies, on this machine, of the files of runs that are kept in an object store.

A file is fetched once, held against the SHA-256 of its manifest, and put in place whole. What was used longest ago goes first
when the copies are more than they may be. Nothing is lost with a copy: deleting the folder costs its fetching again.
"""

import functools
import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from quantbot_pipeline.bucket import Absent, Bucket
from quantbot_pipeline.copied import Room, is_here, write_whole
from quantbot_pipeline.errors import IntegrityError
from quantbot_pipeline.runs.manifest import MANIFEST_NAME, SUCCESS_NAME, RunManifest, parse_manifest, read_bounded
from quantbot_pipeline.runs.verify import vouched_manifest

PROBED = ".probed.json"  # what the store honours, as it was tried once by this machine


@dataclass(frozen=True)
class Copies:
    """Copies of what lies in `bucket`, in `folder`, of `limit` bytes at most."""

    bucket: Bucket
    folder: Path
    limit: int

    def require_honest_store(self) -> None:
        """Probe the store, once on this machine. Raises StoreError for one without conditional creation."""
        self.bucket.honours(self.folder / PROBED)

    @cached_property
    def room(self) -> Room:
        """What all copies take."""
        return Room(self.folder, "*-*/run_id=*/*/*", self.limit)

    def manifest(self, run_dir: str) -> RunManifest:
        """The manifest of a run that `_SUCCESS` vouches for, or of a failed one. Raises IntegrityError, IncompleteRunError."""
        path = self.folder / run_dir / MANIFEST_NAME
        if path.exists():
            return _parsed(str(path), path.stat().st_mtime_ns)
        where = f"{self.bucket.url}/{run_dir}"
        content = self._get(f"{run_dir}/{MANIFEST_NAME}")
        success = self._success(run_dir)
        found: Callable[[], bytes] | None = None if success is None else lambda: success
        manifest = vouched_manifest(where, run_dir.split("/")[0], content, found)
        if success is not None:
            write_whole(path.with_name(SUCCESS_NAME), success)
        write_whole(path, content)
        return manifest

    def _success(self, run_dir: str) -> bytes | None:
        try:
            return self.bucket.get(f"{run_dir}/{SUCCESS_NAME}")
        except Absent:
            return None

    def _get(self, key: str) -> bytes:
        try:
            return self.bucket.get(key)
        except Absent:
            raise IntegrityError(f"{self.bucket.url}/{key}: missing") from None

    def file(self, run_dir: str, inside: str) -> Path:
        """The copy of a file of a run, fetched if it is not here. Raises IntegrityError for one that is not as promised."""
        path = self.folder / run_dir / inside
        if inside in (MANIFEST_NAME, SUCCESS_NAME):
            self.manifest(run_dir)
            return path
        size, sha256 = _promised(self.manifest(run_dir), inside, f"{self.bucket.url}/{run_dir}")
        if is_here(path, size):
            return path
        content = self._get(f"{run_dir}/{inside}")
        if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
            raise IntegrityError(f"{self.bucket.url}/{run_dir}/{inside}: checksum differs from run.json")
        self.room.put(path, content)
        return path

    def whole(self, run_dir: str) -> Path:
        """The folder with copies of all files of a run."""
        manifest = self.manifest(run_dir)
        files = [*(entry.path for entry in manifest.artifacts.values()), *manifest.logs.values()]
        self.bucket.each(lambda inside: self.file(run_dir, inside), files)
        return self.folder / run_dir

    def fetch(self, files: Sequence[str]) -> None:
        """Have copies of some files, given with their run directories."""
        apart = [file.split("/", 2) for file in files]
        self.bucket.each(lambda parts: self.file(f"{parts[0]}/{parts[1]}", parts[2]), apart)

    def adopt(self, scratch: Path, run_dir: str, success: bytes | None) -> None:
        """Take the folder of a run that this machine has committed."""
        target = self.folder / run_dir
        target.parent.mkdir(parents=True, exist_ok=True)
        self.room.make_room(sum(path.stat().st_size for path in scratch.rglob("*") if path.is_file()))
        if success is not None:
            (scratch / SUCCESS_NAME).write_bytes(success)
        scratch.rename(target)

    def forget(self, run_dir: str) -> None:
        """Remove the copies of a run."""
        shutil.rmtree(self.folder / run_dir, ignore_errors=True)


@functools.lru_cache(maxsize=4096)
def _parsed(path: str, changed_ns: int) -> RunManifest:
    return parse_manifest(read_bounded(Path(path)), path)


def _promised(manifest: RunManifest, inside: str, where: str) -> tuple[int | None, str | None]:
    """Bytes and SHA-256 that a manifest promises of a file. Raises IntegrityError for a file that it does not name."""
    for entry in manifest.artifacts.values():
        if entry.path == inside:
            return entry.bytes, entry.sha256
    for name, path in manifest.logs.items():
        if path == inside:
            return None, manifest.logs_sha256.get(name)
    raise IntegrityError(f"{where}/{inside}: not part of the run")
