"""Tests of `quantbot_pipeline.cli`."""
