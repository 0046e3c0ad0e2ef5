"""The views: every artifact of every completed run, for anybody with plain DuckDB, wherever the home lies."""

import os
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quantbot_pipeline.artifacts.schemas import ARTIFACTS
from quantbot_pipeline.catalog.catalog import Catalog
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.runs.store import LocalRuns
from quantbot_pipeline_tests.support.builders import artifact_rows, commit_run

TYPES = {"string": "VARCHAR", "int64": "BIGINT", "double": "DOUBLE", "bool": "BOOLEAN"}


def ask(catalog: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(catalog), read_only=True) as con:
        return con.execute(sql).fetchall()


def described(catalog: Path) -> dict[str, list[tuple[str, str]]]:
    return {view: [(name, kind) for name, kind, *_ in ask(catalog, f"DESCRIBE {view}")] for view in ARTIFACTS}


def expected_columns() -> dict[str, list[tuple[str, str]]]:
    """The artifact's columns, led by run_id, which `alerts` does not have itself."""
    return {
        view: [("run_id", "VARCHAR"), *((f.name, TYPES[str(f.type)]) for f in schema if f.name != "run_id")]
        for view, (_, schema) in ARTIFACTS.items()
    }


def test_every_view_is_there_from_the_start_with_its_columns(tmp_path: Path) -> None:
    catalog = tmp_path / "c.duckdb"
    sync(Catalog(catalog, LocalRuns(tmp_path / "runs")))
    assert described(catalog) == expected_columns()
    assert all(ask(catalog, f"SELECT count(*) FROM {view}") == [(0,)] for view in ARTIFACTS)
    assert ask(catalog, "SELECT count(*) FROM latest_runs") == [(0,)]
    # An empty artifact, then rows: the columns stay what they are.
    commit_run(tmp_path / "runs", tables={name: artifact_rows(name, 0) for name in ARTIFACTS})
    sync(Catalog(catalog, LocalRuns(tmp_path / "runs")))
    assert described(catalog) == expected_columns()
    full = commit_run(tmp_path / "runs", tables={name: artifact_rows(name, 3) for name in ARTIFACTS})
    sync(Catalog(catalog, LocalRuns(tmp_path / "runs")))
    assert described(catalog) == expected_columns()
    run_id = full.name.removeprefix("run_id=")
    for view in ARTIFACTS:
        assert ask(catalog, f"SELECT run_id, count(*) FROM {view} GROUP BY 1") == [(run_id, 3)], view


HOMES = {
    "quotes": """it's "my" home; DROP TABLE x; --""",
    "glob": "a*b[cd] {e,f} [!x]",
    "percent": "100%25 $HOME ~ #1",
    "unicode": "дом 🏠",
    "lines": "two\nlines",
    "like a run": "run_id=00000000-0000-4000-8000-000000000000",
    "like a month": "2024-01",
}


