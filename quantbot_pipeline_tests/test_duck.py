"""DuckDB files as others meet them: in the oldest storage, and open in another program."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from quantbot_pipeline.duck import STORAGE_NUMBER, database_of, memory_database, published_duckdb, storage_number
from quantbot_pipeline_tests.conftest import Quantbot


@pytest.fixture
def synced(home: Path, quantbot: Quantbot) -> Path:
    """A home with a run in its catalog."""
    assert quantbot("backtest", "path-only", "--from", "2024-01", "--to", "2024-01").status == 0
    assert quantbot("backtest", "catalog-sync").status == 0
    return home


def test_tables_are_known_inside_their_block_alone() -> None:
    two, one = pa.table({"x": [1, 2]}), pa.table({"x": [7]})
    with memory_database() as whole, database_of(rows=two) as con:
        assert con.execute("SELECT sum(x), current_setting('TimeZone') FROM rows").fetchall() == [(3, "UTC")]
        with database_of(rows=one) as inner:  # the same name, for somebody else
            assert inner.execute("SELECT sum(x) FROM rows").fetchall() == [(7,)]
        assert con.execute("SELECT sum(x) FROM rows").fetchall() == [(3,)]
        with pytest.raises(duckdb.CatalogException):
            whole.execute("FROM rows")
    with database_of(others=one) as later, pytest.raises(duckdb.CatalogException):
        later.execute("FROM rows")


def test_files_are_in_the_oldest_storage(synced: Path) -> None:
    for name in ("alerts.duckdb", "backtest_catalog.duckdb"):
        assert storage_number(synced / "data" / name) == STORAGE_NUMBER, name


def test_a_file_of_a_newer_storage_is_written_anew_at_the_next_change(tmp_path: Path) -> None:
    """As version 0.1.0 wrote it, with its views and macros."""
    path = tmp_path / "old.duckdb"
    with duckdb.connect(str(path), config={"storage_compatibility_version": "latest"}) as con:
        con.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b VARCHAR); INSERT INTO t VALUES (1, 'x'), (2, NULL)")
        con.execute("CREATE MACRO twice(n) AS n * 2; CREATE VIEW v AS SELECT twice(a) AS a, b FROM t")
    assert storage_number(path) > STORAGE_NUMBER
    with published_duckdb(path, 1) as publication:
        publication.connect().execute("INSERT INTO t VALUES (3, 'z')")
        publication.changed = True
    assert storage_number(path) == STORAGE_NUMBER
    with duckdb.connect(str(path), read_only=True) as con:
        assert con.execute("FROM v ORDER BY a").fetchall() == [(2, "x"), (4, None), (6, "z")]
        assert con.execute("SELECT constraint_type FROM duckdb_constraints() ORDER BY 1").fetchall()[-1] == (
            "PRIMARY KEY",
        )
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == ["old.duckdb"]


HOLDS = """
import sys, duckdb
con = duckdb.connect(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def held(synced: Path) -> Iterator[Path]:
    """The home while another program has its catalog and its store of calls open for writing."""
    programs = []
    for name in ("backtest_catalog.duckdb", "alerts.duckdb"):
        program = subprocess.Popen(
            [sys.executable, "-c", HOLDS, str(synced / "data" / name)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert program.stdout is not None
        assert program.stdout.readline() == "open\n"
        programs.append(program)
    yield synced
    for program in programs:
        program.communicate()


@pytest.mark.parametrize(
    "command",
    [
        ["query", "SELECT 1"],
        ["leaderboard"],
        ["dashboard"],
        ["backtest", "path-only", "--from", "2024-01", "--to", "2024-01"],
    ],
    ids=str,
)
def test_a_file_that_another_program_writes_to_is_busy_and_not_broken(
    held: Path, quantbot: Quantbot, command: list[str]
) -> None:
    done = quantbot(*command)
    assert done.status == 1
    assert "another program has it open for writing; close that program" in done.err
    assert "--rebuild" not in done.err
    assert done.err.count("\n") == 1


def test_a_run_that_is_asked_for_and_gone_is_named(synced: Path, quantbot: Quantbot) -> None:
    (row,) = json.loads(quantbot("backtest", "catalog-query", "--format", "json").out)
    asked = ("backtest", "catalog-query", "--artifact-type", "paths", "--run-id")
    assert Path(quantbot(*asked, row["run_id"]).out.strip()).is_file()
    shutil.rmtree(synced / "runs" / row["run_dir"])
    done = quantbot(*asked, row["run_id"])
    assert (done.status, "gone, though its run is cataloged" in done.err) == (2, True)
    quantbot("backtest", "catalog-sync")
    done = quantbot(*asked, row["run_id"])
    assert (done.status, "it was deleted, or never was" in done.err) == (2, True)


def test_an_empty_policy_id_makes_nothing(home: Path, quantbot: Quantbot) -> None:
    for name in ("", "  "):
        done = quantbot(
            "backtest", "policy", "--from", "2024-01", "--to", "2024-01", "--policy-id", name,
            "--policy", '{"kind":"time_stop","max_hold_ms":60000}',
        )  # fmt: skip  # a table: what belongs together stands on one line
        assert (done.status, done.err.count("\n")) == (2, 1)
        assert "--policy-id: an empty name" in done.err
    assert not (home / "runs").exists()
