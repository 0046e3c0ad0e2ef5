"""Tests of `quantbot_pipeline.evidence`."""
