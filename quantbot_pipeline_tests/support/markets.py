"""A small home with real runs whose callers have names that attack: made once, read by every test of the dashboard."""

from pathlib import Path
from typing import Any

from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.config import make_config
from quantbot_pipeline.home import Home
from quantbot_pipeline_tests.support.builders import Row, call, candles, commit_run, make_home

MARKUP = "<img src=x onerror=alert(1)>"
FORMULA = "=cmd|' /C calc'!A0"
CLOSING = "</script><script>alert(2)</script>"
CALLERS = (MARKUP, FORMULA, "alice", CLOSING)
MONTHS = ("2024-01", "2024-02", "2024-03")
CALLS_PER_MONTH = 12  # of which MARKUP makes every second one: it alone has ten calls or more
# Few policies and no constraint that matters: the search must be quick and must choose.
SEARCH: dict[str, Any] = {
    "grid": {
        "stops": [0.1, 0.2], "take_profits": [0.5, None], "holds_ms": [3_600_000], "hold_take_profits": [None],
        "activations": [0.1], "trails": [0.05], "hard_stops": [None, 0.2], "ladders": [[[1.5, 0.5], [2.0, 0.5]]],
        "ladder_stops": [0.2], "combo_holds_ms": [None, 14_400_000],
    },
    "constraints": {"min_trades": 1, "min_avg_return_bps": -9_000, "max_stop_out_rate": 1.0},
}  # fmt: skip  # a table: what belongs together stands on one line


def make_market(home: Path) -> Home:
    """Three months of full, V1, walk-forward and evidence runs, a failed run, a quarantined directory; cataloged."""
    calls: list[Row] = []
    rows: list[Row] = []
    for month in MONTHS:
        for i in range(CALLS_PER_MONTH):
            caller = MARKUP if i % 2 else CALLERS[1 + i // 2 % 3]
            mint = f"{month}<b>{i}</b>"
            calls.append(call(mint, f"{month}-{3 + 2 * i:02}T02:02", caller, call_id=f"{month}-{i:02}"))
            if i:  # the first call of a month is excluded: no_candles
                rows += candles(mint, f"{month}-{3 + 2 * i:02}", 620)
    lab = make_home(home, calls, rows)
    for month in MONTHS:
        for recipe in ("full", "v1-baseline", "walk-forward", "evidence"):
            _run(lab, recipe, month)
    commit_run(lab.runs.folder, "2024-02", status="failed", error=f"ValueError: {MARKUP}")
    (lab.runs.folder / "2024-01" / "run_id=00000000-0000-0000-0000-00000000beef").mkdir()
    sync(lab.catalog)
    return lab


def _run(lab: Home, recipe: str, month: str) -> None:
    run_month(lab, recipe, month, make_config({} if recipe == "v1-baseline" else SEARCH))
