"""Judged rows into the files of the store: a month at a time, and beside it what was rejected and what looks odd."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from quantbot_pipeline.durable import replacing, scratch_folder
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
    CandleStore,
    month_file,
    write_rejected,
    write_sorted,
)
from quantbot_pipeline.market.candle_footer import FOOTER_KEY, require_readable
from quantbot_pipeline.market.opening import open_file, opened
from quantbot_pipeline.months import month_of, month_start_ms, next_month
from quantbot_pipeline.vocabulary import INTERVALS_MS

SWAPS = 50  # tries against other ingests; each of them has succeeded meanwhile
CANDLES, REJECTED, WICKS = "candles.parquet", "rejected.parquet", "wicks.parquet"
ROW_BITS = 40  # of `seq`: the row below, the file above


def merge(
    con: duckdb.DuckDBPyConnection,
    store: CandleStore,
    interval: str,
    shown: Sequence[str],
    *,
    superseded: int,
    wicks: pa.Table,
) -> IngestReport:
    """Merge the tables `ordered` (valid rows, sorted) and `judged` (the others) into the store of an interval, month by month.

    `shown` are the files' names, `superseded` counts the valid rows that another one replaced, `wicks` are the freak ones.
    """
    reasons = dict(con.execute("SELECT reason, count(*) FROM judged GROUP BY 1 ORDER BY 1").fetchall())
    distinct = _count(con, "SELECT count(*) FROM ordered")
    inserted = updated = 0
    changed = []
    refused, flagged = _prepare_refused(con, shown), _by_month(wicks)
    for month in sorted({*_months(con), *refused, *flagged}):
        stop_if_asked()
        new, differing, more_refused = _change(con, store, interval, month, flagged.get(month, []))
        inserted += new
        updated += differing
        if new or differing or more_refused:
            changed.append(month)
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
        months=changed,
        freak_wicks=wicks.num_rows,
        refusal="" if distinct else _all_rejected(con, shown, reasons, rows),
    )


class _Changes(NamedTuple):
    """What became of a month: candles inserted and updated, and whether rejected rows were added."""

    inserted: int
    updated: int
    more_refused: bool


def _change(
    con: duckdb.DuckDBPyConnection, store: CandleStore, interval: str, month: str, wicks: list[dict[str, Any]]
) -> _Changes:
    """Merge all that concerns a month. In an object store it counts as a whole, and who comes second merges once more."""
    before = month_file(store.folder, interval, month).parent
    if store.elsewhere is None:
        return _merge_into(con, before, before, interval, month, wicks)
    for _ in range(SWAPS):
        found = store.elsewhere.month(interval, month)
        with scratch_folder(store.folder, ".publishing-") as made:
            changes = _merge_into(con, before, made, interval, month, wicks)
            new = {path.stem: path for path in made.glob("*.parquet")}
            if not new or store.elsewhere.publish_month(interval, month, found, new):
                return changes
        stop_if_asked()
    raise StoreError(f"{store.place}: other ingests of {month} were there first {SWAPS} times; run again")


def _merge_into(
    con: duckdb.DuckDBPyConnection, before: Path, after: Path, interval: str, month: str, wicks: list[dict[str, Any]]
) -> _Changes:
    """Merge into the files of a month that are in the folder `before`; those that change are written in the folder `after`."""
    inserted = updated = 0
    if month != NO_MONTH:
        inserted, updated = _merge_month(con, before / CANDLES, after / CANDLES, interval, month)
    more_refused = _merge_rejected(con, before / REJECTED, after / REJECTED, month)
    _merge_wicks(before / WICKS, after / WICKS, wicks)
    return _Changes(inserted, updated, more_refused)


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


def _merge_month(
    con: duckdb.DuckDBPyConnection, before: Path, after: Path, interval: str, month: str
) -> tuple[int, int]:
    """Merge the rows of one month into its file; returns (inserted, updated) and writes nothing if both are 0."""
    span = {"first": month_start_ms(month), "end": month_start_ms(next_month(month))}
    fresh = """SELECT mint, t::BIGINT AS ts_ms, open, high, low, close, CASE WHEN isnan(volume) THEN NULL ELSE volume END AS volume
               FROM ordered WHERE t >= $first AND t < $end"""
    if not before.exists():
        n = _count(con, "SELECT count(*) FROM ordered WHERE t >= $first AND t < $end", span)
        if n:
            write_sorted(after, con.sql(f"{fresh} ORDER BY rowid", params=span).to_arrow_reader(ROW_GROUP))
        return n, 0
    con.execute(
        "CREATE OR REPLACE TEMP TABLE stored (mint VARCHAR, ts_ms BIGINT, open DOUBLE, high DOUBLE, low DOUBLE, "
        "close DOUBLE, volume DOUBLE)"
    )
    con.execute(f"CREATE OR REPLACE TEMP TABLE fresh AS {fresh}", span)
    if not _count(con, "SELECT count(*) FROM fresh"):
        return 0, 0
    _load_stored(con, before, interval)
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
        write_sorted(after, merged)
    return inserted, updated


def _load_stored(con: duckdb.DuckDBPyConnection, target: Path, interval: str) -> None:
    """Append a store file to the table `stored`; its page checksums keep a flipped bit from becoming a price.

    Another program's file may have its columns in another order, and rows that no ingest would let in.
    """
    try:
        data, fetch = open_file(target)
        with pq.ParquetFile(data, page_checksum_verification=True) as file:
            require_readable(target, file.metadata.metadata)
            if fetch is not None:
                fetch(range(file.num_row_groups))
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


def _prepare_refused(con: duckdb.DuckDBPyConnection, shown: Sequence[str]) -> list[str]:
    """Make the table `refused` of rejected rows with their multiplicity; return their months."""
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
    return [month for (month,) in con.execute("SELECT DISTINCT month FROM refused").fetchall()]


def _merge_rejected(con: duckdb.DuckDBPyConnection, before: Path, after: Path, month: str) -> bool:
    """Keep the rejected rows of a month; the same file again adds nothing. Returns whether there are more now."""
    if not _count(con, "SELECT count(*) FROM refused WHERE month = ?", [month]):
        return False
    con.register("kept", _kept(before))
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
        write_rejected(after, union.cast(REJECTED_SCHEMA))
    con.unregister("kept")
    return bool(new.num_rows)


def _kept(target: Path) -> pa.Table:
    """The rows that were rejected before; a file of an earlier version has no file, row and text."""
    if not target.exists():
        return REJECTED_SCHEMA.empty_table()
    table = pq.read_table(opened(target))
    require_readable(target, table.schema.metadata)
    for field in REJECTED_SCHEMA:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select(REJECTED_SCHEMA.names).cast(REJECTED_SCHEMA)


def _by_month(wicks: pa.Table) -> dict[str, list[dict[str, Any]]]:
    by_month: dict[str, list[dict[str, Any]]] = {}
    for row in wicks.to_pylist():
        by_month.setdefault(month_of(row["ts_ms"]), []).append(row)
    return by_month


def _merge_wicks(before: Path, after: Path, wicks: list[dict[str, Any]]) -> None:
    """Flag freak wicks beside the candles of a month; a wick that comes again replaces its earlier entry."""
    if not wicks:
        return
    flagged = pq.read_table(opened(before)).to_pylist() if before.exists() else []
    merged = {(row["mint"], row["ts_ms"]): row for row in [*flagged, *wicks]}
    table = pa.Table.from_pylist([merged[key] for key in sorted(merged)], schema=WICKS_SCHEMA)
    if flagged != table.to_pylist():
        _write(after, table)


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
