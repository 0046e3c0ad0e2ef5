"""The store of calls, `data/alerts.duckdb`: its tables, and reading by UTC time."""

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from quantbot_pipeline.duck import UNTRUSTED, in_use, is_in_use, open_untrusted, untrusted_tables
from quantbot_pipeline.durable import MEND_DISK, disk_fault, replacing
from quantbot_pipeline.errors import InputError, StoreError
from quantbot_pipeline.kept import Kept
from quantbot_pipeline.months import month_of, parse_day
from quantbot_pipeline.settings import FIRST_MONTH_FILE
from quantbot_pipeline.version import __version__
from quantbot_pipeline.versions import Version, format_of, read_version

if TYPE_CHECKING:
    import pandas as pd

TABLES = """
CREATE TABLE IF NOT EXISTS alerts (
    call_id VARCHAR PRIMARY KEY, mint VARCHAR NOT NULL, caller_name VARCHAR NOT NULL, chain VARCHAR NOT NULL,
    alert_ts_ms BIGINT NOT NULL, created_at VARCHAR NOT NULL, source VARCHAR, ingested_at TIMESTAMP NOT NULL);
CREATE TABLE IF NOT EXISTS rejected_alerts (
    call_id VARCHAR, mint VARCHAR, caller_name VARCHAR, chain VARCHAR, alert_ts_ms BIGINT, reason VARCHAR NOT NULL,
    nth BIGINT NOT NULL, source VARCHAR);
CREATE TABLE IF NOT EXISTS store_meta (key VARCHAR PRIMARY KEY, value VARCHAR NOT NULL);
CREATE TABLE IF NOT EXISTS call_sightings (
    call_id VARCHAR NOT NULL, caller_name VARCHAR NOT NULL, source VARCHAR NOT NULL, first_ingest BIGINT NOT NULL,
    last_ingest BIGINT NOT NULL, PRIMARY KEY (call_id, source));
CREATE TABLE IF NOT EXISTS ingests (
    id BIGINT NOT NULL, "at" TIMESTAMP NOT NULL, source VARCHAR NOT NULL, caller_name VARCHAR NOT NULL, from_ts_ms BIGINT NOT NULL,
    to_ts_ms BIGINT NOT NULL, calls BIGINT NOT NULL, PRIMARY KEY (id, source, caller_name));
"""
# Columns that a store made by an earlier version lacks.
MIGRATIONS = "".join(
    f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {column};"
    for table, column in (
        ("alerts", "source_kind VARCHAR"),
        ("alerts", "edited_at VARCHAR"),
        ("alerts", "liquidity_usd DOUBLE"),
        ("rejected_alerts", "text VARCHAR"),
        ("rejected_alerts", "file VARCHAR"),
        ("rejected_alerts", "row BIGINT"),
    )
)
BATCH = 131_072  # rows that go from one DuckDB to the other at a time
KEPT_FILE = 8_000_000  # bytes; a store up to this size is read whole and once per process: to open a DuckDB takes 25 ms
KEPT_ROOM = 64_000_000  # bytes of tables


class MonthCalls(NamedTuple):
    """Calls of a range of time, ordered by (alert_ts_ms, call_id), and how many were rejected at ingest, by reason.

    Columns of `calls`: call_id, mint, caller_name, chain (string), alert_ts_ms (int64), created_at (string). liquidity: of
    each call's pool in USD, NaN where unknown. It is no column, so that the hash of the calls is that of earlier versions.
    """

    calls: pa.Table
    rejected: dict[str, int]
    liquidity: npt.NDArray[np.float64]


class CallsElsewhere(Protocol):
    """Calls that an object store keeps, and this machine has a file of: see `call_months`."""

    @property
    def place(self) -> str:
        """The URL."""

    def changing(self) -> AbstractContextManager[Any]:
        """The DuckDB of all calls, `.con`, and `.publish()`, which says whether the change counts."""

    def settle(self) -> None:
        """Make the file of this machine anew after a change."""


@dataclass(frozen=True)
class CallStore:
    """The DuckDB file `path` with a table `alerts`. `memory_limit` is DuckDB's, `lock_timeout_s` how long a writer waits.

    elsewhere: where the calls are kept, if the file is only made of them.
    """

    path: Path
    memory_limit: str = "2GB"
    lock_timeout_s: float = 60.0
    elsewhere: CallsElsewhere | None = field(default=None, compare=False, repr=False)

    @property
    def place(self) -> str:
        """Where the calls are kept, for people."""
        return str(self.path) if self.elsewhere is None else self.elsewhere.place

    def frame(self, month: str | None = None) -> "pd.DataFrame":
        """Return the calls of a UTC month, or all of them, by time. Raises InputError for what is no month."""
        from quantbot_pipeline.frames import frame_of

        first, last = (0, 1 << 62) if month is None else (parse_day(month, end=False), parse_day(month, end=True))
        read = read_calls(self, first, last)
        return frame_of(read.calls.append_column("liquidity_usd", pa.array(read.liquidity, from_pandas=True)))


class _Whole(NamedTuple):
    """All calls of a small store, and the reason (string) and alert_ts_ms (int64, nullable) of what was rejected."""

    calls: MonthCalls
    rejected: pa.Table


