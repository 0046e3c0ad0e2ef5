"""Files of committed runs flipped, cut, emptied, swapped, added: verification and sync name every one, and nobody reads on."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.catalog.catalog import Catalog
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.config import make_config
from quantbot_pipeline.errors import IntegrityError
from quantbot_pipeline.home import Home
from quantbot_pipeline.reports.remarks import load_newest
from quantbot_pipeline.runs.manifest import read_manifest
from quantbot_pipeline.runs.store import LocalRuns
from quantbot_pipeline.runs.verify import check_run, read_artifact
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.support.builders import artifact_rows, commit_run
from quantbot_pipeline_tests.support.content import ask
from quantbot_pipeline_tests.support.sizes import sizes
from quantbot_pipeline_tests.torture.conftest import Tally

SEED = 20260214
VICTIMS = 35
SOUND = 3
ARTIFACTS = ("alerts", "paths", "trades", "frontier", "errors")


class Base(NamedTuple):
    """Runs that will be harmed (each in a month of its own, so that it is the newest there) and runs that will not."""

    runs: Path
    victims: list[Path]
    sound: list[Path]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    runs = tmp_path_factory.mktemp("parquet") / "runs"
    chance = random.Random(SEED)

    def commit(month: str) -> Path:
        rows = {name: artifact_rows(name, 20) for name in ARTIFACTS}
        rows["paths"] = artifact_rows("paths", 20, p0=[chance.random() for _ in range(20)])
        rows["alerts"] = artifact_rows("alerts", 20, alert_ts_ms=[chance.randrange(10**12) for _ in range(20)])
        return commit_run(runs, month, tables=rows)

    victims = [commit(f"{2000 + i // 12}-{1 + i % 12:02}") for i in range(VICTIMS)]
    return Base(runs, victims, [commit("2024-01") for _ in range(SOUND)])


def harmed(whole: bytes, how: str, chance: random.Random) -> bytes:
    if how == "cut":
        return whole[: chance.randrange(len(whole))]
    offset = chance.randrange(len(whole))
    return whole[:offset] + bytes([whole[offset] ^ 1 << chance.randrange(8)]) + whole[offset + 1 :]


@pytest.mark.parametrize("rounds", sizes({"flipped": 1, "cut": 1}, {"flipped": 29, "cut": 15}))
@pytest.mark.parametrize("how", ["flipped", "cut"])
def test_no_damaged_byte_is_believed(
    base: Base, tmp_path: Path, how: str, rounds: dict[str, int], tally: Tally
) -> None:
    chance = random.Random(SEED)
    known = tmp_path / "known.duckdb"
    sync(Catalog(known, LocalRuns(base.runs)))
    verified = synced = refused = 0
    for _ in range(rounds[how]):
        kept: dict[Path, tuple[str, Path, bytes]] = {}
        for run_dir in base.victims:
            artifact = chance.choice(ARTIFACTS)
            path = run_dir / read_manifest(run_dir).artifacts[artifact].path
            kept[run_dir] = artifact, path, path.read_bytes()
            path.write_bytes(harmed(kept[run_dir][2], how, chance))
        for run_dir, (artifact, path, _) in kept.items():
            with pytest.raises(IntegrityError, match=path.name):
                check_run(run_dir)
            verified += 1
            with pytest.raises(IntegrityError, match=path.name):
                read_artifact(run_dir, read_manifest(run_dir), artifact)
            with pytest.raises(IntegrityError, match=path.name):  # a report whose catalog does not know of the damage
                load_newest(Catalog(known, LocalRuns(base.runs)), artifact, month=run_dir.parent.name)
            refused += 2
        synced += _quarantined(base, tmp_path / "new.duckdb", {run_dir: path for run_dir, (_, path, _) in kept.items()})
        for _, path, whole in kept.values():
            path.write_bytes(whole)
    for run_dir in base.victims:
        check_run(run_dir)
    tried = rounds[how] * len(base.victims)
    assert verified == synced == tried
    tally(f"Parquet {how}: named by verification", tried=tried, detected=verified)
    tally(f"Parquet {how}: named in quarantine, the others cataloged", tried=tried, detected=synced)
    tally(f"Parquet {how}: no reader reads on", tried=2 * tried, detected=refused)


def _quarantined(base: Base, catalog: Path, harmed: dict[Path, Path]) -> int:
    """How many harmed files a rebuild quarantines by their name; everything else must be cataloged."""
    sync(Catalog(catalog, LocalRuns(base.runs)), rebuild=True)
    cataloged = {base.runs / d for (d,) in ask(catalog, "SELECT run_dir FROM backtest_runs_catalog")}
    assert cataloged == {*base.victims, *base.sound} - harmed.keys()
    reasons = {base.runs / path: reason for path, reason in ask(catalog, "SELECT path, reason FROM quarantine")}
    assert reasons.keys() == harmed.keys()
    return sum(path.relative_to(base.runs).as_posix() in reasons[run_dir] for run_dir, path in harmed.items())


# --- files in the wrong place -----------------------------------------------------------------------------------------

Harm = Callable[[Path, Path, str], Path]  # (this run, another run, path of an artifact) → the file that must be named


def emptied(run_dir: Path, other: Path, path: str) -> Path:
    (run_dir / path).write_bytes(b"")
    return run_dir / path


def taken_from_another_run(run_dir: Path, other: Path, path: str) -> Path:
    """Same schema, same rows, often the same size."""
    shutil.copyfile(other / path, run_dir / path)
    return run_dir / path


def deleted(run_dir: Path, other: Path, path: str) -> Path:
    (run_dir / path).unlink()
    return run_dir / path


def another_beside_it(run_dir: Path, other: Path, path: str) -> Path:
    """What a reader of `*.parquet` would take in."""
    added = (run_dir / path).with_name("part-0.parquet")
    shutil.copyfile(other / path, added)
    return added


def hidden_beside_it(run_dir: Path, other: Path, path: str) -> Path:
    added = (run_dir / path).with_name(".hidden")
    added.touch()
    return added


def in_a_new_folder(run_dir: Path, other: Path, path: str) -> Path:
    added = run_dir / "more" / "deep" / "x.parquet"
    added.parent.mkdir(parents=True)
    shutil.copyfile(other / path, added)
    return added


def linked(run_dir: Path, other: Path, path: str) -> Path:
    (run_dir / path).unlink()
    (run_dir / path).symlink_to(other / path)
    return run_dir / path


HARM: tuple[Harm, ...] = (
    emptied, taken_from_another_run, deleted, another_beside_it, hidden_beside_it, in_a_new_folder, linked,
)  # fmt: skip  # a table: what belongs together stands on one line


@pytest.mark.parametrize("artifacts", sizes(("paths", "errors"), ARTIFACTS))
def test_no_file_in_the_wrong_place_is_believed(
    base: Base, tmp_path: Path, artifacts: tuple[str, ...], tally: Tally
) -> None:
    mine = tmp_path / "runs"
    shutil.copytree(base.runs, mine)
    victims = [mine / d.relative_to(base.runs) for d in base.victims]
    whole = Base(mine, victims, [mine / d.relative_to(base.runs) for d in base.sound])
    named: dict[Path, Path] = {}
    cases = [(harm, artifact) for harm in HARM for artifact in artifacts]
    for (harm, artifact), run_dir in zip(cases, victims, strict=False):
        named[run_dir] = harm(run_dir, whole.sound[0], read_manifest(run_dir).artifacts[artifact].path)
        with pytest.raises(IntegrityError, match=named[run_dir].name):
            check_run(run_dir)
    assert len(named) == len(cases)
    assert _quarantined(whole, tmp_path / "new.duckdb", named) == len(cases)
    tally("Parquet emptied, swapped, added, linked: named", tried=len(cases), detected=len(named))


def test_a_damaged_run_is_not_kept_as_unchanged(home: Path) -> None:
    lab = Home(Settings(home=home, threads=1))
    config = make_config({})
    first = run_month(lab, "path-only", "2024-01", config, only_changed=True)
    assert first is not None and not first.reused
    again = run_month(lab, "path-only", "2024-01", config, only_changed=True)
    assert again is not None and again.reused and again.run_dir == first.run_dir
    path = first.run_dir / "truth/paths.parquet"
    path.write_bytes(harmed(path.read_bytes(), "flipped", random.Random(SEED)))
    made = run_month(lab, "path-only", "2024-01", config, only_changed=True)
    assert made is not None and not made.reused
    assert made.manifest.artifacts["paths"].content_sha256 == first.manifest.artifacts["paths"].content_sha256
