"""A pandas frame as an input like a file: written to a scratch file that the ingest reads as any other."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union, cast

import pyarrow as pa
import pyarrow.parquet as pq

from quantbot_pipeline.durable import scratch_folder
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.frames import table_of

if TYPE_CHECKING:
    import pandas as pd

# What the Python API takes as input: a frame, a file or folder, or several of these.
Source: TypeAlias = Union["pd.DataFrame", str, Path, Sequence[str | Path]]


@contextlib.contextmanager
def as_files(source: Source, data_dir: Path, what: str) -> Iterator[list[Path]]:
    """Yield the paths of a source; a frame becomes the file `frame_of_<what>.parquet` for as long as the block lasts.

    Raises InputError for a frame that no table can hold.
    """
    if isinstance(source, str | Path):
        yield [Path(source).expanduser()]
        return
    if not hasattr(source, "columns"):
        yield [Path(path).expanduser() for path in source]
        return
    try:
        table = table_of(cast("pd.DataFrame", source))
    except (pa.ArrowException, TypeError) as e:
        raise InputError(f"the frame of {what}: {str(e).splitlines()[0][:200]}; give every column one type") from None
    data_dir.mkdir(parents=True, exist_ok=True)
    with scratch_folder(data_dir, ".frame-") as folder:
        path = folder / f"frame_of_{what}.parquet"
        pq.write_table(table.replace_schema_metadata(None), path)
        yield [path]
