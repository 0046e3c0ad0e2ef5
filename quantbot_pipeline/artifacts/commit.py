"""The commit protocol: a run becomes visible all at once or not at all.

Everything is written and flushed under `runs/.staging/<uuid>/`, then `run.json` with every checksum, then the directory
is renamed to `runs/YYYY-MM/run_id=<uuid>/`, then `_SUCCESS` (the SHA-256 of run.json) is put there last. Whoever
dies on the way leaves either a staging directory or a directory without `_SUCCESS`; neither is ever believed.
A failed run goes the same way with `status: failed` and no `_SUCCESS`.
"""

import hashlib
import shutil
import time
import uuid
from contextlib import ExitStack, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from quantbot_pipeline.artifacts.manifest import MANIFEST_NAME, SUCCESS_NAME, ArtifactEntry, RunManifest
from quantbot_pipeline.artifacts.schemas import ARTIFACTS, conform
from quantbot_pipeline.durable import fsync_path, locked, sha256_file, write_bytes
from quantbot_pipeline.errors import StoreError

STAGING = ".staging"


class StagedRun:
    """A run being written; nobody sees it before `commit`. Use as a context manager: leaving it cleans up.

    The lock file beside the staging directory is held by the kernel as long as this process lives, so that a sweep
    can tell a slow run from a dead one.
    """

    def __init__(self, runs_dir: Path, month: str, run_id: str | None = None) -> None:
        self.runs_dir = runs_dir
        self.month = month
        self.run_id = run_id or str(uuid.uuid4())
        self.path = runs_dir / STAGING / self.run_id
        self.artifacts: dict[str, ArtifactEntry] = {}
        self._logs_sha256: dict[str, str] = {}
        (runs_dir / STAGING).mkdir(parents=True, exist_ok=True)
        self._held = ExitStack()
        self._check_lock = self._held.enter_context(locked(self.path.with_suffix(".lock"), 0))
        self.path.mkdir()

    def __enter__(self) -> "StagedRun":
        return self

    def __exit__(self, *exc: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.with_suffix(".lock").unlink(missing_ok=True)
        self._held.close()

    def write(self, artifact_type: str, table: pa.Table) -> ArtifactEntry:
        """Write one artifact; `table` must fit its schema. `run_id` columns are filled in here."""
        relative, schema = ARTIFACTS[artifact_type]
        content = content_sha256(table)
        if "run_id" in schema.names:
            ids = pa.repeat(pa.scalar(self.run_id), table.num_rows)
            table = table.add_column(0, pa.field("run_id", pa.string(), nullable=False), ids)
        target = self.path / relative
        target.parent.mkdir(exist_ok=True)
        # A dictionary pays for texts, which repeat, and not for numbers: a frontier is a fifth smaller, and faster written.
        texts = [field.name for field in schema if pa.types.is_string(field.type)]
        pq.write_table(
            conform(artifact_type, table), target, compression="zstd", use_dictionary=texts, write_page_checksum=True
        )
        fsync_path(target)
        entry = ArtifactEntry(
            rows=table.num_rows,
            path=relative,
            bytes=target.stat().st_size,
            sha256=sha256_file(target),
            content_sha256=content,
        )
        self.artifacts[artifact_type] = entry
        return entry

    def write_logs(self, stdout: str, stderr: str) -> dict[str, str]:
        """Write the run's logs; returns the manifest's `logs` entry."""
        (self.path / "logs").mkdir()
        for name, text in (("stdout", stdout), ("stderr", stderr)):
            write_bytes(self.path / "logs" / f"{name}.txt", text.encode())
            self._logs_sha256[name] = hashlib.sha256(text.encode()).hexdigest()
        return {"stdout": "logs/stdout.txt", "stderr": "logs/stderr.txt"}

    def commit(self, manifest: RunManifest) -> Path:
        """Make the run visible; returns its directory. The checksums of the logs are filled in here."""
        manifest.logs_sha256 = dict(self._logs_sha256)
        content = manifest.to_json()
        write_bytes(self.path / MANIFEST_NAME, content)
        for folder in [p for p in self.path.iterdir() if p.is_dir()]:
            fsync_path(folder)
        fsync_path(self.path)
        final = self.runs_dir / self.month / f"run_id={self.run_id}"
        final.parent.mkdir(exist_ok=True)
        fsync_path(self.runs_dir)
        self._check_lock()  # without it a sweep may be at work here, and what it left would be taken for a run
        self.path.rename(final)
        fsync_path(final.parent)
        if manifest.status == "completed":
            write_bytes(final / SUCCESS_NAME, hashlib.sha256(content).hexdigest().encode() + b"\n")
            fsync_path(final)
        return final


def content_sha256(table: pa.Table) -> str:
    """SHA-256 of a table's values and column names as an uncompressed Arrow stream: no run id, no encoding, no time."""
    digest = hashlib.sha256()
    schema = pa.schema([pa.field(f.name, f.type) for f in table.schema])
    with pa.ipc.new_stream(pa.PythonFile(_DigestSink(digest), mode="w"), schema) as writer:
        for batch in table.cast(schema).combine_chunks().to_batches():
            writer.write_batch(batch)
    return digest.hexdigest()


class _DigestSink:
    """A file that only feeds a digest."""

    closed = False

    def __init__(self, digest: "hashlib._Hash") -> None:
        self._digest = digest

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        self.closed = True


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
