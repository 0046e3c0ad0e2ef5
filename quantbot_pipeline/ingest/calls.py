"""Calls from files into the store: validation and merge.

A call is rejected when its caller, mint or alert time is empty, or its caller is named `__all__` (the pooled frontier's
name). Of several valid rows with one call_id the first ever ingested stays. Text is otherwise kept as it is.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import duckdb

from quantbot_pipeline.duck import published_duckdb, workspace
from quantbot_pipeline.durable import scratch_folder
from quantbot_pipeline.errors import InputError, StoreError
from quantbot_pipeline.ingest.files import expand_paths
from quantbot_pipeline.ingest.formats.common import Column, Found
from quantbot_pipeline.ingest.formats.registry import format_of, load
from quantbot_pipeline.ingest.report import IngestReport
from quantbot_pipeline.ingest.times import infer_unit, raw_time_sql, require_ms, to_ms_sql
from quantbot_pipeline.market.calls import BATCH, TABLES, CallStore

FORMATS = ("csv", "jsonl", "parquet", "duckdb", "telegram")
COLUMNS = (
    Column("call_id", required=False),
    Column("mint"),
    Column("caller_name", ("caller",)),
    Column("chain", required=False),
    Column("alert_ts_ms", required=False),
    Column("alert_ts", ("created_at",), required=False),
    Column("source", required=False),
)
# The first test that fails names the reason.
REASON = """CASE WHEN caller_name IS NULL OR caller_name = '' THEN 'caller_name'
                 WHEN mint IS NULL OR mint = '' THEN 'mint'
                 WHEN alert_ts_ms IS NULL OR alert_ts_ms <= 0 OR alert_ts_ms >= 100000000000000 THEN 'alert_ts_ms'
                 WHEN caller_name = '__all__' THEN 'reserved_caller' END"""
# Length prefixes make the concatenation injective, whatever the values contain.
DERIVED_ID = """substr(sha256(concat(strlen(caller_name), ':', caller_name, strlen(mint), ':', mint,
                                     strlen(chain), ':', chain, alert_ts_ms)), 1, 16)"""
ISO_MS = "strftime(make_timestamp_ms(alert_ts_ms), '%Y-%m-%dT%H:%M:%S.%gZ')"


def ingest_calls(
    paths: Sequence[Path],
    store: CallStore,
    *,
    fmt: str = "auto",
    table: str | None = None,
    caller: str | None = None,
) -> IngestReport:
    """Merge the calls of `paths` into `store`; ingesting the same again changes nothing.

    `caller` names the caller of files without a `caller_name` column. Memory is bounded by the limit of the store, once for reading and
    once for merging; what does not fit spills beside the store. Raises InputError (file, row, column and how to
    mend it) before anything is written.
    """
    files = expand_paths(paths, FORMATS)
    path = store.path
    path.parent.mkdir(parents=True, exist_ok=True)
    # Each of the two DuckDBs, and each process, has a folder of its own for what does not fit into memory.
    with (
        scratch_folder(path.parent, f".{path.name}.spill-") as spill,
        workspace(memory_limit=store.memory_limit, temp_directory=f"{spill}/reading") as con,
    ):
        con.execute(
            "CREATE TEMP TABLE staged (file_no INTEGER, row_no BIGINT, call_id VARCHAR, mint VARCHAR, "
            "caller_name VARCHAR, chain VARCHAR, alert_ts_ms BIGINT, source VARCHAR)"
        )
        for file_no, file in enumerate(files):
            _stage(con, file_no, file, format_of(file, fmt, FORMATS), table, caller)
        con.execute(f"CREATE TEMP TABLE judged AS SELECT *, {REASON} AS reason FROM staged")
        con.execute("DROP TABLE staged")
        rows = con.execute("SELECT count(*) FROM judged").fetchall()[0][0]
        if not rows:
            raise InputError(f"{', '.join(map(str, files))}: no rows; expected calls below the header")
        try:
            return _merge(con, store, len(files), rows, f"{spill}/merging")
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error as e:
            raise StoreError(f"{path}: not usable as the store of calls: {str(e).splitlines()[0][:200]}") from None


def _stage(
    con: duckdb.DuckDBPyConnection, file_no: int, path: Path, fmt: str, table: str | None, caller: str | None
) -> None:
    if fmt == "telegram":
        from quantbot_pipeline.ingest.formats.telegram import load_telegram

        found = load_telegram(con, path, caller)
    else:
        named = [Column(c.name, c.aliases, c.required and not (caller and c.name == "caller_name")) for c in COLUMNS]
        found = load(con, path, fmt, named, table)
    times = [name for name in ("alert_ts_ms", "alert_ts") if name in found]
    if not times:
        raise InputError(f"{path}: missing column alert_ts_ms, alert_ts or created_at; add one of them")
    ms = []
    for name in times:
        dtype = found[name].type
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE timed AS SELECT row_no, {raw_time_sql(name, dtype)} AS t FROM incoming"
        )
        unit = infer_unit(con, path, "timed", "t", found[name].source)
        require_ms(path, found[name].source, unit)
        exact = "round" if unit == "s" else "floor"
        ms.append(f"TRY_CAST({exact}({to_ms_sql(raw_time_sql(name, dtype), unit)}) AS BIGINT)")
    source = "coalesce(source::VARCHAR, $file)" if "source" in found else "$file"
    con.execute(
        f"""INSERT INTO staged SELECT $n, row_no, {_text(found, "call_id", "NULL")}, {_text(found, "mint", "NULL")},
                   {_text(found, "caller_name", "$caller")}, coalesce({_text(found, "chain", "''")}, ''), coalesce({", ".join(ms)}), {source}
            FROM incoming""",
        {"n": file_no, "file": path.name} | ({} if "caller_name" in found else {"caller": caller}),
    )


def _text(found: dict[str, Found], name: str, default: str) -> str:
    return f"{name}::VARCHAR" if name in found else default


def _merge(incoming: duckdb.DuckDBPyConnection, store: CallStore, files: int, rows: int, spill: str) -> IngestReport:
    """Merge the table `judged` of `incoming` into the store; the rows go from one DuckDB to the other in batches."""
    with published_duckdb(store.path, store.lock_timeout_s) as publication:
        con = publication.connect()
        con.execute("SET memory_limit = ?", [store.memory_limit])
        con.execute("SET temp_directory = ?", [spill])
        con.execute(TABLES)
        _bring(incoming, con)
        counts = _insert(con)
        publication.changed = bool(counts.inserted or counts.newly_rejected) or not store.path.exists()
    return IngestReport(
        kind="calls",
        files=files,
        rows=rows,
        inserted=counts.inserted,
        updated=0,
        unchanged=counts.same,
        superseded=counts.other,
        rejected=counts.reasons,
        months=counts.months,
    )


class _Counts(NamedTuple):
    """What became of the rows: new, equal to a stored call, of an id that another call has, rejected."""

    inserted: int
    same: int
    other: int
    newly_rejected: int
    reasons: dict[str, int]
    months: list[str]


def _bring(incoming: duckdb.DuckDBPyConnection, con: duckdb.DuckDBPyConnection) -> None:
    """Bring the judged rows over, in batches, as the tables `ranked` (valid) and `rejected_calls`."""
    valid = incoming.sql(
        f"""SELECT coalesce(nullif(call_id, ''), {DERIVED_ID}) AS call_id, mint, caller_name, chain, alert_ts_ms,
                   {ISO_MS} AS created_at, source, file_no, row_no FROM judged WHERE reason IS NULL"""
    ).to_arrow_reader(BATCH)
    con.register("valid_calls", valid)
    con.execute(
        """CREATE TEMP TABLE ranked AS
           SELECT *, row_number() OVER (PARTITION BY call_id ORDER BY file_no, row_no) AS nth FROM valid_calls"""
    )
    rejected = incoming.sql(
        """SELECT call_id, mint, caller_name, chain, alert_ts_ms, reason, source, row_number() OVER (
                  PARTITION BY call_id, mint, caller_name, chain, alert_ts_ms, reason ORDER BY file_no, row_no) AS nth
           FROM judged WHERE reason IS NOT NULL"""
    ).to_arrow_reader(BATCH)
    con.register("rejected_rows", rejected)
    con.execute("CREATE TEMP TABLE rejected_calls AS FROM rejected_rows")


def _insert(con: duckdb.DuckDBPyConnection) -> _Counts:
    """Insert what is new; count what became of every row."""
    # What a row meets: the stored call, or the first of this ingest; the first ever stays.
    same, other, months = _one(
        con,
        """WITH kept AS (SELECT r.*, coalesce(a.mint, f.mint) AS k_mint, coalesce(a.caller_name, f.caller_name) AS k_caller,
                                coalesce(a.chain, f.chain) AS k_chain, coalesce(a.alert_ts_ms, f.alert_ts_ms) AS k_ts,
                                a.call_id IS NULL AND r.nth = 1 AS is_new
                         FROM ranked r LEFT JOIN alerts a USING (call_id)
                         LEFT JOIN ranked f ON f.call_id = r.call_id AND f.nth = 1)
           SELECT count(*) FILTER (NOT is_new AND same), count(*) FILTER (NOT is_new AND NOT same),
                  list_sort(list(DISTINCT strftime(make_timestamp_ms(alert_ts_ms), '%Y-%m')) FILTER (is_new))
           FROM (SELECT *, mint = k_mint AND caller_name = k_caller AND chain = k_chain AND alert_ts_ms = k_ts AS same
                 FROM kept)""",
    )
    inserted = _one(
        con,
        """INSERT INTO alerts SELECT call_id, mint, caller_name, chain, alert_ts_ms, created_at, source, now()::TIMESTAMP
           FROM ranked WHERE nth = 1 ON CONFLICT DO NOTHING""",
    )[0]
    newly_rejected = _one(
        con,
        """INSERT INTO rejected_alerts SELECT call_id, mint, caller_name, chain, alert_ts_ms, reason, nth, source
           FROM rejected_calls r WHERE NOT EXISTS (
               SELECT 1 FROM rejected_alerts o WHERE o.nth = r.nth AND o.reason = r.reason
               AND o.call_id IS NOT DISTINCT FROM r.call_id AND o.mint IS NOT DISTINCT FROM r.mint
               AND o.caller_name IS NOT DISTINCT FROM r.caller_name AND o.chain IS NOT DISTINCT FROM r.chain
               AND o.alert_ts_ms IS NOT DISTINCT FROM r.alert_ts_ms)""",
    )[0]
    reasons = con.execute("SELECT reason, count(*) FROM rejected_calls GROUP BY 1 ORDER BY 1").fetchall()
    return _Counts(inserted, same, other, newly_rejected, dict(reasons), months or [])


def _one(con: duckdb.DuckDBPyConnection, sql: str) -> tuple:
    rows: list[tuple] = con.execute(sql).fetchall()
    return rows[0]
