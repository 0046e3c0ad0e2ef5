"""Tests of the assets on real Dagster instances, and of a real `dagster dev`."""
