"""How candles of each source are laid out: names, places, stamps. One file per source, one line in `registry`."""
