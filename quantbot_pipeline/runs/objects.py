"""Runs in an object store: the same contract as a folder of runs, with verified copies on this machine for whatever is read.

Every object is created once, at a key that nobody else uses, and never changed; `_SUCCESS` is created last and is the commit.
Whoever dies on the way leaves a prefix without `_SUCCESS`, which is never believed and swept when it is old.
"""

import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from quantbot_pipeline.bucket import Absent, Bucket, Stored
from quantbot_pipeline.durable import scratch_folder
from quantbot_pipeline.errors import InputError, IntegrityError
from quantbot_pipeline.interrupts import put_off
from quantbot_pipeline.runs.commit import sweep_staging
from quantbot_pipeline.runs.copies import Copies
from quantbot_pipeline.runs.manifest import MANIFEST_NAME, SUCCESS_NAME, RunManifest, parse_manifest
from quantbot_pipeline.runs.object_notes import ObjectJournal
from quantbot_pipeline.runs.store import TRASH, is_before, is_month
from quantbot_pipeline.runs.uploading import UploadedRun, upload, vouch
from quantbot_pipeline.runs.verify import (
    IncompleteRunError,
    Verified,
    columns_promised,
    examine_run,
    require_named,
)

SWEPT = ".swept"  # its time says when this machine last swept the store


@dataclass(frozen=True)
class ObjectRun:
    """A run in an object store; `run / "run.json"` is a verified copy of one of its files on this machine."""

    runs: "ObjectRuns"
    run_dir: str

    @property
    def name(self) -> str:
        """`run_id=…`."""
        return self.run_dir.rsplit("/", 1)[-1]

    def __str__(self) -> str:
        return f"{self.runs.place}/{self.run_dir}"

    def __truediv__(self, inside: str, /) -> Path:
        return self.runs.copies.file(self.run_dir, inside)

    def whole(self) -> Path:
        """The folder on this machine with verified copies of all its files."""
        return self.runs.copies.whole(self.run_dir)


