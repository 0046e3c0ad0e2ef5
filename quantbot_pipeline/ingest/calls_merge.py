"""Judged calls into the store: which of them are new, and what became of the others.

Belongs here: identity of calls, the first mention of a token, and the tables of the store. Does not: files.
"""

from array import array
from typing import NamedTuple

import duckdb
import pyarrow as pa

from quantbot_pipeline.duck import published_duckdb
from quantbot_pipeline.errors import StoreError
from quantbot_pipeline.ingest.liquidity import learn
from quantbot_pipeline.ingest.sightings import note_sightings
from quantbot_pipeline.ingest.tokens import folded_mint_sql
from quantbot_pipeline.interrupts import stop_if_asked
from quantbot_pipeline.market.calls import BATCH, CallsElsewhere, CallStore, bring_up, earliest_call_ms


def _derived_id(chain: str) -> str:
    """SQL of the id of a call that has none; length prefixes make it injective, whatever the values contain."""
    return f"""substr(sha256(concat(strlen(caller_name), ':', caller_name, strlen(mint), ':', mint,
                                    strlen({chain}), ':', {chain}, alert_ts_ms)), 1, 16)"""


# The id does not depend on the chain, which one caller spells in several ways. It did before; see `_use_earlier_ids`.
DERIVED_ID = _derived_id("''")
SWAPS = 50  # tries against other ingests; each of them has succeeded meanwhile
# What makes a row r equal to a stored call a of its id.
SAME = f"""{folded_mint_sql("a.mint")} = r.mint AND a.caller_name = r.caller_name AND a.chain = r.chain
           AND a.alert_ts_ms = r.alert_ts_ms"""
ISO_MS = "strftime(make_timestamp_ms(alert_ts_ms), '%Y-%m-%dT%H:%M:%S.%gZ')"


class Merged(NamedTuple):
    """What became of the rows: new, equal to a stored call (with a liquidity that it lacked, or without), of an id that
    another call has, mentioned before, rejected. earliest: the first call of the store, UTC ms.
    """

    inserted: int
    updated: int
    same: int
    other: int
    repeated: int
    newly_rejected: int
    reasons: dict[str, int]
    months: list[str]
    earliest: int | None


def merge_calls(incoming: duckdb.DuckDBPyConnection, store: CallStore, files: list[str], spill: str) -> Merged:
    """Merge the table `judged` of `incoming` into the store; the rows go from one DuckDB to the other in batches."""
    if store.elsewhere is not None:
        return _merge_elsewhere(incoming, store, store.elsewhere, files, spill)
    with published_duckdb(store.path, store.lock_timeout_s) as publication:
        con = publication.connect()
        merged, is_news = _merge(incoming, con, store, files, spill)
        publication.changed = is_news or not store.path.exists()
    return merged


def _merge_elsewhere(
    incoming: duckdb.DuckDBPyConnection, store: CallStore, elsewhere: CallsElsewhere, files: list[str], spill: str
) -> Merged:
    """Merge into calls that an object store keeps; who comes second merges once more, into what the first one left."""
    for _ in range(SWAPS):
        stop_if_asked()
        with elsewhere.changing() as change:
            merged, is_news = _merge(incoming, change.con, store, files, spill)
            done = not is_news or change.publish()
        if done:
            elsewhere.settle()
            return merged
    raise StoreError(f"{elsewhere.place}: other ingests were there first {SWAPS} times; run again")


def _merge(
    incoming: duckdb.DuckDBPyConnection, con: duckdb.DuckDBPyConnection, store: CallStore, files: list[str], spill: str
) -> tuple[Merged, bool]:
    """Merge into the tables of a store; return what became of the rows, and whether that changed anything."""
    con.execute("SET memory_limit = ?", [store.memory_limit])
    con.execute("SET temp_directory = ?", [spill])
    bring_up(con, store.path)
    _bring(incoming, con, files)
    _use_earlier_ids(con)
    repeated = _leave_out_repeated(con)
    merged = _insert(con, repeated)
    news = note_sightings(con, SAME)
    return merged, bool(merged.inserted or merged.updated or merged.newly_rejected or news)


