"""The tables of sightings: which calls a later ingest misses, what is noted and what is not, and older stores."""

from pathlib import Path

import duckdb
import pytest

from quantbot_pipeline.home import Home
from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.market.calls import read_calls
from quantbot_pipeline.market.sightings import UNKNOWN, read_sightings
from quantbot_pipeline.runs.content import content_sha256
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.support.builders import Row, call, ms, write_jsonl

ALWAYS = 1 << 62


def _calls(*numbers: int, caller: str = "ann") -> list[Row]:
    return [call(f"mint{i}", ms("2024-01-01") + i * 3_600_000, caller, call_id=f"{caller}{i}") for i in numbers]


def _ingest(home: Home, rows: list[Row], name: str = "chat.jsonl", folder: str = "inbox") -> None:
    ingest_calls([write_jsonl(home.path / folder / name, rows)], home.calls)


def _missing(home: Home) -> list[str]:
    found = read_sightings(home.calls, ALWAYS)
    return [call_id for call_id, gone in zip(found.call_id, found.missing.tolist(), strict=True) if gone]


def _ingests(home: Home) -> list[tuple[object, ...]]:
    with duckdb.connect(str(home.calls.path), read_only=True) as con:
        return con.execute(
            "SELECT id, source, caller_name, from_ts_ms, to_ts_ms, calls FROM ingests ORDER BY ALL"
        ).fetchall()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(Settings(home=tmp_path))


def test_a_call_that_a_later_ingest_of_its_source_covers_and_lacks_is_missing(home: Home) -> None:
    _ingest(home, _calls(1, 2, 3, 4))
    assert _missing(home) == []
    _ingest(home, _calls(1, 3, 4, 5))
    assert _missing(home) == ["ann2"]
    assert [row[0] for row in _ingests(home)] == [1, 2]
    assert _ingests(home)[1][1:3] == ("chat.jsonl", "ann")
    _ingest(home, _calls(1, 2, 3, 4, 5))  # it is there again
    assert _missing(home) == []


def test_what_lies_outside_the_ingest_or_comes_of_another_source_or_caller_is_not(home: Home) -> None:
    _ingest(home, [*_calls(1, 2, 3), *_calls(2, caller="bob")])
    _ingest(home, _calls(3, 4, 5))  # begins later
    _ingest(home, _calls(1, 3), name="other.jsonl")
    assert _missing(home) == []
    _ingest(home, _calls(1, 5))
    assert _missing(home) == ["ann2", "ann4"], "of 3 the other source still knows"


def test_the_same_again_is_not_noted_and_changes_no_byte(home: Home) -> None:
    _ingest(home, _calls(1, 2, 3))
    _ingest(home, _calls(1, 3))
    before = home.calls.path.stat()
    _ingest(home, _calls(1, 3))
    after = home.calls.path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert len(_ingests(home)) == 2


def test_the_calls_that_runs_read_do_not_depend_on_it(home: Home, tmp_path: Path) -> None:
    once = Home(Settings(home=tmp_path / "once"))
    _ingest(home, _calls(1, 2, 3))
    _ingest(home, _calls(1, 3))
    _ingest(once, _calls(1, 2, 3))
    first, second = (read_calls(lab.calls, 0, ALWAYS) for lab in (home, once))
    assert content_sha256(first.calls) == content_sha256(second.calls)


def test_a_store_of_an_earlier_version_learns_it_with_the_next_ingest(home: Home) -> None:
    _ingest(home, _calls(1, 2, 3))
    with duckdb.connect(str(home.calls.path)) as con:
        con.execute("DROP TABLE call_sightings")
        con.execute("DROP TABLE ingests")
        con.execute("UPDATE store_meta SET value = '1.1.0' WHERE key = 'version'")
    assert _missing(home) == []
    _ingest(home, _calls(1, 3))
    assert _missing(home) == ["ann2"]


def test_a_file_of_another_program_has_no_sightings(tmp_path: Path) -> None:
    path = tmp_path / "theirs.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute(
            """CREATE TABLE alerts AS SELECT 'x' AS call_id, 'm' AS mint, 'ann' AS caller_name, 'solana' AS chain,
               1704067200000 AS alert_ts_ms, '2024' AS created_at"""
        )
    found = read_sightings(Home(Settings(home=tmp_path, calls_db=path)).calls, ALWAYS)
    assert (found.call_id, found.ingested.tolist(), found.missing.tolist()) == (["x"], [UNKNOWN], [False])


def test_an_absent_store_has_none(home: Home) -> None:
    assert read_sightings(home.calls, ALWAYS).call_id == []
