"""Tests of the artifacts package."""
