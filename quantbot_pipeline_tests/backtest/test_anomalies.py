"""The kind of run `anomalies`: what it reads, which calls its rows touch, and that later months change none of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from quantbot_pipeline.backtest.month import RunFailedError, run_month
from quantbot_pipeline.config import make_config
from quantbot_pipeline.home import Home
from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.ingest.candles import ingest_candles
from quantbot_pipeline.market.candle_files import month_file
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.support import homes
from quantbot_pipeline_tests.support.builders import (
    Row,
    artifact_rows,
    call,
    candles,
    commit_run,
    make_home,
    ms,
    write_jsonl,
    write_parquet,
)

STEP = 300_000
MONTH = "2024-01"


def _at(rows: list[Row], when: str) -> Row:
    """Return the candle of a time."""
    return next(row for row in rows if row["ts_ms"] == ms(when))


def _spike(rows: list[Row], when: str, factor: float) -> None:
    """Let the high of one candle stand above everything else by a factor of the first open."""
    _at(rows, when)["high"] = rows[0]["open"] * factor


def _market() -> tuple[list[Row], list[Row]]:
    """Two called tokens with a spike each, one before and one inside the window of a call; a copy; a token nobody calls."""
    called, early, alone = (candles(mint, "2024-01-08", 900) for mint in ("called", "early", "alone"))
    _spike(called, "2024-01-10T09:00", 9.0)
    _spike(early, "2024-01-08T09:00", 9.0)
    _spike(alone, "2024-01-09T09:00", 9.0)
    copy = [
        row | {"mint": "copy"} | {name: row[name] * 40 for name in ("open", "high", "low", "close")} for row in called
    ]
    calls = [
        call("called", "2024-01-10T08:00", "ann", call_id="inside"),
        call("called", "2024-01-10T10:00", "bob", call_id="after"),
        call("early", "2024-01-09T10:00", "ann", call_id="later"),
    ]
    return calls, [*called, *early, *alone, *copy]


def _rows(lab: Home, month: str = MONTH, **config: Any) -> dict[tuple[str, str], dict[str, Any]]:
    found = homes.artifact(homes.run(lab, "anomalies", month, config), "anomalies")
    return {(row["kind"], row["subject"]): row for row in found}


def test_rows_say_which_calls_they_touch_and_how_bad_that_is(tmp_path: Path) -> None:
    rows = _rows(make_home(tmp_path, *_market()))
    assert {key: (row["severity"], row["calls_touched"], row["hits_touched"]) for key, row in rows.items()} == {
        ("price_spike", "called"): ("error", 1, 1),
        ("price_spike", "copy"): ("info", 0, 0),
        ("price_spike", "early"): ("info", 0, 0),
        ("price_spike", "alone"): ("info", 0, 0),
        ("duplicate_series", "called"): ("error", 2, 1),
    }
    spike = rows["price_spike", "called"]
    assert (spike["from_ts_ms"], spike["to_ts_ms"]) == (ms("2024-01-10T09:00"), ms("2024-01-10T09:05"))
    assert spike["reason"].startswith("The high of the candle of 2024-01-10 09:00 UTC is ")
    assert json.loads(spike["details"])["side"] == "high"
    assert rows["duplicate_series", "called"]["other_subject"] == "copy"


def test_a_spike_that_sets_nothing_is_a_warning(tmp_path: Path) -> None:
    calls, made = _market()
    token = [row for row in made if row["mint"] == "called"]
    _spike(token, "2024-01-10T09:30", 90.0)  # above the first one: the peak is its own, the touches are the first one's
    _spike(token, "2024-01-10T09:45", 80.0)
    found = homes.artifact(homes.run(make_home(tmp_path, calls, made), "anomalies", MONTH, {}), "anomalies")
    said = {
        row["from_ts_ms"]: row["severity"]
        for row in found
        if row["kind"] == "price_spike" and row["subject"] == "called"
    }
    assert said == {
        ms("2024-01-10T09:00"): "error",
        ms("2024-01-10T09:30"): "error",
        ms("2024-01-10T09:45"): "warning",
    }


def test_a_low_that_sets_the_stop_or_the_drawdown_is_an_error(tmp_path: Path) -> None:
    made = candles("t", "2024-01-08", 900)
    for row in made:
        row["low"] = max(row["low"], 1e-9)
    _at(made, "2024-01-10T09:00")["low"] /= 5
    rows = _rows(make_home(tmp_path, [call("t", "2024-01-10T08:00", call_id="c")], made))
    assert rows["price_spike", "t"]["severity"] == "error"
    assert json.loads(rows["price_spike", "t"]["details"])["side"] == "low"


def test_later_months_change_no_row_and_no_fingerprint(tmp_path: Path) -> None:
    calls, made = _market()
    end = "2024-01-31T10:00"
    calls.append(call("last", end, "ann", call_id="at the end"))
    calls.append(call("called", "2023-12-31T22:00", "ann", call_id="month before"))
    tail = candles("last", "2024-01-29", 1_000)  # into February
    _spike(tail, "2024-01-31T23:50", 3.0)
    _spike(tail, "2024-01-31T23:55", 30.0)  # known when February's first candle closes
    _spike(tail, "2024-02-01T02:00", 300.0)  # would be the peak
    known = [row for row in (*made, *tail) if row["ts_ms"] < ms("2024-02-01")]
    early, late = make_home(tmp_path / "early", calls, known), make_home(tmp_path / "late", calls, [*made, *tail])
    ingest_calls([write_jsonl(tmp_path / "more.jsonl", [call("last", "2024-02-02", "ann", call_id="f")])], late.calls)
    before, after = (homes.run(lab, "anomalies", MONTH, {}) for lab in (early, late))
    assert homes.content(before, "anomalies") == homes.content(after, "anomalies")
    assert before.manifest.dataset.fingerprint == after.manifest.dataset.fingerprint
    spikes = [row for row in homes.artifact(after, "anomalies") if row["subject"] == "last"]
    assert [(row["from_ts_ms"], row["severity"]) for row in spikes] == []
    february = homes.artifact(homes.run(late, "anomalies", "2024-02", {}), "anomalies")
    told = {row["from_ts_ms"]: row["severity"] for row in february if row["kind"] == "price_spike"}
    assert told[ms("2024-01-31T23:55")] == "error", "the touches of the call of January are its own"
    assert told[ms("2024-02-01T02:00")] == "error", "so is its peak"


def test_tokens_that_nobody_calls_are_an_input_and_other_intervals_are_too(tmp_path: Path) -> None:
    calls, made = _market()
    lab = make_home(tmp_path, calls, made)
    first = homes.run(lab, "anomalies", MONTH, {})

    def again() -> bool:
        found = run_month(lab, "anomalies", MONTH, make_config({}), only_changed=True)
        assert found is not None
        return found.reused

    assert again()
    write = lambda name, rows: [write_parquet(tmp_path / f"{name}.parquet", rows)]
    ingest_candles(write("more", candles("new", "2024-01-20", 60)), lab.candles, "5m")
    assert not again()
    assert again()
    coarse = candles("called", "2024-01-08", 300, interval="15m", price=2.0)
    ingest_candles(write("coarse", coarse), lab.candles, "15m")
    assert not again()
    row = _rows(lab)["interval_mismatch", "called"]
    assert (row["severity"], row["calls_touched"]) == ("error", 2)
    assert "candles of 15m differ by more than 1 % from what the candles of 5m make" in row["reason"]
    assert first.manifest.run_type == "anomalies"
    assert "strategy_id" not in first.manifest.parameters


def test_a_month_without_calls_has_no_run_and_one_without_candles_has_no_rows(tmp_path: Path) -> None:
    lab = make_home(tmp_path, [call("t", "2024-01-10", call_id="c")])
    assert run_month(lab, "anomalies", "2024-02", make_config({})) is None
    assert homes.artifact(homes.run(lab, "anomalies", MONTH, {}), "anomalies") == []


def test_a_store_file_that_cannot_be_read_fails_the_month_with_a_sentence(tmp_path: Path) -> None:
    lab = make_home(tmp_path, *_market())
    file = month_file(lab.candles.folder, "5m", MONTH)
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 3] ^= 0xFF
    file.write_bytes(raw)
    with pytest.raises(RunFailedError, match="the candle store is not readable"):
        run_month(Home(Settings(home=tmp_path)), "anomalies", MONTH, make_config({}))


def _predictions(lab: Home, month: str, chances: tuple[float, float], second: int = 1, **changes: Any) -> None:
    """Commit predictions of a month: every third of 60 calls is a hit; `chances` are what is said of hits and of others."""
    n, start = 60, ms(f"{month}-01")
    hit = [i % 3 == 0 for i in range(n)]
    rows = artifact_rows(
        "predictions",
        n,
        target=["hit_2x"] * n,
        alert_ts_ms=[start + i * 40_000_000 for i in range(n)],
        value=[chances[0] if h else chances[1] for h in hit],
        base_value=[1 / 3 + 0.001 * (i % 2) for i in range(n)],
        outcome=[float(h) for h in hit],
        outcome_known_ts_ms=[start + i * 40_000_000 + 1 for i in range(n)],
    )
    parameters = make_config({}).model_dump() | {"config_hash": "m"} | changes
    commit_run(
        lab.runs.folder,
        month,
        tables={"alerts": artifact_rows("alerts", 2), "predictions": rows},
        run_type="model",
        created_at=f"2024-06-01T00:00:{second:02}.000Z",
        parameters=parameters,
    )


def test_predictions_that_are_worse_than_the_base_rate_for_three_months_are_told(tmp_path: Path) -> None:
    lab = make_home(tmp_path, [call("t", "2024-03-10", call_id="c")])
    bad, good = (0.15, 0.5), (0.6, 0.2)
    for month in ("2024-02", "2024-03"):
        _predictions(lab, month, bad)
    assert _rows(lab, "2024-03") == {}, "two months are not enough"
    _predictions(lab, "2024-01", bad, horizon_ms=3_600_000)
    assert _rows(lab, "2024-03") == {}, "windows of another length are other predictions"
    before = homes.run(lab, "anomalies", "2024-03", {}).manifest.dataset.fingerprint
    _predictions(lab, "2024-01", bad)
    made = homes.run(lab, "anomalies", "2024-03", {})
    assert made.manifest.dataset.fingerprint != before
    (row,) = homes.artifact(made, "anomalies")
    assert (row["kind"], row["subject_type"], row["subject"], row["severity"]) == (
        "prediction_drift",
        "target",
        "hit_2x",
        "warning",
    )
    assert (
        row["reason"] == "In the last 3 months predictions of 180 calls were worse than the base rate would have been."
    )
    assert (row["from_ts_ms"], row["to_ts_ms"]) == (ms("2024-01-01"), ms("2024-04-01"))
    assert row["score"] >= row["limit"] == 2
    for month in ("2024-01", "2024-02", "2024-03"):
        _predictions(lab, month, good, second=2)
    assert _rows(lab, "2024-03") == {}, "newer runs count"


def test_what_callers_do_is_told_with_the_calls_that_it_touches(tmp_path: Path) -> None:
    begin = ms("2024-01-05")
    calls = [call(f"m{i}", begin + i * 30_000_000, "steady", call_id=f"s{i}") for i in range(20)]
    calls += [call(f"b{i}", ms("2024-01-20T10:00") + i * 60_000, "steady", call_id=f"b{i}") for i in range(8)]
    lab = make_home(tmp_path, calls)
    row = _rows(lab)["call_burst", "steady"]
    assert (row["severity"], row["calls_touched"], row["hits_touched"]) == ("warning", 8, 0)
    first = homes.run(lab, "anomalies", MONTH, {})
    left = [row for row in calls if row["call_id"] != "s7"]
    ingest_calls([write_jsonl(tmp_path / "inbox" / "calls.jsonl", left)], lab.calls)
    again = homes.run(lab, "anomalies", MONTH, {})
    assert first.manifest.dataset.fingerprint != again.manifest.dataset.fingerprint
    gone = {(row["kind"], row["subject"]): row for row in homes.artifact(again, "anomalies")}["deleted_calls", "steady"]
    assert (gone["severity"], gone["calls_touched"], gone["from_ts_ms"]) == ("warning", 1, begin + 7 * 30_000_000)
    truth = [homes.run(lab, "path-only", MONTH, {}).manifest.dataset.fingerprint for _ in range(2)]
    assert truth[0] == truth[1]
