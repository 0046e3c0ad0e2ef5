"""Tests of the search: frontier, V1 baseline and walk-forward against plain recomputations of docs/semantics.md."""
