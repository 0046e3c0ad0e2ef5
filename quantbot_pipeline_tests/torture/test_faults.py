"""A fault at every call that changes the disk, in turn: failed once, disk full from there on, killed before it, torn in two.

The calls are those of Python, Arrow and DuckDB alike; see `shim.c`. Afterwards every run is whole or believed by nobody,
every store is the old one or the new one, and the same work succeeds when it is done again.
"""

import hashlib
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.catalog.catalog import Catalog
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.config import make_config
from quantbot_pipeline.home import Home
from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.ingest.candles import ingest_candles
from quantbot_pipeline.market.candle_files import CandleStore
from quantbot_pipeline.runs.store import LocalRuns
from quantbot_pipeline.runs.verify import check_run
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.support.builders import call, candles, make_home, write_jsonl, write_parquet
from quantbot_pipeline_tests.support.content import ask, content
from quantbot_pipeline_tests.support.faults import Attempt, Fault, Server, faulty_server
from quantbot_pipeline_tests.support.sizes import sizes
from quantbot_pipeline_tests.support.soundness import (
    Values,
    assert_catalog_agrees,
    assert_runs_are_whole,
    leftovers,
    values,
)
from quantbot_pipeline_tests.torture.conftest import Tally

MONTH = "2024-01"
HOW = (Fault.IO_ERROR, Fault.DISK_FULL, Fault.KILL, Fault.TORN)
EVERY = 0  # every call; another number takes so many calls for each kind of fault


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a run that is cataloged and files that are not ingested yet."""
    home = tmp_path_factory.mktemp("faults") / "template"
    calls = [call(mint, f"{MONTH}-10T00:03", caller) for mint, caller in (("a", "alice"), ("b", "bob"), ("c", "alice"))]
    lab = make_home(home, calls, [row for mint in "abc" for row in candles(mint, f"{MONTH}-10", 600)])
    run_month(lab, "path-only", MONTH, make_config({}))
    sync(lab.catalog)
    more = [call("b", f"{MONTH}-11T00:03", "carol"), call("d", "2024-02-10T00:03", "bob"), call("", 1, "x")]
    write_jsonl(home / "more/calls.jsonl", more)
    rows = [*candles("b", f"{MONTH}-10", 600, seed=1), *candles("d", "2024-02-10", 600)]
    write_parquet(home / "more/candles.parquet", [*rows, {**rows[0], "ts_ms": 300_000, "high": -1.0}])
    return home


@pytest.fixture(scope="module")
def server(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copytree(template, folder / "home")
    with faulty_server(folder / "home", folder) as started:
        yield started


@pytest.fixture(scope="module")
def expected(template: Path) -> dict[str, Values]:
    (run_dir,) = (template / "runs" / MONTH).iterdir()
    return {MONTH: values(check_run(run_dir))}


class Campaign:
    """One attempt after the other on fresh copies of a home, and the counts."""

    def __init__(self, server: Server, template: Path, folder: Path) -> None:
        self.server, self.template, self.home = server, template, folder / "home"
        self.tried = self.detected = 0

    def fresh(self) -> Home:
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.copytree(self.template, self.home)
        return Home(Settings(home=self.home, threads=1, memory_limit="256MB", staging_max_age_s=0))

    def attempts(self, task: str, points: int) -> Iterator[tuple[Home, Attempt]]:
        """Every call of a task (or `points` of them) with every kind of fault, each on a fresh home."""
        self.fresh()
        whole = self.server.attempt(task, self.home, Fault.COUNT, 0)
        assert whole.error is None and whole.seen > 10
        for how in HOW:
            for at in _chosen(whole.seen, points):
                lab = self.fresh()
                attempt = self.server.attempt(task, self.home, how, at)
                assert attempt.error is None or not attempt.error.startswith("unforeseen"), (how, at, attempt)
                self.tried += 1
                self.detected += attempt.error is not None or attempt.killed != 0
                yield lab, attempt


def _chosen(calls: int, points: int) -> list[int]:
    return (
        list(range(1, calls + 1))
        if points == EVERY
        else sorted(random.Random(calls).sample(range(1, calls + 1), points))
    )


@pytest.fixture
def campaign(server: Server, template: Path, tmp_path: Path) -> Campaign:
    return Campaign(server, template, tmp_path)


@pytest.mark.parametrize("points", sizes(2, EVERY))
def test_a_run_is_whole_or_not_there(
    campaign: Campaign, points: int, tally: Tally, expected: dict[str, Values]
) -> None:
    for lab, attempt in campaign.attempts("run", points):
        before = campaign.template / "runs"
        believed = assert_runs_are_whole(lab, expected)
        made = {f for f in believed if not (before / f.relative_to(lab.runs.folder)).exists()}
        completed = {f for f in made if believed[f].status == "completed"}
        assert len(made) <= 1
        # Without a result the run may be whole all the same: its last flush failed, or its process died after it.
        assert attempt.result is None or completed == {Path(attempt.result)}
        assert_catalog_agrees(lab, believed)
        again = run_month(lab, "path-only", MONTH, make_config({}))
        assert again is not None and values(check_run(again.run_dir)) == expected[MONTH]
        assert list((lab.runs.folder / ".staging").iterdir()) == []
    tally("a run is whole or not there", tried=campaign.tried, detected=campaign.detected)


@pytest.mark.parametrize("points", sizes(1, EVERY))
@pytest.mark.parametrize("task", ["sync", "rebuild"])
def test_the_catalog_is_the_old_one_or_the_new_one(
    campaign: Campaign, points: int, task: str, tally: Tally, template: Path, tmp_path: Path
) -> None:
    campaign.template = tmp_path / "pending"
    shutil.copytree(template, campaign.template)
    pending = Home(Settings(home=campaign.template, threads=1))
    assert run_month(pending, "path-only", MONTH, make_config({})) is not None
    sync(Catalog(tmp_path / "new.duckdb", LocalRuns(pending.runs.folder)))
    old, new = content(pending.catalog.path), content(tmp_path / "new.duckdb")
    assert [len(old["backtest_runs_catalog"]), len(new["backtest_runs_catalog"])] == [1, 2]
    for lab, attempt in campaign.attempts(task, points):
        assert content(lab.catalog.path) in ([new] if attempt.result else [old, new]), attempt
        ask(lab.catalog.path, "FROM paths")
        report = sync(lab.catalog)
        assert content(lab.catalog.path) == new and report.set_aside is None
        assert len(ask(lab.catalog.path, "FROM paths")) == 6
        assert leftovers(lab.path) == set() and list(lab.settings.data_dir.glob("*.broken-*")) == []
    tally(f"the catalog is the old or the new one ({task})", tried=campaign.tried, detected=campaign.detected)


@pytest.mark.parametrize("points", sizes(1, 40))
def test_a_store_is_the_old_one_or_the_new_one(campaign: Campaign, points: int, tally: Tally, tmp_path: Path) -> None:
    old = _stores(campaign.fresh())
    _ingest(campaign.fresh())
    new = _stores(Home(Settings(home=campaign.home)))
    assert old.keys() <= new.keys() and all(old[name] != new[name] for name in old)
    for lab, attempt in campaign.attempts("ingest", points):
        found = _stores(lab)
        for name in new:
            assert found.get(name) in ([new[name]] if attempt.result else [old.get(name), new[name]]), (name, attempt)
        _ingest(lab)
        assert _stores(lab) == new
    tally("calls and candles are the old or the new ones", tried=campaign.tried, detected=campaign.detected)


def _ingest(lab: Home) -> None:
    ingest_calls([lab.path / "more/calls.jsonl"], lab.calls)
    ingest_candles([lab.path / "more/candles.parquet"], CandleStore(lab.candles.folder, memory_limit="256MB"), "5m")


def _stores(lab: Home) -> dict[str, object]:
    """What each file of the input stores holds."""
    files = {str(f.relative_to(lab.path)): hashlib.sha256(f.read_bytes()).hexdigest() for f in _candle_files(lab)}
    tables = {"alerts": "* EXCLUDE (ingested_at)", "rejected_alerts": "*"}
    calls = [ask(lab.calls.path, f"SELECT {columns} FROM {table} ORDER BY ALL") for table, columns in tables.items()]
    return {**files, "calls": calls}


def _candle_files(lab: Home) -> list[Path]:
    return [path for path in lab.candles.folder.rglob("*.parquet") if not path.name.startswith(".")]
