"""The commit protocol: a run becomes visible all at once or not at all.

Everything is written and flushed under `runs/.staging/<uuid>/`, and `run.json` with every checksum after it. Then the directory
is renamed to `runs/YYYY-MM/run_id=<uuid>/`. `_SUCCESS` (the SHA-256 of run.json) is put there last. Whoever
dies on the way leaves either a staging directory or a directory without `_SUCCESS`; neither is ever believed.
A failed run goes the same way with `status: failed` and no `_SUCCESS`.
"""

import hashlib
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from quantbot_pipeline.artifacts.schemas import ARTIFACTS, conform
from quantbot_pipeline.durable import fsync_path, locked, replace, sha256_file, write_bytes
from quantbot_pipeline.errors import IntegrityError, StoreError
from quantbot_pipeline.interrupts import put_off, stop_if_asked
from quantbot_pipeline.runs.content import SLICE_ROWS, ContentHash
from quantbot_pipeline.runs.manifest import MANIFEST_NAME, SUCCESS_NAME, ArtifactEntry, RunDirectory, RunManifest
from quantbot_pipeline.versions import format_of, parquet_metadata

STAGING = ".staging"


class StagedRun:
    """A run being written; nobody sees it before `commit`. Use as a context manager: leaving it cleans up.

    The kernel holds the lock file beside the staging directory as long as this process lives. So a sweep can tell a slow run
    from a dead one.
    """

    def __init__(self, runs_dir: Path, month: str, run_id: str | None = None, wait_s: float = 0) -> None:
        self.runs_dir = runs_dir
        self.month = month
        self.run_id = run_id or str(uuid.uuid4())
        self.path = runs_dir / STAGING / self.run_id
        self.artifacts: dict[str, ArtifactEntry] = {}
        self._logs_sha256: dict[str, str] = {}
        (runs_dir / STAGING).mkdir(parents=True, exist_ok=True)
        _require_one_disk(runs_dir, month)
        self._held = ExitStack()
        self._check_lock = self._held.enter_context(locked(self.path.with_suffix(".lock"), wait_s))
        if run_id is not None:  # whoever began it before is dead: the lock is ours
            shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir()

    def __enter__(self) -> "StagedRun":
        return self

    def __exit__(self, *exc: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.with_suffix(".lock").unlink(missing_ok=True)
        self._held.close()

    def write(self, artifact_type: str, table: pa.Table) -> ArtifactEntry:
        """Write one artifact; `table` must fit its schema. `run_id` columns are filled in here."""
        with self.writing(artifact_type) as artifact:
            artifact.add(table)
        return self.artifacts[artifact_type]

    @contextmanager
    def writing(self, artifact_type: str) -> Iterator["ArtifactWriter"]:
        """Write one artifact in pieces of any size: the file and its hashes are those of the pieces as one table."""
        relative, _ = ARTIFACTS[artifact_type]
        target = self.path / relative
        target.parent.mkdir(exist_ok=True)
        try:
            writer = ArtifactWriter(artifact_type, target, self.run_id)
            with writer.file:
                yield writer
                content, rows = writer.finish()
        except BaseException:
            target.unlink(missing_ok=True)  # a run that failed here is committed, but not with half a file
            with suppress(OSError):  # another artifact is there
                target.parent.rmdir()
            raise
        fsync_path(target)
        self.artifacts[artifact_type] = ArtifactEntry(
            rows=rows,
            path=relative,
            bytes=target.stat().st_size,
            sha256=sha256_file(target),
            content_sha256=content,
            version=format_of(artifact_type).current,
        )

    def write_logs(self, stdout: str, stderr: str) -> dict[str, str]:
        """Write the run's logs; returns the manifest's `logs` entry."""
        (self.path / "logs").mkdir()
        for name, text in (("stdout", stdout), ("stderr", stderr)):
            content = text.encode()
            write_bytes(self.path / "logs" / f"{name}.txt", content)
            self._logs_sha256[name] = hashlib.sha256(content).hexdigest()
        return {"stdout": "logs/stdout.txt", "stderr": "logs/stderr.txt"}

    def commit(self, manifest: RunManifest) -> RunDirectory:
        """Make the run visible; returns its directory. The checksums of the logs are filled in here.

        Whoever asks to stop does so before or after: never between the directory and its `_SUCCESS`.
        """
        stop_if_asked()
        manifest.logs_sha256 = dict(self._logs_sha256)
        content = manifest.to_json()
        write_bytes(self.path / MANIFEST_NAME, content)
        completed = manifest.status == "completed"
        return self.publish(hashlib.sha256(content).hexdigest().encode() + b"\n" if completed else None)

    def publish(self, success: bytes | None) -> RunDirectory:
        """Put the written run where readers look; `success` is what its `_SUCCESS` says, None for a failed one."""
        for folder in [p for p in self.path.iterdir() if p.is_dir()]:
            fsync_path(folder)
        fsync_path(self.path)
        final = self.runs_dir / self.month / f"run_id={self.run_id}"
        final.parent.mkdir(exist_ok=True)
        fsync_path(self.runs_dir)
        with put_off():
            self._check_lock()  # without it a sweep may be at work here, and what it left would be taken for a run
            self.path.rename(final)
            fsync_path(final.parent)
            if success is not None:
                write_bytes(final / SUCCESS_NAME, success)
                fsync_path(final)
        return final


def receive(runs_dir: Path, run_dir: str, files: Collection[str], read: Callable[[str], bytes], wait_s: float) -> None:
    """Commit a run that is committed elsewhere: `files` of it, whose bytes `read` gives; `_SUCCESS` last.

    What a dead process left of it is finished. Raises IntegrityError for a run that is there with other bytes.
    """
    month, name = run_dir.split("/")
    success, final = read(SUCCESS_NAME), runs_dir / run_dir
    try:
        copy = StagedRun(runs_dir, month, name.removeprefix("run_id="), wait_s)
    except StoreError:
        if (final / SUCCESS_NAME).exists():  # another copy of the same run was faster, and took its lock file with it
            return
        raise
    with copy as staged:
        if final.exists():
            _finish(final, staged.path, files, read, success)
            return
        for inside in sorted(set(files) - {SUCCESS_NAME}):
            stop_if_asked()
            (staged.path / inside).parent.mkdir(parents=True, exist_ok=True)
            write_bytes(staged.path / inside, read(inside))
        staged.publish(success)


def _finish(final: Path, staging: Path, files: Collection[str], read: Callable[[str], bytes], success: bytes) -> None:
    """Vouch for a directory whose commit was stopped before its `_SUCCESS`, or in it."""
    found = {path.relative_to(final).as_posix() for path in final.rglob("*") if not path.is_dir()}
    if unlike := sorted(found.symmetric_difference(files) - {SUCCESS_NAME}):
        raise IntegrityError(f"{final / unlike[0]}: {'not at the source' if unlike[0] in found else 'missing'}")
    for inside in sorted(set(files) - {SUCCESS_NAME}):
        if (final / inside).read_bytes() != read(inside):
            raise IntegrityError(f"{final / inside}: there already, with other bytes")
    said = (final / SUCCESS_NAME).read_bytes() if SUCCESS_NAME in found else b""
    if not success.startswith(said):
        raise IntegrityError(f"{final / SUCCESS_NAME}: there already, with other bytes")
    if said != success:
        write_bytes(staging / SUCCESS_NAME, success)
        replace(staging / SUCCESS_NAME, final / SUCCESS_NAME)


def sweep_staging(runs_dir: Path, max_age_s: float) -> int:
    """Remove staging left by dead processes: older than `max_age_s` and not locked. Returns how many runs were removed."""
    swept = 0
    entries = sorted((runs_dir / STAGING).glob("*-*-*-*-*"))
    for folder in dict.fromkeys(entry.with_suffix("") for entry in entries):  # a lock file can be left alone, too
        if not _is_older(folder, max_age_s):
            continue
        lock = folder.with_suffix(".lock")
        with suppress(StoreError), locked(lock, 0):
            swept += folder.is_dir()
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)
    return swept


