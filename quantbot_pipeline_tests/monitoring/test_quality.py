"""Input quality: shares of excluded calls, coverage and rejected candles, on small numbers and on a real run."""

from pathlib import Path

import pyarrow as pa
import pytest

from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.config import BacktestConfig
from quantbot_pipeline.monitoring.quality import Quality, read_quality, shortcomings, window_candles
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.support.builders import call, candles, make_home

STEP, DAY = 300_000, 86_400_000


def windows(*rows: tuple[str, int, float]) -> pa.Table:
    mints, entries, coverage = zip(*rows, strict=True)
    return pa.table({"mint": mints, "entry_ts_ms": entries, "coverage": coverage})


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (windows(("a", 0, 1.0)), 288),
        (windows(("a", 0, 0.5), ("b", 0, 1.0)), 144 + 288),
        (windows(("a", 0, 1.0), ("a", DAY, 1.0)), 2 * 288),
        (windows(("a", DAY // 2, 1.0), ("b", 0, 1.0), ("a", 0, 1.0)), 288 + 144 + 288),  # an overlap counts once
        (windows(("a", 0, 1.0), ("a", 0, 1.0)), 288),
        (windows(("a", 0, 1.0)).slice(0, 0), 0),
    ],
)
def test_candles_where_windows_of_a_token_overlap_count_once(paths: pa.Table, expected: float) -> None:
    assert window_candles(paths, DAY, STEP) == expected


def test_the_quality_of_a_real_run(tmp_path: Path) -> None:
    half = [
        row for i, row in enumerate(candles("b", "2024-01-01", 600)) if i % 4 < 2
    ]  # thin, and of no coarser interval
    rows = candles("a", "2024-01-01", 600) + half
    for i in (10, 20, 30):
        rows[i]["close"] = -1.0
    calls = [call(mint, "2024-01-01T00:02", call_id=mint) for mint in ("a", "b", "unknown")]
    lab = make_home(tmp_path, calls, rows)
    result = run_month(lab, "path-only", "2024-01", BacktestConfig(horizon_ms=DAY))
    assert result is not None
    quality = read_quality(result.run_dir)
    assert (quality.calls, quality.rejected_candles) == (3, 3)
    assert quality.excluded_share == pytest.approx(1 / 3)
    assert quality.mean_coverage == pytest.approx((285 / 288 + 0.5) / 2)
    assert quality.rejected_share == pytest.approx(3 / (285 + 144 + 3))


def test_only_what_is_past_a_limit_is_a_shortcoming(tmp_path: Path) -> None:
    limits = Settings(home=tmp_path, max_excluded_share=0.2, min_mean_coverage=0.5, max_rejected_share=0.1)
    assert shortcomings(Quality(10, 0.2, 0.5, 1, 0.1), limits) == []
    assert shortcomings(Quality(0, None, None, 0, None), limits) == []
    assert shortcomings(Quality(10, 0.3, 0.4, 9, 0.15), limits) == [
        "30.0% of the calls excluded (limit 20.0%)",
        "mean coverage 40.0% (limit 50.0%)",
        "15.00% of the candles rejected (limit 10.00%)",
    ]
