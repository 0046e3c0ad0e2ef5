"""Tests of `quantbot_pipeline.runs`."""
