"""Times of a file as UTC milliseconds: units by magnitude, ISO-8601, and what is refused."""

from pathlib import Path

import duckdb

from quantbot_pipeline.errors import InputError, counted

UNIT_RANGES = {"s": (1e8, 1e11), "ms": (1e11, 1e14), "us": (1e14, 1e17)}  # 1973..5138 in every unit
TO_MS = {"s": "* 1000.0", "ms": "", "us": "/ 1000.0"}


def raw_time_sql(column: str, dtype: str) -> str:
    """SQL for a time cell as a double: counts stay as they are, ISO-8601 text and timestamps become milliseconds."""
    if dtype.startswith(("TIMESTAMP", "DATE")):
        return f"epoch_us({column}::TIMESTAMPTZ) / 1000.0"
    if dtype == "VARCHAR":
        return f"coalesce(TRY_CAST({column} AS DOUBLE), epoch_us(TRY_CAST({column} AS TIMESTAMPTZ)) / 1000.0)"
    return f"{column}::DOUBLE"


def infer_unit(con: duckdb.DuckDBPyConnection, path: Path, table: str, column: str, label: str) -> str:
    """The unit of a column of raw times, by magnitude: `s`, `ms` or `us`; a mix is refused.

    Cells outside every range (zero, negative, absurd) do not vote. A column without one vote is refused (20240131 is no
    count of anything since 1970) unless its name says that it holds milliseconds.
    """
    cases = " ".join(f"WHEN {column} >= {lo} AND {column} < {hi} THEN '{u}'" for u, (lo, hi) in UNIT_RANGES.items())
    votes = con.execute(
        f"SELECT CASE {cases} END AS unit, count(*), min(row_no) FROM {table} GROUP BY unit HAVING unit IS NOT NULL ORDER BY unit"
    ).fetchall()
    if len(votes) > 1:
        where = ", ".join(f"{unit} ({counted(n, 'row')}, first in row {row})" for unit, n, row in votes)
        raise InputError(f"{path}: column {label} mixes time units: {where}; convert them to one unit")
    if votes:
        return str(votes[0][0])
    odd = con.execute(f"SELECT min({column}) FROM {table} WHERE {column} > 0 AND NOT isnan({column})").fetchall()[0][0]
    if odd is not None and not label.endswith("_ms"):
        raise InputError(
            f"{path}: column {label} holds {odd:.15g}, which is no time in s, ms or µs; convert it to one or to ISO-8601"
        )
    return "ms"


def require_ms(path: Path, label: str, unit: str) -> None:
    """Refuse a column named `*_ms` whose numbers are of another magnitude."""
    if label.endswith("_ms") and unit != "ms":
        raise InputError(f"{path}: column {label} holds {unit} by magnitude, not milliseconds; convert it or rename it")
