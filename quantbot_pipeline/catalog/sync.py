"""Sync: bring the catalog file in line with the run directories, incrementally, and set aside what cannot be trusted.

A run is registered once, after every byte of it was checked. Whatever fails the check is listed in `quarantine` with its reason, and
looked at again whenever its month changes. The catalog holds nothing that `runs/` does not: `--rebuild` gives the same rows.
"""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import duckdb
from pydantic import BaseModel, Field, TypeAdapter

from quantbot_pipeline.catalog.catalog import Catalog
from quantbot_pipeline.catalog.last_sync import (
    LastSync,
    catalog_signature,
    due_months,
    read_last_sync,
    write_last_sync,
)
from quantbot_pipeline.catalog.schema import CATALOG_VERSION, TABLES, cataloged_files, create_views, insert_rows
from quantbot_pipeline.catalog.shared import Offering, SharedCatalog, require_not_newer, until_published
from quantbot_pipeline.duck import Publication, published_duckdb
from quantbot_pipeline.durable import disk_fault
from quantbot_pipeline.errors import InputError, IntegrityError
from quantbot_pipeline.interrupts import stop_if_asked
from quantbot_pipeline.runs.manifest import MANIFEST_NAME, ArtifactEntry, Timing, parse_moment
from quantbot_pipeline.runs.notes import NOTES, RunNotes, journal_signature, read_notes
from quantbot_pipeline.runs.store import Listing
from quantbot_pipeline.runs.verify import IncompleteRunError, Verified

Only = Callable[[str], bool] | None
MISSING = ": missing, though its run is cataloged"  # how such a reason ends


class SyncReport(BaseModel):
    """What a sync found and did."""

    registered: int = 0
    removed: int = 0
    quarantined: int = 0
    incomplete: int = 0
    runs: int = 0
    published: bool = False
    set_aside: str | None = None
    months_read: int = 0
    elapsed_ms: float = 0.0
    months: list[str] = Field([], exclude=True)  # those looked at


class _Rows(NamedTuple):
    """What is registered of a run: values alone, so that ten thousand of them are no work for the garbage collector."""

    run_id: str
    run: tuple
    artifacts: list[tuple]


@dataclass
class _Found:
    """What the changed months hold."""

    runs: dict[str, _Rows] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)
    seen: dict[str, set[str]] = field(default_factory=dict)
    signatures: dict[str, str] = field(default_factory=dict)
    notes: dict[str, RunNotes] = field(default_factory=dict)


def sync(index: Catalog, *, rebuild: bool = False, only: Only = None) -> SyncReport:
    """Register the runs of a catalog in its file; return what changed.

    `only` says which months (YYYY-MM) are looked at; the others stay due. A catalog that is not there yet is made whole.
    With nothing new the file is not rewritten. A catalog file that DuckDB cannot read is set aside and rebuilt. Raises
    StoreError when another writer holds the lock for too long or the disk fails, InputError when the runs are not in a directory.
    """
    shared = index.shared

    def attempt() -> SyncReport:
        return _sync(index, rebuild=rebuild, only=only, shared=shared)

    return attempt() if shared is None else until_published(attempt, shared.place)


def _sync(index: Catalog, *, rebuild: bool, only: Only, shared: SharedCatalog | None) -> SyncReport:
    """One try; of a shared catalog the newest is brought up, and offered."""
    started = time.perf_counter()
    base, catalog = index.runs.folder.absolute(), index.path  # the views work from every directory
    if base.exists() and not base.is_dir():
        raise InputError(f"{base}: not a directory; give the folder that holds the runs with --base-dir")
    catalog.parent.mkdir(parents=True, exist_ok=True)
    report = SyncReport()
    offering = None if shared is None else Offering(shared, catalog)
    with published_duckdb(catalog, index.lock_timeout_s, offering) as publication:
        if offering is not None:
            rebuild = not offering.pulled() or rebuild
        last = LastSync() if rebuild else read_last_sync(index)
        notes = journal_signature(
            index.runs.journal
        )  # read before the journal: what is written meanwhile is seen by the next sync
        listing = index.runs.listing()
        due = due_months(index, listing)
        if last.months and last.notes == notes and not any(only is None or only(month) for month in due):
            report.runs = last.runs
        else:
            try:
                found = _refresh(publication, index, listing, last, report, only, rebuild=rebuild)
                publication.finish()
            except (duckdb.Error, IntegrityError, FileNotFoundError) as e:
                deleted = not catalog.exists()  # by somebody, while we worked
                if rebuild or disk_fault(e) is not None or (isinstance(e, FileNotFoundError) and not deleted):
                    raise
                report = SyncReport()
                found = _refresh(publication, index, index.runs.listing(), last, report, None, rebuild=True)
                if not deleted:
                    report.set_aside = f"{catalog}.broken-{int(time.time())}"
                    shutil.copyfile(catalog, report.set_aside)  # readers never find the place empty
                publication.finish()
            if offering is not None:
                offering.settle()
            signature = catalog_signature(catalog)
            publication.check_lock()  # else this may be the signature of another process's catalog
            write_last_sync(index, signature, {**found.signatures}, notes, report.runs)
    report.elapsed_ms = (time.perf_counter() - started) * 1e3
    return report


