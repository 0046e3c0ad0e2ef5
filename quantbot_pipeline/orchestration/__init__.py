"""All of Dagster, kept thin: assets, jobs, partitions, resources. The work itself is in `quantbot_pipeline.backtest`."""

import warnings

import dagster as dg

# A range of months as one run is in beta; this project pins Dagster's minor version and tests it. Nothing else may be.
warnings.filterwarnings("ignore", message="Parameter `backfill_policy` ", category=dg.BetaWarning)
