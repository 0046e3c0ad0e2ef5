"""Jobs: named selections of assets, for the command line, the launchpad and schedules. One per recipe, and the sync."""

import dagster as dg

from quantbot_pipeline.config import Recipe
from quantbot_pipeline.orchestration.assets.backtests import BACKTEST, V1, WALK_FORWARD, Key

INPUTS = dg.AssetSelection.keys(["inputs", "alerts"], ["inputs", "candles"])

# recipe → (job, asset (op) that runs it, its outputs, description)
RECIPE_JOBS: dict[Recipe, tuple[str, str, list[Key], str]] = {
    "path-only": (
        "path_only",
        "backtest",
        [("truth", "paths"), ("truth", "features")],
        "Truth only: what the price did after each call.",
    ),
    "policy": (
        "policy",
        "backtest",
        [("policy", "trades"), ("policy", "summary")],
        "Replay exit policies over the months: trades and summary.",
    ),
    "optimization": (
        "optimize",
        "backtest",
        [("results", "frontier")],
        "Search the policy that each caller's calls deserve: the frontier of every caller.",
    ),
    "full": ("full", "backtest", list(BACKTEST), "Truth, policy and frontier of a month in one run directory."),
    "v1-baseline": ("baseline", "v1_baseline", list(V1), "The capital-aware V1 baseline, per caller and grouped."),
    "walk-forward": (
        "walk_forward_test",
        "walk_forward",
        list(WALK_FORWARD),
        "Whether the choice made before each month held up in it.",
    ),
}

jobs = [
    dg.define_asset_job(name, INPUTS | dg.AssetSelection.keys(*map(list, keys)), description=description)
    for name, _, keys, description in RECIPE_JOBS.values()
]
jobs.append(
    dg.define_asset_job(
        "catalog_sync", dg.AssetSelection.keys(["catalog", "runs"]), description="Register committed runs."
    )
)
