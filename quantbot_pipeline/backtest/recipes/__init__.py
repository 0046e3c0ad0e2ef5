"""One file per recipe: `make(run)` writes the artifacts of a kind of run; `specs` says which kind has which recipe."""
