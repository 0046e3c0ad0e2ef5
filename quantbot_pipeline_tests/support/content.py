"""What a catalog file says, read by a plain DuckDB connection."""

from pathlib import Path
from typing import Any

import duckdb

# {table: what differs between two catalogs of the same runs}
TABLES = {
    "backtest_runs_catalog": "cataloged_at",
    "backtest_artifacts_catalog": "cataloged_at",
    "quarantine": "detected_at",
}


def ask(catalog: Path, sql: str) -> list[tuple[Any, ...]]:
    """The rows of a query."""
    with duckdb.connect(str(catalog), read_only=True) as con:
        return con.execute(sql).fetchall()


def content(catalog: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables, but for the times of cataloging."""
    return {
        table: ask(catalog, f"SELECT * EXCLUDE ({changing}) FROM {table} ORDER BY ALL")
        for table, changing in TABLES.items()
    }
