"""Catalog health on a real catalog: what is missing, changed or unknown is found; what is merely new is not."""

import os
import shutil
import time
from pathlib import Path

import pytest

from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.config import BacktestConfig
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.home import Home
from quantbot_pipeline.monitoring.health import CatalogHealth, free_gb, inspect_catalog, quarantined, sample
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.support.builders import make_home, small_market

MONTHS = ("2024-01", "2024-02")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("health") / "home"
    lab = make_home(home, *small_market())
    for month in MONTHS:
        assert run_month(lab, "path-only", month, BacktestConfig())
    return home


@pytest.fixture
def lab(template: Path, tmp_path: Path) -> Home:
    """Two cataloged runs of four files each."""
    shutil.copytree(template, tmp_path / "home")
    lab = Home(Settings(home=tmp_path / "home"))
    sync(lab.catalog)
    return lab


def inspect(lab: Home, later_s: float = 0.0, sample_files: int = 20) -> CatalogHealth:
    return inspect_catalog(
        lab.catalog, now_s=time.time() + later_s, max_lag_s=600, sample_files=sample_files, day="2024-03-01"
    )


def files(lab: Home) -> list[Path]:
    return sorted(lab.runs.folder.glob("2*/run_id=*/*/*.parquet"))


def test_a_sound_catalog_has_no_faults(lab: Home) -> None:
    size = sum(path.stat().st_size for path in files(lab))
    for name in (".trash", "notes"):
        (lab.runs.folder / name / "run_id=x").mkdir(parents=True)
    (lab.runs.folder / "2024-03").touch()  # not a month, whatever its name
    assert inspect(lab, 10_000) == CatalogHealth(2, 8, size, 8, [])


def test_missing_changed_and_flipped_files_are_named(lab: Home) -> None:
    missing, longer, flipped = files(lab)[:3]
    missing.unlink()
    longer.write_bytes(longer.read_bytes() + b"x")
    content = bytearray(flipped.read_bytes())
    content[50] ^= 1
    flipped.write_bytes(content)
    faults = {str(lab.runs.folder / fault.split(": ")[0]): fault.split(": ")[1] for fault in inspect(lab).faults}
    assert faults == {
        str(missing): "no such file or directory",
        str(longer): f"{longer.stat().st_size} bytes, the catalog says {longer.stat().st_size - 1}",
        str(flipped): "checksum differs from the catalog",
    }
    assert len(inspect(lab, sample_files=0).faults) == 2


def test_a_run_may_lack_in_the_catalog_for_a_while(lab: Home) -> None:
    result = run_month(lab, "path-only", MONTHS[0], BacktestConfig())
    assert result is not None
    assert inspect(lab).faults == []
    (fault,) = inspect(lab, 601).faults
    assert fault == f"{MONTHS[0]}/{result.run_dir.name}: not in the catalog"
    sync(lab.catalog)
    assert inspect(lab, 601).faults == []


def test_quarantined_runs_are_known_and_an_unfinished_commit_gets_time(lab: Home) -> None:
    first, second = (path.parents[1] for path in files(lab)[::4])
    strange = first.with_name("run_id=00000000-0000-4000-8000-000000000000")
    unfinished = second.with_name("run_id=00000000-0000-4000-8000-000000000001")
    for source, target in ((first, strange), (second, unfinished)):
        shutil.copytree(source, target)
    content = (unfinished / "run.json").read_text().replace(second.name[7:], unfinished.name[7:])
    (unfinished / "run.json").write_text(content)
    (unfinished / "_SUCCESS").unlink()
    sync(lab.catalog)
    assert inspect(lab, 10_000).faults == []

    def aside(later_s: float) -> set[str]:
        now = time.time() + later_s
        return set(quarantined(lab.catalog, now_s=now, max_lag_s=600))

    os.utime(unfinished)
    names = {f"{path.parent.name}/{path.name}" for path in (strange, unfinished)}
    assert aside(0) == {f"{MONTHS[0]}/{strange.name}"}
    assert aside(700) == names


def test_without_a_catalog_nothing_is_in_quarantine_and_nothing_is_inspected(tmp_path: Path) -> None:
    lab = Home(Settings(home=tmp_path))
    assert quarantined(lab.catalog, now_s=0, max_lag_s=0) == {}
    with pytest.raises(InputError):
        inspect(lab)


def test_the_sample_holds_the_newest_and_in_time_everything() -> None:
    newest_first = [f"file{i}" for i in range(100)]
    days = [sample(newest_first, 20, f"2024-01-{day:02}") for day in range(1, 32)]
    assert all(day[:10] == newest_first[:10] and len(set(day)) == 20 for day in days)
    assert days[0] == sample(newest_first, 20, "2024-01-01")
    assert len(set().union(*days)) > 90
    assert sample(newest_first[:3], 20, "") == newest_first[:3]
    assert sample(newest_first, 0, "") == []
    assert sample(newest_first, 1, "") == ["file0"]


def test_free_space_is_that_of_the_disk_in_gigabytes(tmp_path: Path) -> None:
    assert 0 < free_gb(tmp_path) == pytest.approx(shutil.disk_usage(tmp_path).free / 1e9, abs=1)
