"""A file of a newer major version, a newer minor one, without a version and with nonsense: each gets its answer, in one sentence."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quantbot_pipeline.api import Home
from quantbot_pipeline.artifacts import migrations
from quantbot_pipeline.artifacts.invariants import broken
from quantbot_pipeline.artifacts.schemas import ARTIFACTS
from quantbot_pipeline.catalog.catalog import quarantined
from quantbot_pipeline.errors import InputError, IntegrityError, QuantbotError
from quantbot_pipeline.market.candle_files import month_file
from quantbot_pipeline.market.candle_reader import known_mints
from quantbot_pipeline.runs.manifest import read_manifest
from quantbot_pipeline.runs.notes import JOURNAL, NOTES, tag_run
from quantbot_pipeline.runs.verify import check_run, read_artifact
from quantbot_pipeline.upkeep.validate import validate_stores
from quantbot_pipeline.version import __version__
from quantbot_pipeline.versions import (
    ARTIFACT_COLUMNS,
    FORMAT_KEY,
    FORMATS,
    Version,
    format_of,
    parse_version,
    read_version,
)
from quantbot_pipeline_tests.support.builders import artifact_rows, commit_run, make_home, small_market

NEWER, MINOR, NONSENSE = "2.0.0", "1.99.0", "../x"
WRITER = "quantbot 7.1"


# --- the table --------------------------------------------------------------------------------------------------------


def test_columns_are_appended_with_a_version_of_their_own() -> None:
    for name, (_, schema) in ARTIFACTS.items():
        counts = list(ARTIFACT_COLUMNS.get(name, {"1.0.0": len(schema)}).values())
        assert counts[-1] == len(schema), f"{name} has {len(schema)} columns: add a version to ARTIFACT_COLUMNS"
        assert counts == sorted(set(counts)), name
    assert set(ARTIFACT_COLUMNS) <= set(ARTIFACTS)


@pytest.mark.parametrize("name", [*FORMATS, *ARTIFACTS])
def test_versions_are_listed_oldest_first(name: str) -> None:
    numbers = [parse_version(text) for text in format_of(name).versions]
    assert None not in numbers
    assert numbers == sorted(set(numbers), key=str)


@pytest.mark.parametrize(
    ("said", "found"), [("1.0.0", (1, 0, 0)), ("1.99.3", (1, 99, 3)), ("1", (1, 0, 0)), (None, (1, 0, 0))]
)
def test_what_can_be_read_is_a_version(said: str | None, found: tuple[int, int, int]) -> None:
    assert read_version("calls", said, "there", IntegrityError) == Version(*found)


@pytest.mark.parametrize(
    ("said", "writer", "sentence"),
    [
        (
            NEWER,
            "7.1",
            rf"there: calls version 2.0.0, written by {WRITER}, is newer than this quantbot {__version__} reads",
        ),
        (NEWER, None, r"written by a newer quantbot.*upgrade quantbot to the version that wrote it"),
        ("0.9.0", None, r"0\.9\.0 was never released"),
        (NONSENSE, None, r"'\.\./x' is no version such as"),
        ("1.0.0\n", None, "is no version"),
        ("1" * 5000, None, "is no version"),
        (17, {"a": 1}, "'17' is no version"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_sentence(said: object, writer: object, sentence: str) -> None:
    with pytest.raises(IntegrityError, match=sentence) as caught:
        read_version("calls", said, "there", IntegrityError, writer)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


# --- runs -------------------------------------------------------------------------------------------------------------


def rewrite(run_dir: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change run.json, and let `_SUCCESS` vouch for what it says now."""
    manifest = json.loads((run_dir / "run.json").read_text())
    change(manifest)
    content = json.dumps(manifest).encode()
    (run_dir / "run.json").write_bytes(content)
    (run_dir / "_SUCCESS").write_text(hashlib.sha256(content).hexdigest() + "\n")


def restamp(
    run_dir: Path, artifact: str, version: str | None, change: Callable[[pa.Table], pa.Table] = lambda t: t
) -> None:
    """Write an artifact as a program of another version would, and promise it in run.json."""
    path = run_dir / ARTIFACTS[artifact][0]
    table = change(pq.ParquetFile(path).read())
    said = {} if version is None else {FORMAT_KEY: version.encode(), b"quantbot.written_by": b"7.1"}
    pq.write_table(table.replace_schema_metadata(said), path, compression="zstd", write_page_checksum=True)
    content = path.read_bytes()
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "version": version}
    rewrite(run_dir, lambda manifest: manifest["artifacts"][artifact].update(entry))


