"""Predictions of calls and how good they are: arrays in, arrays out. Source: docs/models.md."""