def _is_older(folder: Path, age_s: float) -> bool:
    """Whether a staging directory, or where there is none its lock file, was last touched so long ago."""
    for path in (folder, folder.with_suffix(".lock")):
        try:
            return time.time() - path.stat().st_mtime >= age_s
        except FileNotFoundError:  # committed or swept by another process meanwhile
            continue
    return False


def _require_one_disk(runs_dir: Path, month: str) -> None:
    """A run becomes visible by one rename, and no rename reaches another disk. Raises StoreError."""
    folder = runs_dir / month
    if folder.is_symlink() and not folder.exists():
        raise StoreError(f"{folder}: a link to a folder that is not there; mount its disk, or mend the link")
    if folder.exists() and folder.stat().st_dev != (runs_dir / STAGING).stat().st_dev:
        raise StoreError(
            f"{folder}: on another disk than {runs_dir}: a run could not be moved there in one step; "
            "move the month back, or link the whole folder of runs"
        )


class ArtifactWriter:
    """An artifact being written, a row group of `SLICE_ROWS` rows at a time; made by `StagedRun.writing`."""

    def __init__(self, artifact_type: str, target: Path, run_id: str) -> None:
        self._type, self._run_id = artifact_type, run_id
        schema = ARTIFACTS[artifact_type][1]
        # A dictionary pays for texts, which repeat, and not for numbers: a frontier is a fifth smaller, and faster written.
        texts = [field.name for field in schema if pa.types.is_string(field.type)]
        self.file = pq.ParquetWriter(target, schema, compression="zstd", use_dictionary=texts, write_page_checksum=True)
        self._content = ContentHash()
        self._rows = 0

    def add(self, table: pa.Table) -> None:
        """The next rows; every piece has the same columns, without `run_id`."""
        for piece in self._content.add(table):
            self._write(piece)

    def finish(self) -> tuple[str, int]:
        """Write what is left; returns the content hash and the number of rows."""
        for piece in self._content.rest():
            self._write(piece)
        self.file.add_key_value_metadata(parquet_metadata(self._type))
        return self._content.hexdigest(), self._rows

    def _write(self, table: pa.Table) -> None:
        if "run_id" in self.file.schema.names:
            ids = pa.repeat(pa.scalar(self._run_id), table.num_rows)
            table = table.add_column(0, pa.field("run_id", pa.string(), nullable=False), ids)
        self.file.write_table(conform(self._type, table))
        self._rows += table.num_rows
        # The pool would keep as much as it ever had; a small run it only costs page faults.
        if table.num_rows == SLICE_ROWS:
            pa.default_memory_pool().release_unused()
