"""Judged rows into the files of the store: a month at a time, and beside it what was rejected and what looks odd."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from quantbot_pipeline.durable import replacing
from quantbot_pipeline.errors import StoreError, counted
from quantbot_pipeline.ingest.candle_rules import NOT_KEPT, REASON
from quantbot_pipeline.ingest.report import IngestReport
from quantbot_pipeline.interrupts import stop_if_asked
from quantbot_pipeline.market.candle_files import (
    NO_MONTH,
    REJECTED_SCHEMA,
    REJECTED_VALUES,
    ROW_GROUP,
    SCHEMA,
    WICKS_SCHEMA,
    month_file,
    rejected_file,
    wicks_file,
    write_rejected,
    write_sorted,
)
from quantbot_pipeline.market.candle_footer import FOOTER_KEY, require_readable
from quantbot_pipeline.months import month_of, month_start_ms, next_month
from quantbot_pipeline.vocabulary import INTERVALS_MS

ROW_BITS = 40  # of `seq`: the row below, the file above


def merge(
    con: duckdb.DuckDBPyConnection,
    folder: Path,
    interval: str,
    shown: Sequence[str],
    *,
    superseded: int,
    wicks: pa.Table,
) -> IngestReport:
    """Merge the tables `ordered` (valid rows, sorted) and `judged` (the others) into the store of an interval.

    `shown` are the files' names, `superseded` counts the valid rows that another one replaced, `wicks` are the freak ones.
    """
    reasons = dict(con.execute("SELECT reason, count(*) FROM judged GROUP BY 1 ORDER BY 1").fetchall())
    distinct = _count(con, "SELECT count(*) FROM ordered")
    inserted = updated = 0
    changed = []
    for month in _months(con):
        stop_if_asked()
        new, differing = _merge_month(con, folder, interval, month)
        inserted += new
        updated += differing
        if new or differing:
            changed.append(month)
    for month in _merge_rejected(con, folder, interval, shown):
        if month not in changed:
            changed.append(month)
    _merge_wicks(folder, interval, wicks)
    rows = distinct + superseded + sum(reasons.values())
    return IngestReport(
        kind=f"candles {interval}",
        files=len(shown),
        rows=rows,
        inserted=inserted,
        updated=updated,
        unchanged=distinct - inserted - updated,
        superseded=superseded,
        rejected=reasons,
        months=sorted(changed),
        freak_wicks=wicks.num_rows,
        refusal="" if distinct else _all_rejected(con, shown, reasons, rows),
    )


def _count(con: duckdb.DuckDBPyConnection, sql: str, parameters: object = None) -> int:
    return int(con.execute(sql, parameters).fetchall()[0][0])


def _months(con: duckdb.DuckDBPyConnection) -> list[str]:
    """The months that the valid rows are in."""
    days = con.execute("SELECT DISTINCT floor(t / 86400000)::BIGINT FROM ordered").fetchall()
    first = [86_400_000 * day for (day,) in days]
    months = con.execute(
        "SELECT DISTINCT strftime(make_timestamp_ms(unnest(?::BIGINT[])), '%Y-%m') AS m ORDER BY m", [first]
    ).fetchall()
    return [month for (month,) in months]


def _merge_month(con: duckdb.DuckDBPyConnection, folder: Path, interval: str, month: str) -> tuple[int, int]:
    """Merge the rows of one month into its file; returns (inserted, updated) and leaves the file alone if both are 0."""
    span = {"first": month_start_ms(month), "end": month_start_ms(next_month(month))}
    fresh = """SELECT mint, t::BIGINT AS ts_ms, open, high, low, close, CASE WHEN isnan(volume) THEN NULL ELSE volume END AS volume
               FROM ordered WHERE t >= $first AND t < $end"""
    target = month_file(folder, interval, month)
    if not target.exists():
        n = _count(con, "SELECT count(*) FROM ordered WHERE t >= $first AND t < $end", span)
        write_sorted(target, con.sql(f"{fresh} ORDER BY rowid", params=span).to_arrow_reader(ROW_GROUP))
        return n, 0
    con.execute(
        "CREATE OR REPLACE TEMP TABLE stored (mint VARCHAR, ts_ms BIGINT, open DOUBLE, high DOUBLE, low DOUBLE, "
        "close DOUBLE, volume DOUBLE)"
    )
    con.execute(f"CREATE OR REPLACE TEMP TABLE fresh AS {fresh}", span)
    _load_stored(con, target, interval)
    inserted, updated = con.execute(
        """SELECT count(*) FILTER (s.mint IS NULL),
                  count(*) FILTER (s.mint IS NOT NULL AND (f.open, f.high, f.low, f.close) <> (s.open, s.high, s.low, s.close)
                                   OR s.mint IS NOT NULL AND f.volume IS DISTINCT FROM s.volume)
           FROM fresh f LEFT JOIN stored s USING (mint, ts_ms)"""
    ).fetchall()[0]
    if inserted or updated:
        merged = con.sql(
            """SELECT * FROM fresh
               UNION ALL
               SELECT * FROM stored s WHERE NOT EXISTS (
                   SELECT 1 FROM fresh f WHERE f.mint = s.mint AND f.ts_ms = s.ts_ms)
               ORDER BY mint, ts_ms"""
        ).to_arrow_reader(ROW_GROUP)
        write_sorted(target, merged)
    return inserted, updated


def _load_stored(con: duckdb.DuckDBPyConnection, target: Path, interval: str) -> None:
    """Append a store file to the table `stored`; its page checksums keep a flipped bit from becoming a price.

    Another program's file may have its columns in another order, and rows that no ingest would let in.
    """
    try:
        with pq.ParquetFile(target, page_checksum_verification=True) as file:
            require_readable(target, file.metadata.metadata)
            for field in SCHEMA:
                at = file.schema_arrow.get_field_index(field.name)
                if at < 0 or (field.name != "mint" and file.schema_arrow.field(at).type != field.type):
                    raise ValueError(f"it has no column {field.name} of type {field.type}")
            batches = file.iter_batches(batch_size=ROW_GROUP, columns=SCHEMA.names)
            source = pa.RecordBatchReader.from_batches(SCHEMA, (b.select(SCHEMA.names).cast(SCHEMA) for b in batches))
            con.register("stored_file", source)
            con.execute("INSERT INTO stored SELECT * FROM stored_file")
            con.unregister("stored_file")
            if FOOTER_KEY not in (file.metadata.metadata or {}):
                _refuse_unsound(con, interval)
    except (pa.ArrowException, duckdb.Error, OSError, ValueError) as e:
        raise StoreError(
            f"{target}: not readable ({str(e).strip()[:120]}); delete the file and ingest its candles again"
        ) from None


def _refuse_unsound(con: duckdb.DuckDBPyConnection, interval: str) -> None:
    bad = f"SELECT count(*) FROM (SELECT *, ts_ms::DOUBLE AS t FROM stored) WHERE ({REASON}) IS NOT NULL"
    if _count(con, bad, {"step": INTERVALS_MS[interval]}):
        raise ValueError("it has invalid candles")
    if _count(con, "SELECT count(*) FROM (SELECT 1 FROM stored GROUP BY mint, ts_ms HAVING count(*) > 1)"):
        raise ValueError("a token has two candles of one time")


def _merge_rejected(con: duckdb.DuckDBPyConnection, folder: Path, interval: str, shown: Sequence[str]) -> list[str]:
    """Keep rejected rows with their multiplicity; the same file again adds nothing. Returns the months that changed."""
    con.register("names_of_files", pa.table({"number": pa.array(range(len(shown)), pa.int64()), "file": list(shown)}))
    kept_reasons = ", ".join(f"'{reason}'" for reason in NOT_KEPT)
    con.execute(
        f"""CREATE TEMP TABLE refused AS
            SELECT mint, ts_ms, open, high, low, close, volume, reason,
                   row_number() OVER (PARTITION BY mint, ts_ms, open, high, low, close, volume, reason ORDER BY seq) AS nth,
                   file, seq & ((1::BIGINT << {ROW_BITS}) - 1) AS row, text,
                   coalesce(strftime(make_timestamp_ms(ts_ms), '%Y-%m'), '{NO_MONTH}') AS month
            FROM (SELECT *, CASE WHEN reason NOT IN ('mint', 'timestamp') OR (t > 0 AND t < 1e14) THEN floor(t)::BIGINT END AS ts_ms
                  FROM judged JOIN names_of_files ON number = seq >> {ROW_BITS} WHERE reason NOT IN ({kept_reasons}))"""
    )
    con.unregister("names_of_files")
    changed = []
    for (month,) in con.execute("SELECT DISTINCT month FROM refused ORDER BY 1").fetchall():
        target = rejected_file(folder, interval, month)
        con.register("kept", _kept(target))
        same = " AND ".join(f"k.{name} IS NOT DISTINCT FROM r.{name}" for name in REJECTED_VALUES)
        new = con.sql(
            f"""SELECT {", ".join(REJECTED_SCHEMA.names)} FROM refused r WHERE month = ?
                AND NOT EXISTS (SELECT 1 FROM kept k WHERE {same})""",
            params=[month],
        ).to_arrow_table()
        if new.num_rows:
            con.register("added", new)
            union = con.sql("SELECT * FROM kept UNION ALL SELECT * FROM added ORDER BY ALL").to_arrow_table()
            con.unregister("added")
            write_rejected(target, union.cast(REJECTED_SCHEMA))
            changed.append(month)
        con.unregister("kept")
    return changed


def _kept(target: Path) -> pa.Table:
    """The rows that were rejected before; a file of an earlier version has no file, row and text."""
    if not target.exists():
        return REJECTED_SCHEMA.empty_table()
    table = pq.read_table(target)
    require_readable(target, table.schema.metadata)
    for field in REJECTED_SCHEMA:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select(REJECTED_SCHEMA.names).cast(REJECTED_SCHEMA)


def _merge_wicks(folder: Path, interval: str, wicks: pa.Table) -> None:
    """Flag freak wicks beside the candles, by month; a wick that comes again replaces its earlier entry."""
    by_month: dict[str, list[dict[str, Any]]] = {}
    for row in wicks.to_pylist():
        by_month.setdefault(month_of(row["ts_ms"]), []).append(row)
    for month, rows in by_month.items():
        target = wicks_file(folder, interval, month)
        before = pq.read_table(target).to_pylist() if target.exists() else []
        merged = {(row["mint"], row["ts_ms"]): row for row in [*before, *rows]}
        table = pa.Table.from_pylist([merged[key] for key in sorted(merged)], schema=WICKS_SCHEMA)
        if before != table.to_pylist():
            _write(target, table)


def _write(target: Path, table: pa.Table) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def _all_rejected(con: duckdb.DuckDBPyConnection, shown: Sequence[str], reasons: dict[str, int], rows: int) -> str:
    """Name the first row that was rejected, and why all of them were."""
    seq, reason, text = con.execute("SELECT seq, reason, text FROM judged ORDER BY seq LIMIT 1").fetchall()[0]
    all_of = ", ".join(f"{name} {n:,}" for name, n in reasons.items())
    return (
        f"{shown[seq >> ROW_BITS]}: row {seq & ((1 << ROW_BITS) - 1)}: {reason}: {text[:200]!r}; no row of "
        f"{counted(rows, 'row')} is a candle ({all_of}); mend the file, or say what is what with --map, --stamp, --timezone"
    )
