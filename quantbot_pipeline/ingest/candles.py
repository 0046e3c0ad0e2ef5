"""Candles from files into the store: validation, and the merge with what is there."""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from quantbot_pipeline.duck import workspace
from quantbot_pipeline.durable import locked, replacing, scratch_folder
from quantbot_pipeline.errors import InputError, StoreError
from quantbot_pipeline.ingest.files import expand_paths, hive_value
from quantbot_pipeline.ingest.formats.common import Column, Found
from quantbot_pipeline.ingest.formats.registry import format_of, load
from quantbot_pipeline.ingest.report import IngestReport
from quantbot_pipeline.ingest.times import TO_MS, infer_unit, raw_time_sql, require_ms
from quantbot_pipeline.interrupts import stop_if_asked
from quantbot_pipeline.market.candle_files import (
    NO_MONTH,
    REJECTED_SCHEMA,
    ROW_GROUP,
    SCHEMA,
    CandleStore,
    month_file,
    rejected_file,
    write_sorted,
)
from quantbot_pipeline.market.candle_footer import FOOTER_KEY
from quantbot_pipeline.vocabulary import INTERVALS_MS

FORMATS = ("parquet", "csv", "feather", "jsonl")
COLUMNS = (
    Column("mint", in_folder=True),
    Column("ts_ms", ("timestamp", "date")),
    Column("open"),
    Column("high"),
    Column("low"),
    Column("close"),
    Column("volume"),
)
# A row fails once, under the first test that it does not pass. A price is null, not finite or <= 0 in one comparison:
# DuckDB orders NaN above infinity.
FINITE_POSITIVE = "coalesce({c} > 0 AND {c} < 'infinity'::DOUBLE, false)"
REASON = f"""CASE
    WHEN mint IS NULL OR mint = '' THEN 'mint'
    WHEN t IS NULL OR isnan(t) OR t <= 0 OR t >= 1e14 THEN 'timestamp'
    WHEN NOT ({" AND ".join(FINITE_POSITIVE.format(c=c) for c in ("open", "high", "low", "close"))}) THEN 'price'
    WHEN NOT (low <= open AND open <= high AND low <= close AND close <= high) THEN 'ohlc_order'
    WHEN volume IS NOT NULL AND NOT isnan(volume) AND NOT (volume >= 0 AND volume < 'infinity'::DOUBLE) THEN 'volume'
    WHEN t % $step <> 0 THEN 'off_grid' END"""


def ingest_candles(
    paths: Sequence[Path],
    store: CandleStore,
    interval: str,
    *,
    fmt: str = "auto",
) -> IngestReport:
    """Merge the candles of `paths` into `store`; the last valid row of a (mint, ts_ms) wins, a later ingest wins over all.

    Ingesting the same again changes nothing and rewrites no file. Memory is bounded by the limit of the store; what does not fit
    spills beside the store. Raises InputError before anything is written.
    """
    if interval not in INTERVALS_MS:
        raise InputError(f"interval {interval!r} is unknown; choose one of {', '.join(INTERVALS_MS)}")
    files = expand_paths(paths, FORMATS)
    folder = store.folder
    folder.mkdir(parents=True, exist_ok=True)
    with (
        locked(folder / ".ingest.lock", store.lock_timeout_s),
        scratch_folder(folder, ".spill-") as spill,
        workspace(memory_limit=store.memory_limit, temp_directory=str(spill)) as con,
    ):
        for left in folder.glob("interval=*/month=*/.*.parquet.tmp"):
            left.unlink(missing_ok=True)  # of an ingest that was killed
        con.execute(
            "CREATE TEMP TABLE staged (seq BIGINT, mint VARCHAR, t DOUBLE, open DOUBLE, high DOUBLE, low DOUBLE, "
            "close DOUBLE, volume DOUBLE)"
        )
        for file_no, path in enumerate(files):
            _stage(con, file_no, path, format_of(path, fmt, FORMATS), interval)
        rows = _count(con, "SELECT count(*) FROM staged")
        if not rows:
            raise InputError(f"{', '.join(map(str, files[:3]))}: no rows; expected candles")
        _refuse_wrong_interval(con, files, interval)
        return _merge(con, folder, interval, len(files), rows)


def _count(con: duckdb.DuckDBPyConnection, sql: str, parameters: object = None) -> int:
    return int(con.execute(sql, parameters).fetchall()[0][0])


