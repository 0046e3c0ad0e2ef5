"""The liquidity of a call's pool, as call files tell it: an optional amount of USD.

Belongs here: its names, what is no amount, and how a stored call learns it later. Does not: identity of calls.
"""

import duckdb

from quantbot_pipeline.errors import counted
from quantbot_pipeline.ingest.formats.common import Column

LIQUIDITY = Column(
    "liquidity_usd",
    ("liquidity", "liq", "liq_usd", "usd_liquidity", "liquidity_in_usd", "pool_liquidity", "pool_liquidity_usd"),
    required=False,
    lenient=True,
)
VOID = ("", "-", "null", "none", "nan", "n/a", "\\n")  # \N in lower case


def amount_sql(text: str) -> str:
    """Return SQL of an amount in USD; NULL for text that is no finite number of at least 0."""
    amount = f"TRY_CAST({text} AS DOUBLE)"
    return f"CASE WHEN isfinite({amount}) AND {amount} >= 0 THEN abs({amount}) END"


def emptied(con: duckdb.DuckDBPyConnection, files: list[str]) -> tuple[int, list[str]]:
    """Return how many valid rows of `judged` tell what is no amount, and a sentence that names the first."""
    void = ", ".join(f"'{word}'" for word in VOID)
    ((n, first),) = con.execute(
        f"""SELECT count(*), arg_min([file_no::VARCHAR, row_no::VARCHAR, left(liquidity_text, 60)], (file_no, row_no)) FROM judged
            WHERE reason IS NULL AND liquidity_usd IS NULL AND lower(trim(liquidity_text)) NOT IN ({void})"""
    ).fetchall()
    if not n:
        return 0, []
    file, row, text = files[int(first[0])], int(first[1]), first[2]
    said = f"{file}: row {row:,}: liquidity_usd {text!r} is no amount of USD"
    return n, [f"{said}; it is left empty in {counted(n, 'call')}: write a number of at least 0"]


def learn(con: duckdb.DuckDBPyConnection, same: str) -> tuple[int, list[str]]:
    """Give stored calls without a liquidity the first one that an equal row of `ranked` tells; return how many, and months.

    A new call's rows count as one, so that the same files again change nothing. `same`: SQL of what makes rows r and a equal.
    """
    con.execute(
        f"""CREATE TEMP TABLE learnt AS
            SELECT call_id, arg_min(r.liquidity_usd, r.nth) AS liquidity_usd, any_value(a.alert_ts_ms) AS alert_ts_ms
            FROM ranked r JOIN alerts a USING (call_id)
            WHERE a.liquidity_usd IS NULL AND r.liquidity_usd IS NOT NULL AND {same} GROUP BY 1"""
    )
    con.execute("UPDATE alerts SET liquidity_usd = l.liquidity_usd FROM learnt l WHERE alerts.call_id = l.call_id")
    ((n, months),) = con.execute(
        """SELECT count(*), list(DISTINCT strftime(make_timestamp_ms(alert_ts_ms), '%Y-%m')) FROM learnt
           WHERE call_id IN (SELECT call_id FROM known_before)"""
    ).fetchall()
    return int(n), months or []