@dataclass
class _State:
    """What the catalog says already: run ids by month, quarantined paths by month, the base."""

    runs: dict[str, set[str]] = field(default_factory=dict)
    quarantine: dict[str, dict[str, str]] = field(default_factory=dict)
    notes: dict[str, RunNotes] = field(default_factory=dict)
    base: str = ""


def _refresh(
    publication: Publication,
    index: Catalog,
    listing: Listing,
    last: LastSync,
    report: SyncReport,
    only: Only,
    *,
    rebuild: bool,
) -> _Found:
    """Bring the private copy in line with the runs; what `last` says holds only for the catalog it was written with."""
    state = None if rebuild else _read_state(publication, shared=index.shared is not None)
    if state is None:
        publication.start_empty()
    found = _scan(index, listing, state or _State(), *((LastSync(), None) if state is None else (last, only)))
    try:
        found.notes = read_notes(index.runs.journal)
    except IntegrityError as e:  # of a newer version: names stay as they are known, and the journal is set aside
        found.notes = dict((state or _State()).notes)
        found.bad[NOTES] = str(e)
    if NOTES in found.bad or NOTES in (state or _State()).quarantine:
        found.seen[NOTES] = set()
    _apply(publication, index, listing, state, found, report)
    return found


def _read_state(publication: Publication, *, shared: bool = False) -> _State | None:
    """The state in the published file; None when there is none of this version.

    Read from the private copy: within one process DuckDB would answer from an older file that somebody still has open.
    """
    if not publication.target.exists():
        return None
    con = publication.connect()
    for table in ("backtest_runs_catalog", "backtest_artifacts_catalog", "quarantine", "catalog_meta"):
        con.execute(f"SELECT count(hash(t)) FROM {table} t").fetchall()  # every block, so that a damaged one is noticed
    meta = dict(con.execute("SELECT key, value FROM catalog_meta").fetchall())
    if meta.get("version") != CATALOG_VERSION:
        if shared:
            require_not_newer(meta.get("version"), publication.target)
        return None
    state = _State(base=meta.get("base", ""))
    for month, ids in con.execute("SELECT month, list(run_id) FROM backtest_runs_catalog GROUP BY 1").fetchall():
        state.runs[month] = set(ids)
    noted = "SELECT run_id, name, note, tags FROM backtest_runs_catalog WHERE coalesce(name, note, tags) IS NOT NULL"
    for run_id, name, note, tags in con.execute(noted).fetchall():
        state.notes[run_id] = RunNotes(name, note, tuple(tags.split(",")) if tags else ())
    for path, reason in con.execute("SELECT path, reason FROM quarantine").fetchall():
        state.quarantine.setdefault(path.split("/")[0], {})[path] = reason
    return state


