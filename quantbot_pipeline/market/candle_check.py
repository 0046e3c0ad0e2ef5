"""One file of the candle store looked at as a whole: its version, its columns, its checksums, and what candles promise.

Belongs here: faults of a file that is there. Does not: rows from outside; those are judged by `ingest`.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.market.candle_files import REJECTED_VALUES, SCHEMA, WICKS_SCHEMA, readable
from quantbot_pipeline.market.candle_footer import (
    COLUMNS,
    FOOTER_KEY,
    checksums,
    from_footer,
    require_readable,
    rows_of,
    said_version,
)
from quantbot_pipeline.market.opening import opened
from quantbot_pipeline.versions import Version

NEEDED = {"candles": SCHEMA.names, "rejected": REJECTED_VALUES, "wicks": WICKS_SCHEMA.names}


class CheckedFile(NamedTuple):
    """What was found: the version of the format, and the rows."""

    version: Version
    rows: int


def check_candle_file(path: Path) -> CheckedFile:
    """Verify a file of valid candles, rejected rows or wicks. Raises InputError naming the fault."""
    with readable(path), pq.ParquetFile(opened(path), page_checksum_verification=True) as file:
        said = file.metadata.metadata or {}
        require_readable(path, said)
        missing = [name for name in NEEDED.get(path.stem, ()) if name not in file.schema_arrow.names]
        if missing:
            raise ValueError(f"it has no column {missing[0]}")
        if path.stem == "candles":
            _check_groups(file, said.get(FOOTER_KEY))
        else:
            file.read()  # every page has a checksum
        return CheckedFile(said_version(path, said), file.metadata.num_rows)


def _check_groups(file: pq.ParquetFile, footer: bytes | None) -> None:
    described = None if footer is None else from_footer(footer, rows_of(file.metadata))
    last: tuple[str, int] | None = None
    for number in range(file.metadata.num_row_groups):
        rows = file.read_row_group(number, columns=SCHEMA.names)
        values = {name: rows[name].to_numpy() for name in COLUMNS}
        if described is not None and checksums([values[name] for name in COLUMNS]) != described[number].checksums:
            raise ValueError(f"row group {number} is not what its checksums say")
        last = _check_order(rows, last)
        o, high, low, c = (values[name] for name in ("open", "high", "low", "close"))
        with np.errstate(invalid="ignore"):
            sound = (low > 0) & (low <= np.minimum(o, c)) & (high >= np.maximum(o, c)) & np.isfinite(high)
        if not sound.all():
            at = int(np.argmin(sound))
            raise ValueError(f"{rows['mint'][at].as_py()!r} at {values['ts_ms'][at]}: no candle has such prices")


def _check_order(rows: pa.Table, last: tuple[str, int] | None) -> tuple[str, int] | None:
    """Sorted by token and time, each once; returns the last row's."""
    if rows.num_rows == 0:
        return last
    mints, times = rows["mint"].combine_chunks(), rows["ts_ms"].to_numpy()
    same = pc.equal(mints[1:], mints[:-1]).to_numpy(zero_copy_only=False)
    later = pc.greater(mints[1:].cast(pa.binary()), mints[:-1].cast(pa.binary())).to_numpy(zero_copy_only=False)
    first = (mints[0].as_py(), int(times[0]))
    between = last is None or (last[0].encode(), last[1]) < (first[0].encode(), first[1])
    if not between or not np.all(later | (same & (np.diff(times) > 0))):
        raise InputError("candles are not sorted by token and time; delete the file and ingest its candles again")
    return mints[-1].as_py(), int(times[-1])
