"""The store of calls as month files in an object store, and the DuckDB file that this machine makes of them.

One pointer names the files of all months: the first call of an id stays whatever its month, and an ingest counts as a whole.
Belongs here: tables into files and back. Does not: which rows there are; the DuckDB file is a store of calls like any other.
"""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from quantbot_pipeline.copied import write_whole
from quantbot_pipeline.duck import Publication, first_line, published_duckdb, quoted
from quantbot_pipeline.durable import disk_fault, scratch_folder
from quantbot_pipeline.errors import StoreError
from quantbot_pipeline.market.calls import BATCH, CallStore, bring_up, earliest_call_ms, note_first_month, reading_calls
from quantbot_pipeline.market.mirror import LOOK_S, Mirror
from quantbot_pipeline.market.pointers import Entry, Found, Seen, read_pointer
from quantbot_pipeline.versions import parquet_metadata

PREFIX = "calls"
_AT = "strftime(make_timestamp_ms({}), '%Y-%m')"
_MONTH_OF_TIME = (
    f"CASE WHEN alert_ts_ms > 0 AND alert_ts_ms < 100000000000000 THEN {_AT.format('alert_ts_ms')} ELSE 'none' END"
)
# Table: SQL of its rows with the month that each belongs to.
_BY_MONTH = {
    "alerts": f"SELECT {_AT.format('t.alert_ts_ms')} AS month, t FROM alerts t",
    "rejected": f"SELECT {_MONTH_OF_TIME} AS month, t FROM rejected_alerts t",
    "sightings": f"""SELECT coalesce({_AT.format("a.alert_ts_ms")}, 'none') AS month, t FROM call_sightings t
                     LEFT JOIN alerts a USING (call_id)""",
    "ingests": """SELECT strftime(t."at", '%Y-%m') AS month, t FROM ingests t""",
}
_TABLES = {"alerts": "alerts", "rejected": "rejected_alerts", "sightings": "call_sightings", "ingests": "ingests"}
Digests = dict[str, tuple[int, int]]  # by file, such as `month=2024-01/alerts`: rows, and a sum that changes with them


