"""A full disk and folders that cannot be written, at every stage: exit status, one line that says what to free, and no half.

Needs the right to mount (a small tmpfs that fills up, a folder mounted read-only over itself); skipped without it.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.config import make_config
from quantbot_pipeline.home import Home
from quantbot_pipeline.orchestration import launch
from quantbot_pipeline.runs.manifest import SUCCESS_NAME
from quantbot_pipeline.runs.verify import check_run
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.conftest import Quantbot
from quantbot_pipeline_tests.support.builders import call, candles, write_jsonl, write_parquet
from quantbot_pipeline_tests.support.content import content
from quantbot_pipeline_tests.support.disks import mount
from quantbot_pipeline_tests.support.labs import Done
from quantbot_pipeline_tests.support.sizes import sizes
from quantbot_pipeline_tests.support.soundness import assert_catalog_agrees, believed_runs, leftovers, values
from quantbot_pipeline_tests.torture.conftest import Tally

SIZE_MB = 32
MONTH = "2024-01"
BACKTEST = ("backtest", "full", "--from", MONTH, "--to", MONTH)
STAGES = {
    "ingest calls": ("ingest", "calls", "more/calls.jsonl"),
    "ingest candles": ("ingest", "candles", "more/candles.parquet", "--interval", "5m"),
    "backtest": BACKTEST,
    "sync": ("backtest", "catalog-sync", "--rebuild"),
    "dashboard": ("dashboard",),
}
FREE_KB = (0, 4, 12, 24, 48, 96, 160, 260, 400, 700, 1200)


@pytest.fixture
def small(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home on a disk of its own, with a cataloged run, files to ingest and Dagster's state."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if not mount("-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", disk):
        pytest.skip("needs the right to mount a tmpfs")
    try:
        folder = disk / "home"
        shutil.copytree(home, folder)
        lab = Home(Settings(home=folder, threads=1))
        run_month(lab, "path-only", MONTH, make_config({}))
        sync(lab.catalog)
        token = f"{MONTH}-token-0"
        write_jsonl(folder / "more/calls.jsonl", [call(token, f"{MONTH}-20T00:03", "zed")])
        write_parquet(folder / "more/candles.parquet", candles(token, f"{MONTH}-20", 600))
        for name in ("QUANTBOT_HOME", "DAGSTER_HOME"):
            monkeypatch.setenv(name, str(folder))
        monkeypatch.setenv("QUANTBOT_STAGING_MAX_AGE_S", "0")
        monkeypatch.chdir(folder)
        with launch.open_instance(lab):
            pass
        yield folder
    finally:
        monkeypatch.undo()
        subprocess.run(["umount", "--lazy", disk], check=True)


def successes(home: Path) -> set[Path]:
    return set(home.glob(f"runs/20*/run_id=*/{SUCCESS_NAME}"))


def fill(home: Path, free_kb: int) -> Path:
    """Leave so much room on the disk of the home."""
    ballast = home.parent / "ballast"
    stat = os.statvfs(home)
    with ballast.open("wb") as f:
        f.write(bytes(max(0, stat.f_bavail * stat.f_frsize - free_kb * 1024)))
    return ballast


def assert_told(done: Done, home: Path) -> None:
    """The last line is ours, names a place on this disk, and says what to do."""
    assert done.status in (1, 2) and "Traceback" not in done.err, done
    complaint = done.err.splitlines()[-1]
    assert complaint.startswith("quantbot: ") and ("free space there" in complaint or "no permission" in complaint), (
        done
    )
    assert str(home) in complaint or "--home" in complaint, done


@pytest.mark.parametrize(
    ("stage", "steps_kb"),
    [
        *((stage, (48,)) for stage in ("backtest", "sync")),
        *(pytest.param(stage, FREE_KB, marks=pytest.mark.torture) for stage in STAGES),
    ],
)
def test_a_full_disk(
    small: Path,
    quantbot: Quantbot,
    stage: str,
    steps_kb: tuple[int, ...],
    tally: Tally,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(launch, "MIN_FREE_BYTES", 0)  # as if the disk filled up once the backtest had begun
    lab = Home(Settings(home=small, threads=1))
    (known,) = (small / "runs" / MONTH).iterdir()
    truth = values(check_run(known))
    refused = 0
    for free_kb in steps_kb:
        catalog, before = content(lab.catalog.path), successes(small)
        ballast = fill(small, free_kb)
        done = quantbot(*STAGES[stage])
        if done.status != 0:
            refused += 1
            assert_told(done, small)
            # A backtest can fail with its run committed: when it is Dagster that cannot write down what happened.
            assert successes(small) >= before if stage == "backtest" else successes(small) == before
            assert content(lab.catalog.path) == catalog
        ballast.unlink()
        for folder in successes(small):
            assert values(check_run(folder.parent)).items() >= truth.items()
    assert quantbot(*STAGES[stage]).status == 0
    assert quantbot("backtest", "catalog-sync").status == 0
    assert leftovers(small / "runs") == leftovers(small / "data") == set()
    assert refused > 0
    tally(f"disk full: {stage}", tried=len(steps_kb), detected=refused)


def test_a_disk_that_is_nearly_full_stops_a_backtest_before_it_begins(small: Path, quantbot: Quantbot) -> None:
    before = {path for path in small.rglob("*") if path.is_file()}
    fill(small, 3_000)
    done = quantbot(*BACKTEST)
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert "home: only 3.1 MB free on its disk; free space there" in done.err
    assert {path for path in small.rglob("*") if path.is_file()} == before


READ_ONLY = ("", "data", "data/candles", "runs", "runs/.staging", "storage", "history", "schedules")


@pytest.mark.parametrize("folders", sizes({"runs": ("backtest",)}, dict.fromkeys(READ_ONLY, tuple(STAGES))))
def test_folders_that_cannot_be_written(
    small: Path, quantbot: Quantbot, folders: dict[str, tuple[str, ...]], tally: Tally
) -> None:
    lab = Home(Settings(home=small, threads=1))
    tried = refused = 0
    for folder, stages in folders.items():
        target = small / folder
        target.mkdir(exist_ok=True)
        assert mount("--bind", target, target) and mount("-o", "remount,bind,ro", target)
        try:
            for arguments in (STAGES[stage] for stage in stages):
                before = successes(small)
                done = quantbot(*arguments)
                tried += 1
                if done.status != 0:
                    refused += 1
                    assert_told(done, small)
                    assert successes(small) == before
                assert content(lab.catalog.path)["backtest_runs_catalog"]
        finally:
            subprocess.run(["umount", "--lazy", target], check=True)
    assert refused >= len(folders)
    for stage in stages:
        assert quantbot(*STAGES[stage]).status == 0
    assert_catalog_agrees(lab, believed_runs(lab))
    tally("folders that cannot be written: told, nothing half", tried=tried, detected=refused)
