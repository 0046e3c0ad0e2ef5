"""The analysis cookbook: queries and scripts that docs/analysis.md shows with their output; see `render`."""