_WHOLE: Kept[_Whole] = Kept(KEPT_ROOM, lambda whole: whole.calls.calls.nbytes + whole.rejected.nbytes)


def is_small(store: CallStore) -> bool:
    """Whether what is read of the store may be kept."""
    try:
        return store.path.stat().st_size <= KEPT_FILE
    except OSError:
        return False


def files_of(store: CallStore) -> list[Path]:
    """The store and what DuckDB has written beside it and not yet into it."""
    return [store.path, store.path.with_name(f"{store.path.name}.wal")]


def within(calls: pa.Table, from_ms: int, to_ms: int) -> slice:
    """Return which rows of calls that are ordered by time have `from_ms <= alert_ts_ms < to_ms`."""
    first, end = np.searchsorted(calls["alert_ts_ms"].to_numpy(), [from_ms, to_ms]).tolist()
    return slice(first, max(first, end))


def bring_up(con: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Make the tables and columns of this version in a store of an older one, and let it say its version.

    Columns that it lacks are null, never guessed. Raises InputError for a store of a newer major version.
    """
    con.execute(TABLES)
    stored_version(con, path, "store_meta")
    con.execute(MIGRATIONS)
    said = {"version": format_of("calls").current, "written_by": __version__}
    con.executemany("INSERT OR REPLACE INTO store_meta VALUES (?, ?)", list(said.items()))


def stored_version(con: duckdb.DuckDBPyConnection, path: Path, table: str | None) -> Version:
    """Return the version of a store that says so in `table`, one of ours; None: it has no such table.

    Raises InputError for a newer major version, and for what is none.
    """
    said: dict[str, str] = {}
    if table is not None:
        said = dict(con.execute(f"SELECT key::VARCHAR, value::VARCHAR FROM {table}").fetchall())
    return read_version("calls", said.get("version"), path, InputError, said.get("written_by"))


def version_of(store: CallStore) -> Version:
    """Return the version of the store. Raises InputError for a newer major version and for what is no store."""
    with reading_calls(store) as con:
        return stored_version(con, store.path, "store_meta")


def read_calls(store: CallStore, from_ms: int, to_ms: int) -> MonthCalls:
    """Return calls with `from_ms <= alert_ts_ms < to_ms`; an absent store has none. Raises InputError for a broken store."""
    if not is_small(store):
        with reading_calls(store) as con:
            return _read(con, store.path, from_ms, to_ms)
    (calls, _, liquidity), rejected = _WHOLE.get(store, files_of(store), lambda: _read_whole(store))
    rows = within(calls, from_ms, to_ms)
    at = rejected["alert_ts_ms"]
    ours = rejected.filter(pc.and_(pc.greater_equal(at, from_ms), pc.less(at, to_ms)))
    counts = Counter(ours["reason"].to_pylist())
    return MonthCalls(
        calls.slice(rows.start, rows.stop - rows.start), dict(sorted(counts.items())), liquidity[rows].copy()
    )


def _read_whole(store: CallStore) -> _Whole:
    with reading_calls(store) as con:
        calls = _read(con, store.path, -(1 << 63), (1 << 63) - 1)
        rejected = con.sql("SELECT reason, alert_ts_ms FROM rejected_alerts").to_arrow_table()
    return _Whole(calls, rejected)


def _read(con: duckdb.DuckDBPyConnection, path: Path, from_ms: int, to_ms: int) -> MonthCalls:
    found = con.sql(
        """SELECT call_id, mint, caller_name, chain, alert_ts_ms, created_at, liquidity_usd FROM alerts
           WHERE alert_ts_ms >= ? AND alert_ts_ms < ? ORDER BY alert_ts_ms, call_id""",
        params=[from_ms, to_ms],
    )
    calls = pa.concat_tables(pieces_of(path, found))
    rejected = con.execute(
        """SELECT reason, count(*) FROM rejected_alerts WHERE alert_ts_ms >= ? AND alert_ts_ms < ?
           GROUP BY 1 ORDER BY 1""",
        [from_ms, to_ms],
    ).fetchall()
    amounts = calls["liquidity_usd"].cast(pa.float64()).to_numpy()
    return MonthCalls(calls.drop_columns("liquidity_usd"), dict(rejected), amounts)


def pieces_of(path: Path, found: duckdb.DuckDBPyRelation) -> Iterator[pa.Table]:
    """The rows of a query in their order; at least one piece, which may be empty."""
    try:
        reader = found.to_arrow_reader(BATCH)
        empty = True
        for batch in reader:
            empty = False
            yield pa.Table.from_batches([batch])
        if empty:
            yield reader.schema.empty_table()
    except (duckdb.OutOfMemoryException, pa.ArrowException) as e:
        raise _out_of_memory(path, e) from None


def _out_of_memory(path: Path, why: Exception) -> StoreError:
    return StoreError(
        f"{path}: reading the calls stopped: {str(why).splitlines()[0][:200]}; give it more memory "
        "(QUANTBOT_MEMORY_LIMIT) or free disk space"
    )


Statistics = dict[str, dict[str, int]]
_STATISTICS: Kept[Statistics] = Kept(16)


def month_statistics(store: CallStore) -> Statistics:
    """{month: calls, callers, mints} of every month that has calls, ascending."""
    if not store.path.exists():
        return {}
    kept = _STATISTICS.get(store, files_of(store), lambda: _statistics_of(store))
    return {month: dict(counts) for month, counts in kept.items()}


def _statistics_of(store: CallStore) -> Statistics:
    if is_small(store):
        return _counted(read_calls(store, -(1 << 63), (1 << 63) - 1).calls)
    with reading_calls(store) as con:
        found = con.execute(
            """SELECT strftime(make_timestamp_ms(alert_ts_ms), '%Y-%m') AS month, count(*), count(DISTINCT caller_name),
                      count(DISTINCT mint)
               FROM alerts GROUP BY 1 ORDER BY 1"""
        ).fetchall()
    return {month: {"calls": n, "callers": callers, "mints": mints} for month, n, callers, mints in found}


def _counted(calls: pa.Table) -> Statistics:
    """The same of calls that are at hand, ordered by time: to open the store takes 0.04 s."""
    month, first = np.unique(
        calls["alert_ts_ms"].to_numpy().astype("datetime64[ms]").astype("datetime64[M]"), return_index=True
    )
    counts: Statistics = {}
    for name, start, end in zip(month.astype(str).tolist(), first, [*first[1:], calls.num_rows], strict=True):
        rows = calls.slice(start, end - start)
        callers, mints = (pc.count_distinct(rows[column]).as_py() for column in ("caller_name", "mint"))
        counts[name] = {"calls": rows.num_rows, "callers": callers, "mints": mints}
    return counts


def liquidity_statistics(store: CallStore) -> dict[str, tuple[int, int]]:
    """{month: calls, those whose liquidity is known} of every month that has calls."""
    if not store.path.exists():
        return {}
    with reading_calls(store) as con:
        found = con.execute(
            """SELECT strftime(make_timestamp_ms(alert_ts_ms), '%Y-%m'), count(*), count(liquidity_usd)
               FROM alerts GROUP BY 1 ORDER BY 1"""
        ).fetchall()
    return {month: (calls, known) for month, calls, known in found}


def earliest_call_ms(con: duckdb.DuckDBPyConnection) -> int | None:
    """Return when the first call of a store was made, UTC ms; None without calls."""
    ((earliest,),) = con.execute("SELECT min(alert_ts_ms) FROM alerts").fetchall()
    return earliest


def note_first_month(store: CallStore, earliest: int | None) -> None:
    """Note the month of the earliest call (UTC ms) beside the store, where none or a later one is noted.

    It is the first partition of months. It never moves to a later month, so that no partition that was made is lost.
    """
    file = store.path.with_name(FIRST_MONTH_FILE)
    noted = file.read_text().strip() if file.exists() else ""
    if earliest is not None and (not noted or month_of(earliest) < noted):
        with replacing(file) as temporary:
            temporary.write_text(f"{month_of(earliest)}\n")


def _view_of(con: duckdb.DuckDBPyConnection, name: str) -> str:
    """Return SQL of a table of the store; a column that an earlier version did not write is null."""
    source = f"{UNTRUSTED}.{name}"
    present = {column.lower() for column in con.sql(f"FROM {source}").columns}
    if name != "alerts":
        return f"FROM {source}"
    if "liquidity_usd" not in present:
        return f"SELECT *, NULL::DOUBLE AS liquidity_usd FROM {source}"
    amount = "TRY_CAST(liquidity_usd AS DOUBLE)"
    return f"SELECT * REPLACE (CASE WHEN isfinite({amount}) AND {amount} >= 0 THEN {amount} END AS liquidity_usd) FROM {source}"


@contextmanager
def reading_calls(store: CallStore) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that shows the tables of the store under their names; another file with calls may lack the rejected ones."""
    path = store.path
    try:
        with open_untrusted(path) if path.exists() else duckdb.connect() as con:
            con.execute("SET memory_limit = ?", [store.memory_limit])
            tables = untrusted_tables(con)
            if path.exists() and "alerts" not in tables:
                raise InputError(f"{path}: no table alerts; make the store with `quantbot ingest calls`")
            stored_version(con, path, f"{UNTRUSTED}.store_meta" if "store_meta" in tables else None)
            con.execute(TABLES)  # empty ones, of our own database
            con.execute(MIGRATIONS)
            for name in ("alerts", "rejected_alerts", "store_meta", "call_sightings", "ingests"):
                if name in tables:
                    con.execute(f"CREATE TEMP VIEW {name} AS {_view_of(con, name)}")
            yield con
    except duckdb.OutOfMemoryException as e:
        raise _out_of_memory(path, e) from None
    except duckdb.Error as e:
        if words := disk_fault(e):  # what does not fit into memory spills beside the store
            raise StoreError(f"{path.parent}: {words}; {MEND_DISK}") from None
        if is_in_use(e):
            raise StoreError(in_use(path)) from None
        raise InputError(f"{path}: not readable as the store of calls: {str(e).splitlines()[0][:200]}") from None
