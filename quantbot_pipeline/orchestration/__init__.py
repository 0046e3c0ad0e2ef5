"""All of Dagster, kept thin: assets, jobs, partitions, resources. The work itself is in `quantbot_pipeline.backtest`."""

import warnings

import dagster as dg

# Single-run backfills are marked beta; this project pins Dagster's minor version and tests them.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
