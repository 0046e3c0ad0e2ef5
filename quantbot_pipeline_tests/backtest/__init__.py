"""Tests of `quantbot_pipeline.backtest`."""
