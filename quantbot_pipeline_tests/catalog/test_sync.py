"""Sync: the catalog is what `runs/` is, is rewritten only when that changed, and believes nothing unchecked."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pytest

from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.catalog.catalog import Catalog
from quantbot_pipeline.catalog.last_sync import (
    catalog_signature,
    due_months,
    write_last_sync,
)
from quantbot_pipeline.catalog.sync import SyncReport, sync
from quantbot_pipeline.config import make_config
from quantbot_pipeline.durable import locked
from quantbot_pipeline.errors import InputError, StoreError
from quantbot_pipeline.home import Home
from quantbot_pipeline.runs import store as module
from quantbot_pipeline.runs.store import LocalRuns, month_signatures
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.support.builders import artifact_rows, commit_run
from quantbot_pipeline_tests.support.content import TABLES, ask, content


class Lab(NamedTuple):
    """A base of runs and its catalog."""

    runs: Path
    catalog: Path

    def sync(self, **options: Any) -> SyncReport:
        return sync(self.published(), **options)

    def published(self, lock_timeout_s: float = 5) -> Catalog:
        return Catalog(self.catalog, LocalRuns(self.runs), lock_timeout_s=lock_timeout_s)

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        return ask(self.catalog, sql)

    def content(self) -> dict[str, list[tuple[Any, ...]]]:
        return content(self.catalog)

    def cataloged(self) -> set[str]:
        return {run_dir for (run_dir,) in self.ask("SELECT run_dir FROM backtest_runs_catalog")}

    def reasons(self) -> dict[str, str]:
        return dict(self.ask("SELECT path, reason FROM quarantine"))

    def relative(self, run_dir: Path) -> str:
        return run_dir.relative_to(self.runs).as_posix()


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "runs", tmp_path / "data" / "catalog.duckdb")


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every directory had last changed long ago."""
    monkeypatch.setattr(module, "SETTLED_S", -1.0)


def identity(path: Path) -> tuple[int, int, int]:
    return path.stat().st_ino, path.stat().st_mtime_ns, path.stat().st_size


def test_everything_the_manifest_says_is_in_the_tables(lab: Lab) -> None:
    run_dir = commit_run(
        lab.runs, git_commit="abc", git_branch="main", git_dirty=True, created_at="2024-06-01T02:00:00.250+02:00",
        parameters={"config_hash": "h", "text": "O'Brien"}, tables={"paths": artifact_rows("paths", 3)},
    )  # fmt: skip  # a table: what belongs together stands on one line
    report = lab.sync()
    assert (report.registered, report.runs, report.quarantined, report.published) == (1, 1, 0, True)
    with duckdb.connect(str(lab.catalog), read_only=True) as con:
        (run,) = con.sql("FROM backtest_runs_catalog").to_arrow_table().to_pylist()
        artifacts = con.sql("FROM backtest_artifacts_catalog ORDER BY artifact_type").to_arrow_table().to_pylist()
    run_id, path = run_dir.name.removeprefix("run_id="), f"2024-01/{run_dir.name}"
    manifest = json.loads((run_dir / "run.json").read_bytes())
    assert abs(run.pop("cataloged_at") - datetime.utcnow()).total_seconds() < 60
    assert json.loads(run.pop("artifacts_json")) == manifest["artifacts"]
    assert json.loads(run.pop("parameters_json")) == manifest["parameters"]
    assert run == {
        "run_id": run_id, "run_type": "path-only", "status": "completed", "month": "2024-01",
        "created_at": datetime(2024, 6, 1, 0, 0, 0, 250_000), "started_at": datetime(2024, 6, 1, 0, 0, 1),
        "completed_at": datetime(2024, 6, 1, 0, 0, 2, 500_000),
        "git_commit": "abc", "git_branch": "main", "git_dirty": True,
        "dataset_from": manifest["dataset"]["from"], "dataset_to": manifest["dataset"]["to"], "dataset_interval": "5m",
        "dataset_calls_count": 3, "dataset_calls_excluded": 1, "config_hash": "h",
        "timing_plan_ms": 0, "timing_coverage_ms": 0, "timing_slice_ms": 0, "timing_execution_ms": 0,
        "timing_optimization_ms": 0, "timing_total_ms": 12.5,
        "run_dir": path, "manifest_path": f"{path}/run.json", "name": None, "note": None, "tags": None,
    }  # fmt: skip  # a table: what belongs together stands on one line
    assert [(a["artifact_type"], a["artifact_path"], a["rows"], a["bytes"], a["sha256"]) for a in artifacts] == [
        (name, f"{path}/{entry['path']}", entry["rows"], entry["bytes"], entry["sha256"])
        for name, entry in sorted(manifest["artifacts"].items())
    ]
    assert {(a["run_id"], a["created_at"]) for a in artifacts} == {(run_id, datetime(2024, 6, 1, 0, 0, 0, 250_000))}


