"""Tests of `quantbot_pipeline.orchestration.cluster`."""
