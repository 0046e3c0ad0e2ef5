"""Regression: the robust z against numbers worked out by hand, what counts as history, and what a month is read as."""

import json
import math
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantbot_pipeline.artifacts.schemas import ARTIFACTS
from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.config import BacktestConfig
from quantbot_pipeline.home import Home
from quantbot_pipeline.monitoring.regression import (
    HIGHEST_OUT_OF_SAMPLE,
    Reading,
    judge,
    load_readings,
    read_paths,
    read_walk_forward,
    robust_z,
)
from quantbot_pipeline.runs.manifest import folder_of
from quantbot_pipeline_tests.support.builders import call, candles, make_home

RATE = "hit_2x_rate"
MONTHS = [f"2024-{n:02}" for n in range(1, 9)]


@pytest.mark.parametrize(
    ("value", "history", "noise", "expected"),
    [
        (1.0, [], 0.0, None),
        (1.0, [1.0, 2.0], 0.0, None),
        (4.0, [1.0, 2.0, 3.0], 0.0, 2 / 1.4826),  # median 2, MAD 1
        (0.0, [1.0, 2.0, 3.0], 0.0, -2 / 1.4826),
        (
            0.0,
            [1.0, 2.0, 3.0, 1000.0],
            0.0,
            -2.5 / 1.4826,
        ),  # one outlier moves the median by a half, the scale not at all
        (5.0, [5.0, 5.0, 5.0], 0.0, 0.0),
        (4.0, [5.0, 5.0, 5.0], 0.0, -math.inf),
        (4.0, [5.0, 5.0, 5.0], 0.5, -2.0),
        (4.0, [1.0, 2.0, 3.0], 100.0, 0.02),
    ],
)
def test_robust_z_is_the_distance_from_the_median_in_scaled_mads(
    value: float, history: list[float], noise: float, expected: float | None
) -> None:
    assert robust_z(value, history, noise) == (None if expected is None else pytest.approx(expected))


numbers = st.floats(-1e6, 1e6).map(lambda x: round(x, 3))


@given(numbers, st.lists(numbers, min_size=3, max_size=6), st.floats(0.001, 100), st.floats(0.1, 10), numbers)
def test_robust_z_knows_no_unit_and_no_origin(
    value: float, history: list[float], noise: float, factor: float, shift: float
) -> None:
    z = robust_z(value, history, noise)
    moved = robust_z(value * factor + shift, [x * factor + shift for x in history], noise * factor)
    assert z is not None
    assert moved == pytest.approx(z, rel=1e-6, abs=1e-3)
    assert robust_z(value, sorted(history), noise) == z


def readings(rates: dict[str, float], evidence: int = 100) -> dict[str, Reading]:
    return {month: Reading({RATE: rate}, evidence) for month, rate in rates.items()}


def test_a_month_is_judged_by_the_six_before_it() -> None:
    rates = dict(zip(MONTHS, [0.9, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.0], strict=True))
    (verdict,) = judge(readings(rates), "2024-08")
    assert (verdict.history, verdict.usual, verdict.value) == (6, 0.2, 0.0)  # January is too long ago
    assert verdict.z == pytest.approx(-0.2 / math.sqrt(0.2 * 0.8 / 100))


def test_months_without_a_reading_are_no_history() -> None:
    (verdict,) = judge(readings({"2024-01": 0.5, "2024-04": 0.5, "2024-08": 0.0}), "2024-08")
    assert (verdict.history, verdict.z) == (1, None)
    (alone,) = judge(readings({"2024-08": 0.0}), "2024-08")
    assert (alone.history, alone.usual, alone.z) == (0, None, None)


def test_what_chance_does_to_few_calls_is_no_regression() -> None:
    rates = dict.fromkeys(MONTHS[:7], 0.2) | {"2024-08": 0.1}
    (few,), (many,) = (judge(readings(rates, n), "2024-08") for n in (10, 1000))
    assert few.z is not None
    assert many.z is not None
    assert -1 < few.z < 0
    assert many.z < -7


def test_rates_of_zero_and_one_have_a_scale_too() -> None:
    for usual, now in ((0.0, 0.0), (1.0, 1.0), (0.0, 0.05)):
        (verdict,) = judge(readings(dict.fromkeys(MONTHS[:7], usual) | {"2024-08": now}), "2024-08")
        assert verdict.z is not None
        assert math.isfinite(verdict.z)