def test_a_sync_with_nothing_new_leaves_the_file_alone(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    for month in ("2024-01", "2024-02"):
        commit_run(lab.runs, month)
    lab.sync()
    before, content = identity(lab.catalog), lab.catalog.read_bytes()
    report = lab.sync()  # the months changed a moment ago: they are read again, and nothing is found
    assert (report.registered, report.runs, report.published, report.months_read) == (0, 2, False, 2)
    monkeypatch.setattr(module, "SETTLED_S", -1.0)
    lab.sync()
    report = lab.sync()
    assert (report.registered, report.runs, report.published, report.months_read) == (0, 2, False, 0)
    assert due_months(lab.published()) == []
    assert (identity(lab.catalog), lab.catalog.read_bytes()) == (before, content)
    assert sorted(p.name for p in lab.catalog.parent.iterdir()) == [
        ".catalog.duckdb.lock", ".catalog.duckdb.memo.json", "catalog.duckdb",
    ]  # fmt: skip  # a table: what belongs together stands on one line


@pytest.mark.usefixtures("settled")
def test_only_months_that_changed_are_read(lab: Lab) -> None:
    first = [commit_run(lab.runs, month) for month in ("2024-01", "2024-02", "2024-03")]
    assert lab.sync().months_read == 3
    added = commit_run(lab.runs, "2024-02")
    assert due_months(lab.published()) == ["2024-02"]
    report = lab.sync()
    assert (report.registered, report.runs, report.months_read) == (1, 4, 1)
    shutil.rmtree(first[1])
    shutil.rmtree(lab.runs / "2024-03")
    report = lab.sync()
    assert (report.removed, report.runs, report.months_read) == (2, 2, 2)
    assert lab.cataloged() == {lab.relative(first[0]), lab.relative(added)}
    assert {a for (a,) in lab.ask("SELECT DISTINCT run_id FROM backtest_artifacts_catalog")} == {
        p.name.removeprefix("run_id=") for p in (first[0], added)
    }
    assert len(lab.ask("FROM paths")) == 4


def test_a_rebuild_gives_the_same_rows(lab: Lab) -> None:
    for i in range(6):
        run_dir = commit_run(lab.runs, f"2024-0{1 + i % 3}", created_at=f"2024-06-0{1 + i}T00:00:00Z")
        if i == 2:
            (run_dir / "_SUCCESS").unlink()
        if i == 3:
            (run_dir / "run.json").write_text("{")
        if i == 4:
            commit_run(lab.runs, "2024-02", status="failed", error="no luck")
        lab.sync()
    shutil.rmtree(run_dir)
    lab.sync()
    incremental = lab.content()
    assert [len(rows) for rows in incremental.values()] == [4, 4 * 3, 2]
    views = lab.ask("SELECT view_name, sql FROM duckdb_views() WHERE NOT internal ORDER BY 1")
    report = lab.sync(rebuild=True)
    assert (report.registered, report.quarantined, report.incomplete, report.published) == (4, 2, 1, True)
    assert lab.content() == incremental
    lab.catalog.unlink()
    assert lab.sync().registered == 4
    assert lab.content() == incremental
    assert lab.ask("SELECT view_name, sql FROM duckdb_views() WHERE NOT internal ORDER BY 1") == views


# --- what cannot be trusted -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("settled")
def test_an_interrupted_commit_is_looked_at_again(lab: Lab) -> None:
    commit_run(lab.runs)
    run_dir = commit_run(lab.runs)
    success = (run_dir / "_SUCCESS").read_bytes()
    (run_dir / "_SUCCESS").unlink()
    report = lab.sync()
    assert (report.runs, report.quarantined, report.incomplete) == (1, 1, 1)
    assert lab.reasons() == {lab.relative(run_dir): f"{lab.relative(run_dir)}: no _SUCCESS: the commit did not finish"}
    before = identity(lab.catalog)
    assert lab.sync().quarantined == 1 and identity(lab.catalog) == before, "the same again is no change"
    (run_dir / "_SUCCESS").write_bytes(success)  # touches the run's directory, not the month's
    report = lab.sync()
    assert (report.registered, report.runs, report.quarantined) == (1, 2, 0)
    assert lab.reasons() == {} and lab.relative(run_dir) in lab.cataloged()


@pytest.mark.usefixtures("settled")
def test_a_damaged_run_comes_back_when_it_is_mended(lab: Lab) -> None:
    run_dir = commit_run(lab.runs)
    path = run_dir / "truth/paths.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"X")
    lab.sync()
    assert lab.reasons() == {lab.relative(run_dir): f"{lab.relative(path)}: checksum differs from run.json"}
    path.write_bytes(whole)
    other = commit_run(lab.runs)  # the month changed: all of it that is not cataloged is read again
    assert lab.sync().quarantined == 0
    assert lab.cataloged() == {lab.relative(run_dir), lab.relative(other)}
    # And what is in quarantine goes when its directory goes.
    shutil.copytree(run_dir, run_dir.with_name("run_id=copy"))
    assert lab.sync().quarantined == 1
    shutil.rmtree(run_dir.with_name("run_id=copy"))
    lab.sync()
    assert lab.reasons() == {}


def forge(run_dir: Path, **changes: Any) -> None:
    """Change the manifest and make `_SUCCESS` fit."""
    content = json.dumps(json.loads((run_dir / "run.json").read_bytes()) | changes).encode()
    (run_dir / "run.json").write_bytes(content)
    (run_dir / "_SUCCESS").write_text(hashlib.sha256(content).hexdigest() + "\n")


def test_copies_are_not_counted_twice(lab: Lab) -> None:
    run_dir = commit_run(lab.runs)
    for month in ("2024-02", "2024-03"):
        shutil.copytree(run_dir, lab.runs / month / run_dir.name)
    shutil.copytree(run_dir, run_dir.with_name("run_id=00000000-0000-4000-8000-000000000000"))
    forge(lab.runs / "2024-03" / run_dir.name, month="2024-03")  # a copy that looks right in its place
    report = lab.sync()
    assert (report.runs, report.quarantined) == (1, 3)
    assert lab.cataloged() == {lab.relative(run_dir)}
    reasons = lab.reasons()
    assert reasons[f"2024-02/{run_dir.name}"].endswith("run.json says month 2024-01")
    assert reasons[f"2024-03/{run_dir.name}"].endswith("is cataloged already")
    assert "run.json says run_id" in reasons["2024-01/run_id=00000000-0000-4000-8000-000000000000"]
    assert lab.sync().published is False
    assert len(lab.ask("FROM paths")) == 2


def with_manifest(**changes: Any) -> Callable[[Path], None]:
    return lambda run_dir: forge(run_dir, **changes)


ODD: dict[str, Callable[[Path], Any]] = {
    "no time": with_manifest(created_at="soon"),
    "no time in any calendar": with_manifest(completed_at="0001-01-01T00:00:00+14:00"),
    "half a character": with_manifest(git_branch="\ud800"),
    "half a character deep inside": with_manifest(parameters={"a": [{"b": "\udc00"}]}),
    "a number of another kind": with_manifest(parameters={"config_hash": 7}),
    "too many": with_manifest(artifacts={"x": {"rows": 10**30, "path": "x", "bytes": 0, "sha256": "0" * 64}}),
    "endless name": with_manifest(artifacts={"x": {"rows": 0, "path": "x" * 9999, "bytes": 0, "sha256": "0" * 64}}),
    "name of no encoding": lambda d: Path(os.fsdecode(os.fsencode(d) + b"/\xff\xfe")).touch(),
    "folder of no encoding": lambda d: d.rename(os.fsdecode(os.fsencode(d.parent) + b"/run_id=\xff")),
    "quotes and lines": lambda d: d.rename(d.with_name("run_id='; DROP TABLE\nquarantine; --")),
    "a file": lambda d: (shutil.rmtree(d), d.touch()),
    "nothing in it": lambda d: (shutil.rmtree(d), d.mkdir()),
}


def test_no_run_keeps_the_others_out(lab: Lab) -> None:
    good = commit_run(lab.runs)
    for harm in ODD.values():
        harm(commit_run(lab.runs))
    # Harmless oddities: more timings than we know, nothing known of git, folders that are no months.
    forge(odd := commit_run(lab.runs), timing={"total_ms": 1, "tea_ms": 2}, completed_at=None)
    for name in ("2024-1", "notes", "2024-01.bak", ".trash/2024-01/run_id=x"):
        (lab.runs / name).mkdir(parents=True)
    (lab.runs / "2024-07").touch()
    (lab.runs / "2024-08").symlink_to(lab.runs / "2024-01")  # another month under a wrong name: refused run by run
    report = lab.sync()
    assert lab.cataloged() == {lab.relative(good), lab.relative(odd)}
    wrong_month = [path for path in lab.reasons() if path.startswith("2024-08/")]
    assert len(wrong_month) == len(ODD) + 2
    assert report.quarantined == len(lab.reasons()) == len(ODD) + len(wrong_month)
    assert lab.sync().published is False, "the same names are found again"


# --- failed runs ------------------------------------------------------------------------------------------------------


def test_failed_runs_are_listed_but_not_in_the_views(lab: Lab) -> None:
    good = commit_run(lab.runs, tables={"paths": artifact_rows("paths", 2), "errors": artifact_rows("errors", 1)})
    failed = commit_run(
        lab.runs, status="failed", error="why", created_at="2024-07-01T00:00:00Z",
        tables={"alerts": artifact_rows("alerts", 5), "errors": artifact_rows("errors", 3)},
    )  # fmt: skip  # a table: what belongs together stands on one line
    report = lab.sync()
    assert (report.registered, report.quarantined) == (2, 0)
    assert lab.ask("SELECT run_dir, status FROM backtest_runs_catalog ORDER BY status") == [
        (lab.relative(good), "completed"), (lab.relative(failed), "failed"),
    ]  # fmt: skip  # a table: what belongs together stands on one line
    run_id = good.name.removeprefix("run_id=")
    assert lab.ask("SELECT run_id FROM latest_runs") == [(run_id,)]
    assert lab.ask("SELECT DISTINCT run_id FROM errors") == [(run_id,)]
    assert lab.ask("SELECT count(*) FROM alerts") == [(0,)]


# --- the file ---------------------------------------------------------------------------------------------------------


def test_a_reader_keeps_its_snapshot_and_disturbs_nobody(lab: Lab) -> None:
    commit_run(lab.runs)
    lab.sync()
    with duckdb.connect(str(lab.catalog), read_only=True) as reader:
        for n in (2, 3):
            commit_run(lab.runs)
            # In the reader's own process, where DuckDB would answer from the file that is already open.
            report = lab.sync()
            assert (report.registered, report.runs, report.set_aside) == (1, n, None)
            assert reader.execute("SELECT count(*) FROM backtest_runs_catalog").fetchall() == [(1,)]
            assert reader.execute("SELECT count(*) FROM paths").fetchall() == [(2,)]
    assert len(lab.cataloged()) == 3


def damaged(content: bytes) -> dict[str, bytes]:
    inside = bytearray(content)
    for offset in range(12_288, len(inside), 512):  # behind the headers
        inside[offset] ^= 0xFF
    return {"text": b"not a database", "empty": b"", "half": content[: len(content) // 2], "inside": bytes(inside)}


def test_a_broken_catalog_is_set_aside_and_made_again(lab: Lab) -> None:
    commit_run(lab.runs, "2024-01")
    commit_run(lab.runs, "2024-02")
    lab.sync()
    rows, whole = lab.content(), lab.catalog.read_bytes()
    for name, harm in damaged(whole).items():
        lab.catalog.write_bytes(harm)
        report = lab.sync()
        assert lab.content() == rows, name
        assert report.set_aside is not None, name
        assert (report.registered, report.runs) == (2, 2)
        aside = Path(report.set_aside)
        assert aside.read_bytes() == harm and aside.name.startswith("catalog.duckdb.broken-")
        aside.unlink()
    assert sorted(p.name for p in lab.catalog.parent.iterdir()) == [
        ".catalog.duckdb.lock", ".catalog.duckdb.memo.json", "catalog.duckdb",
    ]  # fmt: skip  # a table: what belongs together stands on one line


@pytest.mark.usefixtures("settled")
def test_what_the_last_sync_saw_of_a_broken_catalog_does_not_hide_runs(lab: Lab) -> None:
    commit_run(lab.runs, "2024-01")
    commit_run(lab.runs, "2024-02")
    lab.sync()
    lab.catalog.write_bytes(b"bits rot, and no time stamp tells")
    write_last_sync(lab.published(), catalog_signature(lab.catalog), month_signatures(lab.runs), "", 2)
    commit_run(lab.runs, "2024-02")
    assert lab.sync().runs == 3
    assert len(lab.cataloged()) == 3


def test_a_catalog_of_another_version_is_made_again(lab: Lab) -> None:
    commit_run(lab.runs)
    lab.sync()
    with duckdb.connect(str(lab.catalog)) as con:
        con.execute("UPDATE catalog_meta SET value = '0' WHERE key = 'version'")
        con.execute("ALTER TABLE backtest_runs_catalog DROP git_branch")
    report = lab.sync()
    assert (report.registered, report.set_aside) == (1, None)
    assert lab.ask("SELECT git_branch FROM backtest_runs_catalog") == [(None,)]


def test_a_moved_home_is_noticed(lab: Lab, tmp_path: Path) -> None:
    commit_run(lab.runs)
    lab.sync()
    content = lab.content()
    moved = Lab(tmp_path / "elsewhere" / "runs", lab.catalog)
    moved.runs.parent.mkdir()
    lab.runs.rename(moved.runs)
    report = moved.sync()
    assert (report.registered, report.removed, report.published) == (0, 0, True)
    assert moved.content() == content and len(moved.ask("FROM paths")) == 2


def test_a_home_without_runs_has_an_empty_catalog_that_is_published_once(lab: Lab) -> None:
    report = lab.sync()
    assert (report.runs, report.published) == (0, True)
    assert lab.content() == {table: [] for table in TABLES}
    assert lab.sync().published is False
    lab.runs.touch()
    with pytest.raises(InputError, match="runs: not a directory; give the folder that holds the runs with --base-dir"):
        lab.sync()


def test_writers_wait_for_each_other(lab: Lab) -> None:
    for _ in range(3):
        commit_run(lab.runs)
    with locked(lab.catalog.with_name(".catalog.duckdb.lock"), 1):
        started = time.monotonic()
        with pytest.raises(StoreError, match=r"has held this lock for 0\.1 s"):
            sync(lab.published(lock_timeout_s=0.1))
        assert time.monotonic() - started < 5
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda _: lab.sync(), range(4)))
    assert sorted(r.registered for r in reports) == [0, 0, 0, 3]
    assert {r.runs for r in reports} == {3}


def test_a_missing_file_of_a_cataloged_run_costs_only_its_own_view(home: Path) -> None:
    """The next sync lists it in quarantine; the catalog stays, and the other runs answer."""
    lab = Home(Settings(home=home))
    first = run_month(lab, "path-only", "2024-01", make_config({}))
    assert first is not None
    sync(lab.catalog)
    (first.run_dir / "truth/paths.parquet").unlink()
    second = run_month(lab, "path-only", "2024-01", make_config({}))
    assert second is not None
    report = sync(lab.catalog)
    assert report.set_aside is None
    with duckdb.connect(str(lab.catalog.path), read_only=True) as con:
        assert con.execute("SELECT DISTINCT run_id FROM paths").fetchall() == [(second.manifest.run_id,)]
        reasons = [r for (r,) in con.execute("SELECT reason FROM quarantine").fetchall()]
    assert len(reasons) == 1
    assert "truth/paths.parquet: missing" in reasons[0]


def test_a_settled_catalog_of_another_version_is_made_anew(
    lab: Lab, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an upgrade what the last sync saw of the old catalog says that there is nothing new; it must not be believed."""
    commit_run(lab.runs)
    for where in ("quantbot_pipeline.catalog.sync", "quantbot_pipeline.catalog.last_sync"):
        monkeypatch.setattr(f"{where}.CATALOG_VERSION", "1")
    lab.sync()
    assert due_months(lab.published()) == []
    for where in ("quantbot_pipeline.catalog.sync", "quantbot_pipeline.catalog.last_sync"):
        monkeypatch.setattr(f"{where}.CATALOG_VERSION", "2")
    assert due_months(lab.published()) == ["2024-01"]
    assert lab.sync().published
    assert lab.ask("SELECT value FROM catalog_meta WHERE key = 'version'") == [("2",)]
    assert due_months(lab.published()) == []


def test_a_file_that_came_back_leaves_the_quarantine(lab: Lab) -> None:
    run_dir = commit_run(lab.runs, "2024-01", tables={"paths": artifact_rows("paths", 2)})
    lab.sync()
    file = run_dir / "truth/paths.parquet"
    away = lab.runs.parent / "away"
    file.rename(away)
    commit_run(lab.runs, "2024-02")
    lab.sync()
    assert any("missing, though" in reason for reason in lab.reasons().values())
    away.rename(file)
    commit_run(lab.runs, "2024-03")
    lab.sync()
    assert lab.reasons() == {}
    synced = lab.content()
    lab.sync(rebuild=True)
    assert lab.content() == synced