def manifest_version(value: object) -> Callable[[dict[str, Any]], Any]:
    def change(manifest: dict[str, Any]) -> None:
        manifest["versions"]["quantbot"] = "7.1"
        manifest["schema_version"] = {"manifest": value} if value is not None else {}

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (manifest_version(NEWER), f"manifest version 2.0.0, written by {WRITER}, is newer"),
        (manifest_version(NONSENSE), r"manifest version '\.\./x' is no version"),
        (manifest_version(None), "manifest version is missing"),
        (lambda manifest: manifest.pop("schema_version"), "manifest version is missing"),
        (lambda manifest: manifest["schema_version"].update(artifacts=NEWER), "artifacts version 2.0.0"),
        (lambda manifest: manifest["artifacts"]["paths"].update(version=NEWER), "paths version 2.0.0"),
    ],
)
def test_a_run_json_that_cannot_be_read_is_quarantined(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], sentence: str
) -> None:
    lab = Home(tmp_path)
    rewrite(commit_run(lab.runs.folder), change)
    assert lab.sync().runs == 0
    (row,) = quarantined(lab.catalog).to_pylist()
    with pytest.raises(AssertionError, match=sentence):
        raise AssertionError(row["reason"])


def test_a_run_json_of_a_newer_minor_version_is_read(tmp_path: Path) -> None:
    lab = Home(tmp_path)
    rewrite(commit_run(lab.runs.folder), lambda manifest: manifest["schema_version"].update(manifest=MINOR))
    assert lab.sync().runs == 1


@pytest.mark.parametrize(("version", "sentence"), [(NEWER, f"2.0.0, written by {WRITER}"), (NONSENSE, "is no version")])
def test_an_artifact_that_cannot_be_read_is_quarantined_and_never_half_read(
    tmp_path: Path, version: str, sentence: str
) -> None:
    lab = Home(tmp_path)
    run_dir = commit_run(lab.runs.folder)
    restamp(run_dir, "paths", version)
    rewrite(run_dir, lambda manifest: manifest["artifacts"]["paths"].update(version=None))
    with pytest.raises(IntegrityError, match=sentence):
        check_run(run_dir)
    with pytest.raises(IntegrityError, match=sentence):
        read_artifact(run_dir, read_manifest(run_dir), "paths")
    assert (lab.sync().runs, quarantined(lab.catalog).num_rows) == (0, 1)


def test_an_artifact_whose_versions_disagree_is_refused(tmp_path: Path) -> None:
    run_dir = commit_run(tmp_path)
    restamp(run_dir, "paths", MINOR)
    rewrite(run_dir, lambda manifest: manifest["artifacts"]["paths"].update(version="1.0.0"))
    with pytest.raises(IntegrityError, match=r"paths version 1\.99\.0, run\.json says 1\.0\.0"):
        check_run(run_dir)


def test_columns_of_a_newer_minor_version_are_kept_and_shown(tmp_path: Path) -> None:
    lab = Home(tmp_path)
    run_dir = commit_run(lab.runs.folder, "2024-01", run_type="full")
    commit_run(lab.runs.folder, "2024-02", run_type="full")
    restamp(run_dir, "paths", MINOR, lambda t: t.append_column("novelty", pa.array([1.5, 2.5])))
    assert (lab.sync().runs, quarantined(lab.catalog).num_rows) == (2, 0)
    table = read_artifact(run_dir, read_manifest(run_dir), "paths")
    assert table.schema.names == [*ARTIFACTS["paths"][1].names, "novelty"]
    assert table["novelty"].to_pylist() == [1.5, 2.5]
    seen = lab.sql("SELECT novelty FROM paths ORDER BY 1 NULLS LAST")["novelty"]
    assert seen.dropna().tolist() == [1.5, 2.5] and len(seen) == 4
    with duckdb.connect(str(lab.catalog.path), read_only=True) as con:
        assert con.execute("SELECT sum(novelty), count(*) FROM paths").fetchall() == [(4.0, 4)]
    assert lab.paths()["novelty"].dropna().tolist() == [1.5, 2.5]


def test_an_artifact_without_a_version_is_of_the_first(tmp_path: Path) -> None:
    lab = Home(tmp_path)
    run_dir = commit_run(lab.runs.folder)
    restamp(run_dir, "paths", None)
    rewrite(run_dir, lambda manifest: manifest["artifacts"]["paths"].pop("version"))
    assert (lab.sync().runs, quarantined(lab.catalog).num_rows) == (1, 0)