@dataclass(frozen=True)
class ObjectRuns:
    """Runs under the URL of `bucket`; `folder` holds copies, of `copies_bytes` bytes at most.

    What was begun and not committed for `staging_max_age_s` by the store's clock is swept.
    """

    bucket: Bucket
    folder: Path
    staging_max_age_s: float = 3600.0
    copies_bytes: int = 10_000_000_000

    @property
    def place(self) -> str:
        """The URL."""
        return self.bucket.url

    @cached_property
    def copies(self) -> Copies:
        """The copies on this machine."""
        return Copies(self.bucket, self.folder, self.copies_bytes)

    @property
    def journal(self) -> ObjectJournal:
        """Names, notes and tags of the runs."""
        return ObjectJournal(self.bucket, self.folder)

    def begin(self, month: str) -> UploadedRun:
        """Begin a run of a month; nobody sees it before its commit. Raises StoreError for a store that does not honour what is needed."""
        self.copies.require_honest_store()
        return UploadedRun(self.copies, month, self.staging_max_age_s, self.open)

    def receive(self, run_dir: str, files: Mapping[str, int], read: Callable[[str], bytes]) -> None:
        """Commit a run that is committed elsewhere, `_SUCCESS` last. Raises IntegrityError for one that is there with other bytes.

        Objects that a dead upload left are taken where they are young. Those that a sweep may be at are swept first.
        """
        self.copies.require_honest_store()
        left = self.bucket.listing(f"{run_dir}/")
        if left and (self.bucket.now() - max(one.written for one in left)).total_seconds() > self.staging_max_age_s / 2:
            self._remove_dead(run_dir)
        sizes = {inside: size for inside, size in files.items() if inside != SUCCESS_NAME}
        upload(self.bucket, run_dir, sizes, read, self.staging_max_age_s)
        with put_off():
            vouch(self.bucket, run_dir, read(SUCCESS_NAME))

    def sweep(self) -> int:
        """Remove prefixes that were never committed, and what dead processes left on this machine; return how many runs were removed.

        The store is listed once in `staging_max_age_s` by this machine.
        """
        swept, note = sweep_staging(self.folder, self.staging_max_age_s), self.folder / SWEPT
        if note.exists() and time.time() - note.stat().st_mtime < self.staging_max_age_s:
            return swept
        found = self.listing()
        swept += sum(self._remove_dead(run_dir) for run_dir in self._dead(found))
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()
        return swept

    def _dead(self, found: "ObjectListing") -> list[str]:
        """Prefixes without `_SUCCESS` whose youngest object is too old, and which are no failed run."""
        uncommitted = [run_dir for run_dir, files in found.files.items() if SUCCESS_NAME not in files]
        if not uncommitted:
            return []
        now, old = self.bucket.now(), []
        for run_dir in uncommitted:
            youngest = max(one.written for one in found.files[run_dir].values())
            if (now - youngest).total_seconds() >= self.staging_max_age_s and not self._failed(run_dir, found):
                old.append(run_dir)
        return old

    def _failed(self, run_dir: str, found: "ObjectListing") -> bool:
        try:
            return MANIFEST_NAME in found.files[run_dir] and self.copies.manifest(run_dir).status == "failed"
        except IntegrityError:
            return False

    def _remove_dead(self, run_dir: str) -> bool:
        """Remove a prefix, run.json first: whoever still writes there cannot complete what is being removed."""
        keys = [one.key for one in self.bucket.listing(f"{run_dir}/")]
        if any(key.endswith(f"/{SUCCESS_NAME}") for key in keys):
            return False  # it was committed after all
        for key in sorted(keys, key=lambda key: not key.endswith(f"/{MANIFEST_NAME}")):
            self.bucket.delete(key)
        return bool(keys)

    def listing(self, among: Collection[str] | None = None) -> "ObjectListing":
        """Look at the store: one listing says the months, then one for each, or for each of those `among`."""
        months = [name for name in self.bucket.folders("") if is_month(name) and (among is None or name in among)]
        return ObjectListing(self, self._objects(months))

    def _objects(self, months: Sequence[str]) -> dict[str, list[Stored]]:
        found: dict[str, list[Stored]] = {}
        self.bucket.each(lambda month: found.__setitem__(month, self.bucket.listing(f"{month}/")), months)
        return {month: found[month] for month in months}

    def completed(self, month: str) -> Iterator[tuple[ObjectRun, RunManifest]]:
        """Yield the runs of a month that keep their promises (names, sizes, `_SUCCESS`), in no particular order."""
        found = ObjectListing(self, self._objects([month]))
        for name in found.names(month):
            try:
                manifest = found.promised(f"{month}/{name}")
            except IntegrityError:
                continue  # the catalog quarantines it; here it only must not be believed
            if manifest.status == "completed":
                yield self.open(f"{month}/{name}"), manifest

    def open(self, run_dir: str) -> ObjectRun:
        """Return a run; nothing is read yet."""
        return ObjectRun(self, run_dir)

    def at(self, text: str) -> ObjectRun:
        """Return the run whose URL was printed."""
        return self.open("/".join(text.rstrip("/").split("/")[-2:]))

    def find(self, run_id: str) -> ObjectRun:
        """Return a run. Raises InputError when there is none."""
        name = f"run_id={run_id}"
        if "/" not in run_id:
            for month in self.bucket.folders(""):
                if is_month(month) and self.bucket.listing(f"{month}/{name}/"):
                    return self.open(f"{month}/{name}")
        raise InputError(f"run {run_id!r}: not in {self.place}; `quantbot backtest catalog-query` lists the runs")

    def fetch(self, files: Sequence[str]) -> None:
        """Have verified copies of some files of cataloged runs."""
        self.copies.fetch(files)

    @contextmanager
    def fresh(self, run_dir: str) -> Iterator[Path]:
        """A folder with all that the store has of a run at this moment."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with scratch_folder(self.folder, ".verify-") as scratch:
            folder = scratch / run_dir
            folder.mkdir(parents=True)
            keys = [one.key for one in self.bucket.listing(f"{run_dir}/")]

            def take(key: str) -> None:
                target = scratch / key
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(self.bucket.get(key))

            self.bucket.each(take, [key for key in keys if ".." not in key.split("/")])
            yield folder

    def sizes(self, files: Sequence[str]) -> dict[str, int | str]:
        """{file: its bytes in the store, or that it is not there}."""
        months = sorted({file.split("/")[0] for file in files})
        found = {one.key: one.size for listed in self._objects(months).values() for one in listed}
        return {file: found.get(file, "no such object") for file in files}

    def digest(self, file: str) -> str:
        """SHA-256 of an object as the store has it now."""
        return hashlib.sha256(self.bucket.get(file)).hexdigest()

    def read(self, file: str) -> bytes:
        """Bytes of an object as the store has them now. Raises IntegrityError without one."""
        try:
            return self.bucket.get(file)
        except Absent:
            raise IntegrityError(f"{self.place}/{file}: missing") from None

    def written_s(self, run_dir: str, missing: float) -> float:
        """When the youngest object of a run was written, by the store's clock."""
        return max((one.written.timestamp() for one in self.bucket.listing(f"{run_dir}/")), default=missing)

    def to_trash(self, run_dirs: Iterable[str]) -> list[str]:
        """Copy runs to the trash, `_SUCCESS` last, then remove them, `_SUCCESS` first: a run is whole in one place at least."""
        moved = []
        for run_dir in run_dirs:
            keys = [one.key for one in self.bucket.listing(f"{run_dir}/")]
            ordered = sorted(keys, key=_last_first)
            if not keys:
                continue
            self.bucket.each(self._copy_to_trash, ordered[2:])
            for key in reversed(ordered[:2]):
                self._copy_to_trash(key)
            for key in ordered:
                self.bucket.delete(key)
            self.copies.forget(run_dir)
            moved.append(run_dir)
        return moved

    def _copy_to_trash(self, key: str) -> None:
        self.bucket.put_new(f"{TRASH}/{key}", self.bucket.get(key))

    def trashed(self, run_id: str) -> bool:
        """Whether a run lies in the trash."""
        return any(f"/run_id={run_id}/" in one.key for one in self.bucket.listing(f"{TRASH}/"))

    def empty_trash(self, before_ms: int) -> list[str]:
        """Remove runs in the trash that were created before `before_ms`; return their directories, relative to the trash."""
        runs: dict[str, list[str]] = {}
        for one in self.bucket.listing(f"{TRASH}/"):
            runs.setdefault("/".join(one.key.split("/")[1:3]), []).append(one.key)
        removed = []
        for run_dir, keys in sorted(runs.items()):
            try:
                content = self.bucket.get(f"{TRASH}/{run_dir}/{MANIFEST_NAME}")
                created = parse_manifest(content, f"{self.place}/{TRASH}/{run_dir}").created_at
            except (IntegrityError, Absent):
                continue  # not something this program set aside
            if is_before(created, before_ms):
                for key in sorted(keys, key=_last_first, reverse=True):  # run.json late: who is killed is found again
                    self.bucket.delete(key)
                removed.append(run_dir)
        return removed


