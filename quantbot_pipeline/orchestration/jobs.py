"""Jobs: named selections of assets, for the command line, the launchpad and schedules. One per kind of run, and the sync."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from quantbot_pipeline.specs import EVERYTHING, KINDS, Key, ops, outputs

OPEN_MONTH = "open_month"
OPEN_MONTH_KINDS = ("full", "anomalies")
INPUTS = dg.AssetSelection.assets(["inputs", "alerts"], ["inputs", "candles"])


def everything_ops() -> tuple[str, ...]:
    """Return the steps that make everything a month deserves."""
    return tuple(op.name for op in ops())


def everything_config(names: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the run configuration of unattended runs: the defaults, and months whose inputs did not change are kept."""
    return {"ops": {op: {"config": {"only_changed": True}} for op in names or everything_ops()}}


def build_jobs() -> list[Any]:
    """Return every job: one per kind of run, `everything`, and those of the inbox, the dashboard, the catalog and the replicas."""
    made = [dg.define_asset_job(kind.job, _selection(kind.keys), description=kind.about) for kind in KINDS.values()]
    return [
        *made,
        dg.define_asset_job(
            EVERYTHING,
            _selection(outputs()),
            description="Truth, policy, frontier, V1 baseline, walk-forward, tuning, evidence, predictions and anomalies of the months.",
        ),
        dg.define_asset_job(
            OPEN_MONTH,
            _selection([key for kind in OPEN_MONTH_KINDS for key in KINDS[kind].keys]),
            description="Truth, policies, frontier and anomalies of the running month.",
        ),
        dg.define_asset_job(
            "ingest_inbox",
            dg.AssetSelection.assets(["inputs", "inbox"]),
            description="Ingest the files of data/inbox/.",
        ),
        dg.define_asset_job(
            "fetch_candles",
            dg.AssetSelection.assets(["inputs", "fetched_candles"]),
            description="Fetch the candles that the windows of the months' calls still miss.",
        ),
        dg.define_asset_job(
            "replicate",
            dg.AssetSelection.assets(["replicas", "runs"]),
            description="Copy the committed runs of the months to the places of QUANTBOT_REPLICAS.",
        ),
        dg.define_asset_job(
            "write_dashboard",
            dg.AssetSelection.assets(["reports", "dashboard"]),
            description="Render the catalog into the dashboard file.",
        ),
        dg.define_asset_job(
            "catalog_sync",
            dg.AssetSelection.assets(["catalog", "runs"]),
            description="Register the committed runs of the months.",
        ),
    ]


def _selection(keys: Sequence[Key] | dict[Key, Any]) -> dg.AssetSelection:
    return INPUTS | dg.AssetSelection.assets(*map(list, keys))
