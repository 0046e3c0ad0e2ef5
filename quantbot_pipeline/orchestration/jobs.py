"""Jobs: named selections of assets, for the command line, the launchpad and schedules."""

import dagster as dg

from quantbot_pipeline.config import CONTENTS, RunType
from quantbot_pipeline.orchestration.assets.backtests import OUTPUTS

INPUTS = dg.AssetSelection.keys(["inputs", "alerts"], ["inputs", "candles"])


def _contents(run_type: RunType) -> dg.AssetSelection:
    keys = [list(key) for key, (artifact, _) in OUTPUTS.items() if artifact in CONTENTS[run_type]]
    return INPUTS | dg.AssetSelection.keys(*keys)


jobs = [
    dg.define_asset_job(
        "path_only", _contents("path-only"), description="Truth only: what the price did after each call of the months."
    ),
    dg.define_asset_job(
        "policy", _contents("policy"), description="Replay exit policies over the months: trades and summary."
    ),
    dg.define_asset_job(
        "catalog_sync", dg.AssetSelection.keys(["catalog", "runs"]), description="Register committed runs."
    ),
]