def _scan(index: Catalog, listing: Listing, state: _State, last: LastSync, only: Only) -> _Found:
    """Read the months whose directory changed since the last sync; `signatures` are those that need no second look."""
    found = _Found()
    months, places = listing.months, (f"{index.runs.folder.absolute()}/", f"{index.runs.place}/")
    if only is not None:  # a month that nobody asked for keeps its old signature, and so stays due
        found.signatures = {month: signature for month, signature in last.months.items() if not only(month)}
    for month, signature in sorted(months.items()):
        stop_if_asked()
        if only is not None and not only(month):
            continue
        if last.months.get(month) == signature:
            found.signatures[month] = signature
            continue
        settled, names = listing.is_settled(month), listing.names(month)
        found.seen[month] = set(names)
        known = state.runs.get(month, set())
        for name in names:
            if name.removeprefix("run_id=") in known:
                continue
            path = _printable(f"{month}/{name}")
            try:
                found.runs[path] = _rows(path, listing.examine(month, name))
            except IncompleteRunError as e:
                found.bad[path] = _reason(e, places)
                settled = settled and listing.tells_success  # else `_SUCCESS` may still come, unseen
            except IntegrityError as e:
                found.bad[path] = _reason(e, places)
        if settled:
            found.signatures[month] = signature
    for month in (state.runs.keys() | state.quarantine.keys()) - {*months, NOTES}:
        if only is None or only(month):
            found.seen[month] = set()
    for month in listing.dangling:
        if only is None or only(month):
            found.seen[month] = set()
            found.bad[month] = f"{month}: a link to a folder that is not there; mount its disk, or mend the link"
    return found


