"""Sync: bring the catalog file in line with the run directories, incrementally, and set aside what cannot be trusted.

A run is registered once, after every byte of it was checked. Whatever fails the check is listed in `quarantine` with its reason, and
looked at again whenever its month changes. The catalog holds nothing that `runs/` does not: `--rebuild` gives the same rows.
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
from pydantic import BaseModel

from quantbot_pipeline.artifacts.manifest import MANIFEST_NAME, RunManifest, Timing
from quantbot_pipeline.artifacts.verify import IncompleteRunError, check_run
from quantbot_pipeline.catalog.memo import Memo, month_signatures, read_memo, write_memo
from quantbot_pipeline.catalog.schema import CATALOG_VERSION, TABLES, create_views
from quantbot_pipeline.durable import Publication, published_duckdb
from quantbot_pipeline.errors import InputError, IntegrityError

# A directory changed so recently may change again without its times telling; it is read anew at the next sync.
SETTLED_S = 2.0


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


@dataclass
class _Found:
    """What the changed months hold."""

    manifests: dict[str, RunManifest] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)
    seen: dict[str, set[str]] = field(default_factory=dict)
    signatures: dict[str, str] = field(default_factory=dict)


def sync(base: Path, catalog: Path, *, rebuild: bool = False, lock_timeout_s: float = 60.0) -> SyncReport:
    """Register the runs under `base` (`runs/`) in `catalog`; returns what changed.

    With nothing new the file is not rewritten. A catalog file that DuckDB cannot open is set aside and rebuilt. Raises
    StoreError when another writer holds the lock for too long, InputError when `base` is not a directory.
    """
    started = time.perf_counter()
    base = base.absolute()  # the views work from every directory
    if base.exists() and not base.is_dir():
        raise InputError(f"{base}: not a directory; give the folder that holds the runs with --base-dir")
    catalog.parent.mkdir(parents=True, exist_ok=True)
    report = SyncReport()
    with published_duckdb(catalog, lock_timeout_s) as publication:
        memo = Memo() if rebuild else read_memo(base, catalog)
        if memo.months and memo.months == month_signatures(base):
            report.runs = memo.runs
        else:
            try:
                found = _refresh(publication, base, memo, report, rebuild=rebuild)
                publication.finish()
            except (duckdb.Error, IntegrityError):
                if rebuild or not catalog.exists():
                    raise
                report = SyncReport(set_aside=f"{catalog}.broken-{int(time.time())}")
                found = _refresh(publication, base, memo, report, rebuild=True)
                catalog.replace(str(report.set_aside))
                publication.finish()
            write_memo(base, catalog, {**found.signatures}, report.runs)
    report.elapsed_ms = (time.perf_counter() - started) * 1e3
    return report


@dataclass
class _State:
    """What the catalog says already: run ids by month, quarantined paths by month, the base."""

    runs: dict[str, set[str]] = field(default_factory=dict)
    quarantine: dict[str, dict[str, str]] = field(default_factory=dict)
    base: str = ""


def _refresh(publication: Publication, base: Path, memo: Memo, report: SyncReport, *, rebuild: bool) -> _Found:
    """Bring the private copy in line with `base`; what the memo says holds only for the catalog it was written with."""
    state = None if rebuild else _read_state(publication)
    if state is None:
        publication.start_empty()
    found = _scan(base, state or _State(), Memo() if state is None else memo)
    _apply(publication, base, state, found, report)
    return found


def _read_state(publication: Publication) -> _State | None:
    """The state in the published file; None when there is none of this version.

    Read from the private copy: within one process DuckDB would answer from an older file that somebody still has open.
    """
    if not publication.target.exists():
        return None
    con = publication.connect()
    meta = dict(con.execute("SELECT key, value FROM catalog_meta").fetchall())
    if meta.get("version") != CATALOG_VERSION:
        return None
    state = _State(base=meta.get("base", ""))
    for month, ids in con.execute("SELECT month, list(run_id) FROM backtest_runs_catalog GROUP BY 1").fetchall():
        state.runs[month] = set(ids)
    for path, reason in con.execute("SELECT path, reason FROM quarantine").fetchall():
        state.quarantine.setdefault(path.split("/")[0], {})[path] = reason
    return state


def _scan(base: Path, state: _State, memo: Memo) -> _Found:
    """Read the months whose directory changed since the last sync; `signatures` are those that need no second look."""
    found = _Found()
    months = month_signatures(base)
    for month, signature in sorted(months.items()):
        if memo.months.get(month) == signature:
            found.signatures[month] = signature
            continue
        folder = base / month
        stat = folder.stat()
        settled = time.time() - max(stat.st_mtime, stat.st_ctime) > SETTLED_S
        names = sorted(entry.name for entry in os.scandir(folder) if entry.name.startswith("run_id="))
        found.seen[month] = set(names)
        known = state.runs.get(month, set())
        for name in names:
            if name.removeprefix("run_id=") in known:
                continue
            path = _printable(f"{month}/{name}")
            try:
                found.manifests[path] = check_run(folder / name)
            except IncompleteRunError as e:
                found.bad[path] = _reason(e, base)
                settled = False  # `_SUCCESS` may still come, and does not touch the month's directory
            except IntegrityError as e:
                found.bad[path] = _reason(e, base)
        if settled:
            found.signatures[month] = signature
    for month in (state.runs.keys() | state.quarantine.keys()) - months.keys():
        found.seen[month] = set()
    return found


def _printable(text: str) -> str:
    """File names that are not UTF-8 as text that a database takes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _reason(error: IntegrityError, base: Path) -> str:
    return _printable(str(error).replace(f"{base}/", ""))


