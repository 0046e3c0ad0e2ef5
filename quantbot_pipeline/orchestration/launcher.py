"""The old place of the run launcher. The dagster.yaml of homes made before names it, so it stays."""

from quantbot_pipeline.orchestration.local.run_launcher import LocalRunLauncher

__all__ = ["LocalRunLauncher"]
