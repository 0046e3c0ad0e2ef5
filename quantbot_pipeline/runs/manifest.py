"""`run.json`: what a run was made from, what it holds, and the checksums that let nobody trust "the file opens".

The same model writes, reads and validates it. NaN and infinities never appear; paths are relative to the run directory.
"""

import functools
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from quantbot_pipeline.artifacts.schemas import ARTIFACTS, ARTIFACTS_VERSION
from quantbot_pipeline.errors import IntegrityError
from quantbot_pipeline.specs import run_types
from quantbot_pipeline.versions import format_of, read_version
from quantbot_pipeline.vocabulary import RunStatus

MANIFEST_VERSION = format_of("manifest").current
MANIFEST_NAME = "run.json"
SUCCESS_NAME = "_SUCCESS"
MAX_MANIFEST_BYTES = 4 << 20  # read no more than this of a file that claims to be a manifest
MAX_DEPTH = 100


def _inside(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/") or "\x00" in path:
        raise ValueError("must lie inside the run directory")
    return path


@functools.lru_cache(maxsize=64)  # a manifest's times are read when it is validated, and again when it is cataloged
def parse_moment(text: str) -> datetime:
    """An ISO-8601 time with its offset, as UTC. Raises ValueError for anything else."""
    try:
        moment = datetime.fromisoformat(text)
        in_utc = moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("must be an ISO-8601 time") from None
    if moment.tzinfo is None:
        raise ValueError("must say its offset from UTC")
    return in_utc


def _known_type(text: str) -> str:
    if text not in run_types():
        raise ValueError(f"must be one of {', '.join(run_types())}")
    return text


def _moment(text: str) -> str:
    parse_moment(text)
    return text


Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
InnerPath = Annotated[str, AfterValidator(_inside)]
Moment = Annotated[str, AfterValidator(_moment)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="allow", allow_inf_nan=False, ser_json_inf_nan="constants")


class Dataset(_Strict):
    """The calls and candles of a run; `fingerprint` changes when any value of them does."""

    from_: str = Field(alias="from")
    to: str
    interval: str
    calls_count: Count
    calls_excluded: Count
    fingerprint: str

    model_config = ConfigDict(extra="allow", validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)


class SchemaVersion(_Strict):
    """Versions of the manifest, and of artifacts that do not say theirs."""

    manifest: str = MANIFEST_VERSION
    artifacts: str = ARTIFACTS_VERSION


class ArtifactEntry(_Strict):
    """One file of the run. `content_sha256` hashes the values without the run's id: equal inputs, equal hash.

    version: of the artifact's schema; runs of manifest version 1.0.0 do not say it.
    """

    rows: Count
    path: InnerPath
    bytes: Count
    sha256: Sha256
    content_sha256: str | None = None
    version: str | None = None


class Timing(_Strict):
    """Wall-clock milliseconds of each phase."""

    plan_ms: float = 0.0
    coverage_ms: float = 0.0
    slice_ms: float = 0.0
    execution_ms: float = 0.0
    optimization_ms: float = 0.0
    total_ms: float = 0.0


class DagsterRef(_Strict):
    """The Dagster run that made this one; empty when a recipe was called without Dagster."""

    run_id: str | None = None
    partition_key: str | None = None
    asset_keys: list[str] = []


class RunManifest(_Strict):
    """The whole of `run.json`."""

    run_id: str = Field(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
    run_type: Annotated[str, AfterValidator(_known_type)]
    month: str = Field(pattern=r"^\d{4}-(0[1-9]|1[0-2])$")
    created_at: Moment
    started_at: Moment
    completed_at: Moment | None
    status: RunStatus
    git_commit: str | None
    git_branch: str | None
    git_dirty: bool | None
    dataset: Dataset
    parameters: dict[str, Any]
    schema_version: SchemaVersion
    artifacts: dict[str, ArtifactEntry]
    timing: Timing
    logs: dict[str, InnerPath]
    logs_sha256: dict[str, Sha256] = {}
    dagster: DagsterRef
    versions: dict[str, str]
    error: str | None = None

    def to_json(self) -> bytes:
        """The bytes of `run.json`. Raises ValueError for a NaN or an infinity."""
        return (json.dumps(self.model_dump(), indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()


def parse_manifest(content: bytes, where: Path | str) -> RunManifest:
    """Validate the bytes of a manifest. Raises IntegrityError saying what is wrong with which key."""
    manifest = _judged(content, where)
    if not isinstance(manifest.parameters.get("config_hash", ""), str):
        raise IntegrityError(f"{where}: parameters.config_hash must be a string")
    writer = manifest.versions.get("quantbot")
    read_version("artifacts", manifest.schema_version.artifacts, where, IntegrityError, writer)
    for artifact_type, entry in manifest.artifacts.items():
        if artifact_type not in ARTIFACTS:
            continue
        if entry.path != ARTIFACTS[artifact_type][0]:
            raise IntegrityError(f"{where}: artifacts.{artifact_type}.path is not {ARTIFACTS[artifact_type][0]}")
        read_version(artifact_type, entry.version, where, IntegrityError, writer)
    return manifest


def _judged(content: bytes, where: Path | str) -> RunManifest:
    if len(content) > MAX_MANIFEST_BYTES:
        raise IntegrityError(f"{where}: larger than {MAX_MANIFEST_BYTES >> 20} MiB, not a manifest")
    try:
        text = content.decode()
        data = _DECODER.decode(text)
    except (ValueError, RecursionError) as e:
        raise IntegrityError(f"{where}: not valid JSON: {str(e)[:200]}") from None
    # Whoever reads it later, deep in a stack of calls, would run out of stack. It takes as many brackets to be so deep.
    if text.count("{") + text.count("[") >= MAX_DEPTH and _is_deeper(data, MAX_DEPTH):
        raise IntegrityError(f"{where}: nested deeper than {MAX_DEPTH} levels, not a manifest")
    _require_readable(data, where)
    try:
        manifest = RunManifest.model_validate(data)
    except ValidationError as e:
        first = e.errors()[0]
        raise IntegrityError(f"{where}: {'.'.join(map(str, first['loc'])) or 'manifest'}: {first['msg']}") from None
    if "\\u" in text:  # half a character, which has no other spelling in UTF-8, could not be cataloged
        try:
            json.dumps(data, ensure_ascii=False).encode()
        except ValueError as e:
            raise IntegrityError(f"{where}: {str(e)[:200]}") from None
    return manifest


def _require_readable(data: Any, where: Path | str) -> None:
    """Judge the version before anything else: what a newer version means by a key, this one cannot know."""
    if isinstance(data, dict) and isinstance(said := data.get("schema_version", {}), dict):
        programs = data.get("versions")
        writer = programs.get("quantbot") if isinstance(programs, dict) else None
        read_version("manifest", said.get("manifest"), where, IntegrityError, writer)


class RunDirectory(Protocol):
    """A committed run, wherever it is kept; a Path is one. `run / "run.json"` is a file on this machine that may be read."""

    @property
    def name(self) -> str:
        """`run_id=…`."""
        ...

    def __truediv__(self, inside: str, /) -> Path: ...


@runtime_checkable
class RemoteRun(Protocol):
    """A run that is not kept on this machine."""

    def whole(self) -> Path:
        """A folder on this machine with verified copies of all its files."""
        ...


def folder_of(run_dir: RunDirectory) -> Path:
    """Return the folder on this machine that holds all files of a run."""
    return run_dir.whole() if isinstance(run_dir, RemoteRun) else run_dir / ""


def read_manifest(run_dir: RunDirectory) -> RunManifest:
    """Read and validate `run.json` of a run directory, without looking at the other files."""
    return parse_manifest(read_bounded(run_dir / MANIFEST_NAME), f"{run_dir}/{MANIFEST_NAME}")


def read_bounded(path: Path) -> bytes:
    """The file's bytes, at most just past MAX_MANIFEST_BYTES. Raises IntegrityError when it cannot be read."""
    try:
        if path.exists() and not path.is_file():  # a pipe would block for ever
            raise IntegrityError(f"{path}: not a regular file")
        with path.open("rb") as f:
            return f.read(MAX_MANIFEST_BYTES + 1)
    except OSError as e:
        raise IntegrityError(f"{path}: {e.strerror or e}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key appears twice")
    return found


def _is_deeper(data: Any, depth: int) -> bool:
    level = [data]
    for _ in range(depth):
        if not level:
            return False
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
    return bool(level)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:20]} is larger than any number")
    return number


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_refuse_constant)
