"""Pure search over replayed outcomes: grids, objective, frontier, Pareto set, V1 baseline, walk-forward."""