@pytest.mark.parametrize("name", HOMES.values(), ids=HOMES)
def test_views_work_from_anywhere_and_for_every_home(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / name
    # Homes that a careless pattern would also match.
    for decoy in ("aXbc {e,f} y", "x"):
        commit_run(tmp_path / decoy / "runs")
    runs = [commit_run(home / "runs", month) for month in ("2024-01", "2024-02")]
    monkeypatch.chdir(home)
    sync(Catalog(Path("data/c.duckdb"), LocalRuns(Path("runs"))))
    monkeypatch.chdir("/")
    catalog = home / "data" / "c.duckdb"
    ids = sorted(run_dir.name.removeprefix("run_id=") for run_dir in runs)
    for view in ("paths", "alerts"):
        assert sorted(i for (i,) in ask(catalog, f"SELECT DISTINCT run_id FROM {view}")) == ids
    assert ask(catalog, "SELECT caller_name, count(*), avg(hit_2x::int) FROM paths GROUP BY 1 ORDER BY 1") == [
        ("caller_name-0", 2, 1.0), ("caller_name-1", 2, 1.0),
    ]  # fmt: skip  # a table: what belongs together stands on one line
    (base,) = ask(catalog, "SELECT value FROM catalog_meta WHERE key = 'base'")[0]
    listed = ask(catalog, "SELECT artifact_path FROM backtest_artifacts_catalog")
    assert len(listed) == 6 and all(os.path.exists(os.path.join(base, path)) for (path,) in listed)


def test_views_work_in_a_catalog_attached_under_any_name(tmp_path: Path) -> None:
    runs, catalog = tmp_path / "runs", tmp_path / "c.duckdb"
    # Three kinds of runs: `paths` and `features` lie in the same two, `trades` in others, `alerts` in all.
    measured = {name: artifact_rows(name, 2) for name in ("alerts", "paths", "features")}
    full = [commit_run(runs, tables=measured) for _ in range(2)]
    traded = commit_run(runs, tables={name: artifact_rows(name, 2) for name in ("alerts", "trades")})
    sync(Catalog(catalog, LocalRuns(runs)))
    found = {}
    with duckdb.connect() as con:
        con.execute("ATTACH ? AS mine (READ_ONLY)", [str(catalog)])
        con.execute("CREATE MACRO cataloged_runs(nth) AS ['nothing']")  # not the one that the views mean
        for view in ("alerts", "paths", "features", "trades", "errors"):
            rows = con.execute(f"SELECT DISTINCT 'run_id=' || run_id FROM mine.{view}").fetchall()
            found[view] = {run for (run,) in rows}
    names = {run_dir.name for run_dir in full}
    all_names = names | {traded.name}
    assert found == {"alerts": all_names, "paths": names, "features": names, "trades": {traded.name}, "errors": set()}


@pytest.mark.parametrize("name", ["what?", "back\\slash"])
def test_homes_that_duckdb_misunderstands_are_refused(tmp_path: Path, name: str) -> None:
    run_dir = commit_run(tmp_path / name / "runs")
    with pytest.raises(InputError, match=r"DuckDB takes no . and no backslash in a path; choose another folder"):
        sync(Catalog(tmp_path / name / "data" / "c.duckdb", LocalRuns(run_dir.parents[1])))
    assert [p.name for p in (tmp_path / name / "data").iterdir()] == [".c.duckdb.lock"]


def test_runs_of_older_schemas_join_in(tmp_path: Path) -> None:
    runs, catalog = tmp_path / "runs", tmp_path / "c.duckdb"
    old = commit_run(runs, tables={"trades": artifact_rows("trades", 1)}, status="failed")
    # As an older version would have written it: without the last columns. Committed again under its own name.
    table = pq.read_table(old / "policy/trades.parquet").drop_columns(["optimistic_return_bps", "ambiguous"])
    shutil.rmtree(old)
    run_dir = commit_old(runs, table)
    commit_run(runs, tables={"trades": artifact_rows("trades", 1, fills=[7])})
    report = sync(Catalog(catalog, LocalRuns(runs)))
    assert (report.registered, report.quarantined) == (2, 0), ask(catalog, "FROM quarantine")
    found = dict(ask(catalog, "SELECT run_id, ambiguous FROM trades"))
    assert found.pop(run_dir.name.removeprefix("run_id=")) is None
    assert list(found.values()) == [True]


def commit_old(runs: Path, table: pa.Table) -> Path:
    import hashlib
    import json

    run_dir = commit_run(runs, tables={"trades": artifact_rows("trades", 1)})
    path = run_dir / "policy/trades.parquet"
    pq.write_table(table.set_column(0, "run_id", pa.array([run_dir.name.removeprefix("run_id=")])), path)
    manifest = json.loads((run_dir / "run.json").read_bytes())
    raw = path.read_bytes()
    manifest["artifacts"]["trades"] |= {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    content = json.dumps(manifest).encode()
    (run_dir / "run.json").write_bytes(content)
    (run_dir / "_SUCCESS").write_text(hashlib.sha256(content).hexdigest() + "\n")
    return run_dir


def test_the_latest_run_is_the_newest_completed_of_its_kind(tmp_path: Path) -> None:
    runs, catalog = tmp_path / "runs", tmp_path / "c.duckdb"
    ids = [f"00000000-0000-4000-8000-00000000000{i}" for i in range(7)]

    def commit(i: int, created: str, **changes: Any) -> None:
        commit_run(runs, run_id=ids[i], created_at=created, tables={"alerts": artifact_rows("alerts", 0)}, **changes)

    commit(0, "2024-06-01T00:00:00Z")
    commit(1, "2024-06-02T01:00:00+02:00")  # earlier than it looks
    commit(2, "2024-06-01T23:30:00Z")
    commit(3, "2024-06-03T00:00:00Z", status="failed")
    commit(4, "2024-01-01T00:00:00Z", parameters={"config_hash": "other"})
    commit(5, "2024-01-01T00:00:00Z", run_type="policy")
    commit(6, "2024-01-01T00:00:00Z", month="2024-02")
    sync(Catalog(catalog, LocalRuns(runs)))
    latest = {i for (i,) in ask(catalog, "SELECT run_id FROM latest_runs")}
    assert latest == {ids[2], ids[4], ids[5], ids[6]}