def _last_first(key: str) -> int:
    """Order keys of a run: `_SUCCESS`, run.json, the others."""
    return {SUCCESS_NAME: 0, MANIFEST_NAME: 1}.get(key.rsplit("/", 1)[-1], 2)


class ObjectListing:
    """A look at an object store; `files` has, by run directory and by the path inside, every object of a run."""

    tells_success = True

    def __init__(self, runs: ObjectRuns, objects: dict[str, list[Stored]]) -> None:
        self._runs = runs
        self.dangling: list[str] = []
        self.months: dict[str, str] = {}
        self.files: dict[str, dict[str, Stored]] = {}
        for month, found in objects.items():
            digest = hashlib.sha256()
            for one in found:
                digest.update(f"{one.key} {one.size} {one.etag}\n".encode())
                _, name, inside = [*one.key.split("/", 2), "", ""][:3]
                if name.startswith("run_id=") and inside:
                    self.files.setdefault(f"{month}/{name}", {})[inside] = one
            self.months[month] = digest.hexdigest()[:32]

    def names(self, month: str) -> list[str]:
        """Names `run_id=…` of a month, ascending."""
        return sorted(run_dir.split("/")[1] for run_dir in self.files if run_dir.startswith(f"{month}/"))

    def contents(self, run_dir: str) -> dict[str, int]:
        """{path inside: bytes} of all that the store has of a run."""
        return {inside: one.size for inside, one in self.files.get(run_dir, {}).items()}

    def is_settled(self, month: str) -> bool:
        """A listing tells every change."""
        return True

    def promised(self, run_dir: str) -> RunManifest:
        """The manifest that `_SUCCESS` vouches for; names and sizes of all objects are the manifest's. Raises IntegrityError."""
        files, where = self.files[run_dir], f"{self._runs.place}/{run_dir}"
        if MANIFEST_NAME not in files:
            raise IncompleteRunError(f"{where}: no {SUCCESS_NAME}: the commit did not finish")
        manifest = self._runs.copies.manifest(run_dir)
        if manifest.status == "completed" and SUCCESS_NAME not in files:
            raise IncompleteRunError(f"{where}: no {SUCCESS_NAME}: the commit did not finish")
        require_named(where, manifest, files)
        for entry in manifest.artifacts.values():
            if entry.path not in files:
                raise IntegrityError(f"{where}/{entry.path}: missing")
            if files[entry.path].size != entry.bytes:
                raise IntegrityError(
                    f"{where}/{entry.path}: {files[entry.path].size} bytes, run.json says {entry.bytes}"
                )
        for path in manifest.logs.values():
            if path not in files:
                raise IntegrityError(f"{where}/{path}: missing")
        return manifest

    def examine(self, month: str, name: str) -> Verified:
        """What a run promises; its files are verified when they are read.

        Columns are those of the versions that run.json names. A run that does not say them is read whole, and verified.
        """
        manifest = self.promised(f"{month}/{name}")
        columns = columns_promised(manifest)
        return examine_run(self._runs.open(f"{month}/{name}")) if columns is None else Verified(manifest, columns)

    def missing(self, paths: Iterable[str]) -> set[str]:
        """None: a month whose objects changed was examined again, and a read says what is gone since."""
        return set()

    def elsewhere(self, paths: Iterable[str]) -> set[str]:
        """Those that have no copy in the folder."""
        return {path for path in paths if not (self._runs.folder / path).exists()}
