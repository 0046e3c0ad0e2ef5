"""One committed run looked at as a whole: bytes, row counts, invariants of each artifact, and that they fit together."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from quantbot_pipeline.artifacts.invariants import Rows, broken
from quantbot_pipeline.errors import IntegrityError
from quantbot_pipeline.runs.manifest import RunDirectory, RunManifest, folder_of
from quantbot_pipeline.runs.verify import check_run
from quantbot_pipeline.versions import FORMAT_KEY, Version, read_version

SHARED = ("alerts", "errors")  # in every run: what is wrong with them concerns all its artifacts


class Inspection(NamedTuple):
    """By artifact: its rows, and a sentence per fault (of the artifact, or of the run it lies in)."""

    rows: dict[str, int]
    faults: dict[str, list[str]]


def inspect_run(run: RunDirectory, artifact_types: Sequence[str]) -> Inspection:
    """Verify a run's bytes, then the rows of these artifacts."""
    try:
        run_dir = folder_of(run)
        manifest = check_run(run_dir)
        if manifest.status != "completed":
            raise IntegrityError(f"{run_dir}: status {manifest.status}")
        with ExitStack() as files:
            names = dict.fromkeys((*SHARED, *artifact_types))
            tables = {name: _read(run_dir, manifest, name, files) for name in names}
            faults = {name: _faults(name, tables, manifest) for name in names}
    except (IntegrityError, pa.ArrowException) as e:
        return Inspection(dict.fromkeys(artifact_types, 0), {name: [str(e)] for name in artifact_types})
    shared = [fault for name in SHARED for fault in faults[name]]
    return Inspection(
        {name: tables[name].rows.num_rows for name in artifact_types},
        {name: [*shared, *faults[name]] for name in artifact_types},
    )


class _File(NamedTuple):
    """The rows of an artifact as they are, and the version that wrote them."""

    rows: Rows
    version: Version


def _read(run_dir: Path, manifest: RunManifest, artifact_type: str, files: ExitStack) -> _File:
    """The file as it is: `read_artifact` would bring it into the contract's shape. A large one is read column by column."""
    entry = manifest.artifacts.get(artifact_type)
    if entry is None:
        raise IntegrityError(f"{run_dir}: the run has no artifact {artifact_type}")
    file = files.enter_context(pq.ParquetFile(run_dir / entry.path, page_checksum_verification=True))
    said = (file.metadata.metadata or {}).get(FORMAT_KEY)
    version = read_version(artifact_type, None if said is None else said.decode(), entry.path, IntegrityError)
    return _File(file.read() if file.num_row_groups <= 1 else _Stored(file), version)


class _Stored:
    """An artifact of several row groups; nothing of it is held."""

    def __init__(self, file: pq.ParquetFile) -> None:
        self._file = file
        self.schema: pa.Schema = file.schema_arrow
        self.num_rows: int = file.metadata.num_rows
        self.column_names: list[str] = self.schema.names

    def __getitem__(self, name: str, /) -> pa.ChunkedArray:
        pa.default_memory_pool().release_unused()  # the column before this one is gone, but its memory would be kept
        return self._file.read(columns=[name])[name]


def _faults(name: str, tables: dict[str, _File], manifest: RunManifest) -> list[str]:
    table = tables[name].rows
    if found := broken(name, *tables[name]):
        return found
    faults = []
    if table.num_rows != manifest.artifacts[name].rows:
        faults.append(f"{name}: {table.num_rows} rows, run.json says {manifest.artifacts[name].rows}")
    if "run_id" in table.column_names:
        others = table["run_id"].filter(pc.not_equal(table["run_id"], manifest.run_id))
        faults += [f"{name}.run_id: of another run in {len(others)} of {table.num_rows} rows"] if len(others) else []
    if name != "errors" and "call_id" in table.column_names:
        known = pc.is_in(table["call_id"], value_set=tables["alerts"].rows["call_id"].combine_chunks())
        strangers = table["call_id"].filter(pc.invert(known))
        if len(strangers):
            faults.append(
                f"{name}.call_id: not among the run's alerts in {len(strangers)} of {table.num_rows} rows, "
                f"e.g. {strangers[0].as_py()!r}"
            )
    return faults + _counts(name, table.num_rows, manifest)


def _counts(name: str, rows: int, manifest: RunManifest) -> list[str]:
    calls, excluded = manifest.dataset.calls_count, manifest.dataset.calls_excluded
    expected = {"alerts": calls, "paths": calls - excluded, "features": calls}.get(name, rows)
    return [] if rows == expected else [f"{name}: {rows} rows for {calls} calls, {excluded} of them excluded"]
