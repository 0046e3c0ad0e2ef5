"""A home to try the examples on: three months of the generated sample market, backtested in two configurations.

Belongs here: what runs the cookbook's outputs come from. `quantbot demo` makes such runs for six months.
"""

from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.config import make_config
from quantbot_pipeline.home import Home
from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.ingest.candles import ingest_candles
from quantbot_pipeline.market.sample import write_sample
from quantbot_pipeline.settings import Settings

MONTHS = ("2026-01", "2026-02", "2026-03")
RECIPES: tuple[str, ...] = ("full", "v1-baseline", "walk-forward", "evidence")


def make_lab(home: Path, months: Sequence[str] = MONTHS) -> Home:
    """Inputs, runs of two branches, the catalog. What comes out is the same everywhere, but for ids and times of runs."""
    lab = Home(Settings(home=home, threads=1))
    calls, candles = write_sample(home / "generated")
    ingest_calls([calls], lab.calls)
    ingest_candles([candles], lab.candles, "5m")
    # A change that somebody tried on a branch before: five minutes until the entry instead of one.
    _run(lab, "policy", months, "main")
    _run(lab, "policy", months, "slow-entry", latency_ms=300_000)
    for recipe in RECIPES:
        _run(lab, recipe, months, "main")
    sync(lab.catalog)
    return lab


def _run(lab: Home, recipe: str, months: Sequence[str], branch: str, **options: int) -> None:
    # The branch is that of the checkout; here it is given, so that the cookbook reads the same in every checkout.
    with patch("quantbot_pipeline.backtest.month.git_provenance", return_value=("0" * 40, branch, False)):
        for month in months:
            run_month(lab, recipe, month, make_config(options))