def test_a_percent_of_median_return_is_no_news() -> None:
    found = {month: Reading({HIGHEST_OUT_OF_SAMPLE: 500.0}, 12, "alice") for month in MONTHS[:7]}
    found["2024-08"] = Reading({HIGHEST_OUT_OF_SAMPLE: 400.0}, 12, "bob")
    (verdict,) = judge(found, "2024-08")
    assert (verdict.z, verdict.subject) == (-1.0, "bob")


# --- reading a month --------------------------------------------------------------------------------------------------


def paths(observed: list[int], hits: list[bool]) -> pa.Table:
    n = len(observed)
    columns = {"entry_ts_ms": [0] * n, "observed_ms": observed}
    return pa.table(columns | {f"hit_{k}x": hits for k in (2, 3, 4)})


def test_windows_that_are_still_open_do_not_count() -> None:
    # Ten windows that are over when the data ends, all hits; five that began too late to tell.
    table = paths([100] * 10, [True] * 10)
    late = table.set_column(0, "entry_ts_ms", pa.array([50] * 10)).slice(0, 5)
    late = late.set_column(1, "observed_ms", pa.array([50] * 5)).set_column(2, "hit_2x", pa.array([False] * 5))
    found = read_paths(pa.concat_tables([table, late]), 100)
    assert found == Reading(dict.fromkeys(("hit_2x_rate", "hit_3x_rate", "hit_4x_rate"), 1.0), 10)


def test_a_token_that_stopped_trading_counts_as_no_hit() -> None:
    found = read_paths(paths([100] * 8 + [7, 7], [True] * 8 + [False] * 2), 100)
    assert found is not None
    assert found.values[RATE] == 0.8


def test_too_few_calls_are_not_read() -> None:
    assert read_paths(paths([100] * 9, [True] * 9), 100) is None
    assert read_paths(paths([], []).cast(paths([1], [True]).schema), 100) is None


def test_the_highest_out_of_sample_median_needs_trades() -> None:
    rows = {
        "caller_name": ["lucky", "alice", "bob"],
        "out_of_sample_trades": [9, 10, 50],
        "out_of_sample_median_return_bps": [9e9, -200.0, -300.0],
    }
    assert read_walk_forward(pa.table(rows)) == Reading({HIGHEST_OUT_OF_SAMPLE: -200.0}, 10, "alice")
    assert read_walk_forward(pa.table(rows).slice(0, 1)) is None
    assert read_walk_forward(ARTIFACTS["walk_forward"][1].empty_table()) is None


# --- which runs are history -------------------------------------------------------------------------------------------


@pytest.fixture
def lab(tmp_path: Path) -> Home:
    """Ten calls in each of three months."""
    calls, rows = [], []
    for month in MONTHS[:3]:
        rows += candles(month, f"{month}-01", 3500)
        calls += [call(month, f"{month}-{day:02}T00:02", call_id=f"{month}-{day}") for day in range(1, 11)]
    return make_home(tmp_path, calls, rows)


def test_history_is_the_newest_cataloged_run_with_the_same_windows(lab: Home) -> None:
    def run(month: str, **config: object) -> Path:
        result = run_month(lab, "path-only", month, BacktestConfig.model_validate(config))
        assert result is not None
        return folder_of(result.run_dir)

    def months(last: Path) -> set[str]:
        return set(load_readings(lab.catalog, "paths", {MONTHS[2]: last}))

    last = run(MONTHS[2])
    assert months(last) == {MONTHS[2]}  # there is no catalog yet
    run(MONTHS[0], horizon_ms=3_600_000)
    kept = run(MONTHS[1], activity_move_pct=0.3)  # another configuration, the same windows
    sync(lab.catalog)
    assert months(last) == {MONTHS[1], MONTHS[2]}
    both = load_readings(lab.catalog, "paths", {MONTHS[0]: run(MONTHS[0]), MONTHS[2]: last})
    assert set(both) == set(MONTHS[:3])  # the run's own months are history without a catalog
    (kept / "truth" / "paths.parquet").write_bytes(b"")
    assert months(last) == {MONTHS[2]}
    assert load_readings(lab.catalog, "paths", {}) == {}
    (last / "run.json").write_text(json.dumps({}))
    assert months(last) == set()
