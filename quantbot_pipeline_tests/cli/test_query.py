"""`quantbot query`: every format, its limits, and what it answers to a wrong question. What it cannot reach: catalog/test_answering."""

import csv
import io
import signal
import subprocess
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quantbot_pipeline.catalog.catalog import Catalog
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.runs.store import LocalRuns
from quantbot_pipeline_tests.conftest import Quantbot
from quantbot_pipeline_tests.support.builders import artifact_rows, commit_run
from quantbot_pipeline_tests.support.labs import QUANTBOT, Done, environment, finish, start

FORMULA = "=cmd|' /C calc'!A0"
MARKUP = "<img src=x onerror=alert(1)>"
AWKWARD = """SELECT caller_name, sum(n) AS hugeint, 0.1 AS decimal, 12345678901234567890.5::DECIMAL(38, 1) AS long_decimal,
    9007199254740993 AS big, 0.1::DOUBLE + 0.2 AS double, 'nan'::DOUBLE AS nan, [1.5, 'inf'::DOUBLE] AS list, DATE '2024-01-02' AS day,
    TIMESTAMP '2024-01-02 03:04:05.678901' AS at, TIMESTAMP_NS '2024-01-02 03:04:05.123456789' AS ns, INTERVAL 90 MINUTE AS span,
    'a'::BLOB AS blob, NULL AS nothing, -1 AS negative, {'a': '=1'} AS struct FROM paths, (SELECT 7 AS n) GROUP BY ALL ORDER BY 1"""


@pytest.fixture
def asked(quantbot: Quantbot, home: Path) -> Quantbot:
    """`quantbot query …` on a home with one run whose callers have hostile names; the folder is its own."""
    paths = artifact_rows("paths", 2, caller_name=[MARKUP, FORMULA])
    commit_run(home / "runs", tables={"alerts": artifact_rows("alerts", 2), "paths": paths})
    sync(Catalog(home / "data" / "backtest_catalog.duckdb", LocalRuns(home / "runs")))

    def call(*arguments: object) -> Done:
        return quantbot("query", *arguments)

    return call


def test_json_keeps_every_value(asked: Quantbot) -> None:
    formula, markup = sorted(
        asked(AWKWARD, "--format", "json").json(), key=lambda row: row["caller_name"], reverse=True
    )
    assert (formula["caller_name"], markup["caller_name"]) == (FORMULA, MARKUP)
    assert formula == {
        "caller_name": FORMULA, "hugeint": 7, "decimal": 0.1, "long_decimal": "12345678901234567890.5", "big": 2**53 + 1,
        "double": 0.1 + 0.2, "nan": None, "list": [1.5, None], "day": "2024-01-02", "at": "2024-01-02T03:04:05.678901Z",
        "ns": "2024-01-02 03:04:05.123456789", "span": "01:30:00", "blob": "61", "nothing": None, "negative": -1,
        "struct": {"a": "=1"},
    }  # fmt: skip  # a table: what belongs together stands on one line


def test_csv_is_complete_and_guards_formulas_in_cells_and_headings(asked: Quantbot) -> None:
    done = asked(AWKWARD, "--format", "csv")
    assert done.status == 0
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert sorted(row["caller_name"] for row in rows) == sorted(["'" + FORMULA, MARKUP])
    assert rows[0]["negative"] == "-1"
    assert rows[0]["double"] == repr(0.1 + 0.2)
    assert rows[0]["list"] == "[1.5, null]"
    assert asked("""SELECT 1 AS "=1+1" """, "--format", "csv").out == "'=1+1\n1\n"


def test_parquet_keeps_values_and_types(asked: Quantbot, tmp_path: Path) -> None:
    out = tmp_path / "deep.parquet"
    done = asked(
        "SELECT caller_name, p0, hit_2x, t_2x_ms FROM paths ORDER BY call_id", "--format", "parquet", "--out", out
    )
    assert (done.status, done.out) == (0, "")
    table = pq.read_table(out)
    assert table["caller_name"].to_pylist() == [MARKUP, FORMULA]
    assert table.schema.types == [pa.string(), pa.float64(), pa.bool_(), pa.int64()]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["deep.parquet"]


def test_parquet_goes_through_a_pipe(asked: Quantbot, home: Path) -> None:
    command = [str(QUANTBOT), "query", "FROM paths", "--format", "parquet"]
    done = subprocess.run(command, env=environment(home), capture_output=True, timeout=60, check=True)
    assert pq.read_table(io.BytesIO(done.stdout)).num_rows == 2


