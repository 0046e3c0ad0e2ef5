"""Pure computation over candles in memory: windows, truth metrics, policies as data, the compiled engine, capital."""
