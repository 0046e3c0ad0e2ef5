"""Questions to the catalog: filters, paths, statistics, and what is said when there is no answer."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pytest

from quantbot_pipeline.catalog.catalog import (
    Catalog,
    artifact_path,
    newest_runs_with,
    quarantined,
    query_runs,
    reading,
    run_counts,
)
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.errors import InputError, StoreError
from quantbot_pipeline.runs.manifest import Dataset
from quantbot_pipeline.runs.store import LocalRuns
from quantbot_pipeline_tests.support.builders import artifact_rows, commit_run, ms

IDS = [f"00000000-0000-4000-8000-00000000000{i}" for i in range(6)]

NOWHERE = LocalRuns(Path("nowhere"))  # of a catalog whose files nobody opens


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six runs, created a day after another; the last two in the same moment."""
    runs = tmp_path_factory.mktemp("query") / "runs"
    frontier = {"alerts": artifact_rows("alerts", 1), "frontier": artifact_rows("frontier", 4)}
    searched = {"run_type": "optimization", "tables": frontier}
    changes: list[dict[str, Any]] = [
        {"git_branch": "main"},
        {"git_branch": "it's; DROP", "month": "2024-02"},
        {"status": "failed"},
        {**searched, "parameters": {"config_hash": "a", "strategy_id": "grid-search"}},
        {**searched, "parameters": {"config_hash": "b", "strategy_id": "v1-baseline"}, "month": "2024-02"},
        {**searched, "parameters": {"config_hash": "c"}, "run_type": "full", "month": "2024-02"},
    ]
    for i, change in enumerate(changes):
        commit_run(
            runs,
            change.pop("month", "2024-01"),
            run_id=IDS[i],
            created_at=f"2024-06-{min(i, 4) + 1:02}T12:00:00Z",
            **change,
        )
    broken = commit_run(runs, "2024-03")
    (broken / "run.json").unlink()
    sync(Catalog(runs.with_name("c.duckdb"), LocalRuns(runs)))
    return runs


@pytest.fixture
def catalog(base: Path) -> Path:
    return base.with_name("c.duckdb")


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, [5, 4, 3, 2, 1, 0]),
        ({"limit": 2}, [5, 4]),
        ({"limit": 0}, []),
        ({"run_type": "path-only"}, [2, 1, 0]),
        ({"run_type": "path-only", "status": "completed"}, [1, 0]),
        ({"status": "failed"}, [2]),
        ({"git_branch": "main"}, [0]),
        ({"git_branch": "it's; DROP"}, [1]),
        ({"git_branch": "' OR true --"}, []),
        ({"from_ms": ms("2024-06-02T12:00")}, [5, 4, 3, 2, 1]),
        ({"to_ms": ms("2024-06-02T12:00")}, [0]),
        ({"from_ms": ms("2024-06-02"), "to_ms": ms("2024-06-04"), "limit": 1}, [2]),
        ({"run_type": "no such"}, []),
    ],
)
def test_runs_by_filter_newest_first(catalog: Path, filters: dict[str, Any], expected: list[int]) -> None:
    assert query_runs(Catalog(catalog, NOWHERE), **filters)["run_id"].to_pylist() == [IDS[i] for i in expected]


def test_the_path_of_an_artifact_opens(base: Path, catalog: Path) -> None:
    path = artifact_path(Catalog(catalog, LocalRuns(base)), IDS[3], "frontier")
    assert path.is_absolute() and path.name == "frontier.parquet"
    with duckdb.connect() as con:
        assert con.execute(f"SELECT count(*) FROM '{path}'").fetchall() == [(4,)]
    with pytest.raises(InputError, match=rf"run {IDS[0]} has no artifact 'frontier'; it has alerts, errors, paths"):
        artifact_path(Catalog(catalog, LocalRuns(base)), IDS[0], "frontier")
    for stranger in ("", "x", "' OR 1=1 --", IDS[0].upper() + "f"):
        with pytest.raises(InputError, match=r"is neither in the catalog nor in .*: it was deleted, or never was"):
            artifact_path(Catalog(catalog, LocalRuns(base)), stranger, "paths")


def test_the_newest_run_of_each_month_that_holds_an_artifact(catalog: Path) -> None:
    def found(artifact: str, **filters: Any) -> list[str]:
        return [path.split("run_id=")[1] for path in newest_runs_with(Catalog(catalog, NOWHERE), artifact, **filters)]

    assert found("paths") == [IDS[0], IDS[1]]
    assert found("alerts") == [IDS[3], IDS[5]]
    assert found("frontier", strategy_id="grid-search") == [IDS[3], IDS[5]], "a full run is a grid search"
    assert found("frontier", strategy_id="v1-baseline") == [IDS[4]]
    assert found("frontier", month="2024-01") == [IDS[3]]
    assert found("frontier", interval="1h") == found("trades") == []


