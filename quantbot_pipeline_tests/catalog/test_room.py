"""Anybody's SQL in the locked room: it reads what the views show, and the usual tricks reach nothing."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from quantbot_pipeline.artifacts.schemas import ARTIFACTS
from quantbot_pipeline.catalog.catalog import Catalog, reading
from quantbot_pipeline.catalog.room import _locked_room, _require_select, answering
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.errors import InputError, QuantbotError
from quantbot_pipeline.runs.store import LocalRuns
from quantbot_pipeline_tests.support.builders import artifact_rows, commit_run

ENDLESS = "SELECT count(*) FROM range(1000000000000) AS t(i) WHERE i % 7 = 3"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of the same artifacts (frontier, features and others have none) and a failed one; their folder needs quoting."""
    runs = tmp_path_factory.mktemp("it's [a] room") / "runs"
    for month, n in (("2024-01", 3), ("2024-02", 2)):
        tables = {name: artifact_rows(name, n) for name in ("alerts", "paths", "errors")}
        commit_run(runs, month, tables=tables)
    commit_run(runs, "2024-02", status="failed", error="ValueError: no")
    sync(Catalog(runs.with_name("c.duckdb"), LocalRuns(runs)))
    return runs


def answer(base: Path, sql: str, memory_limit: str = "2GB", **limits: Any) -> pa.Table:
    with answering(Catalog(base.with_name("c.duckdb"), LocalRuns(base), memory_limit), sql, **limits) as found:
        return pa.Table.from_batches(found.batches, found.schema)


@pytest.mark.parametrize(
    "name", [*ARTIFACTS, "latest_runs", "backtest_runs_catalog", "backtest_artifacts_catalog", "quarantine", "catalog_meta"]
)  # fmt: skip  # a table: what belongs together stands on one line
def test_every_table_and_view_says_what_plain_duckdb_says(base: Path, name: str) -> None:
    with reading(Catalog(base.with_name("c.duckdb"), LocalRuns(base))) as con:
        expected = con.sql(f"FROM {name} ORDER BY ALL").to_arrow_table()
    found = answer(base, f"FROM {name} ORDER BY ALL")
    assert found.schema.names == expected.schema.names
    assert found.to_pylist() == expected.to_pylist()
    assert name in answer(base, "SHOW TABLES")["name"].to_pylist()


def test_sql_of_people_is_answered(base: Path) -> None:
    joined = """WITH newest AS (SELECT run_id, month FROM latest_runs)
                SELECT month, count(*) AS calls FROM paths JOIN newest USING (run_id) GROUP BY ALL ORDER BY month"""
    assert answer(base, joined).to_pylist() == [{"month": "2024-01", "calls": 3}, {"month": "2024-02", "calls": 2}]
    assert answer(base, "FROM range(3);")["range"].to_pylist() == [0, 1, 2]
    assert answer(base, "DESCRIBE paths")["column_name"][0].as_py() == "run_id"
    assert answer(base, "SUMMARIZE paths").num_rows == len(ARTIFACTS["paths"][1])
    assert answer(base, "SELECT ';' AS a -- ; DROP TABLE x").to_pylist() == [{"a": ";"}]
    largest = 2**128 - 1
    assert answer(base, f"SELECT {largest}::UHUGEINT AS n").to_pylist() == [{"n": str(largest)}]
    assert answer(base, "SELECT INTERVAL 90 MINUTE AS i, '101'::BIT AS b").to_pylist() == [
        {"i": "01:30:00", "b": "101"}
    ]


def files_of(base: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(base.parent.rglob("*")) if path.is_file()}


