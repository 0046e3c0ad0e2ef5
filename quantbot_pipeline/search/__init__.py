"""Pure search over replayed outcomes: grids, objective, frontier, Pareto, walk-forward, evidence."""