def _bring(incoming: duckdb.DuckDBPyConnection, con: duckdb.DuckDBPyConnection, files: list[str]) -> None:
    """Bring the judged rows over, in batches, as the tables `ranked` (valid) and `rejected_calls`."""
    valid = incoming.sql(
        f"""SELECT coalesce(nullif(call_id, ''), {DERIVED_ID}) AS call_id, coalesce(call_id, '') = '' AS is_derived, mint,
                   caller_name, chain, alert_ts_ms, {ISO_MS} AS created_at, source, source_kind, edited_at, window_ms,
                   liquidity_usd, file_no, row_no
            FROM judged WHERE reason IS NULL"""
    ).to_arrow_reader(BATCH)
    con.register("valid_calls", valid)
    con.execute("CREATE TEMP TABLE ranked AS SELECT *, 0::BIGINT AS nth FROM valid_calls")
    con.unregister("valid_calls")
    rejected = incoming.sql(
        """SELECT call_id, mint, caller_name, chain, alert_ts_ms, reason, source, time_text, file_no, row_no, row_number() OVER (
                  PARTITION BY call_id, mint, caller_name, chain, alert_ts_ms, reason ORDER BY file_no, row_no) AS nth
           FROM judged WHERE reason IS NOT NULL"""
    ).to_arrow_reader(BATCH)
    con.register("rejected_rows", rejected)
    con.execute("CREATE TEMP TABLE rejected_calls AS FROM rejected_rows")
    con.unregister("rejected_rows")
    con.register("files_read", pa.table({"file_no": pa.array(range(len(files)), pa.int32()), "file": pa.array(files)}))
    con.execute("CREATE TEMP TABLE files AS FROM files_read")
    con.unregister("files_read")


def _use_earlier_ids(con: duckdb.DuckDBPyConnection) -> None:
    """Give calls the ids that earlier versions stored them under: derived with the chain, or of a mint with capitals."""
    if con.execute("SELECT 1 FROM alerts LIMIT 1").fetchall():
        _rename(con)
    con.execute(
        """CREATE OR REPLACE TEMP TABLE ranked AS
           SELECT * EXCLUDE (nth), row_number() OVER (PARTITION BY call_id ORDER BY file_no, row_no) AS nth FROM ranked"""
    )


def _rename(con: duckdb.DuckDBPyConnection) -> None:
    stored_mint = folded_mint_sql("a.mint")
    con.execute(
        f"""CREATE TEMP TABLE earlier AS
            SELECT r.call_id, min(a.call_id) AS stored_id FROM ranked r JOIN (
                SELECT call_id, {stored_mint} AS folded, mint, caller_name, alert_ts_ms,
                       call_id = {_derived_id("chain")} AS was_derived FROM alerts a
                WHERE (caller_name, alert_ts_ms) IN (SELECT (caller_name, alert_ts_ms) FROM ranked)) a
              ON a.folded = r.mint AND a.caller_name = r.caller_name AND a.alert_ts_ms = r.alert_ts_ms
            WHERE a.call_id <> r.call_id
              AND (r.is_derived AND a.was_derived OR a.mint <> r.mint AND lower(a.call_id) = lower(r.call_id))
              AND r.call_id NOT IN (SELECT call_id FROM alerts) GROUP BY 1"""
    )
    con.execute("UPDATE ranked SET call_id = stored_id FROM earlier WHERE ranked.call_id = earlier.call_id")


def _leave_out_repeated(con: duckdb.DuckDBPyConnection) -> int:
    """Delete the rows that mention a token again within their window; return how many they were.

    Calls of the store count as mentions, too: an export that begins later than the one before it says nothing new.
    """
    if con.execute("SELECT 1 FROM ranked WHERE window_ms > 0 LIMIT 1").fetchall() == []:
        return 0
    con.execute(
        f"""CREATE TEMP TABLE lined AS
            SELECT dense_rank() OVER (ORDER BY caller_name, mint) AS line, * FROM (
                SELECT caller_name, mint, alert_ts_ms, 0::BIGINT AS window_ms, -1 AS file_no, 0::BIGINT AS row_no FROM (
                    SELECT caller_name, {folded_mint_sql("mint")} AS mint, alert_ts_ms FROM alerts
                    WHERE caller_name IN (SELECT caller_name FROM ranked))
                SEMI JOIN ranked USING (caller_name, mint)
                UNION ALL
                SELECT caller_name, mint, alert_ts_ms, window_ms, file_no, row_no FROM ranked
                ANTI JOIN alerts USING (call_id) WHERE nth = 1)"""
    )
    close = con.sql(
        """SELECT line, alert_ts_ms, window_ms, file_no, row_no FROM lined SEMI JOIN (
               SELECT DISTINCT line FROM (SELECT line, window_ms, alert_ts_ms - lag(alert_ts_ms) OVER (
                   PARTITION BY line ORDER BY alert_ts_ms) AS gap, max(window_ms) OVER (PARTITION BY line) AS widest FROM lined)
               WHERE gap < widest) USING (line) ORDER BY line, alert_ts_ms, file_no, row_no"""
    ).to_arrow_reader(BATCH)
    file_no, row_no = _repeats(close)
    columns = {"file_no": pa.array(file_no, pa.int32()), "row_no": pa.array(row_no, pa.int64())}
    con.register("repeats", pa.table(columns))
    con.execute("CREATE TEMP TABLE repeated AS FROM repeats")
    con.unregister("repeats")
    ids = "SELECT r.call_id FROM ranked r JOIN repeated USING (file_no, row_no)"
    ((n,),) = con.execute(f"SELECT count(*) FROM ranked WHERE call_id IN ({ids})").fetchall()
    con.execute(f"DELETE FROM ranked WHERE call_id IN ({ids})")
    return int(n)


