"""Tables as pandas frames, the public frame type: nullable dtypes, UTC timestamps.

Belongs here: which pandas type a column becomes. pandas is imported by the first frame that somebody asks for.
"""

import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    import pandas as pd

# Columns that hold UTC milliseconds since 1970: `alert_ts_ms`, `t_2x_ms`, `ts_ms`. Durations end in `_ms` too, and are none.
EPOCH_MS = re.compile(r"(?:.*_)?ts_ms|t_(?:\d+x|peak)_ms")


def frame_of(table: pa.Table, *, times: bool = True, **attrs: Any) -> "pd.DataFrame":
    """Return a table as a frame.

    int64, float64, bool and text become Int64, Float64, boolean and string, so that a null stays a null. With `times`, columns
    of UTC milliseconds (see EPOCH_MS) and ISO texts named `created_at` become datetime64[ms, UTC]. `attrs` go to `frame.attrs`.
    """
    import pandas as pd

    kinds = {pa.int64(): pd.Int64Dtype(), pa.float64(): pd.Float64Dtype(), pa.bool_(): pd.BooleanDtype()}
    kinds |= {kind: pd.StringDtype() for kind in (pa.string(), pa.large_string())}
    frame = table.to_pandas(types_mapper=kinds.get)
    if times:
        for field in table.schema:
            if EPOCH_MS.fullmatch(field.name) and pa.types.is_integer(field.type):
                values = table[field.name].cast(pa.timestamp("ms", tz="UTC"))
                frame[field.name] = values.to_pandas().astype("datetime64[ms, UTC]")
            elif field.name == "created_at" and pa.types.is_string(field.type):
                frame[field.name] = pd.to_datetime(frame[field.name], utc=True, format="ISO8601").astype(
                    "datetime64[ms, UTC]"
                )
    frame.attrs.update(attrs)
    return frame


def frame_of_rows(rows: list[dict[str, Any]], columns: tuple[str, ...] = (), **attrs: Any) -> "pd.DataFrame":
    """Return rows of a report as a frame with the same dtypes; without a row it still has `columns`."""
    names = list(rows[0]) if rows else list(columns)
    table = pa.table({name: pa.array([row[name] for row in rows]) for name in names})
    return frame_of(table, times=False, **attrs)


def table_of(frame: "pd.DataFrame") -> pa.Table:
    """Return a frame as a table; an index that has a name or holds times becomes a column."""
    import pandas as pd

    named = any(name is not None for name in frame.index.names) or isinstance(frame.index, pd.DatetimeIndex)
    return pa.Table.from_pandas(frame.reset_index() if named else frame, preserve_index=False)
