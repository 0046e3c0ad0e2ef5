"""Tests of calls and candles: readers, stores, slices, the sample market."""
