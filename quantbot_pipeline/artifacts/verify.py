"""Verification of a committed run: everything its manifest promises, byte by byte.

Two depths: `check_run` looks at names, `_SUCCESS`, sizes and checksums; `read_artifact` is how the package itself reads
an artifact, with the checksum verified first, so that a flipped bit is an error and never a number.
"""

import hashlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from quantbot_pipeline.artifacts.manifest import (
    MANIFEST_NAME,
    SUCCESS_NAME,
    ArtifactEntry,
    RunManifest,
    parse_manifest,
    read_bounded,
)
from quantbot_pipeline.artifacts.schemas import ARTIFACTS
from quantbot_pipeline.durable import sha256_file
from quantbot_pipeline.errors import IntegrityError


class IncompleteRunError(IntegrityError):
    """A run directory without `_SUCCESS`: its commit was interrupted or is still going on."""


def check_run(run_dir: Path, *, checksums: bool = True) -> RunManifest:
    """The manifest of a run that keeps its promises. Raises IntegrityError naming the file that does not.

    A failed run has no `_SUCCESS`; its manifest and files are checked alike.
    """
    try:
        return _check(run_dir, checksums)
    except OSError as e:
        raise IntegrityError(f"{run_dir}: {e.strerror or e}") from None


def _check(run_dir: Path, checksums: bool) -> RunManifest:
    if run_dir.is_symlink() or not run_dir.is_dir():
        raise IntegrityError(f"{run_dir}: not a run directory")
    content = read_bounded(run_dir / MANIFEST_NAME)
    manifest = parse_manifest(content, run_dir / MANIFEST_NAME)
    if run_dir.name != f"run_id={manifest.run_id}":
        raise IntegrityError(f"{run_dir}: run.json says run_id {manifest.run_id}")
    if run_dir.parent.name != manifest.month:
        raise IntegrityError(f"{run_dir}: run.json says month {manifest.month}")
    success = run_dir / SUCCESS_NAME
    if manifest.status == "completed":
        if not success.exists():
            raise IncompleteRunError(f"{run_dir}: no {SUCCESS_NAME}: the commit did not finish")
        if read_bounded(success) != hashlib.sha256(content).hexdigest().encode() + b"\n":
            raise IntegrityError(f"{run_dir}: run.json is not the one that {SUCCESS_NAME} vouches for")
    elif manifest.status != "failed" or success.exists():
        raise IntegrityError(f"{run_dir}: status {manifest.status} in a run directory")
    _check_nothing_else(run_dir, manifest)
    for artifact_type, entry in manifest.artifacts.items():
        _check_artifact(run_dir / entry.path, artifact_type, entry, checksums)
    for name, path in manifest.logs.items():
        _check_file(run_dir / path, manifest.logs_sha256.get(name), checksums)
    return manifest


def read_artifact(
    run_dir: Path, manifest: RunManifest, artifact_type: str, columns: Sequence[str] | None = None
) -> pa.Table:
    """The rows of one artifact (all columns, or those asked for), verified as a whole.

    Raises IntegrityError when the file is not what was committed.
    """
    entry = manifest.artifacts.get(artifact_type)
    if entry is None:
        raise IntegrityError(f"{run_dir}: the run has no artifact {artifact_type}")
    path = run_dir / entry.path
    try:
        content = path.read_bytes()
    except OSError as e:
        raise IntegrityError(f"{path}: {e.strerror or e}") from None
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise IntegrityError(f"{path}: checksum differs from run.json")
    return pq.read_table(
        BytesIO(content),
        columns=None if columns is None else list(columns),
        schema=None if artifact_type not in ARTIFACTS else ARTIFACTS[artifact_type][1],
    )


def _check_artifact(path: Path, artifact_type: str, entry: ArtifactEntry, checksums: bool) -> None:
    _check_file(path, entry.sha256, checksums)
    size = path.stat().st_size
    if size != entry.bytes:
        raise IntegrityError(f"{path}: {size} bytes, run.json says {entry.bytes}")
    if checksums and artifact_type in ARTIFACTS:
        _check_table(path, ARTIFACTS[artifact_type][1], entry.rows)


def _check_file(path: Path, sha256: str | None, checksums: bool) -> None:
    if not path.is_file():
        raise IntegrityError(f"{path}: missing or not a regular file")
    if checksums and sha256 is not None and sha256_file(path) != sha256:
        raise IntegrityError(f"{path}: checksum differs from run.json")


def _check_table(path: Path, schema: pa.Schema, rows: int) -> None:
    """Rows and column types are as promised; an older or newer run may have fewer or more columns."""
    try:
        with pq.ParquetFile(path) as file:
            found, count = file.schema_arrow, file.metadata.num_rows
    except pa.ArrowException as e:
        raise IntegrityError(f"{path}: not a Parquet file: {str(e)[:120]}") from None
    if count != rows:
        raise IntegrityError(f"{path}: {count} rows, run.json says {rows}")
    for field in schema:
        if field.name in found.names and found.field(field.name).type != field.type:
            raise IntegrityError(f"{path}: column {field.name} is {found.field(field.name).type}, not {field.type}")


def _check_nothing_else(run_dir: Path, manifest: RunManifest) -> None:
    expected = {entry.path for entry in manifest.artifacts.values()} | set(manifest.logs.values())
    expected |= {MANIFEST_NAME, SUCCESS_NAME}
    for path in run_dir.rglob("*"):
        if path.is_symlink():
            raise IntegrityError(f"{path}: a symbolic link; what it points to can change")
        if not path.is_dir() and path.relative_to(run_dir).as_posix() not in expected:
            raise IntegrityError(f"{path}: not part of the run")
