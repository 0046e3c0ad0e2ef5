"""Tests of `quantbot_pipeline.monitoring`."""
