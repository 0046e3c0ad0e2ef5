"""Features in runs: what the definition says, whichever recipe writes them, and what identifies the run."""

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quantbot_pipeline.artifacts.schemas import FEATURES as SCHEMA
from quantbot_pipeline.artifacts.schemas import conform
from quantbot_pipeline.backtest.month import RunFailedError
from quantbot_pipeline.catalog.schema import create_views
from quantbot_pipeline.home import Home
from quantbot_pipeline.market.candle_files import month_file
from quantbot_pipeline.market.features.names import FEATURE_SET, FROM_CANDLES, RECENT_CALLS
from quantbot_pipeline_tests.support import builders, homes, naive_features
from quantbot_pipeline_tests.support.homes import DAY, FEBRUARY, HOUR

MONTH = "2024-02"
MARKET = [
    *builders.candles("old", FEBRUARY - 3 * DAY, 12 * 70),  # ends before the month
    *builders.candles("through", FEBRUARY - 2 * DAY, 12 * 96),
    *builders.candles("young", FEBRUARY + 2 * HOUR, 12 * 60),
    *builders.candles("uncalled", FEBRUARY - DAY, 12 * 100),
]
ALERTS = (
    FEBRUARY,
    FEBRUARY + 1,
    FEBRUARY + 90 * 60_000,
    FEBRUARY + 23 * HOUR,
    FEBRUARY + DAY,
    FEBRUARY + 40 * HOUR + 7,
)
CALLS = [
    builders.call(mint, alert, "xyz"[(i + k) % 3], call_id=f"{i}-{k}")
    for i, alert in enumerate(ALERTS)
    for k, mint in enumerate(("old", "through", "young", "nothing"))
]
CONFIG: dict[str, Any] = {
    "horizon_ms": 6 * HOUR,
    "grid": {"stops": [0.1, 0.2], "holds_ms": [HOUR], "activations": [], "ladders": [], "combo_holds_ms": []},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return builders.make_home(tmp_path_factory.mktemp("features") / "home", CALLS, MARKET, interval="5m", threads=2)


def expected(candle_rows: list[builders.Row]) -> dict[str, dict[str, Any]]:
    """The definition's columns of every call."""
    bars: dict[str, list[naive_features.Bar]] = {}
    for row in candle_rows:
        mint, *values = row.values()
        bars.setdefault(mint, []).append(naive_features.Bar(*values))
    calls = [naive_features.Made(row["call_id"], row["caller_name"], row["mint"], row["alert_ts_ms"]) for row in CALLS]
    return {call.call_id: naive_features.features(call, calls, bars, 300_000) for call in calls}


def of_run(made: Any) -> dict[str, dict[str, Any]]:
    return {row["call_id"]: row for row in homes.artifact(made, "features")}


@pytest.mark.parametrize("kind", ["path-only", "full"])
def test_runs_write_what_the_definition_says(home: Home, kind: str) -> None:
    config = {name: value for name, value in CONFIG.items() if kind == "full" or name == "horizon_ms"}
    made = homes.run(home, kind, MONTH, config)
    rows = of_run(made)
    for call_id, values in expected(MARKET).items():
        for name, value in values.items():
            assert rows[call_id][name] == (None if value is None else pytest.approx(value, rel=1e-9, abs=1e-12)), name
    assert made.manifest.parameters["feature_set"] == FEATURE_SET
    early = rows["0-1"]
    assert early["candles_24h"] == 288 and early["market_tokens"] == 1, "the day before the month was read"
    assert rows["0-0"]["candles_24h"] > 0, "a token without a candle in the month has those of the day before"


def test_parts_of_a_search_and_months_of_a_range_change_no_feature(home: Home, tmp_path: Path) -> None:
    """The last day of a month is kept for the next one; what is kept is what the file says."""
    alone = of_run(homes.run(home, "path-only", MONTH, {"horizon_ms": CONFIG["horizon_ms"]}))
    small = home.changed(memory_limit="0.001MB")
    for other in (
        homes.run(small, "full", MONTH, CONFIG),
        homes.run(home, "full", MONTH, CONFIG, cache={}),
    ):
        rows = of_run(other)
        names = [*RECENT_CALLS, *FROM_CANDLES]
        assert {k: [row[n] for n in names] for k, row in rows.items()} == {
            k: [row[n] for n in names] for k, row in alone.items()
        }


def test_the_month_before_is_part_of_what_identifies_a_run(tmp_path: Path) -> None:
    home = builders.make_home(tmp_path / "home", CALLS, MARKET, interval="5m", threads=1)
    later = [row for row in MARKET if row["ts_ms"] >= FEBRUARY]
    other = builders.make_home(tmp_path / "other", CALLS, later, interval="5m", threads=1)
    config = {"horizon_ms": CONFIG["horizon_ms"]}
    made, without = (homes.run(lab, "path-only", MONTH, config) for lab in (home, other))
    assert made.manifest.dataset.fingerprint != without.manifest.dataset.fingerprint
    assert made.manifest.parameters["config_hash"] == without.manifest.parameters["config_hash"]
    assert of_run(without)["0-1"]["candles_24h"] == 0
    assert homes.content(made, "paths") == homes.content(without, "paths")
    policy = {"horizon_ms": CONFIG["horizon_ms"], "policies": [{"kind": "time_stop", "max_hold_ms": HOUR}]}
    plain = [homes.run(lab, "policy", MONTH, policy).manifest for lab in (home, other)]
    assert plain[0].dataset.fingerprint == plain[1].dataset.fingerprint, "a run without features does not read it"
    assert "feature_set" not in plain[0].parameters


def test_a_broken_day_before_is_a_committed_failure_that_names_the_file(tmp_path: Path) -> None:
    home = builders.make_home(tmp_path / "home", CALLS, MARKET, interval="5m", threads=1)
    path = month_file(home.candles.folder, "5m", "2024-01")
    whole = path.read_bytes()
    path.write_bytes(whole[:-6] + b"?" + whole[-5:])
    with pytest.raises(RunFailedError, match=r"month=2024-01/candles.parquet: the candle store is not readable"):
        homes.run(home, "path-only", MONTH, {})
    path.write_bytes(whole)
    assert homes.run(home, "path-only", MONTH, {}).manifest.status == "completed"


def test_features_know_nothing_that_came_after_an_alert(home: Home, tmp_path: Path) -> None:
    """A store cut at the alert of a call, candles and calls, gives that call the same row, and all calls before it."""
    config = {"horizon_ms": CONFIG["horizon_ms"]}
    full = of_run(homes.run(home, "path-only", MONTH, config))
    for cut in ALERTS[1:4:2]:
        calls = [row for row in CALLS if row["alert_ts_ms"] <= cut]
        closed = [row for row in MARKET if row["ts_ms"] + 300_000 <= cut]
        lab = builders.make_home(tmp_path / str(cut), calls, closed, interval="5m", threads=1)
        rows = of_run(homes.run(lab, "path-only", MONTH, config))
        assert len(rows) == len(calls)
        for call_id, row in rows.items():
            assert row | {"run_id": ""} == full[call_id] | {"run_id": ""}


def test_a_run_of_an_earlier_version_is_read_with_nulls(home: Home, tmp_path: Path) -> None:
    """Its file has the seven columns alone: the view and the frame of the run fill the others with null."""
    made = homes.run(home, "path-only", MONTH, {"horizon_ms": CONFIG["horizon_ms"]})
    table = pq.ParquetFile(made.run_dir / "features" / "features.parquet").read()
    old = table.select(SCHEMA.names[: SCHEMA.get_field_index("weekday_utc") + 1])
    read = conform("features", old)
    assert read.schema.equals(SCHEMA) and read["weekday_utc"].equals(table["weekday_utc"].cast(pa.int64()))
    assert all(read[name].null_count == old.num_rows for name in (*RECENT_CALLS, *FROM_CANDLES))
    place = tmp_path / "features" / "features.parquet"
    place.parent.mkdir()
    pq.write_table(old, place)
    with duckdb.connect() as con:
        create_views(con, tmp_path.parent, [("features", "", [f"{tmp_path.name}/features/features.parquet"])])
        found = con.sql("SELECT count(*), count(ret_24h), count(hour_utc) FROM features").fetchall()
    assert found == [(old.num_rows, 0, old.num_rows)]
