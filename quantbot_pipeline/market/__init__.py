"""Calls and candles: readers per format, validation, the two input stores and the generated sample market."""