@pytest.fixture
def grown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later version of this program, in which `equity` has a column more than in 1.0.0, and `cash` is called so since 1.1.0."""
    inside, schema = ARTIFACTS["equity"]
    monkeypatch.setitem(ARTIFACTS, "equity", (inside, schema.append(pa.field("added", pa.int64(), nullable=False))))
    monkeypatch.setitem(ARTIFACT_COLUMNS, "equity", {"1.0.0": len(schema), "1.1.0": len(schema) + 1})
    step = lambda t: t.rename_columns([{"money": "cash"}.get(name, name) for name in t.schema.names])
    monkeypatch.setitem(migrations.STEPS, ("equity", "1.0.0"), step)


def test_an_older_artifact_is_brought_up_when_it_is_read(tmp_path: Path, grown: None) -> None:
    assert grown is None
    equity = artifact_rows("equity", 2, cash=[7.0, 8.0])
    run_dir = commit_run(tmp_path, tables={"equity": equity, "alerts": artifact_rows("alerts", 1)})

    def older(table: pa.Table) -> pa.Table:
        return table.drop_columns("added").rename_columns(
            [{"cash": "money"}.get(name, name) for name in table.schema.names if name != "added"]
        )

    restamp(run_dir, "equity", "1.0.0", older)
    table = read_artifact(run_dir, read_manifest(run_dir), "equity")
    assert table.schema.names == ARTIFACTS["equity"][1].names
    assert (table["cash"].to_pylist(), table["added"].to_pylist()) == ([7.0, 8.0], [None, None])
    assert read_artifact(run_dir, read_manifest(run_dir), "equity", ["cash"])["cash"].to_pylist() == [7.0, 8.0]


def test_rules_of_columns_that_a_version_lacks_say_nothing() -> None:
    schema = ARTIFACTS["features"][1]
    first = ARTIFACT_COLUMNS["features"]["1.0.0"]
    ages = {"mint_age_ms": [None, None], "since_callers_last_call_ms": [None, None]}
    rows = artifact_rows("features", 2, features=['{"a": 1}'] * 2, weekday_utc=[1, 2], **ages).add_column(
        0, schema.field("run_id"), [["r", "r"]]
    )
    now = rows.cast(pa.schema([schema.field(name) for name in rows.schema.names]))
    assert broken("features", now.select(schema.names[:first]), Version(1, 0, 0)) == []
    assert any(
        "missing" in fault for fault in broken("features", now.select(schema.names[: first - 1]), Version(1, 0, 0))
    )


# --- stores -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with calls and candles, not to be changed."""
    home = tmp_path_factory.mktemp("market")
    make_home(home, *small_market())
    return home


@pytest.fixture
def lab(market: Path, tmp_path: Path) -> Home:
    """A copy of the home with calls and candles."""
    return Home(shutil.copytree(market, tmp_path / "home"), threads=1)


def say_of_calls(lab: Home, version: str | None) -> None:
    with duckdb.connect(str(lab.calls.path)) as con:
        con.execute("DELETE FROM store_meta")
        if version is not None:
            con.executemany("INSERT INTO store_meta VALUES (?, ?)", [("version", version), ("written_by", "7.1")])


@pytest.mark.parametrize(("version", "sentence"), [(NEWER, f"2.0.0, written by {WRITER}"), (NONSENSE, "is no version")])
def test_calls_that_cannot_be_read_are_refused_and_left(lab: Home, version: str, sentence: str) -> None:
    say_of_calls(lab, version)
    before = lab.calls.path.read_bytes()
    with pytest.raises(InputError, match=f"calls version .*{sentence}"):
        lab.calls.frame()
    new = pd.DataFrame([{"mint": "m", "caller_name": "x", "chain": "c", "alert_ts_ms": 1_704_067_200_000}])
    with pytest.raises(InputError, match=f"calls version .*{sentence}"):
        lab.ingest_calls(new)
    assert lab.calls.path.read_bytes() == before
    (row,) = (row for row in validate_stores(lab) if row["what"] == "calls")
    assert not row["ok"] and "calls version" in row["detail"]


@pytest.mark.parametrize("version", [MINOR, None])
def test_calls_of_a_newer_minor_version_or_none_are_read(lab: Home, version: str | None) -> None:
    say_of_calls(lab, version)
    assert len(lab.calls.frame()) == 4
    (row,) = (row for row in validate_stores(lab) if row["what"] == "calls")
    assert row["ok"] and row["version"] == (version or "1.0.0")


def say_of_candles(lab: Home, version: str | None) -> Path:
    path = month_file(lab.candles.folder, "5m", "2024-01")
    with pq.ParquetFile(path) as file:
        said = {key: value for key, value in (file.metadata.metadata or {}).items() if not key.startswith(b"ARROW")}
        table = file.read()
    said.pop(FORMAT_KEY)
    said |= {} if version is None else {FORMAT_KEY: version.encode(), b"quantbot.written_by": b"7.1"}
    pq.write_table(table.replace_schema_metadata(said), path, compression="zstd", write_page_checksum=True)
    return path