def _apply(publication: Publication, base: Path, known: _State | None, found: _Found, report: SyncReport) -> None:
    state = known or _State()
    gone = [
        run_id
        for month, names in found.seen.items()
        for run_id in state.runs.get(month, set())
        if f"run_id={run_id}" not in names
    ]
    # Run ids are unique over all months: a second directory with the same id is a copy.
    cataloged = {run_id for ids in state.runs.values() for run_id in ids} - set(gone)
    for path, manifest in sorted(found.manifests.items()):
        if manifest.run_id in cataloged:
            del found.manifests[path]
            found.bad[path] = f"{path}: run_id {manifest.run_id} is cataloged already"
        cataloged.add(manifest.run_id)
    before = {path: why for month in found.seen for path, why in state.quarantine.get(month, {}).items()}
    report.registered, report.removed = len(found.manifests), len(gone)
    report.incomplete = sum("no _SUCCESS" in why for why in found.bad.values())
    report.quarantined = len(found.bad)
    report.runs, report.months_read = len(cataloged), len(found.seen)
    if not (known is None or found.manifests or gone or before != found.bad or state.base != str(base)):
        return
    con = publication.connect()
    con.execute("BEGIN")
    con.execute(TABLES)
    con.execute("INSERT OR REPLACE INTO catalog_meta VALUES ('version', ?), ('base', ?)", [CATALOG_VERSION, str(base)])
    for month in found.seen:
        con.execute("DELETE FROM quarantine WHERE split_part(path, '/', 1) = ?", [month])
    if gone:
        con.execute("DELETE FROM backtest_artifacts_catalog WHERE run_id IN (SELECT unnest(?))", [gone])
        con.execute("DELETE FROM backtest_runs_catalog WHERE run_id IN (SELECT unnest(?))", [gone])
    now = datetime.now(UTC).replace(tzinfo=None)
    _insert(con, "quarantine", [{"path": p, "reason": why, "detected_at": now} for p, why in found.bad.items()])
    _insert(con, "backtest_runs_catalog", [_run_row(path, m, now) for path, m in found.manifests.items()])
    _insert(
        con,
        "backtest_artifacts_catalog",
        [row for p, m in found.manifests.items() for row in _artifact_rows(p, m, now)],
    )
    files = con.execute(
        """SELECT artifact_type, artifact_path FROM backtest_artifacts_catalog
           JOIN backtest_runs_catalog USING (run_id) WHERE status = 'completed'"""
    ).fetchall()
    # A file that went missing after its run was cataloged must not take the views of all others with it.
    missing = [path for _, path in files if not (base / path).is_file()]
    files = [(artifact, path) for artifact, path in files if path not in set(missing)]
    known_missing = [
        {"path": p, "reason": f"{p}: missing, though its run is cataloged", "detected_at": now} for p in missing
    ]
    con.execute("DELETE FROM quarantine WHERE path IN (SELECT unnest(?::VARCHAR[]))", [missing])
    _insert(con, "quarantine", known_missing)
    create_views(con, base, files)
    con.execute("COMMIT")
    publication.changed = report.published = True


def _insert(con: duckdb.DuckDBPyConnection, table: str, rows: list[dict]) -> None:
    """One insert through Arrow; `table` is one of this module's constants."""
    if rows:
        con.register("incoming_rows", pa.Table.from_pylist(rows))
        con.execute(f"INSERT INTO {table} BY NAME SELECT * FROM incoming_rows")
        con.unregister("incoming_rows")


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None)


def _run_row(path: str, m: RunManifest, now: datetime) -> dict:
    return {
        "run_id": m.run_id,
        "run_type": m.run_type,
        "status": m.status,
        "month": m.month,
        "created_at": _time(m.created_at),
        "started_at": _time(m.started_at),
        "completed_at": _time(m.completed_at),
        "git_commit": m.git_commit,
        "git_branch": m.git_branch,
        "git_dirty": m.git_dirty,
        "dataset_from": m.dataset.from_,
        "dataset_to": m.dataset.to,
        "dataset_interval": m.dataset.interval,
        "dataset_calls_count": m.dataset.calls_count,
        "dataset_calls_excluded": m.dataset.calls_excluded,
        "parameters_json": json.dumps(m.parameters, sort_keys=True, ensure_ascii=False),
        "config_hash": m.parameters.get("config_hash"),
        **{f"timing_{name}": getattr(m.timing, name) for name in Timing.model_fields},
        "artifacts_json": json.dumps({t: e.model_dump() for t, e in m.artifacts.items()}, sort_keys=True),
        "run_dir": path,
        "manifest_path": f"{path}/{MANIFEST_NAME}",
        "cataloged_at": now,
    }


def _artifact_rows(path: str, m: RunManifest, now: datetime) -> Iterator[dict]:
    for artifact_type, entry in m.artifacts.items():
        yield {
            "run_id": m.run_id,
            "artifact_type": artifact_type,
            "artifact_path": f"{path}/{entry.path}",
            "rows": entry.rows,
            "bytes": entry.bytes,
            "sha256": entry.sha256,
            "created_at": _time(m.created_at),
            "cataloged_at": now,
        }
