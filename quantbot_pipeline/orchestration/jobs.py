"""Jobs: named selections of assets, for the command line, the launchpad and schedules. One per recipe, and the sync."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from quantbot_pipeline.config import Recipe
from quantbot_pipeline.orchestration.assets.backtests import BACKTEST, V1, WALK_FORWARD, Key

INPUTS = dg.AssetSelection.assets(["inputs", "alerts"], ["inputs", "candles"])

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

# Everything that a month deserves: the recipes behind backfills, the closed month's schedule and the inbox.
EVERYTHING = "everything"
EVERYTHING_OPS = ("backtest", "v1_baseline", "walk_forward")


def everything_config(ops: Sequence[str] = EVERYTHING_OPS) -> dict[str, Any]:
    """Run configuration of unattended runs: the defaults, and months whose inputs did not change are kept."""
    return {"ops": {op: {"config": {"only_changed": True}} for op in ops}}


jobs = [
    dg.define_asset_job(name, INPUTS | dg.AssetSelection.assets(*map(list, keys)), description=description)
    for name, _, keys, description in RECIPE_JOBS.values()
]
jobs += [
    dg.define_asset_job(
        EVERYTHING,
        INPUTS | dg.AssetSelection.assets(*map(list, BACKTEST | V1 | WALK_FORWARD)),
        description="Truth, policy, frontier, V1 baseline and walk-forward of the months.",
    ),
    dg.define_asset_job(
        "ingest_inbox", dg.AssetSelection.assets(["inputs", "inbox"]), description="Ingest the files of data/inbox/."
    ),
    dg.define_asset_job(
        "write_dashboard",
        dg.AssetSelection.assets(["reports", "dashboard"]),
        description="Render the catalog into the dashboard file.",
    ),
    dg.define_asset_job(
        "catalog_sync", dg.AssetSelection.assets(["catalog", "runs"]), description="Register committed runs."
    ),
]