@pytest.mark.parametrize(("version", "sentence"), [(NEWER, f"2.0.0, written by {WRITER}"), (NONSENSE, "is no version")])
def test_candles_that_cannot_be_read_are_refused_and_left(lab: Home, version: str, sentence: str) -> None:
    path = say_of_candles(lab, version)
    before = path.read_bytes()
    with pytest.raises(InputError, match=f"candles version .*{sentence}"):
        known_mints(lab.candles.folder, "5m", ["early"])
    row = {"mint": "early", "ts_ms": 1_704_067_200_000, "open": 1, "high": 1, "low": 1, "close": 1, "volume": 1}
    with pytest.raises(QuantbotError, match=f"candles version .*{sentence}"):
        lab.ingest_candles(pd.DataFrame([row]), interval="5m")
    assert path.read_bytes() == before
    assert any("candles version" in row["detail"] for row in validate_stores(lab) if not row["ok"])


@pytest.mark.parametrize("version", [MINOR, None])
def test_candles_of_a_newer_minor_version_or_none_are_read(lab: Home, version: str | None) -> None:
    say_of_candles(lab, version)
    assert known_mints(lab.candles.folder, "5m", ["early"]) == {"early"}
    assert all(row["ok"] for row in validate_stores(lab))


def test_a_damaged_candle_is_found(lab: Home) -> None:
    path = month_file(lab.candles.folder, "5m", "2024-01")
    with pq.ParquetFile(path) as file:
        said, table = file.metadata.metadata, file.read()
    prices = table["high"].to_pylist()
    prices[3] *= 1.5
    table = table.set_column(3, table.schema.field("high"), [prices])
    pq.write_table(table.replace_schema_metadata(said), path, compression="zstd", write_page_checksum=True)
    (row,) = (row for row in validate_stores(lab) if not row["ok"])
    assert "row group 0 is not what its checksums say" in row["detail"]


@pytest.mark.parametrize(
    ("version", "sentence"), [(NEWER, f"2.0.0, written by {WRITER}"), (NONSENSE, "is no version"), (7, "is no version")]
)
def test_a_journal_that_cannot_be_read_is_set_aside_and_comes_back(
    tmp_path: Path, version: object, sentence: str
) -> None:
    lab = Home(tmp_path)
    run_id = commit_run(lab.runs.folder).name.removeprefix("run_id=")
    tag_run(lab.runs.folder, run_id, ["kept"])
    lab.sync()
    journal = lab.runs.folder / NOTES / JOURNAL
    good = journal.read_text()
    assert json.loads(good.splitlines()[0])["version"] == FORMATS["journal"].current
    journal.write_text(json.dumps({"version": version, "written_by": "7.1"}) + "\n" + good.split("\n", 1)[1])
    lab.sync()
    assert lab.catalog_query()["tags"].tolist() == ["kept"]
    with pytest.raises(AssertionError, match=f"journal version .*{sentence}"):
        raise AssertionError(quarantined(lab.catalog).to_pylist()[0]["reason"])
    with pytest.raises(IntegrityError, match="journal version"):
        tag_run(lab.runs.folder, run_id, ["more"])
    journal.write_text(good)
    lab.sync()
    assert quarantined(lab.catalog).num_rows == 0


@pytest.mark.parametrize("line", [json.dumps({"version": MINOR}) + "\n", ""])
def test_a_journal_of_a_newer_minor_version_or_none_is_read(tmp_path: Path, line: str) -> None:
    lab = Home(tmp_path)
    run_id = commit_run(lab.runs.folder).name.removeprefix("run_id=")
    (lab.runs.folder / NOTES).mkdir()
    entry = {"run_id": run_id, "name": "it", "mood": "good"}
    (lab.runs.folder / NOTES / JOURNAL).write_text(line + json.dumps(entry) + "\n")
    lab.sync()
    assert lab.catalog_query()["name"].tolist() == ["it"]


@pytest.mark.parametrize("version", ["4", "3.7", None, NONSENSE])
def test_a_catalog_of_another_version_is_made_anew(tmp_path: Path, version: str | None) -> None:
    lab = Home(tmp_path)
    commit_run(lab.runs.folder)
    lab.sync()
    with duckdb.connect(str(lab.catalog.path)) as con:
        con.execute("DELETE FROM catalog_meta WHERE key = 'version'")
        if version is not None:
            con.execute("INSERT INTO catalog_meta VALUES ('version', ?)", [version])
    (row,) = (row for row in validate_stores(lab) if row["what"] == "catalog")
    assert not row["ok"] and "quantbot migrate" in row["detail"]
    with pytest.raises(InputError, match="made by another version of quantbot"):
        lab.sql("SELECT 1")
    assert lab.sync().runs == 1
    assert len(lab.sql("SELECT * FROM paths")) == 2
