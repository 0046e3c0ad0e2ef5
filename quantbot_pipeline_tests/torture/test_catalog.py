"""The catalog file harmed in every way: the next sync has all rows again, whatever was killed, flipped, cut off or deleted."""

import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pytest

from quantbot_pipeline.catalog.catalog import Catalog
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.errors import StoreError
from quantbot_pipeline.runs.store import LocalRuns
from quantbot_pipeline_tests.support.builders import commit_run
from quantbot_pipeline_tests.support.content import ask, content
from quantbot_pipeline_tests.support.sizes import sizes
from quantbot_pipeline_tests.support.soundness import leftovers
from quantbot_pipeline_tests.torture.conftest import Tally

SEED = 20260207
BASIC = 12_288  # bytes of DuckDB's three headers


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs in three months; one is damaged, so that the quarantine has a row."""
    folder = tmp_path_factory.mktemp("catalog") / "runs"
    for i in range(9):
        run_dir = commit_run(folder, f"2024-0{1 + i % 3}", created_at=f"2024-06-0{1 + i}T00:00:00Z")
    (run_dir / "truth/paths.parquet").write_bytes(b"PAR1")
    return folder


@pytest.fixture
def catalog(runs: Path, tmp_path: Path) -> Path:
    """A catalog of these runs."""
    sync(Catalog(tmp_path / "data" / "c.duckdb", LocalRuns(runs)))
    return tmp_path / "data" / "c.duckdb"


# --- damage -----------------------------------------------------------------------------------------------------------


def used(whole: bytes) -> list[int]:
    """Where the sectors start that hold anything: much of a small DuckDB file is empty."""
    return [start for start in range(0, len(whole), 512) if any(whole[start : start + 512])]


def flipped(whole: bytes, chance: random.Random) -> bytes:
    """One bit of a sector in use; a third of them in the headers."""
    offset = chance.randrange(BASIC) if chance.random() < 1 / 3 else chance.choice(used(whole)) + chance.randrange(512)
    return whole[:offset] + bytes([whole[offset] ^ 1 << chance.randrange(8)]) + whole[offset + 1 :]


def cut(whole: bytes, chance: random.Random) -> bytes:
    return whole[: chance.randrange(len(whole))]


def zeroed(whole: bytes, chance: random.Random) -> bytes:
    """A sector that was never written."""
    start = chance.choice(used(whole))
    return whole[:start] + bytes(512) + whole[start + 512 :]


@pytest.mark.parametrize("times", sizes(4, 100))
@pytest.mark.parametrize("harm", [flipped, cut, zeroed])
def test_a_damaged_catalog_is_read_right_or_made_again(
    runs: Path, catalog: Path, harm: Callable[[bytes, random.Random], bytes], times: int, tally: Tally
) -> None:
    rows, whole = content(catalog), catalog.read_bytes()
    chance = random.Random(SEED)
    aside = refused = 0
    for _ in range(times):
        catalog.write_bytes(harm(whole, chance))
        refused += _is_refused(catalog, rows)
        report = sync(Catalog(catalog, LocalRuns(runs)))
        assert content(catalog) == rows
        assert len(ask(catalog, "FROM paths")) == 2 * report.runs == 16
        aside += report.set_aside is not None
        for broken in catalog.parent.glob("*.broken-*"):
            broken.unlink()
    assert leftovers(catalog.parent) == set()
    assert aside > 0
    tally(f"catalog {harm.__name__}: set aside and made again", tried=times, detected=aside)
    tally(f"catalog {harm.__name__}: readers get no wrong row", tried=times, detected=refused)


def _is_refused(catalog: Path, rows: dict[str, Any]) -> bool:
    """Whether a plain reader of the damaged file gets an error; if not, it gets the right rows."""
    try:
        found = content(catalog)
    except (duckdb.Error, RuntimeError, UnicodeDecodeError):
        return True
    assert found == rows
    return False


# --- kill -9 ----------------------------------------------------------------------------------------------------------


def _sync_for_ever(runs: Path, catalog: Path) -> None:
    for i in range(1_000_000):
        sync(Catalog(catalog, LocalRuns(runs)), rebuild=i % 2 == 0)


@pytest.mark.parametrize("kills", sizes(6, 120))
def test_a_killed_sync_leaves_the_old_rows_or_the_new(runs: Path, catalog: Path, kills: int, tally: Tally) -> None:
    rows = content(catalog)
    chance = random.Random(SEED)
    caught = 0
    fork = multiprocessing.get_context("fork")
    for kill in range(kills):
        process = fork.Process(target=_sync_for_ever, args=(runs, catalog))
        process.start()
        while (
            kill % 2 and process.is_alive() and not leftovers(catalog.parent)
        ):  # odd ones while a private copy is there
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.15))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        caught += leftovers(catalog.parent) != set()
        assert content(catalog) == rows
        assert sync(Catalog(catalog, LocalRuns(runs))).set_aside is None
        assert content(catalog) == rows and leftovers(catalog.parent) == set()
    assert caught >= kills // 10  # otherwise nothing was tested
    tally("kill -9 of syncs: old rows or new", tried=kills, detected=caught)


# --- files that vanish ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", sizes(2, 30))
def test_files_deleted_under_working_syncs(
    runs: Path, catalog: Path, rounds: int, tally: Tally, tmp_path: Path
) -> None:
    """The catalog, its lock and its memo vanish while four threads sync and new runs come; no run is forgotten."""
    base = tmp_path / "runs"
    commit_run(base)
    names = [catalog.name, f".{catalog.name}.lock", f".{catalog.name}.memo.json"]
    chance = random.Random(SEED)
    deleted = refused = 0
    for turn in range(rounds):
        done = threading.Event()

        def work(rebuild: bool, done: threading.Event = done) -> int:
            refusals = 0
            while not done.is_set():
                try:
                    sync(Catalog(catalog, LocalRuns(base), lock_timeout_s=30), rebuild=rebuild)
                except StoreError:  # the lock was taken away: said, and nothing done
                    refusals += 1
            return refusals

        with ThreadPoolExecutor(4) as pool:
            working = [pool.submit(work, i == 0) for i in range(4)]
            for _ in range(10):
                time.sleep(chance.uniform(0, 0.03))
                (catalog.parent / chance.choice(names)).unlink(missing_ok=True)
                deleted += 1
            commit_run(base, f"2024-0{1 + turn % 3}")
            done.set()
            refused += sum(one.result() for one in working)
        sync(Catalog(catalog, LocalRuns(base)))
        incremental = content(catalog)
        assert len(incremental["backtest_runs_catalog"]) == turn + 2
        sync(Catalog(tmp_path / "anew.duckdb", LocalRuns(base)), rebuild=True)
        assert content(tmp_path / "anew.duckdb") == incremental
        assert leftovers(catalog.parent) == set() and list(catalog.parent.glob("*.broken-*")) == []
    tally("catalog, lock, memo deleted under syncs: no run forgotten", tried=deleted, detected=refused)
