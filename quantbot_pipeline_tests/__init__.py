"""Tests of quantbot_pipeline; the package layout mirrors the one under test."""
