"""Tests of `quantbot_pipeline.ingest`."""