def _stage(con: duckdb.DuckDBPyConnection, file_no: int, path: Path, fmt: str, interval: str) -> None:
    declared = hive_value(path, "interval")
    if declared is not None and declared != interval:
        raise InputError(f"{path}: the folder says interval={declared}, not {interval}; pass --interval {declared}")
    found = load(con, path, fmt, COLUMNS)
    time = raw_time_sql("ts_ms", found["ts_ms"].type)
    con.execute(f"CREATE OR REPLACE TEMP TABLE timed AS SELECT row_no, {time} AS t FROM incoming")
    unit = infer_unit(con, path, "timed", "t", found["ts_ms"].source)
    require_ms(path, found["ts_ms"].source, unit)
    con.execute(
        f"""INSERT INTO staged SELECT ($n::BIGINT << 40) + row_no, {"mint::VARCHAR" if "mint" in found else "$mint"},
                   ({time}) {TO_MS[unit]}, {", ".join(_number(found, c) for c in ("open", "high", "low", "close"))},
                   {_volume(found)} FROM incoming""",
        {"n": file_no} | ({} if "mint" in found else {"mint": hive_value(path, "mint")}),
    )
    con.execute("DROP TABLE incoming; DROP TABLE timed")


def _number(found: dict[str, Found], name: str) -> str:
    return f"TRY_CAST({name} AS DOUBLE)"


def _volume(found: dict[str, Found]) -> str:
    if found["volume"].type != "VARCHAR":
        return _number(found, "volume")
    # No value or an empty cell is an unknown volume; a word is a bad one.
    return "CASE WHEN trim(volume) <> '' THEN coalesce(TRY_CAST(volume AS DOUBLE), '-infinity'::DOUBLE) END"


def _refuse_wrong_interval(con: duckdb.DuckDBPyConnection, files: Sequence[Path], interval: str) -> None:
    """Refuse files that are plainly of another interval: most rows off the grid, or all on a coarser one."""
    step = INTERVALS_MS[interval]
    names = ", ".join(map(str, files[:3])) + (" …" if len(files) > 3 else "")
    n = _count(con, "SELECT count(*) FROM staged WHERE t > 0 AND t < 1e14")
    if n < 20:
        return
    if _count(con, "SELECT count(*) FROM staged WHERE t > 0 AND t < 1e14 AND t % ? <> 0", [step]) > n / 2:
        raise InputError(f"{names}: most candles do not open on the {interval} grid; is --interval {interval} right?")
    if _count(con, "SELECT count(DISTINCT t) FROM staged WHERE t > 0 AND t < 1e14") < 20:
        return  # the last candle of every token, at noon: few times prove nothing
    coarser = [name for name, ms in INTERVALS_MS.items() if ms > step]
    for name in reversed(coarser):
        if not _count(con, "SELECT count(*) FROM staged WHERE t > 0 AND t < 1e14 AND t % ? <> 0", [INTERVALS_MS[name]]):
            raise InputError(f"{names}: every candle opens on the {name} grid; pass --interval {name}, not {interval}")


def _merge(con: duckdb.DuckDBPyConnection, folder: Path, interval: str, files: int, rows: int) -> IngestReport:
    con.execute(
        f"CREATE TEMP TABLE judged AS SELECT *, {REASON} AS reason FROM staged",
        {"step": INTERVALS_MS[interval]},
    )
    con.execute("DROP TABLE staged")
    con.execute(
        """CREATE TEMP TABLE fresh AS
           SELECT mint, t::BIGINT AS ts_ms, open, high, low, close, CASE WHEN isnan(volume) THEN NULL ELSE volume END AS volume,
                  strftime(make_timestamp_ms(t::BIGINT), '%Y-%m') AS month
           FROM judged WHERE reason IS NULL
           QUALIFY row_number() OVER (PARTITION BY mint, t ORDER BY seq DESC) = 1"""
    )
    reasons = dict(
        con.execute("SELECT reason, count(*) FROM judged WHERE reason IS NOT NULL GROUP BY 1 ORDER BY 1").fetchall()
    )
    distinct = _count(con, "SELECT count(*) FROM fresh")
    months = [m for (m,) in con.execute("SELECT DISTINCT month FROM fresh ORDER BY 1").fetchall()]
    inserted = updated = 0
    changed = []
    for month in months:
        stop_if_asked()
        new, differing = _merge_month(con, folder, interval, month)
        inserted += new
        updated += differing
        if new or differing:
            changed.append(month)
    for month in _merge_rejected(con, folder, interval):
        if month not in changed:
            changed.append(month)
    return IngestReport(
        kind=f"candles {interval}",
        files=files,
        rows=rows,
        inserted=inserted,
        updated=updated,
        unchanged=distinct - inserted - updated,
        superseded=rows - sum(reasons.values()) - distinct,
        rejected=reasons,
        months=sorted(changed),
    )


