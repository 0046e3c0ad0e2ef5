"""Verification of a committed run: everything its manifest promises, byte by byte.

Two depths: `check_run` looks at names, `_SUCCESS`, sizes and checksums; `read_artifact` is how the package itself reads
an artifact, with the checksum verified first, so that a flipped bit is an error and never a number.
"""

import functools
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from quantbot_pipeline.artifacts.migrations import brought_up, fitted, steps_from, whole_schema
from quantbot_pipeline.artifacts.schemas import ARTIFACTS
from quantbot_pipeline.durable import sha256_file
from quantbot_pipeline.errors import IntegrityError
from quantbot_pipeline.runs.footers import read_footer
from quantbot_pipeline.runs.manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    SUCCESS_NAME,
    ArtifactEntry,
    RunDirectory,
    RunManifest,
    folder_of,
    parse_manifest,
    read_bounded,
)
from quantbot_pipeline.versions import FORMAT_KEY, WRITER_KEY, columns_of, read_version

READ_WHOLE = 32 << 20  # bytes; larger files are hashed in pieces


class IncompleteRunError(IntegrityError):
    """A run directory without `_SUCCESS`: its commit was interrupted or is still going on."""


class Verified(NamedTuple):
    """A run that keeps its promises; `columns` of each artifact whose file was read, see `_columns`."""

    manifest: RunManifest
    columns: dict[str, str]


def check_run(run_dir: RunDirectory, *, checksums: bool = True) -> RunManifest:
    """The manifest of a run that keeps its promises. Raises IntegrityError naming the file that does not.

    A failed run has no `_SUCCESS`; its manifest and files are checked alike.
    """
    return examine_run(run_dir, checksums=checksums).manifest


def examine_run(run_dir: RunDirectory, *, checksums: bool = True) -> Verified:
    """`check_run`, and what its artifacts look like. Ten thousand runs are examined in a few seconds: every file is opened once."""
    folder = folder_of(run_dir)
    try:
        return _examine(folder, checksums)
    except OSError as e:
        raise IntegrityError(f"{run_dir}: {e.strerror or e}") from None


def _examine(run_dir: Path, checksums: bool) -> Verified:
    if not _is_directory(run_dir):
        raise IntegrityError(f"{run_dir}: not a run directory")
    files = _Files(run_dir)
    content = files.bounded(MANIFEST_NAME)
    vouched = SUCCESS_NAME in files.regular or (run_dir / SUCCESS_NAME).exists()  # it could be a folder
    manifest = vouched_manifest(
        str(run_dir), run_dir.parent.name, content, (lambda: files.bounded(SUCCESS_NAME)) if vouched else None
    )
    require_named(str(run_dir), manifest, files.regular)
    columns, root = {}, os.fspath(run_dir)
    for artifact_type, entry in manifest.artifacts.items():
        found = files.check(entry.path, entry.sha256 if checksums else None, entry.bytes)
        if checksums and artifact_type in ARTIFACTS:
            columns[artifact_type] = _columns(f"{root}/{entry.path}", artifact_type, found, entry)
    for name, path in manifest.logs.items():
        files.check(path, manifest.logs_sha256.get(name) if checksums else None)
    return Verified(manifest, columns)


def vouched_manifest(where: str, month: str, content: bytes, success: Callable[[], bytes] | None) -> RunManifest:
    """Return the manifest of a run that `_SUCCESS` vouches for, or of a failed one.

    where: how the run is named in errors; it ends with the name of its directory. month: that of the place. success: reads
    `_SUCCESS`, None where there is none. Raises IncompleteRunError without one, IntegrityError for everything else.
    """
    manifest = parse_manifest(content, f"{where}/{MANIFEST_NAME}")
    if not where.endswith(f"/run_id={manifest.run_id}"):
        raise IntegrityError(f"{where}: run.json says run_id {manifest.run_id}")
    if month != manifest.month:
        raise IntegrityError(f"{where}: run.json says month {manifest.month}")
    if manifest.status == "completed":
        if success is None:
            raise IncompleteRunError(f"{where}: no {SUCCESS_NAME}: the commit did not finish")
        if success() != hashlib.sha256(content).hexdigest().encode() + b"\n":
            raise IntegrityError(f"{where}: run.json is not the one that {SUCCESS_NAME} vouches for")
    elif manifest.status != "failed" or success is not None:
        raise IntegrityError(f"{where}: status {manifest.status} in a run directory")
    return manifest