def _printable(text: str) -> str:
    """File names that are not UTF-8 as text that a database takes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _reason(error: IntegrityError, places: Sequence[str]) -> str:
    text = str(error)
    for place in places:
        text = text.replace(place, "")
    return _printable(text)


def _apply(
    publication: Publication, index: Catalog, listing: Listing, known: _State | None, found: _Found, report: SyncReport
) -> None:
    state, base = known or _State(), index.base
    gone = [
        run_id
        for month, names in found.seen.items()
        for run_id in state.runs.get(month, set())
        if f"run_id={run_id}" not in names
    ]
    # Run ids are unique over all months: a second directory with the same id is a copy.
    cataloged = {run_id for ids in state.runs.values() for run_id in ids} - set(gone)
    for path, (run_id, *_) in sorted(found.runs.items()):
        if run_id in cataloged:
            del found.runs[path]
            found.bad[path] = f"{path}: run_id {run_id} is cataloged already"
        cataloged.add(run_id)
    before = {path: why for month in found.seen for path, why in state.quarantine.get(month, {}).items()}
    report.registered, report.removed = len(found.runs), len(gone)
    report.incomplete = sum("no _SUCCESS" in why for why in found.bad.values())
    report.quarantined = len(found.bad)
    months = sorted(found.seen.keys() - {NOTES})
    report.runs, report.months_read, report.months = len(cataloged), len(months), months
    said = {run_id: notes for run_id, notes in found.notes.items() if run_id in cataloged}
    same_notes = said == {run_id: notes for run_id, notes in state.notes.items() if run_id in cataloged}
    if same_notes and not (known is None or found.runs or gone or before != found.bad or state.base != base):
        return
    con = publication.connect()
    con.execute("SET threads = 1")  # sharing so little work costs more than it saves
    con.execute("BEGIN")
    con.execute(TABLES)
    con.execute("INSERT OR REPLACE INTO catalog_meta VALUES ('version', ?), ('base', ?)", [CATALOG_VERSION, base])
    con.execute(
        "DELETE FROM quarantine WHERE split_part(path, '/', 1) IN (SELECT unnest(?::VARCHAR[]))", [[*found.seen]]
    )
    if gone:
        con.execute("DELETE FROM backtest_artifacts_catalog WHERE run_id IN (SELECT unnest(?))", [gone])
        con.execute("DELETE FROM backtest_runs_catalog WHERE run_id IN (SELECT unnest(?))", [gone])
    now = datetime.now(UTC).replace(tzinfo=None)
    insert_rows(
        con, "quarantine", QUARANTINE_COLUMNS, [(path, why) for path, why in found.bad.items()], detected_at=now
    )
    insert_rows(con, "backtest_runs_catalog", RUN_COLUMNS, [rows.run for rows in found.runs.values()], cataloged_at=now)
    _write_notes(con, said)
    artifacts = [row for rows in found.runs.values() for row in rows.artifacts]
    insert_rows(con, "backtest_artifacts_catalog", ARTIFACT_COLUMNS, artifacts, cataloged_at=now)
    there = {row[ARTIFACT_COLUMNS.index("artifact_path")] for row in artifacts}  # verified a moment ago
    _write_views(con, index, listing, there, now)
    con.execute("COMMIT")
    publication.changed = report.published = True


def _write_views(
    con: duckdb.DuckDBPyConnection, index: Catalog, listing: Listing, there: set[str], now: datetime
) -> None:
    """Make the views over all cataloged files that are there; those that went missing are set aside.

    In a shared catalog no file counts as being there: a path of this machine would be wrong on the others.
    """
    files = cataloged_files(con)
    # A file that went missing after its run was cataloged must not take the views of all others with it.
    paths = {path for *_, alike in files for path in alike}
    missing = listing.missing(paths - there)
    con.execute(
        "DELETE FROM quarantine WHERE path IN (SELECT unnest(?::VARCHAR[])) OR suffix(reason, ?)",
        [list(missing), MISSING],
    )  # those of earlier syncs too: their files may be back
    reasons = [(path, f"{path}{MISSING}") for path in sorted(missing)]
    insert_rows(con, "quarantine", QUARANTINE_COLUMNS, reasons, detected_at=now)
    whole = [(name, columns, [path for path in alike if path not in missing]) for name, columns, alike in files]
    elsewhere = listing.elsewhere(paths - missing) if index.shared is None else paths
    create_views(con, Path(index.base), whole, elsewhere)


def _write_notes(con: duckdb.DuckDBPyConnection, said: dict[str, RunNotes]) -> None:
    """Let the catalog say of each run what the journal does, and of the others nothing."""
    con.execute(
        "UPDATE backtest_runs_catalog SET name = NULL, note = NULL, tags = NULL WHERE coalesce(name, note, tags) IS NOT NULL"
    )
    if said:
        rows = [(run_id, n.name, n.note, ",".join(n.tags) or None) for run_id, n in said.items()]
        con.executemany("UPDATE backtest_runs_catalog SET name = $2, note = $3, tags = $4 WHERE run_id = $1", rows)


def _time(text: str | None) -> datetime | None:
    return None if text is None else parse_moment(text).replace(tzinfo=None)


QUARANTINE_COLUMNS = ("path", "reason")
TIMINGS = tuple(Timing.model_fields)
RUN_COLUMNS = (
    "run_id",
    "run_type",
    "status",
    "month",
    "created_at",
    "started_at",
    "completed_at",
    "git_commit",
    "git_branch",
    "git_dirty",
    "dataset_from",
    "dataset_to",
    "dataset_interval",
    "dataset_calls_count",
    "dataset_calls_excluded",
    "parameters_json",
    "config_hash",
    "artifacts_json",
    "run_dir",
    "manifest_path",
    *(f"timing_{name}" for name in TIMINGS),
)
ARTIFACT_COLUMNS = ("run_id", "artifact_type", "artifact_path", "rows", "bytes", "sha256", "created_at", "columns")
_as_text = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode
_ENTRIES = TypeAdapter(dict[str, ArtifactEntry])


def _rows(path: str, verified: Verified) -> _Rows:
    """The rows of a run in the order of RUN_COLUMNS and ARTIFACT_COLUMNS."""
    m, data = verified.manifest, verified.manifest.dataset
    created = _time(m.created_at)
    parameters = _as_text(m.parameters)
    entries = _ENTRIES.dump_json(m.artifacts, exclude_unset=True).decode()  # an older run says less of a file
    run = (
        m.run_id,
        m.run_type,
        m.status,
        m.month,
        created,
        _time(m.started_at),
        _time(m.completed_at),
        m.git_commit,
        m.git_branch,
        m.git_dirty,
        data.from_,
        data.to,
        data.interval,
        data.calls_count,
        data.calls_excluded,
        parameters,
        m.parameters.get("config_hash"),
        entries,
        path,
        f"{path}/{MANIFEST_NAME}",
        *(getattr(m.timing, name) for name in TIMINGS),
    )
    artifacts = [
        (m.run_id, name, f"{path}/{e.path}", e.rows, e.bytes, e.sha256, created, verified.columns.get(name, ""))
        for name, e in m.artifacts.items()
    ]
    return _Rows(m.run_id, run, artifacts)