def tricks(base: Path) -> Iterator[str]:
    """What would read or write a file, reach out, or change a setting, if anything would."""
    artifact = next(base.glob("2024-01/*/truth/paths.parquet"))
    catalog, outside = base.with_name("c.duckdb"), base.parent / "outside"
    for path in ("/etc/passwd", artifact, catalog, "https://example.com/a.parquet", "s3://bucket/a.parquet"):
        name = str(path).replace("'", "''")
        yield f"FROM '{name}'"
        yield from (
            f"FROM {function}('{name}')"
            for function in ("read_text", "read_blob", "read_csv", "read_csv_auto", "read_json", "read_ndjson_objects",
                             "read_parquet", "parquet_scan", "parquet_metadata", "parquet_schema", "sniff_csv", "glob",
                             "read_duckdb")
        )  # fmt: skip  # a table: what belongs together stands on one line
        yield f"ATTACH '{name}' AS other"
    target = str(outside).replace("'", "''")
    for path in (target, str(artifact).replace("'", "''"), str(catalog).replace("'", "''")):
        yield f"COPY (SELECT 1) TO '{path}'"
        yield f"COPY paths TO '{path}' (FORMAT parquet)"
        yield f"WITH x AS (COPY (SELECT 1) TO '{path}') FROM x"
        yield f"EXPLAIN ANALYZE COPY (SELECT 1) TO '{path}'"
        yield f"EXPORT DATABASE '{path}'"
    yield from ("IMPORT DATABASE '/tmp'", "INSTALL httpfs", "LOAD httpfs", f"LOAD '{target}.duckdb_extension'")
    yield from ("FROM duckdb_extensions()", "CREATE PERSISTENT SECRET s (TYPE http, BEARER_TOKEN 'x')")
    for setting in (
        "enable_external_access",
        "lock_configuration",
        "allowed_paths",
        "memory_limit",
        "temp_directory",
        "threads",
    ):
        yield f"SET {setting} = DEFAULT"
        yield f"RESET {setting}"
    yield from ("SET GLOBAL lock_configuration = false", "PRAGMA threads = 4", "SET allowed_directories = ['/']")


def test_the_room_itself_reaches_nothing(base: Path) -> None:
    """Without the look at the statement: DuckDB alone refuses each of them, and no file has changed or come."""
    before = files_of(base)
    refused = r"disabled by configuration|disabled through configuration|has been locked|does not exist|extension httpfs|secret"
    with _locked_room(Catalog(base.with_name("c.duckdb"), LocalRuns(base), "500MB"), " ".join(ARTIFACTS)) as con:
        for trick in tricks(base):
            with pytest.raises(duckdb.Error, match=refused):
                con.execute(trick).fetchall()
        assert con.execute("SELECT count(*) FROM paths").fetchall() == [(5,)]  # and it still answers
        settings = dict(con.execute("SELECT name, value FROM duckdb_settings()").fetchall())
    assert files_of(base) == before
    assert (settings["enable_external_access"], settings["lock_configuration"]) == ("false", "true")
    assert settings["allowed_paths"] == settings["allowed_directories"] == "[]"
    assert settings["temp_directory"] == ""


def test_the_look_at_the_statement_refuses_them_too(base: Path) -> None:
    """All but a file's name where a table's belongs, which only the room knows to be none."""
    with _locked_room(Catalog(base.with_name("c.duckdb"), LocalRuns(base), "500MB"), " ".join(ARTIFACTS)) as con:
        for trick in tricks(base):
            if not trick.startswith("FROM '"):
                with pytest.raises(InputError, match=r"a query (is|reads)"):
                    _require_select(con, trick)
    for trick in (
        "FROM '/etc/passwd'",
        "FROM read_text('/etc/passwd')",
        "COPY paths TO '/tmp/x'",
        "INSTALL httpfs",
    ):
        with pytest.raises(InputError, match=r"a query (is|reads)|does not exist"):
            answer(base, trick)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1; SELECT 2", "SELECT 1; DROP TABLE quarantine", "CREATE TABLE x AS SELECT 1", "DROP VIEW paths",
        "INSERT INTO quarantine SELECT '', '', now()", "DELETE FROM quarantine", "UPDATE catalog_meta SET value = ''",
        "WITH x AS (INSERT INTO catalog_meta VALUES ('a', 'b') RETURNING key) FROM x",
        "SELECT (WITH x AS (DELETE FROM catalog_meta RETURNING key) SELECT count(*) FROM x)",
        "FROM query('SELECT 1')", "FROM arrow_scan(1, 2, 3)", "FROM pandas_scan(1)", "SELECT * FROM paths, Arrow_Scan_Dumb(1, 2, 3)",
        "PREPARE p AS SELECT 1", "BEGIN", "CALL pragma_version()", "PRAGMA database_list", "ATTACH ':memory:' AS m", "USE memory",
        "FROM enable_logging()", "VACUUM", "CHECKPOINT", "EXPLAIN SELECT 1", "", "-- nothing",
    ],
)  # fmt: skip  # a table: what belongs together stands on one line
def test_only_one_select_is_a_query(base: Path, sql: str) -> None:
    with pytest.raises(InputError, match=r"a query (is one SELECT|reads)"):
        answer(base, sql)


