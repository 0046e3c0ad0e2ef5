"""Tests of the replay: the engine against a plain Python oracle, and policies as data."""
