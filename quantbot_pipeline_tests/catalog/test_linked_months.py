"""A month of runs that is a link to a folder elsewhere: followed as a linked `runs/` is, or refused with a reason."""

import os
import shutil
from pathlib import Path

import pytest

from quantbot_pipeline.catalog.catalog import Catalog
from quantbot_pipeline.catalog.prune import set_aside
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.errors import StoreError
from quantbot_pipeline.runs import commit
from quantbot_pipeline.runs.store import LocalRuns
from quantbot_pipeline_tests.support.builders import artifact_rows, commit_run
from quantbot_pipeline_tests.support.content import ask, content


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """Two months with a run each, cataloged; the first is then moved to an archive and linked back."""
    runs = LocalRuns(tmp_path / "runs")
    for month in ("2024-01", "2024-02"):
        commit_run(runs.folder, month, tables={"paths": artifact_rows("paths", 2)})
    made = Catalog(tmp_path / "catalog.duckdb", runs)
    sync(made)
    archive = tmp_path / "archive"
    archive.mkdir()
    shutil.move(runs.folder / "2024-01", archive / "2024-01")
    (runs.folder / "2024-01").symlink_to(archive / "2024-01")
    return made


def test_a_linked_month_stays_in_the_catalog_and_takes_new_runs(catalog: Catalog) -> None:
    before = content(catalog.path)
    report = sync(catalog)
    assert (report.removed, report.quarantined, report.runs) == (0, 0, 2)
    assert content(catalog.path) == before
    commit_run(catalog.runs.folder, "2024-01", tables={"paths": artifact_rows("paths", 3)})
    assert (sync(catalog).registered, sync(catalog).registered) == (1, 0)
    assert ask(catalog.path, "SELECT count(*) FROM paths") == [(7,)]
    assert len(list(catalog.runs.completed("2024-01"))) == 2
    assert sync(catalog, rebuild=True).runs == 3


def test_a_link_to_nothing_is_named(catalog: Catalog, tmp_path: Path) -> None:
    """As when the archive's disk is not mounted: the runs are gone for now, and the reason stands in quarantine."""
    archive = tmp_path / "archive"
    archive.rename(tmp_path / "away")
    report = sync(catalog)
    assert (report.removed, report.quarantined) == (1, 1)
    ((path, reason),) = ask(catalog.path, "SELECT path, reason FROM quarantine")
    assert path == "2024-01"
    assert "a link to a folder that is not there; mount its disk" in reason
    with pytest.raises(StoreError, match="2024-01: a link to a folder that is not there"):
        commit_run(catalog.runs.folder, "2024-01")
    (tmp_path / "away").rename(archive)
    report = sync(catalog)
    assert (report.registered, report.quarantined) == (1, 0)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system")
def test_a_month_on_another_disk_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm") / f"quantbot-{os.getpid()}"
    elsewhere.mkdir()
    try:
        runs = tmp_path / "runs"
        runs.mkdir()
        (runs / "2024-01").symlink_to(elsewhere)
        if elsewhere.stat().st_dev == runs.stat().st_dev:
            pytest.skip("/dev/shm is on the same file system")
        with pytest.raises(StoreError, match="on another disk than"):
            commit.StagedRun(runs, "2024-01")
        assert not list((runs / ".staging").glob("*-*"))
    finally:
        shutil.rmtree(elsewhere)


def test_pruning_reaches_a_linked_month(catalog: Catalog) -> None:
    sync(catalog)
    moved = set_aside(catalog, 4_000_000_000_000, force=True)
    assert [path.split("/")[0] for path in moved] == ["2024-01", "2024-02"]
    assert sync(catalog).removed == 2
