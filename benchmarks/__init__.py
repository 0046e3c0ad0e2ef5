"""Benchmarks: `make bench`, or `python -m benchmarks`. What they measure and how to read them: docs/benchmarks.md.

Not part of the package and not tests: they print numbers, and fail only where two engines disagree.
"""
