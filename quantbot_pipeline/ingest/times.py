"""Times of a file as UTC milliseconds: units by magnitude, dates written as digits, ISO-8601, and what is refused.

A time without a zone is in the session's time zone, which `local_time` sets; it is UTC where nobody says otherwise.
"""

from pathlib import Path

import duckdb

from quantbot_pipeline.errors import InputError, counted

# Digits that are a date come first: 202501011230 would be a count of milliseconds in 1976, 20250101123000 one in 2611.
UNIT_RANGES = {
    "YYYYMMDDhhmm": (199001010000, 210012312360),
    "YYYYMMDDhhmmss": (19900101000000, 21001231235960),
    "YYYYMMDDhhmmssSSS": (19900101000000000, 21001231235960000),
    "s": (1e8, 1e11),  # 1973..5138, as in ms and us
    "ms": (1e11, 1e14),
    "us": (1e14, 1e17),
    "ns": (1e18, 1e19),  # 2001..2286
}
TO_MS = {"s": "* 1000.0", "ms": "", "us": "/ 1000.0", "ns": "/ 1000000.0"}
DIGITS = {"YYYYMMDDhhmm": "%Y%m%d%H%M", "YYYYMMDDhhmmss": "%Y%m%d%H%M%S", "YYYYMMDDhhmmssSSS": "%Y%m%d%H%M%S%g"}
# Dates that are not ISO-8601 and have one meaning only: day and month have their place behind the year.
FORMATS = (
    "%Y-%m-%d %I-%p",
    "%Y.%m.%d %H:%M:%S",
    "%Y.%m.%d %H:%M",
    "%Y.%m.%d",
    "%Y%m%d %H:%M:%S",
    "%Y%m%d %H:%M",
    "%Y%m%d %H%M%S",
)
DAY_MS = 86_400_000


def to_ms_sql(time: str, unit: str) -> str:
    """Return the SQL for a raw time of a unit as milliseconds; NULL for digits that are no date."""
    if unit in DIGITS:
        text = f"({time})::BIGINT::VARCHAR"
        return f"epoch_us(try_strptime({text}, '{DIGITS[unit]}')::TIMESTAMPTZ) / 1000.0"
    return f"({time}) {TO_MS[unit]}"


def raw_time_sql(column: str, dtype: str) -> str:
    """SQL for a time cell as a double: counts stay as they are, ISO-8601 text and timestamps become milliseconds."""
    if dtype.startswith(("TIMESTAMP", "DATE")):
        return f"epoch_us({column}::TIMESTAMPTZ) / 1000.0"
    if dtype == "VARCHAR":
        formats = ", ".join(f"'{text}'" for text in FORMATS)
        return (
            f"coalesce(TRY_CAST({column} AS DOUBLE), epoch_us(TRY_CAST({column} AS TIMESTAMPTZ)) / 1000.0, "
            f"epoch_us(try_strptime({column}, [{formats}])::TIMESTAMPTZ) / 1000.0)"
        )
    return f"{column}::DOUBLE"


def local_time(con: duckdb.DuckDBPyConnection, zone: str | None) -> None:
    """Read times without a zone as those of `zone` (`Europe/Berlin`) from here on; None: UTC."""
    try:
        con.execute("SET TimeZone = ?", [zone or "UTC"])
    except duckdb.Error:
        raise InputError(f"--timezone {zone!r} is unknown; give a name such as Europe/Berlin or UTC") from None


def infer_unit(con: duckdb.DuckDBPyConnection, path: Path, table: str, column: str, label: str) -> str:
    """The unit of a column of raw times, by magnitude: a key of UNIT_RANGES; a mix is refused.

    Cells outside every range (zero, negative, absurd) do not vote. A column without one vote is refused (20240131 is no
    count of anything since 1970) unless its name says that it holds milliseconds.
    """
    cases = " ".join(f"WHEN {column} >= {lo} AND {column} < {hi} THEN '{u}'" for u, (lo, hi) in UNIT_RANGES.items())
    votes = con.execute(
        f"SELECT CASE {cases} END AS unit, count(*), min(row_no) FROM {table} GROUP BY unit HAVING unit IS NOT NULL ORDER BY unit"
    ).fetchall()
    # Nanoseconds among others are defects of single rows: no other reading of them is in question.
    votes = [vote for vote in votes if vote[0] != "ns"] or votes
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
