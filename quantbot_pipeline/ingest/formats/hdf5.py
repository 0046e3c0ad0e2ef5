"""HDF5 files that pandas wrote with `format="table"`, as freqtrade did until 2025: read by h5py, in pieces.

PyTables and `pandas.read_hdf` are not used: they unpickle what a file says of its columns, and a pickle may run any program.
Here the names are read out of the pickle's text, and nothing in it is run.
"""

import pickletools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.formats.common import Column, insert_batches, match_columns
from quantbot_pipeline.ingest.limits import refuse_dense

if TYPE_CHECKING:
    import h5py

PIECE = 65_536  # rows read at once
MAX_ROW = 1_024  # bytes; ten numbers and a name take a tenth
MAX_CHUNK = 64 << 20  # bytes that one compressed chunk may unfold to
MAX_OBJECTS = 10_000
EXTRA = "HDF5 needs the extra: pip install 'quantbot-pipeline[hdf5]'"


def load_hdf5(
    con: duckdb.DuckDBPyConnection, path: Path, columns: Sequence[Column], table: str | None
) -> dict[str, str]:
    """Read the one table of the file; raises InputError where there is none, or more than one."""
    try:
        import h5py
        import hdf5plugin  # noqa: F401  (registers blosc, in which freqtrade compresses)
    except ImportError:
        raise InputError(f"{path}: {EXTRA}") from None
    try:
        with h5py.File(path, "r") as file:
            return _load(con, path, _only_table(path, file, table), columns)
    except (RuntimeError, KeyError, ValueError, TypeError) as e:  # what h5py says of a damaged file
        raise InputError(f"{path}: not readable as HDF5: {str(e).strip() or type(e).__name__}") from None


def _load(
    con: duckdb.DuckDBPyConnection, path: Path, dataset: "h5py.Dataset", columns: Sequence[Column]
) -> dict[str, str]:
    refuse_dense(path, len(dataset))
    fields = _fields(path, dataset)
    schema = pa.schema([pa.field(name, kind) for name, (_, _, kind) in fields.items()])
    matched = match_columns(path, schema.names, columns)
    insert_batches(con, path, schema, _batches(dataset, fields, schema), matched)
    return matched


Fields = dict[str, tuple[str, int | None, pa.DataType]]  # name: field of the dataset, place in it, type


def _only_table(path: Path, file: "h5py.File", wanted: str | None) -> "h5py.Dataset":
    """The dataset of the table `wanted` (its key in pandas), or of the only one."""
    import h5py

    found: dict[str, h5py.Dataset] = {}
    seen = 0

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> bool | None:
        nonlocal seen
        seen += 1
        if isinstance(item, h5py.Dataset) and item.dtype.names and name.rpartition("/")[2] == "table":
            found[name.rpartition("/")[0]] = item
        return True if seen > MAX_OBJECTS else None

    if file.visititems(visit):
        raise InputError(f"{path}: more than {MAX_OBJECTS:,} objects; is this a file of candles?")
    if wanted is not None and wanted.strip("/") in found:
        found = {wanted: found[wanted.strip("/")]}
    if not found:
        raise InputError(f"{path}: no table that pandas wrote; write it with to_hdf(…, format='table')")
    if len(found) > 1 or (wanted is not None and wanted not in found):
        raise InputError(
            f"{path}: holds the tables {', '.join(sorted(found)[:5])}; write one table to a file of its own"
        )
    (dataset,) = found.values()
    if dataset.dtype.itemsize > MAX_ROW:
        raise InputError(
            f"{path}: a row of the table takes {dataset.dtype.itemsize:,} bytes; is this a table of candles?"
        )
    if dataset.ndim != 1 or (dataset.chunks and dataset.chunks[0] * dataset.dtype.itemsize > MAX_CHUNK):
        raise InputError(f"{path}: the table is stored in pieces of more than {MAX_CHUNK >> 20} MiB; is it damaged?")
    return dataset


def _fields(path: Path, dataset: "h5py.Dataset") -> Fields:
    """The columns of a table: pandas keeps those of one type side by side in a block, in an order that only the file says."""
    fields: Fields = {}
    for name in dataset.dtype.names:
        kind, shape = dataset.dtype[name].base, dataset.dtype[name].shape
        names = _names(dataset.attrs.get(f"{name}_kind"))
        if name == "index" and not shape:
            if _text(dataset.attrs.get("index_kind")).startswith("datetime64"):
                fields[name] = (name, None, _type(_text(dataset.attrs.get("index_kind")), kind))
            continue  # rows numbered by pandas
        width = shape[0] if len(shape) == 1 else 1
        if len(names) != width or len(shape) > 1:
            raise InputError(
                f"{path}: the names of its columns in {name} cannot be read; save it as feather or Parquet"
            )
        dtype = _text(dataset.attrs.get(f"{name}_dtype"))
        for place, column in enumerate(names):
            fields[column] = (name, place if shape else None, _type(dtype, kind))
    return fields


def _type(said: str, kind: Any) -> pa.DataType:
    """The Arrow type of a column: a time where pandas says so, else what the numbers are."""
    if said.startswith("datetime64"):
        unit = said.partition("[")[2].rstrip("]").partition(",")[0] or "ns"
        return pa.timestamp(unit, tz="UTC")
    return pa.string() if kind.kind == "S" else pa.from_numpy_dtype(kind.newbyteorder("="))


def _batches(dataset: "h5py.Dataset", fields: Fields, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(dataset), PIECE):
        rows = dataset[start : start + PIECE]
        arrays = []
        for name, (source, place, kind) in fields.items():
            values = rows[source] if place is None or rows[source].ndim == 1 else rows[source][:, place]
            values = values.astype(values.dtype.newbyteorder("="))
            if pa.types.is_timestamp(kind):
                arrays.append(pa.array(values, pa.int64()).cast(kind))
            elif pa.types.is_string(kind):
                arrays.append(pa.array([value.decode("utf-8", "replace") for value in values.tolist()], kind))
            else:
                arrays.append(pa.array(values, schema.field(name).type))
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


def _names(value: object) -> list[str]:
    """The texts in a pickled list of names, in order; nothing is unpickled."""
    if not isinstance(value, bytes):
        return []
    try:
        return [arg for code, arg, _ in pickletools.genops(value) if "UNICODE" in code.name and isinstance(arg, str)]
    except ValueError:
        return []