def test_a_run_that_measured_nothing_hides_no_older_one(tmp_path: Path) -> None:
    """Somebody ran a month on an interval without candles: reports go on with the other interval.

    On one interval the newest counts, whatever it says.
    """

    def dataset(excluded: int, interval: str) -> Dataset:
        time = "2024-01-01T00:00:00.000Z"
        return Dataset(from_=time, to=time, interval=interval, calls_count=3, calls_excluded=excluded, fingerprint="f")

    runs, catalog = tmp_path / "runs", tmp_path / "c.duckdb"
    made = [
        ("2024-01", 0, "5m"),
        ("2024-01", 2, "5m"),
        ("2024-01", 3, "1m"),
        ("2024-02", 2, "1m"),
        ("2024-02", 3, "1m"),
    ]
    for i, (month, excluded, interval) in enumerate(made):
        created = f"2024-06-{i + 1:02}T12:00:00Z"
        commit_run(runs, month, run_id=IDS[i], created_at=created, dataset=dataset(excluded, interval))
    sync(Catalog(catalog, LocalRuns(runs)))
    newest = [path[-36:] for path in newest_runs_with(Catalog(catalog, NOWHERE), "paths")]
    assert newest == [IDS[1], IDS[4]]
    assert [path[-36:] for path in newest_runs_with(Catalog(catalog, NOWHERE), "paths", interval="1m")] == [
        IDS[2],
        IDS[4],
    ]


def test_statistics_add_up(catalog: Path) -> None:
    rows = {(r["run_type"], r["status"]): r for r in run_counts(Catalog(catalog, NOWHERE)).to_pylist()}
    assert {key: (r["runs"], r["months"], r["calls"], r["artifact_rows"]) for key, r in rows.items()} == {
        ("path-only", "completed"): (2, 2, 6, 8),
        ("path-only", "failed"): (1, 1, 3, 4),
        ("optimization", "completed"): (2, 2, 6, 10),
        ("full", "completed"): (1, 1, 3, 5),
    }
    assert rows[("path-only", "completed")]["first_month"] == "2024-01"
    (bad,) = quarantined(Catalog(catalog, NOWHERE)).to_pylist()
    assert bad["path"].startswith("2024-03/run_id=") and bad["reason"].endswith("run.json: No such file or directory")


def test_no_catalog_and_a_broken_one_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no catalog yet; make it with `quantbot backtest catalog-sync`"):
        query_runs(Catalog(tmp_path / "c.duckdb", NOWHERE))
    (tmp_path / "c.duckdb").write_bytes(b"text")
    with pytest.raises(InputError, match=r"c\.duckdb: not readable .*catalog-sync --rebuild"):
        query_runs(Catalog(tmp_path / "c.duckdb", NOWHERE))


def test_a_reader_sees_the_published_catalog_whoever_has_an_older_one_open(tmp_path: Path) -> None:
    runs, catalog = tmp_path / "runs", tmp_path / "c.duckdb"
    commit_run(runs)
    sync(Catalog(catalog, LocalRuns(runs)))
    assert query_runs(Catalog(catalog, NOWHERE)).num_rows == 1
    with duckdb.connect(str(catalog), read_only=True) as older:
        commit_run(runs)
        sync(Catalog(catalog, LocalRuns(runs)))
        assert query_runs(Catalog(catalog, NOWHERE)).num_rows == 2
        assert older.execute("SELECT count(*) FROM backtest_runs_catalog").fetchall() == [(1,)]


def test_readers_do_not_disturb_each_other(catalog: Path, tmp_path: Path) -> None:
    with reading(Catalog(catalog, NOWHERE)) as one, reading(Catalog(catalog, NOWHERE)) as other:
        assert one.execute("FROM latest_runs").fetchone() is not None  # left unfinished
        assert len(other.execute("FROM backtest_runs_catalog").fetchall()) == len(IDS)
    with pytest.raises(duckdb.Error), reading(Catalog(catalog, NOWHERE)) as con:
        con.execute("FROM nothing")
    with pytest.raises(duckdb.Error, match="read-only"), reading(Catalog(catalog, NOWHERE)) as con:
        con.execute("DELETE FROM backtest_runs_catalog")
    sync(Catalog(tmp_path / "empty.duckdb", LocalRuns(tmp_path / "runs")))
    with ThreadPoolExecutor(4) as pool:
        rows = pool.map(
            lambda i: query_runs(Catalog((catalog, tmp_path / "empty.duckdb")[i % 2], NOWHERE)).num_rows,
            range(24),
        )
    assert list(rows) == [len(IDS), 0] * 12


def test_a_catalog_in_use_is_not_taken_for_a_broken_one(tmp_path: Path) -> None:
    runs, catalog = tmp_path / "runs", tmp_path / "c.duckdb"
    commit_run(runs)
    sync(Catalog(catalog, LocalRuns(runs)))
    commit_run(runs)
    log = catalog.with_name("c.duckdb.wal")  # as plain DuckDB leaves it when it is killed: it must be read in first
    with reading(Catalog(catalog, NOWHERE)):
        log.touch()
        with pytest.raises(StoreError, match=r"c\.duckdb: another program has it open"):
            sync(Catalog(catalog, LocalRuns(runs)))
    assert sync(Catalog(catalog, LocalRuns(runs))).registered == 1
    assert not list(tmp_path.glob("*.broken-*"))


def test_what_is_asked_in_one_reading_is_answered_from_one_state(tmp_path: Path) -> None:
    runs = LocalRuns(tmp_path / "runs")
    catalog = Catalog(tmp_path / "c.duckdb", runs)
    commit_run(runs.folder, "2024-01", run_id=IDS[0])
    sync(catalog)
    with reading(catalog):
        commit_run(runs.folder, "2024-01", run_id=IDS[1])
        with ThreadPoolExecutor(1) as elsewhere:
            elsewhere.submit(sync, catalog).result()
            assert elsewhere.submit(query_runs, catalog).result().num_rows == 2
        assert query_runs(catalog).num_rows == 1
    assert query_runs(catalog).num_rows == 2
