"""Pruning: two steps, and the newest run of its kind stays unless forced."""

from pathlib import Path

from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.catalog.catalog import query_runs
from quantbot_pipeline.catalog.prune import set_aside
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.config import make_config
from quantbot_pipeline.home import Home
from quantbot_pipeline.settings import Settings

FUTURE_MS = 4_102_444_800_000  # 2100-01-01


def test_old_runs_are_set_aside_then_removed_but_never_the_newest(home: Path) -> None:
    lab = Home(Settings(home=home))
    month = "2024-01"
    made = [run_month(lab, "path-only", month, make_config({})) for _ in range(3)]
    names = [run.run_dir.name for run in made if run is not None]
    assert len(names) == 3
    sync(lab.catalog)
    assert set_aside(lab.catalog, 0) == []
    moved = set_aside(lab.catalog, FUTURE_MS)
    assert moved == sorted(f"{month}/{name}" for name in names[:2])
    sync(lab.catalog)
    assert query_runs(lab.catalog)["run_id"].to_pylist() == [names[2].removeprefix("run_id=")]
    assert lab.runs.empty_trash(0) == []
    assert lab.runs.empty_trash(FUTURE_MS) == moved
    assert not list((lab.runs.folder / ".trash").glob("*/run_id=*"))


def test_force_takes_the_newest_too(home: Path) -> None:
    lab = Home(Settings(home=home))
    run_month(lab, "path-only", "2024-01", make_config({}))
    sync(lab.catalog)
    assert len(set_aside(lab.catalog, FUTURE_MS, force=True)) == 1
