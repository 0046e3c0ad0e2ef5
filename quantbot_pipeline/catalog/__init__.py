"""The DuckDB index over committed runs: publish, sync, rebuild, query, statistics, views. Disposable."""
