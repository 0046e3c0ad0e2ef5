"""The files of the candle store, `data/candles/interval=5m/month=YYYY-MM/candles.parquet`: where they lie and how they are laid out.

A month is one file, sorted by (mint, ts_ms), one row per (mint, ts_ms), and no token spans two row groups: so a reader
decodes a token once and prunes by mint. A file is replaced atomically; its footer carries the SHA-256 of its content.
Rejected rows are kept beside it in `rejected.parquet` with their reason; they are never repaired.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from quantbot_pipeline.durable import replacing
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.market.candle_footer import FOOTER_KEY, describe, require_readable, to_footer
from quantbot_pipeline.market.opening import opened
from quantbot_pipeline.versions import parquet_metadata

SCHEMA = pa.schema(
    [
        pa.field("mint", pa.string(), nullable=False),
        pa.field("ts_ms", pa.int64(), nullable=False),
        *(pa.field(name, pa.float64(), nullable=False) for name in ("open", "high", "low", "close")),
        pa.field("volume", pa.float64()),
    ]
)
REJECTED_SCHEMA = pa.schema(
    [
        pa.field("mint", pa.string()),
        pa.field("ts_ms", pa.int64()),
        *(pa.field(name, pa.float64()) for name in ("open", "high", "low", "close", "volume")),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("nth", pa.int64(), nullable=False),
        # Where the row came from and what it said; unknown of rows that an earlier version rejected.
        pa.field("file", pa.string()),
        pa.field("row", pa.int64()),
        pa.field("text", pa.string()),
    ]
)
# What a run reads of a rejected row; whence the row came changes no run.
REJECTED_VALUES = REJECTED_SCHEMA.names[: REJECTED_SCHEMA.get_field_index("nth") + 1]
# Candles whose high is ten times that of both neighbours: valid, but two of them make a "480x".
WICKS_SCHEMA = pa.schema(
    [
        pa.field("mint", pa.string(), nullable=False),
        pa.field("ts_ms", pa.int64(), nullable=False),
        *(pa.field(name, pa.float64(), nullable=False) for name in ("high", "before", "after")),
    ]
)
ROW_GROUP = 131_072  # rows; a group ends at the first token boundary at or past it
HASH_KEY = b"quantbot.content_sha256"
NO_MONTH = "none"  # the folder of rejected rows whose time is unknown


class CandlesElsewhere(Protocol):
    """Candles that an object store keeps, in a folder that looks as if they were there: see `mirror`."""

    @property
    def place(self) -> str:
        """The URL."""

    def require_honest_store(self) -> None:
        """Raise StoreError for a store that cannot be changed safely."""

    def month(self, interval: str, month: str) -> Any:
        """The files of a month as they are now, for `publish_month`."""

    def publish_month(self, interval: str, month: str, before: Any, new: Mapping[str, Path]) -> bool:
        """Let files take the places of a month's, all at once; False: somebody else was there first."""


@dataclass(frozen=True)
class CandleStore:
    """The files of candles in `folder`. `memory_limit` is DuckDB's in an ingest, `lock_timeout_s` how long a writer waits.

    elsewhere: where the files are kept, if the folder only looks like a store. A file is opened by `opening` alone.
    """

    folder: Path
    memory_limit: str = "2GB"
    lock_timeout_s: float = 60.0
    elsewhere: CandlesElsewhere | None = field(default=None, compare=False, repr=False)

    @property
    def place(self) -> str:
        """Where the candles are kept, for people."""
        return str(self.folder) if self.elsewhere is None else self.elsewhere.place