def test_the_caller_s_python_is_out_of_reach(base: Path) -> None:
    secret = pa.table({"a": [1]})
    with pytest.raises(InputError, match="secret does not exist"):
        answer(base, "FROM secret")
    assert secret.num_rows == 1
    with pytest.raises(InputError, match="getenv"):
        answer(base, "SELECT getenv('HOME')")


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELEC 1", r"query: Parser Error: syntax error at or near \"SELEC\"$"),
        ("FROM pahts", "Table with name pahts does not exist!\nDid you mean \"paths\"?"),
        ("SELECT hit_5x FROM paths", "\"hit_5x\" not found"),
        ("SELECT 'abc'::INT", "Could not convert"),
        ("SELECT CASE WHEN i = 50000 THEN error('late') ELSE i END AS i FROM range(60000) AS t(i)", "late"),
        ("SELECT ?", "parameters"),
        ("SELECT '\udcff'", "not UTF-8"),
        ("SELECT 1 AS a, 2 AS a", "two columns are called 'a'"),
        ("SELECT 1 AS a, 2 AS A", "two columns are called 'A' and 'a'"),
        ("SELECT call_id AS id, mint AS ID FROM paths", "two columns are called 'ID' and 'id'"),
        ("SELECT " + "(" * 3000 + "1" + ")" * 3000, "depth"),
    ],
)  # fmt: skip  # a table: what belongs together stands on one line
def test_wrong_sql_is_explained(base: Path, sql: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        answer(base, sql)


def test_time_and_memory_have_an_end(base: Path) -> None:
    with pytest.raises(QuantbotError, match=r"stopped after 0\.3 s"):
        answer(base, ENDLESS, timeout_s=0.3)
    with pytest.raises(QuantbotError, match=r"stopped after 0\.3 s"), answering(Catalog(base.with_name("c.duckdb"), LocalRuns(base)), "FROM range(1000000000000)", timeout_s=0.3) as found:  # fmt: skip  # a table: what belongs together stands on one line
        assert sum(batch.num_rows for batch in found.batches) < 0
    with pytest.raises(QuantbotError, match="more than 50MB of memory"):
        answer(base, "SELECT list(i::VARCHAR || repeat('x', 99)) AS l FROM range(3000000) AS t(i)", memory_limit="50MB")


def test_a_catalog_that_does_not_fit_into_the_memory_is_one_line(base: Path) -> None:
    with pytest.raises(QuantbotError, match="more than 1MB of memory"):
        answer(base, "SELECT count(*) AS n FROM paths", memory_limit="1MB")


def test_a_catalog_of_another_version_is_refused_with_its_cure(base: Path, tmp_path: Path) -> None:
    old = tmp_path / "c.duckdb"
    shutil.copyfile(base.with_name("c.duckdb"), old)
    with duckdb.connect(str(old)) as con:
        con.execute("UPDATE catalog_meta SET value = '1' WHERE key = 'version'")
    with (
        pytest.raises(InputError, match=r"another version .*catalog-sync"),
        answering(Catalog(old, LocalRuns(base)), "SELECT 1 AS a"),
    ):
        pass


def test_what_the_reader_does_wrong_is_not_the_query_s_fault(base: Path) -> None:
    with (
        pytest.raises(OSError, match="disk full"),
        answering(Catalog(base.with_name("c.duckdb"), LocalRuns(base)), "FROM paths") as found,
    ):
        next(found.batches)
        raise OSError("disk full")


def test_a_file_that_is_gone_or_flipped_is_no_answer(tmp_path: Path) -> None:
    base = tmp_path / "runs"
    run_dir = commit_run(base, tables={"alerts": artifact_rows("alerts", 50), "paths": artifact_rows("paths", 50)})
    sync(Catalog(tmp_path / "c.duckdb", LocalRuns(base)))
    artifact = run_dir / "truth/paths.parquet"
    content = bytearray(artifact.read_bytes())
    content[content.index(b"PAR1") + 60] ^= 1
    artifact.write_bytes(content)
    with pytest.raises(QuantbotError, match=r"a file of a run is not readable .*quantbot backtest verify"):
        answer(base, "FROM paths")
    artifact.unlink()
    with pytest.raises(QuantbotError, match=r"paths\.parquet"):
        answer(base, "FROM paths")
    assert answer(base, "SELECT count(*) AS n FROM alerts").to_pylist() == [{"n": 50}]


def test_without_a_catalog_it_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="catalog-sync"):
        answer(tmp_path / "runs", "SELECT 1")
