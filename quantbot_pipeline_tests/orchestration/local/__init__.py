"""Tests of `quantbot_pipeline.orchestration.local`."""
