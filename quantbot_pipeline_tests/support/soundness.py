"""What must hold in a home after any fault: each run is either whole or not believed by anybody, and the catalog says the same."""

from pathlib import Path

from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.errors import IntegrityError
from quantbot_pipeline.home import Home
from quantbot_pipeline.runs.inspection import inspect_run
from quantbot_pipeline.runs.manifest import RunManifest
from quantbot_pipeline.runs.verify import check_run
from quantbot_pipeline_tests.support.content import ask
from quantbot_pipeline_tests.support.labs import run_dirs

Values = dict[str, str | None]


def values(manifest: RunManifest) -> Values:
    """{artifact: hash of its values}; those of `errors` hold the time of the run and say nothing."""
    return {name: entry.content_sha256 for name, entry in manifest.artifacts.items() if name != "errors"}


def believed_runs(lab: Home) -> dict[Path, RunManifest]:
    """The run directories that verification believes; every other one is refused with an IntegrityError."""
    believed = {}
    for folder in run_dirs(lab.path):
        try:
            believed[folder] = check_run(folder)
        except IntegrityError:
            continue
    return believed


def assert_runs_are_whole(lab: Home, expected: dict[str, Values]) -> dict[Path, RunManifest]:
    """What is believed is whole and has the values expected of its month, for each reader alike; returns the believed runs."""
    believed = believed_runs(lab)
    completed = {folder for folder, manifest in believed.items() if manifest.status == "completed"}
    for folder in completed:
        manifest = believed[folder]
        assert values(manifest) == expected[manifest.month], folder
        faults = inspect_run(folder, list(manifest.artifacts)).faults
        assert not any(faults.values()), faults
    for month in expected:
        assert {folder for folder, _ in lab.runs.completed(month)} == {f for f in completed if f.parent.name == month}
    return believed


def assert_catalog_agrees(lab: Home, believed: dict[Path, RunManifest]) -> None:
    """After a sync the believed runs are cataloged, all others quarantined, and the views answer with the completed ones."""
    sync(lab.catalog)
    cataloged = {lab.runs.folder / d for (d,) in ask(lab.catalog.path, "SELECT run_dir FROM backtest_runs_catalog")}
    assert cataloged == believed.keys()
    aside = {lab.runs.folder / path for (path,) in ask(lab.catalog.path, "SELECT path FROM quarantine")}
    assert aside == run_dirs(lab.path) - cataloged
    completed = sorted(m.run_id for m in believed.values() if m.status == "completed")
    assert [run_id for (run_id,) in ask(lab.catalog.path, "SELECT DISTINCT run_id FROM paths ORDER BY 1")] == completed


def leftovers(home: Path) -> set[str]:
    """Temporary files of any kind."""
    return {path.name for pattern in ("*.tmp*", "*.wal") for path in home.rglob(pattern)}
