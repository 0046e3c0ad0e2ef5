"""The inbox: what counts as complete, what a file is taken for, and that a bad file never blocks the others."""

from pathlib import Path

import pytest

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.home import Home
from quantbot_pipeline.ingest.inbox import candle_interval, scan, settled, take_in
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.support.builders import call, candles, write_csv, write_jsonl, write_parquet


def test_a_file_is_settled_when_two_looks_agree() -> None:
    before = {"a.csv": "1:1", "b.csv": "1:1"}
    now = {"a.csv": "1:1", "b.csv": "2:1", "c.csv": "1:1"}
    assert settled(before, now) == ["a.csv"]
    assert settled({}, now) == []


def test_scan_leaves_out_what_is_done_hidden_or_half_copied(tmp_path: Path) -> None:
    for name in (
        "calls.csv",
        "sub/x.parquet",
        ".hidden",
        "big.csv.part",
        "done/old.csv",
        "rejected/bad.csv",
        "sub/done/y.csv",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert sorted(scan(tmp_path)) == ["calls.csv", "sub/done/y.csv", "sub/x.parquet"]
    assert scan(tmp_path / "absent") == {}


@pytest.mark.parametrize("interval", ["1m", "5m", "15m", "1h"])
def test_the_interval_follows_from_folder_name_or_times(tmp_path: Path, interval: str) -> None:
    rows = candles("m", "2024-01-01T00:00:00", 30, interval=interval)
    assert candle_interval(write_parquet(tmp_path / "x.parquet", rows)) == interval
    assert candle_interval(write_csv(tmp_path / "interval=5m" / "y.csv", rows)) == "5m"
    assert candle_interval(write_jsonl(tmp_path / "btc-15m.jsonl", rows)) == "15m"
    assert candle_interval(write_csv(tmp_path / "calls.csv", [call("m", "2024-01-01")])) is None


def test_candles_of_unclear_interval_are_refused(tmp_path: Path) -> None:
    rows = candles("m", 1_704_067_200_123, 30)
    with pytest.raises(InputError, match="interval unclear"):
        candle_interval(write_parquet(tmp_path / "x.parquet", rows))


def test_good_files_are_ingested_and_bad_ones_set_aside_with_their_reason(tmp_path: Path) -> None:
    lab = Home(Settings(home=tmp_path))
    inbox = lab.settings.inbox_dir
    write_csv(inbox / "calls.csv", [call("m", "2024-01-31T23:00:00")])
    write_parquet(inbox / "interval=5m" / "c.parquet", candles("m", "2024-01-31T20:00:00", 100))
    (inbox / "broken.parquet").write_bytes(b"PAR1 not really")
    intake = take_in(lab, sorted(scan(inbox)))
    assert intake.ingested == {"calls.csv": 1, "interval=5m/c.parquet": 100}
    assert list(intake.rejected) == ["broken.parquet"]
    assert (intake.call_months, intake.candle_months) == (["2024-01"], ["2024-01", "2024-02"])
    assert scan(inbox) == {}
    assert (inbox / "done/calls.csv").exists()
    assert "broken.parquet" in (inbox / "rejected/broken.parquet.reason.txt").read_text()


def test_the_same_name_again_overwrites_nothing(tmp_path: Path) -> None:
    lab = Home(Settings(home=tmp_path))
    for day in ("2024-01-01", "2024-01-02"):
        write_csv(lab.settings.inbox_dir / "calls.csv", [call("m", day)])
        take_in(lab, ["calls.csv"])
    assert sorted(p.name for p in (lab.settings.inbox_dir / "done").iterdir()) == ["calls.1.csv", "calls.csv"]


def test_a_file_that_is_gone_or_a_link_is_left_alone(tmp_path: Path) -> None:
    lab = Home(Settings(home=tmp_path))
    outside = write_csv(tmp_path / "outside.csv", [call("m", "2024-01-01")])
    lab.settings.inbox_dir.mkdir(parents=True)
    (lab.settings.inbox_dir / "link.csv").symlink_to(outside)
    assert take_in(lab, ["gone.csv", "link.csv"]) == ({}, {}, [], [])
    assert outside.exists()