def store_signature(store: Path) -> str:
    """Changes whenever a file of the store is replaced, and only then; nothing is read."""
    files = [(path, path.stat()) for path in sorted(store.glob("interval=*/month=*/*.parquet"))]
    digest = hashlib.sha256()
    for path, stat in files:
        digest.update(f"{path.relative_to(store)} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def month_file(store: Path, interval: str, month: str) -> Path:
    """The one file of valid candles of a month."""
    return store / f"interval={interval}" / f"month={month}" / "candles.parquet"


def last_candle_ms(store: Path, interval: str, month: str) -> int | None:
    """Return the newest time in a month's file, over all tokens; None without candles, or where the file cannot be read."""
    path = month_file(store, interval, month)
    if not path.exists():
        return None
    try:
        with pq.ParquetFile(opened(path)) as file:
            column = file.schema_arrow.get_field_index("ts_ms")
            groups = [file.metadata.row_group(i).column(column) for i in range(file.metadata.num_row_groups)]
            if all(group.is_stats_set and group.statistics.has_min_max for group in groups):
                return max((int(group.statistics.max) for group in groups), default=None)
            times = file.read(["ts_ms"])["ts_ms"].to_numpy()
            return int(times.max()) if len(times) else None
    except (pa.ArrowException, OSError, KeyError):  # a run that needs the file says what is wrong with it
        return None


def rejected_file(store: Path, interval: str, month: str) -> Path:
    """The file of rejected candles of a month."""
    return month_file(store, interval, month).with_name("rejected.parquet")


def wicks_file(store: Path, interval: str, month: str) -> Path:
    """The file that flags candles of a month whose high stands out."""
    return month_file(store, interval, month).with_name("wicks.parquet")


def write_sorted(target: Path, batches: pa.RecordBatchReader) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, groups = hashlib.sha256(), []
    with (
        replacing(target) as temporary,
        pq.ParquetWriter(
            temporary,
            SCHEMA,
            compression="zstd",
            compression_level=1,
            use_dictionary=["mint"],
            column_encoding={"ts_ms": "DELTA_BINARY_PACKED"}
            | dict.fromkeys(("open", "high", "low", "close", "volume"), "BYTE_STREAM_SPLIT"),
            write_page_checksum=True,
        ) as writer,
    ):
        for group in _token_aligned(batches):
            _update_digest(digest, group)
            groups.append(describe(group))
            writer.write_table(group, row_group_size=group.num_rows)
        said = {HASH_KEY: digest.hexdigest().encode(), FOOTER_KEY: to_footer(groups)}
        writer.add_key_value_metadata(said | parquet_metadata("candles"))


def _token_aligned(batches: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """Regroup a stream sorted by mint: every table ends at the first token boundary at or past ROW_GROUP rows.

    The cut depends on the rows alone, not on how the stream was batched, so that equal content gives equal files.
    """
    held = SCHEMA.empty_table()
    for batch in batches:
        held = pa.concat_tables([held, pa.Table.from_batches([batch.cast(SCHEMA)])])
        while (cut := _boundary(held)) is not None:
            yield held.slice(0, cut).combine_chunks()
            held = held.slice(cut)
    if held.num_rows:
        yield held.combine_chunks()


def _boundary(table: pa.Table) -> int | None:
    if table.num_rows <= ROW_GROUP:
        return None
    mints = table["mint"].slice(ROW_GROUP - 1).combine_chunks()
    changes = pa.compute.index(pa.compute.not_equal(mints[1:], mints[:-1]), True).as_py()
    return None if changes < 0 else ROW_GROUP + int(changes)


def _update_digest(digest: "hashlib._Hash", table: pa.Table) -> None:
    """Feed the values (not the encoding) into the digest, so that equal content has an equal hash on every machine."""
    encoded = table["mint"].combine_chunks().dictionary_encode()
    for text in encoded.dictionary.to_pylist():
        raw = text.encode()
        digest.update(len(raw).to_bytes(8, "little") + raw)
    digest.update(encoded.indices.to_numpy().astype("<i4").tobytes())
    for name in SCHEMA.names[1:]:
        values = table[name].combine_chunks()
        digest.update(values.fill_null(float("nan")).to_numpy() if name == "volume" else values.to_numpy())


REJECTED_READ = pa.schema(
    [("mint", pa.string()), ("ts_ms", pa.int64()), ("reason", pa.string()), ("close", pa.float64())]
)


def read_rejected(store: Path, interval: str, months: Sequence[str], mints: Sequence[str]) -> pa.Table:
    """Rejected candles of `mints` in `months`: mint (string), ts_ms (int64), reason (string), close (float64)."""
    parts = [
        pq.read_table(opened(path), columns=REJECTED_READ.names, filters=[("mint", "in", list(mints))])
        for path in (rejected_file(store, interval, month) for month in months)
        if path.exists() and mints
    ]
    return pa.concat_tables([REJECTED_READ.empty_table(), *(p.cast(REJECTED_READ) for p in parts)])


def write_rejected(target: Path, rows: pa.Table) -> None:
    """Write the rejected rows of a month; the footer names the hash of their values, as a file of these alone would have it."""
    values = pa.BufferOutputStream()
    pq.write_table(rows.select(REJECTED_VALUES), values, compression="zstd", write_page_checksum=True)
    digest = hashlib.sha256(values.getvalue()).hexdigest()
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as temporary:
        described = rows.replace_schema_metadata({HASH_KEY: digest.encode()} | parquet_metadata("candles"))
        pq.write_table(described, temporary, compression="zstd", write_page_checksum=True)


def rejected_hash(path: Path) -> str:
    """The hash of the values of a file of rejected rows; of all its bytes where an earlier version wrote it."""
    try:
        said = pq.read_metadata(opened(path)).metadata or {}
    except pa.ArrowException:  # whoever reads the rows says what is wrong
        said = {}
    require_readable(path, said)
    digest = said.get(HASH_KEY)
    return hashlib.file_digest(opened(path), "sha256").hexdigest() if digest is None else str(digest.decode())


def month_rows(store: Path, interval: str, month: str) -> tuple[int, int, int]:
    """(valid rows, rejected rows, bytes) of a month's files; zeros where there is none."""
    valid, rejected = month_file(store, interval, month), rejected_file(store, interval, month)
    counts = [0, 0]
    for i, path in enumerate((valid, rejected)):
        if path.exists():
            with readable(path):
                counts[i] = pq.read_metadata(opened(path)).num_rows
    return counts[0], counts[1], sum(path.stat().st_size for path in (valid, rejected) if path.exists())


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Whatever is wrong with a store file or its pages is an InputError. A flipped bit is an error, never a price."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as e:
        raise InputError(
            f"{path}: the candle store is not readable ({str(e)[:120]}); delete the file and ingest its candles again"
        ) from None
