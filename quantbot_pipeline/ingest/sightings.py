"""What an ingest saw, for the tables `call_sightings` and `ingests` of the store of calls.

Belongs here: writing them, and whether an ingest says anything new. Does not: what a missing call means; see `market.sightings`.
"""

import duckdb

from quantbot_pipeline.market.sightings import IS_MISSING

BEFORE = 0  # the ingest of calls that were stored before sightings were kept


def note_sightings(con: duckdb.DuckDBPyConnection, same: str) -> bool:
    """Note which stored calls the table `ranked` has; return whether that says anything new.

    same: SQL of what makes a row r of `ranked` equal to a stored call a. An ingest that sees all calls that it covers, and no new
    one, is not noted: ingesting the same again changes nothing.
    """
    con.execute(
        f"""INSERT INTO call_sightings SELECT call_id, caller_name, coalesce(source, ''), {BEFORE}, {BEFORE} FROM alerts
            ANTI JOIN ranked USING (call_id) ANTI JOIN call_sightings USING (call_id)"""
    )
    con.execute(
        f"""CREATE TEMP TABLE seen AS SELECT DISTINCT a.call_id, a.caller_name, coalesce(r.source, '') AS source, a.alert_ts_ms
            FROM ranked r JOIN alerts a USING (call_id) WHERE {same}"""
    )
    con.execute(
        """CREATE TEMP TABLE covered AS SELECT source, caller_name, min(alert_ts_ms) AS from_ts_ms, max(alert_ts_ms) AS to_ts_ms,
                  count(*) AS calls FROM seen GROUP BY 1, 2"""
    )
    if not _is_news(con):
        return False
    ((number,),) = con.execute("SELECT 1 + coalesce(max(id), 0) FROM ingests").fetchall()
    con.execute(
        "INSERT INTO ingests SELECT $n, now() AT TIME ZONE 'UTC', source, caller_name, from_ts_ms, to_ts_ms, calls FROM covered",
        {"n": number},
    )
    con.execute(
        """INSERT INTO call_sightings SELECT call_id, caller_name, source, $n, $n FROM seen
           ON CONFLICT (call_id, source) DO UPDATE SET last_ingest = excluded.last_ingest""",
        {"n": number},
    )
    return True


def _is_news(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether a call is seen for the first time or again, or one is missing for the first time."""
    return bool(
        con.execute(
            f"""SELECT 1 FROM seen a LEFT JOIN call_sightings s USING (call_id, source)
                WHERE s.call_id IS NULL OR {IS_MISSING}
                UNION ALL
                SELECT 1 FROM call_sightings s JOIN alerts a USING (call_id)
                JOIN covered c ON c.source = s.source AND c.caller_name = s.caller_name
                     AND a.alert_ts_ms BETWEEN c.from_ts_ms AND c.to_ts_ms
                ANTI JOIN seen n ON n.call_id = s.call_id AND n.source = s.source
                WHERE NOT {IS_MISSING}
                LIMIT 1"""
        ).fetchall()
    )