def _merge_month(con: duckdb.DuckDBPyConnection, folder: Path, interval: str, month: str) -> tuple[int, int]:
    """Merge the fresh rows of one month into its file; returns (inserted, updated) and leaves the file alone if both are 0."""
    con.execute("CREATE OR REPLACE TEMP TABLE stored (mint VARCHAR, ts_ms BIGINT, open DOUBLE, high DOUBLE, low DOUBLE, "
                "close DOUBLE, volume DOUBLE)")  # fmt: skip
    target = month_file(folder, interval, month)
    if target.exists():
        _load_stored(con, target, interval)
    inserted, updated = con.execute(
        """SELECT count(*) FILTER (s.mint IS NULL),
                  count(*) FILTER (s.mint IS NOT NULL AND (f.open, f.high, f.low, f.close) <> (s.open, s.high, s.low, s.close)
                                   OR s.mint IS NOT NULL AND f.volume IS DISTINCT FROM s.volume)
           FROM fresh f LEFT JOIN stored s USING (mint, ts_ms) WHERE f.month = ?""",
        [month],
    ).fetchall()[0]
    if inserted or updated:
        merged = con.sql(
            """SELECT mint, ts_ms, open, high, low, close, volume FROM fresh WHERE month = $month
               UNION ALL
               SELECT * FROM stored s WHERE NOT EXISTS (
                   SELECT 1 FROM fresh f WHERE f.month = $month AND f.mint = s.mint AND f.ts_ms = s.ts_ms)
               ORDER BY mint, ts_ms""",
            params={"month": month},
        ).to_arrow_reader(ROW_GROUP)
        write_sorted(target, merged)
    return inserted, updated


def _load_stored(con: duckdb.DuckDBPyConnection, target: Path, interval: str) -> None:
    """Append a store file to the table `stored`; its page checksums keep a flipped bit from becoming a price.

    Another program's file may have its columns in another order, and rows that no ingest would let in.
    """
    try:
        with pq.ParquetFile(target, page_checksum_verification=True) as file:
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


def _merge_rejected(con: duckdb.DuckDBPyConnection, folder: Path, interval: str) -> list[str]:
    """Keep rejected rows with their multiplicity; the same file again adds nothing. Returns the months that changed."""
    con.execute(
        f"""CREATE TEMP TABLE refused AS
            SELECT mint, ts_ms, open, high, low, close, volume, reason,
                   row_number() OVER (PARTITION BY mint, ts_ms, open, high, low, close, volume, reason) AS nth,
                   coalesce(strftime(make_timestamp_ms(ts_ms), '%Y-%m'), '{NO_MONTH}') AS month
            FROM (SELECT *, CASE WHEN reason NOT IN ('mint', 'timestamp') OR (t > 0 AND t < 1e14) THEN floor(t)::BIGINT END AS ts_ms
                  FROM judged WHERE reason IS NOT NULL)"""
    )
    changed = []
    for (month,) in con.execute("SELECT DISTINCT month FROM refused ORDER BY 1").fetchall():
        target = rejected_file(folder, interval, month)
        con.register("kept", pq.read_table(target) if target.exists() else REJECTED_SCHEMA.empty_table())
        union = con.sql(
            """SELECT mint, ts_ms, open, high, low, close, volume, reason, nth FROM refused WHERE month = ?
               UNION SELECT * FROM kept ORDER BY ALL""",
            params=[month],
        ).to_arrow_table()
        if union.num_rows > _count(con, "SELECT count(*) FROM kept"):
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target) as temporary:
                pq.write_table(union.cast(REJECTED_SCHEMA), temporary, compression="zstd", write_page_checksum=True)
            changed.append(month)
        con.unregister("kept")
    return changed