def _repeats(mentions: pa.RecordBatchReader) -> tuple["array[int]", "array[int]"]:
    """Return the files and rows of the mentions that follow a kept one of their line within their window; 16 bytes for each."""
    files, rows = array("q"), array("q")
    line, kept = -1, 0
    for batch in mentions:
        for at, ms, window, file_no, row_no in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            if at == line and ms - kept < window:
                files.append(file_no)
                rows.append(row_no)
            else:
                line, kept = at, ms
    return files, rows


def _insert(con: duckdb.DuckDBPyConnection, repeated: int) -> Merged:
    """Insert what is new; count what became of every row."""
    # What a row meets: the stored call, or the first of this ingest; the first ever stays.
    same, other, months = _one(
        con,
        f"""WITH kept AS (SELECT r.*, coalesce({folded_mint_sql("a.mint")}, f.mint) AS k_mint,
                                 coalesce(a.caller_name, f.caller_name) AS k_caller, coalesce(a.chain, f.chain) AS k_chain,
                                 coalesce(a.alert_ts_ms, f.alert_ts_ms) AS k_ts, a.call_id IS NULL AND r.nth = 1 AS is_new
                          FROM ranked r LEFT JOIN alerts a USING (call_id)
                          LEFT JOIN ranked f ON f.call_id = r.call_id AND f.nth = 1)
            SELECT count(*) FILTER (NOT is_new AND same), count(*) FILTER (NOT is_new AND NOT same),
                   list_sort(list(DISTINCT strftime(make_timestamp_ms(alert_ts_ms), '%Y-%m')) FILTER (is_new))
            FROM (SELECT *, mint = k_mint AND caller_name = k_caller AND chain = k_chain AND alert_ts_ms = k_ts AS same
                  FROM kept)""",
    )
    con.execute("CREATE TEMP TABLE known_before AS SELECT call_id FROM alerts SEMI JOIN ranked USING (call_id)")
    inserted = _one(
        con,
        """INSERT INTO alerts (call_id, mint, caller_name, chain, alert_ts_ms, created_at, source, ingested_at, source_kind,
                               edited_at, liquidity_usd)
           SELECT call_id, mint, caller_name, chain, alert_ts_ms, created_at, source, now()::TIMESTAMP, source_kind, edited_at,
                  liquidity_usd
           FROM ranked WHERE nth = 1 ON CONFLICT DO NOTHING""",
    )[0]
    updated, learnt = learn(con, SAME)
    newly_rejected = _one(
        con,
        """INSERT INTO rejected_alerts (call_id, mint, caller_name, chain, alert_ts_ms, reason, nth, source, text, file, row)
           SELECT call_id, mint, caller_name, chain, alert_ts_ms, reason, nth, source, CASE reason
                  WHEN 'alert_ts_ms' THEN time_text WHEN 'in_future' THEN time_text WHEN 'mint' THEN mint ELSE caller_name END,
                  file, row_no
           FROM rejected_calls r JOIN files USING (file_no) WHERE NOT EXISTS (
               SELECT 1 FROM rejected_alerts o WHERE o.nth = r.nth AND o.reason = r.reason
               AND o.call_id IS NOT DISTINCT FROM r.call_id AND o.mint IS NOT DISTINCT FROM r.mint
               AND o.caller_name IS NOT DISTINCT FROM r.caller_name AND o.chain IS NOT DISTINCT FROM r.chain
               AND o.alert_ts_ms IS NOT DISTINCT FROM r.alert_ts_ms)""",
    )[0]
    reasons = con.execute("SELECT reason, count(*) FROM rejected_calls GROUP BY 1 ORDER BY 1").fetchall()
    changed = sorted({*(months or []), *learnt})
    return Merged(
        inserted,
        updated,
        same - updated,
        other,
        repeated,
        newly_rejected,
        dict(reasons),
        changed,
        earliest_call_ms(con),
    )


def _one(con: duckdb.DuckDBPyConnection, sql: str) -> tuple:
    rows: list[tuple] = con.execute(sql).fetchall()
    return rows[0]
