"""What is kept of unchanged files: the same answers, the same bytes, and never those of a file that changed."""

import os
import time
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.kept import SETTLED_NS, Kept
from quantbot_pipeline.market import calls
from quantbot_pipeline.market.calls import CallStore, read_calls
from quantbot_pipeline.market.features import calls as features
from quantbot_pipeline.market.features.calls import call_features
from quantbot_pipeline.runs.content import content_sha256
from quantbot_pipeline_tests.support.builders import call, ms, write_jsonl

JAN_1 = ms("2024-01-01")


def settled(path: Path) -> Path:
    """The file, as if it had been written a while ago."""
    time.sleep(SETTLED_NS / 1e9)
    return path


def test_what_was_made_of_a_file_is_kept_until_the_file_changes(tmp_path: Path) -> None:
    path, made = tmp_path / "f", []
    kept: Kept[str] = Kept(10)

    def read() -> str:
        made.append(path.read_text())
        return made[-1]

    path.write_text("one")
    settled(path)
    assert [kept.get("key", [path], read) for _ in range(3)] == ["one"] * 3 and len(made) == 1
    before = path.stat()
    path.write_text("two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    settled(path)
    assert kept.get("key", [path], read) == "two", "same inode, size and time of change: the kernel's own time tells"
    path.unlink()
    path.write_text("six")
    assert [kept.get("key", [path], read) for _ in range(2)] == ["six"] * 2
    assert made == ["one", "two", "six", "six"], "a file of this moment may change again within a tick"


def test_a_file_that_changes_while_it_is_read_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("one")
    settled(path)
    kept: Kept[str] = Kept(10)

    def read() -> str:
        text = path.read_text()
        path.write_text("two")
        return text

    assert kept.get("key", [path], read) == "one"
    assert kept.get("key", [path], path.read_text) == "two"


def test_what_was_used_longest_ago_goes_first_and_what_is_too_heavy_at_once(tmp_path: Path) -> None:
    kept: Kept[int] = Kept(10, lambda made: made)
    made: list[int] = []

    def get(weight: int) -> None:
        kept.get(weight, [tmp_path / "absent"], lambda: (made.append(weight), weight)[1])

    for weight in (4, 5, 4, 3, 4, 5, 11, 11):
        get(weight)
    assert made == [4, 5, 3, 5, 11, 11], "3 drove out 5, since 4 was used later"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> CallStore:
    folder = tmp_path_factory.mktemp("kept")
    rows = [call(f"m{i % 13}", JAN_1 + i // 3, f"c{i % 7}", call_id=f"{i:04}") for i in range(400)]
    ingest_calls(
        [write_jsonl(folder / "calls.jsonl", [*rows, call("", JAN_1 + 5)])], CallStore(folder / "alerts.duckdb")
    )
    settled(folder)
    return CallStore(folder / "alerts.duckdb")


@settings(max_examples=15, deadline=None, derandomize=True)
@given(first=st.integers(-2, 140), length=st.integers(0, 140))
def test_a_range_of_what_is_kept_is_what_the_store_says(store: CallStore, first: int, length: int) -> None:
    """Content hashes are compared: they are in the fingerprints of runs of earlier versions, null bits included."""
    span = (JAN_1 + first, JAN_1 + first + length)
    with calls.reading_calls(store) as con:
        plain = calls._read(con, store.path, *span)
    kept = read_calls(store, *span)
    assert content_sha256(kept.calls) == content_sha256(plain.calls) and kept.calls.equals(plain.calls)
    assert kept.rejected == plain.rejected and kept.liquidity.shape == plain.liquidity.shape
    with call_features(store, *span) as read, features._features(store, *span) as read_anew:
        anew = [piece.drop_columns("alert_ts_ms") for piece in read_anew()]
        assert pa.concat_tables(read()).equals(pa.concat_tables(anew))
        assert content_sha256(read()) == content_sha256(anew)


def test_counts_of_months_are_what_the_store_says(store: CallStore, monkeypatch: pytest.MonkeyPatch) -> None:
    of_kept = calls._statistics_of(store)
    monkeypatch.setattr(calls, "KEPT_FILE", 0)  # too large to be kept
    assert of_kept == calls._statistics_of(store)
    assert sum(counts["calls"] for counts in of_kept.values()) == 400


def test_calls_that_come_are_read(tmp_path: Path) -> None:
    store = CallStore(tmp_path / "alerts.duckdb")
    for i in range(3):
        ingest_calls([write_jsonl(tmp_path / f"{i}.jsonl", [call("m", JAN_1 + i, call_id=f"{i}")])], store)
        assert read_calls(store, JAN_1, JAN_1 + 10).calls.num_rows == i + 1
        settled(tmp_path)
        assert read_calls(store, JAN_1, JAN_1 + 10).calls.num_rows == i + 1
        assert calls.month_statistics(store)["2024-01"]["calls"] == i + 1
