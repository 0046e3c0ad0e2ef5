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
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
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
            rows=rows, path=relative, bytes=target.stat().st_size, sha256=sha256_file(target), content_sha256=content
        )

    def write_logs(self, stdout: str, stderr: str) -> dict[str, str]:
        """Write the run's logs; returns the manifest's `logs` entry."""
        (self.path / "logs").mkdir()
        for name, text in (("stdout", stdout), ("stderr", stderr)):
            content = text.encode()
            write_bytes(self.path / "logs" / f"{name}.txt", content)
            self._logs_sha256[name] = hashlib.sha256(content).hexdigest()
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


class ArtifactWriter:
    """An artifact being written, a row group of `SLICE_ROWS` rows at a time; made by `StagedRun.writing`."""

    def __init__(self, artifact_type: str, target: Path, run_id: str) -> None:
        self._type, self._run_id = artifact_type, run_id
        schema = ARTIFACTS[artifact_type][1]
        # A dictionary pays for texts, which repeat, and not for numbers: a frontier is a fifth smaller, and faster written.
        texts = [field.name for field in schema if pa.types.is_string(field.type)]
        self.file = pq.ParquetWriter(
            target, schema, compression="zstd", use_dictionary=texts, write_page_checksum=True
        )  # fmt: skip
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


# What is hashed, encoded and written at a time, as one row group. A constant: were it to follow the memory limit, so would the
# bytes of a run. Less than this is one row group, as most artifacts are.
SLICE_ROWS = 1 << 18


class ContentHash:
    """SHA-256 of values and column names as an uncompressed Arrow stream of `SLICE_ROWS` rows a batch: no run id, no encoding,
    no time, and no trace of the pieces in which the rows came.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._stream: pa.RecordBatchStreamWriter | None = None
        self._pending: list[pa.Table] = []
        self._waiting = 0

    def add(self, table: pa.Table) -> Iterator[pa.Table]:
        """Take the next rows; yields the slices that are full, hashed."""
        self._pending.append(table)
        self._waiting += table.num_rows
        del table  # what is written is a copy: while it is encoded, nothing of its pieces should be held
        while self._waiting > SLICE_ROWS:
            yield self._hashed(self._take(SLICE_ROWS))

    def rest(self) -> Iterator[pa.Table]:
        """The last slice, hashed; it is empty only if there was no row at all."""
        if self._pending:
            yield self._hashed(self._take(self._waiting))

    def _take(self, rows: int) -> pa.Table:
        waiting = pa.concat_tables(self._pending)
        self._waiting -= rows
        self._pending = [waiting.slice(rows)] if self._waiting else []
        table = waiting.slice(0, rows)
        columns = [_own(c) if rows else c for c in table.columns]
        return pa.table(columns, schema=table.schema)

    def hexdigest(self) -> str:
        """The hash, after the last row."""
        if self._stream is not None:
            self._stream.close()
        return self._digest.hexdigest()

    def _hashed(self, rows: pa.Table) -> pa.Table:
        schema = pa.schema([pa.field(f.name, f.type) for f in rows.schema])
        rows = rows.cast(schema)
        if self._stream is None:
            self._stream = pa.ipc.new_stream(pa.PythonFile(_DigestSink(self._digest), mode="w"), schema)
        for batch in rows.to_batches():
            self._stream.write_batch(batch)
        return rows


def _own(column: pa.ChunkedArray) -> pa.Array:
    """The column as one array that is not part of another: a stream fills up the last bytes of a part with what follows it."""
    whole = column.num_chunks == 1 and column.nbytes == column.get_total_buffer_size()
    # Eight booleans share a byte, so that the sizes tell nothing of them.
    if whole and not pa.types.is_boolean(column.type):
        return column.chunk(0)
    return pa.concat_arrays(column.chunks)


def content_sha256(tables: pa.Table | Iterable[pa.Table]) -> str:
    """The hash of a table's content, or of that of its pieces; see `ContentHash`."""
    content = ContentHash()
    for table in [tables] if isinstance(tables, pa.Table) else tables:
        for _ in content.add(table):
            pass
    for _ in content.rest():
        pass
    return content.hexdigest()


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