def test_files_replace_and_equal_what_is_printed(asked: Quantbot, tmp_path: Path) -> None:
    for fmt in ("json", "csv"):
        out = tmp_path / f"all.{fmt}"
        out.write_text("old")
        assert asked(AWKWARD, "--format", fmt, "--out", out).out == ""
        assert out.read_text() == asked(AWKWARD, "--format", fmt).out


def test_limits_are_kept_and_said(asked: Quantbot) -> None:
    many = "SELECT i FROM range(25000) AS t(i)"
    table = asked(many)
    assert table.out.splitlines()[0] == "100 rows"
    assert "there are more rows" in table.err
    assert asked("SELECT 1 AS a").out.splitlines()[0] == "1 row"
    for limit, more in ((0, True), (20_000, True), (24_999, True), (25_000, False)):
        done = asked(many, "--limit", limit, "--format", "json")
        assert [row["i"] for row in done.json()] == list(range(limit))
        assert ("there are more rows" in done.err) == more
    assert [row["i"] for row in asked(many, "--format", "json").json()] == list(range(25_000))
    assert asked(many, "--format", "csv").out.count("\n") == 25_001


def test_no_rows_are_an_answer_in_every_format(asked: Quantbot, tmp_path: Path) -> None:
    nothing = "SELECT caller_name, p0 FROM paths WHERE false"
    assert asked(nothing, "--format", "json").out == "[]\n"
    assert asked(nothing, "--format", "csv").out == "caller_name,p0\n"
    assert "caller name" in asked(nothing).out
    assert asked(nothing, "--format", "parquet", "--out", tmp_path / "x").status == 0
    assert pq.read_table(tmp_path / "x").schema.names == ["caller_name", "p0"]


def test_a_query_may_lie_in_a_file(asked: Quantbot, tmp_path: Path) -> None:
    (tmp_path / "q.sql").write_text("-- how many\nSELECT count(*) AS n FROM paths;\n")
    assert asked(f"@{tmp_path / 'q.sql'}", "--format", "json").json() == [{"n": 2}]


def test_mistakes_get_one_line(asked: Quantbot, home: Path, tmp_path: Path) -> None:
    assert asked("SELECT hit_5x FROM paths").complaint.startswith(
        'query: Binder Error: Referenced column "hit_5x" not found'
    )
    assert "one SELECT" in asked("DROP TABLE quarantine").complaint
    assert "no file and no address" in asked("FROM read_text('/etc/passwd')").complaint
    assert "name with AS" in asked("SELECT 1 AS a, 2 AS a").complaint
    assert "@FILE" in asked("@nowhere.sql").complaint
    assert "--out needs" in asked("SELECT 1", "--out", tmp_path / "x").complaint
    assert "a directory" in asked("SELECT 1", "--format", "csv", "--out", tmp_path).complaint
    inside = home / "runs" / "x.csv"
    assert "runs never change" in asked("SELECT 1", "--format", "csv", "--out", inside).complaint
    assert not inside.exists()
    catalog = home / "data" / "backtest_catalog.duckdb"
    before = catalog.read_bytes()
    assert "keeps its own data" in asked("SELECT 1", "--format", "csv", "--out", catalog).complaint
    assert catalog.read_bytes() == before
    assert "cast it to text" in asked("SELECT DATE 'infinity' AS d", "--format", "json").complaint
    missing = tmp_path / "nowhere" / "x.csv"
    assert "nowhere" in asked("SELECT 1", "--format", "csv", "--out", missing).complaint
    failed = asked("SELECT CASE WHEN i > 50000 THEN error('late') END FROM range(90000) AS t(i)", "--format", "csv", "--out", tmp_path / "x")  # fmt: skip  # a table: what belongs together stands on one line
    assert failed.complaint == "query: Invalid Input Error: late"
    assert not any(path.is_file() for path in tmp_path.iterdir())
    assert asked("SELECT count(*) FROM range(1000000000000) AS t(i) WHERE i % 7 = 3", "--timeout", 0.2).status == 1


def test_ctrl_c_stops_it_in_a_line(asked: Quantbot, home: Path) -> None:
    process = start(home, "query", "FROM range(1000000000000)", "--format", "csv")
    assert process.stdout is not None
    process.stdout.readline()  # it is at work
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert (done.status, done.err) == (130, "quantbot: interrupted; what is committed stays\n")