def require_named(where: str, manifest: RunManifest, files: Iterable[str]) -> None:
    """Refuse files of a run that its manifest does not name. Raises IntegrityError naming the first."""
    named = {MANIFEST_NAME, SUCCESS_NAME, *(e.path for e in manifest.artifacts.values()), *manifest.logs.values()}
    for path in sorted(set(files) - named):
        raise IntegrityError(f"{where}/{path}: not part of the run")


def _is_directory(path: Path) -> bool:
    """A directory itself, not a link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


class _Files:
    """The files of a run directory: `regular` says of each (by its path inside) whether it is a regular file."""

    def __init__(self, run_dir: Path) -> None:
        self._root = os.fspath(run_dir)
        self.regular: dict[str, bool] = {}
        folders = [""]
        while folders:
            inside = folders.pop()
            with os.scandir(f"{self._root}/{inside}") as entries:
                for entry in entries:
                    path = inside + entry.name
                    if entry.is_file(follow_symlinks=False):
                        self.regular[path] = True
                    elif entry.is_dir(follow_symlinks=False):
                        folders.append(f"{path}/")
                    elif entry.is_symlink():
                        raise IntegrityError(f"{self._root}/{path}: a symbolic link; what it points to can change")
                    else:
                        self.regular[path] = False

    def bounded(self, path: str) -> bytes:
        """The bytes of a file that should be small."""
        if not self.regular.get(path):  # a pipe, or not there: the error says so
            return read_bounded(Path(self._root, path))
        return _read(f"{self._root}/{path}", MAX_MANIFEST_BYTES + 1)

    def check(self, path: str, sha256: str | None, size: int | None = None) -> bytes | None:
        """Compare a file with what the manifest says of it; its content, if there is a checksum and it fits into memory."""
        full = f"{self._root}/{path}"
        if not self.regular.get(path):
            raise IntegrityError(f"{full}: missing or not a regular file")
        content = None if sha256 is None else _read(full, READ_WHOLE + 1, size)
        if content is None or len(content) > READ_WHOLE:
            content, found = None, os.stat(full).st_size  # noqa: PTH116  (a Path per file costs more than the look)
        else:
            found = len(content)
        if sha256 is not None:
            digest = sha256_file(Path(full)) if content is None else hashlib.sha256(content).hexdigest()
            if digest != sha256:
                raise IntegrityError(f"{full}: checksum differs from run.json")
        if size is not None and found != size:
            raise IntegrityError(f"{full}: {found} bytes, run.json says {size}")
        return content


READ_ONLY = os.O_RDONLY | os.O_NOFOLLOW
NO_ACCESS_TIME = getattr(os, "O_NOATIME", 0)  # to note when it was read costs more than the reading
SMALL = 1 << 16


def _read(path: str, limit: int, expected: int | None = None) -> bytes:
    """The first bytes of a file. No Path: it costs more than the reading, and runs are many.

    The first look is for one byte more than are expected. Only if there are so many is the size asked for; no buffer of the
    size of the limit is made for a small file.
    """
    try:
        fd = os.open(path, READ_ONLY | NO_ACCESS_TIME)
    except PermissionError:  # not the owner of the file
        fd = os.open(path, READ_ONLY)
    try:
        first = min(limit, SMALL if expected is None else expected + 1)
        content = os.read(fd, first)
        if len(content) == first < limit:
            content += os.read(fd, min(os.fstat(fd).st_size + 1, limit) - first)
        return content
    finally:
        os.close(fd)


def _columns(path: str, artifact_type: str, content: bytes | None, entry: ArtifactEntry) -> str:
    """The names of the columns, with the type of those that are not in the contract: files alike can be read as one.

    Rows, version and column types are as promised; an older or newer run may have fewer or more columns.
    """
    try:
        footer = read_footer(Path(path) if content is None else content, artifact_type)
    except pa.ArrowException as e:
        raise IntegrityError(f"{path}: not a Parquet file: {str(e)[:120]}") from None
    if footer.rows != entry.rows:
        raise IntegrityError(f"{path}: {footer.rows} rows, run.json says {entry.rows}")
    version = read_version(artifact_type, footer.version, path, IntegrityError, footer.written_by)
    if entry.version is not None and version != read_version(artifact_type, entry.version, path, IntegrityError):
        raise IntegrityError(f"{path}: {artifact_type} version {version}, run.json says {entry.version[:20]}")
    return (
        _contracted(artifact_type)
        if footer.schema is ARTIFACTS[artifact_type][1]
        else _compared(path, artifact_type, footer.schema)
    )


def columns_promised(manifest: RunManifest) -> dict[str, str] | None:
    """Return the names of the columns of each artifact, as `_columns`, from the versions that a manifest names.

    None where it does not name a version that this program knows: then the files must be read.
    """
    found = {}
    for name, entry in manifest.artifacts.items():
        if name not in ARTIFACTS:
            continue
        version = None if entry.version is None else read_version(name, entry.version, name, IntegrityError)
        columns = None if version is None else columns_of(name, version, ARTIFACTS[name][1].names)
        if columns is None:
            return None
        found[name] = ",".join(columns)
    return found


@functools.cache
def _contracted(artifact_type: str) -> str:
    return ",".join(ARTIFACTS[artifact_type][1].names)


def _compared(path: str, artifact_type: str, found: pa.Schema) -> str:
    schema = ARTIFACTS[artifact_type][1]
    for field in schema:
        if field.name in found.names and found.field(field.name).type != field.type:
            raise IntegrityError(f"{path}: column {field.name} is {found.field(field.name).type}, not {field.type}")
    return ",".join(name if name in schema.names else f"{name}:{found.field(name).type}" for name in found.names)


def read_artifact(
    run_dir: RunDirectory, manifest: RunManifest, artifact_type: str, columns: Sequence[str] | None = None
) -> pa.Table:
    """The rows of one artifact (all columns, or those asked for), verified as a whole.

    Raises IntegrityError when the file is not what was committed.
    """
    entry = manifest.artifacts.get(artifact_type)
    if entry is None:
        raise IntegrityError(f"{run_dir}: the run has no artifact {artifact_type}")
    path = run_dir / entry.path
    try:
        large = path.stat().st_size > READ_WHOLE  # read twice rather than held; its pages have checksums of their own
        content = b"" if large else path.read_bytes()
        digest = sha256_file(path) if large else hashlib.sha256(content).hexdigest()
    except OSError as e:
        raise IntegrityError(f"{path}: {e.strerror or e}") from None
    if digest != entry.sha256:
        raise IntegrityError(f"{path}: checksum differs from run.json")
    # Not `pq.read_table`: it imports pyarrow.dataset, which imports pandas (0.6 s).
    with pq.ParquetFile(path if large else BytesIO(content), page_checksum_verification=True) as file:
        try:
            return _as_of_today(file, path, artifact_type, columns)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as e:
            raise IntegrityError(f"{path}: not the columns of {artifact_type}: {str(e)[:120]}") from None


def _as_of_today(file: pq.ParquetFile, path: Path, artifact_type: str, columns: Sequence[str] | None) -> pa.Table:
    """The rows of a file of any version; columns that it lacks are null, and columns that only a newer version has are kept."""
    found = file.schema_arrow
    said = found.metadata or {}
    text, program = (said[key].decode(errors="replace") if key in said else None for key in (FORMAT_KEY, WRITER_KEY))
    version = read_version(artifact_type, text, path, IntegrityError, program)
    if artifact_type not in ARTIFACTS:
        return file.read(columns)
    if steps_from(artifact_type, version):
        table = brought_up(artifact_type, file.read(), version)
        return table if columns is None else table.select(columns)
    wanted = whole_schema(artifact_type, found)
    wanted = wanted if columns is None else pa.schema([wanted.field(name) for name in columns])
    return fitted(file.read([name for name in wanted.names if name in found.names]), wanted)