class ObjectCalls:
    """The calls under the URL of `mirror`, and the file `path` that this machine has made of them."""

    def __init__(self, mirror: Mirror, path: Path, memory_limit: str, lock_timeout_s: float) -> None:
        self.mirror, self.path = mirror, path
        self.memory_limit, self.lock_timeout_s = memory_limit, lock_timeout_s
        self._looked = -LOOK_S

    @property
    def place(self) -> str:
        """The URL of the calls."""
        return f"{self.mirror.bucket.url}/{PREFIX}"

    def look(self, *, now: bool = False) -> None:
        """Make the file anew if the pointer changed. Within moments of the last look nothing is asked, unless `now`."""
        if not now and time.monotonic() - self._looked < LOOK_S:
            return
        found = read_pointer(self.mirror.bucket, PREFIX)
        if not self._is_made_of(found):
            with published_duckdb(self.path, self.lock_timeout_s) as publication:
                found = read_pointer(self.mirror.bucket, PREFIX)  # another process may have made it meanwhile
                if not self._is_made_of(found):
                    self._make(publication, found)
            self._note(found)
            if self.path.exists():
                store = CallStore(self.path, self.memory_limit, self.lock_timeout_s)
                with reading_calls(store) as con:
                    note_first_month(store, earliest_call_ms(con))
        self._looked = time.monotonic()

    # --- reading ---

    @property
    def _sidecar(self) -> Path:
        return self.path.with_name(f".{self.path.name}.made-of")

    def _is_made_of(self, found: Found) -> bool:
        """Whether the file has what the pointer says; without a pointer there is no file."""
        if found.seen is None:
            return not self.path.exists()
        try:
            return self.path.exists() and self._sidecar.read_text() == _digest(found.seen)
        except OSError:
            return False

    def _note(self, found: Found) -> None:
        """Write down what the file is made of; whoever is killed before makes it once more."""
        write_whole(self._sidecar, _digest(found.seen).encode())

    def _make(self, publication: Publication, found: Found) -> None:
        if found.seen is None:
            self.path.unlink(missing_ok=True)
            return
        publication.start_empty()
        con = publication.connect()
        con.execute("SET memory_limit = ?", [self.memory_limit])
        bring_up(con, self.path)
        files = found.pointer.files
        parts = [(entry, number) for entry in files.values() for number in range(len(entry.parts))]
        self.mirror.bucket.each(lambda part: self.mirror.part(*part), parts)
        for name in sorted(files):
            self._insert(con, name, files[name])
        publication.changed = True

    def _insert(self, con: duckdb.DuckDBPyConnection, name: str, entry: Entry) -> None:
        """Put the rows of a file into its table. A column that this version does not know is kept."""
        table = _TABLES.get(name.rsplit("/", 1)[-1])
        if table is None:  # of a later version
            return
        try:
            with pq.ParquetFile(self.mirror.open(entry).data) as file:
                source = pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches(batch_size=BATCH))
                con.register("month_file", source)
                known = {column.lower() for column in con.sql(f"FROM {table}").columns}
                relation = con.sql("FROM month_file LIMIT 0")
                for column, kind in zip(relation.columns, relation.types, strict=True):
                    if column.lower() not in known:
                        con.execute(f"ALTER TABLE {table} ADD COLUMN {quoted(column)} {kind}")
                con.execute(f"INSERT INTO {table} BY NAME FROM month_file")
                con.unregister("month_file")
        except (pa.ArrowException, duckdb.Error) as e:
            if disk_fault(e) or isinstance(e, duckdb.OutOfMemoryException):
                raise
            raise StoreError(
                f"{self.mirror.bucket.url}/{entry.key}: not readable as calls ({first_line(e)[:160]}); "
                "restore an earlier version of this object"
            ) from None

    # --- changing ---

    @contextmanager
    def changing(self) -> Iterator["Change"]:
        """Change the calls: yield the DuckDB of all of them, for `Change.publish`. What is not published changes nothing."""
        self.mirror.publisher.require_honest_store()
        self.look(now=True)
        with (
            published_duckdb(self.path, self.lock_timeout_s) as publication,
            scratch_folder(self.path.parent, ".publishing-") as scratch,
        ):
            before = read_pointer(self.mirror.bucket, PREFIX)
            if not self._is_made_of(before):
                self._make(publication, before)
            yield Change(self, publication, before, scratch)

    def settle(self) -> None:
        """After a change: make the file of this machine anew, and remove files that nobody may be reading any more."""
        self.look(now=True)
        self.mirror.publisher.sweep(PREFIX)


class Change:
    """One pending change of the calls in a store; `con` shows them, and takes the change."""

    def __init__(self, calls: ObjectCalls, publication: Publication, before: Found, scratch: Path) -> None:
        self._calls, self._before, self._scratch = calls, before, scratch
        self.con = publication.connect()
        bring_up(self.con, calls.path)
        self._digests = digests(self.con)
        publication.changed = False  # the file is made of the store alone

    def publish(self) -> bool:
        """Publish the months that changed, all at once; False: another ingest was there first, so that all must be done again."""
        now = digests(self.con)
        changed = sorted(name for name, digest in now.items() if self._digests.get(name) != digest)
        files = {name: self._write(name) for name in changed}
        return self._calls.mirror.publisher.publish(PREFIX, self._before, files)

    def _write(self, name: str) -> Path:
        month, kind = name.removeprefix("month=").split("/")
        target = self._scratch / f"{month}-{kind}.parquet"
        rows = self.con.sql(
            f"SELECT unnest(t) FROM ({_BY_MONTH[kind]}) WHERE month = ? ORDER BY ALL", params=[month]
        ).to_arrow_reader(BATCH)
        with pq.ParquetWriter(target, rows.schema, compression="zstd", write_page_checksum=True) as writer:
            for batch in rows:
                writer.write_batch(batch)
            writer.add_key_value_metadata(parquet_metadata("calls"))
        return target


def digests(con: duckdb.DuckDBPyConnection) -> Digests:
    """Tell the contents of all month files apart, within one process: {file: (rows, sum of their hashes)}."""
    found: dict[str, tuple[int, int]] = {}
    for kind, rows in _BY_MONTH.items():
        sums = con.execute(
            f"SELECT month, count(*), sum(hash(t)::HUGEINT)::VARCHAR FROM ({rows}) GROUP BY 1"
        ).fetchall()
        found |= {f"month={month}/{kind}": (count, int(total)) for month, count, total in sums}
    return found


def _digest(seen: Seen | None) -> str:
    return "" if seen is None else hashlib.sha256(seen.content).hexdigest()
