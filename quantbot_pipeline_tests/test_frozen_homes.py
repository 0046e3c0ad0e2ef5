"""Homes of released versions, as they wrote them: every later version reads, syncs, validates and migrates them, and no number moves."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from quantbot_pipeline.api import Home
from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.config import make_config
from quantbot_pipeline.runs.manifest import read_manifest
from quantbot_pipeline.upkeep.migrate import migrate
from quantbot_pipeline.upkeep.validate import validate_run, validate_stores
from quantbot_pipeline.versions import ARTIFACT_COLUMNS, FORMATS
from quantbot_pipeline_tests.conftest import Quantbot
from quantbot_pipeline_tests.support.frozen import ARCHIVES, LARGEST, SAID, hash_of, said_of, unpack

FROZEN = sorted(ARCHIVES.glob("home-*.tar.xz"))


@pytest.fixture(scope="module", params=FROZEN, ids=lambda archive: archive.name)
def frozen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frozen home, unpacked and registered anew where it lies now; copied by whoever changes it."""
    home = unpack(request.param, tmp_path_factory.mktemp("frozen"))
    assert Home(home).sync().runs == len(said(home)["runs"])
    return home


def said(home: Path) -> dict[str, Any]:
    """What the version that made a home said of it."""
    found: dict[str, Any] = json.loads((home / SAID).read_text())
    return found


def test_every_archive_is_small_and_there_is_one_of_the_first_version() -> None:
    assert [archive.name for archive in FROZEN][:1] == ["home-0.1.0.tar.xz"]
    assert all(archive.stat().st_size < LARGEST for archive in FROZEN)


def test_no_number_moved(frozen: Path) -> None:
    then, lab = said(frozen), Home(frozen)
    now = said_of(lab)
    for name in ("runs", "leaderboard", "frontier", "walk_forward", "policies", "calls"):
        assert _as_then(now[name], then[name]) == then[name], name
    for name, view in then["views"].items():
        rows = lab.sql(f"SELECT * FROM {name}")
        assert list(rows.columns)[: len(view["columns"])] == view["columns"], name
        assert hash_of(rows[view["columns"]]) == view["values"], name


def _as_then(now: list[dict[str, Any]], then: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with the columns that they had then; more may have been added."""
    return [{key: row[key] for key in before} for row, before in zip(now, then, strict=True)]


def test_a_rebuild_registers_the_same(frozen: Path, tmp_path: Path) -> None:
    lab = Home(shutil.copytree(frozen, tmp_path / "home"))
    before = lab.catalog_query(limit=1000)
    assert lab.sync(rebuild=True).runs == len(before)
    assert lab.catalog_query(limit=1000).equals(before)


def test_everything_in_it_is_valid_but_what_was_broken_then(frozen: Path) -> None:
    lab = Home(frozen)
    runs = [validate_run(folder) for folder in sorted(lab.runs.folder.glob("2*/run_id=*"))]
    assert [row["where"][-8:] for row in runs if not row["ok"]] == ["0000beef"]
    assert len(runs) == len(said(frozen)["runs"]) + 1
    stores = list(validate_stores(lab))
    assert [row for row in stores if not row["ok"]] == []
    assert {row["what"] for row in stores} == {"calls", "candles", "journal", "catalog"}
    assert {row["version"] for row in stores if row["what"] == "calls"} == {"1.0.0"}


def test_a_month_that_is_made_again_has_the_same_content(frozen: Path, tmp_path: Path) -> None:
    lab = Home(shutil.copytree(frozen, tmp_path / "home"), threads=1)
    (full,) = lab.catalog_query(run_type="full", limit=1000).query("month == '2024-02'")["run_dir"]
    old = read_manifest(lab.runs.folder / full)
    wanted = {key: value for key, value in old.parameters.items() if key in ("interval", "policies", "grid")}
    wanted |= {key: old.parameters[key] for key in ("constraints", "objective") if key in old.parameters}
    made = run_month(lab, "full", "2024-02", make_config(wanted))
    assert made is not None and made.manifest.parameters["config_hash"] == old.parameters["config_hash"]
    same = [name for name in old.artifacts if len(ARTIFACT_COLUMNS.get(name, "1")) == 1 and name != "errors"]
    assert {"paths", "trades", "summary", "frontier"} <= set(same)
    for name in same:
        assert made.manifest.artifacts[name].content_sha256 == old.artifacts[name].content_sha256, name


def test_a_migration_says_what_it_would_do_then_does_it_once(
    frozen: Path, tmp_path: Path, quantbot: Quantbot, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = shutil.copytree(frozen, tmp_path / "frozen")
    for name in ("QUANTBOT_HOME", "DAGSTER_HOME"):
        monkeypatch.setenv(name, str(home))
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    (would,) = quantbot("migrate", "--dry-run", "--format", "json").json()
    assert (would["store"], would["from"], would["to"]) == ("calls", "1.0.0", FORMATS["calls"].current)
    assert would["copies_mb"] > 0 and would["done"] is False
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file() and path in before} == before
    (done,) = quantbot("migrate", "--format", "json").json()
    assert done == would | {"done": True}
    assert quantbot("migrate", "--format", "json").json() == []
    changed = {path for path, content in before.items() if path.read_bytes() != content}
    assert changed == {home / "data" / "alerts.duckdb"}
    assert said_of(Home(home))["calls"] == said(home)["calls"]
    assert migrate(Home(home), dry_run=True) == []
