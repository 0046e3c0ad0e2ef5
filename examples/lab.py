"""A home to try the examples on: three months of the generated sample market, backtested in two configurations; on request models.

Belongs here: what runs the cookbook's outputs come from. `quantbot demo` makes such runs for six months.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.backtest.remembered import ReplayCache
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.config import make_config
from quantbot_pipeline.home import Home
from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.ingest.candles import ingest_candles
from quantbot_pipeline.market.sample import write_sample
from quantbot_pipeline.settings import Settings

MONTHS = ("2026-01", "2026-02", "2026-03")
ALL_MONTHS = (*MONTHS, "2026-04", "2026-05", "2026-06")  # a verdict takes three months of tests
RECIPES: tuple[str, ...] = ("full", "v1-baseline", "walk-forward", "evidence")


def make_lab(home: Path, months: Sequence[str] = MONTHS, *, models: bool = False) -> Home:
    """Inputs, runs of two branches, the catalog. What comes out is the same everywhere, but for ids and times of runs.

    models: also predictions of all months of the sample market, what is odd, and tuned levels.
    """
    lab = Home(Settings(home=home, threads=1))
    calls, candles = write_sample(home / "generated")
    ingest_calls([calls], lab.calls)
    ingest_candles([candles], lab.candles, "5m")
    # A change that somebody tried on a branch before: five minutes until the entry instead of one.
    _run(lab, "policy", months, "main")
    _run(lab, "policy", months, "slow-entry", latency_ms=300_000)
    for recipe in RECIPES:
        _run(lab, recipe, months, "main")
    if models:
        _run(lab, "model", ALL_MONTHS, "main", targets=["peak_1.5"])
        _run(lab, "anomalies", months, "main")
        _run(lab, "tune", months, "main")
    sync(lab.catalog)
    return lab


def _run(lab: Home, recipe: str, months: Sequence[str], branch: str, **options: Any) -> None:
    # The branch is that of the checkout; here it is given, so that the cookbook reads the same in every checkout.
    with patch("quantbot_pipeline.backtest.month.git_provenance", return_value=("0" * 40, branch, False)):
        cache: ReplayCache = {}
        for month in months:
            run_month(lab, recipe, month, make_config(options), cache=cache)
