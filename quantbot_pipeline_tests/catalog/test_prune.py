"""Pruning: two steps, and the newest run of its kind stays unless forced."""

from pathlib import Path

from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.catalog.catalog import query_runs
from quantbot_pipeline.catalog.prune import empty_trash, set_aside
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.config import make_config
from quantbot_pipeline.settings import Settings

FUTURE_MS = 4_102_444_800_000  # 2100-01-01


def test_old_runs_are_set_aside_then_removed_but_never_the_newest(home: Path) -> None:
    settings = Settings(home=home)
    month = "2024-01"
    made = [run_month(settings, "path-only", month, make_config({})) for _ in range(3)]
    names = [run.run_dir.name for run in made if run is not None]
    assert len(names) == 3
    sync(settings.runs_dir, settings.catalog_db)
    assert set_aside(settings.runs_dir, settings.catalog_db, 0) == []
    moved = set_aside(settings.runs_dir, settings.catalog_db, FUTURE_MS)
    assert moved == sorted(f"{month}/{name}" for name in names[:2])
    sync(settings.runs_dir, settings.catalog_db)
    assert query_runs(settings.catalog_db)["run_id"].to_pylist() == [names[2].removeprefix("run_id=")]
    assert empty_trash(settings.runs_dir, 0) == []
    assert empty_trash(settings.runs_dir, FUTURE_MS) == moved
    assert not list((settings.runs_dir / ".trash").glob("*/run_id=*"))


def test_force_takes_the_newest_too(home: Path) -> None:
    settings = Settings(home=home)
    run_month(settings, "path-only", "2024-01", make_config({}))
    sync(settings.runs_dir, settings.catalog_db)
    assert len(set_aside(settings.runs_dir, settings.catalog_db, FUTURE_MS, force=True)) == 1
