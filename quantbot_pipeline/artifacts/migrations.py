"""Artifacts of every version as those of today: a chain of pure functions (table of one version) -> (table of the next).

Belongs here: what became of a column between two versions. Does not: which versions there are (`versions`), reading files (`runs`).
Columns that a version appended need no step: they are null in what is older, never guessed.
"""

from collections.abc import Callable

import pyarrow as pa

from quantbot_pipeline.artifacts.schemas import ARTIFACTS
from quantbot_pipeline.versions import Version, format_of, parse_version

Step = Callable[[pa.Table], pa.Table]

# (artifact, version): what makes a table of that version one of the next. No version so far has done more than append columns.
STEPS: dict[tuple[str, str], Step] = {}


def brought_up(artifact_type: str, table: pa.Table, version: Version) -> pa.Table:
    """Return a table that a version wrote as one of today: the contract's columns in its order, then unknown ones.

    Columns that did not exist are null, whatever the contract says of nulls. Columns that a newer version appended are kept.
    A table of an artifact that the contract does not have comes back as it is.
    """
    for step in steps_from(artifact_type, version):
        table = step(table)
    return table if artifact_type not in ARTIFACTS else fitted(table, whole_schema(artifact_type, table.schema))


def steps_from(artifact_type: str, version: Version) -> list[Step]:
    """Return the steps that lead a table of a version to that of today, in their order."""
    known = {parse_version(text): text for text in format_of(artifact_type).versions}
    later = [text for number, text in known.items() if number is not None and number >= version]
    return [STEPS[artifact_type, text] for text in later if (artifact_type, text) in STEPS]


def whole_schema(artifact_type: str, found: pa.Schema) -> pa.Schema:
    """Return the contract's columns and, behind them, those of `found` that the contract does not have."""
    schema = ARTIFACTS[artifact_type][1]
    if len(found) <= len(schema) and all(name in schema.names for name in found.names):
        return schema
    return pa.schema([*schema, *(field for field in found if field.name not in schema.names)])


def fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the columns of a schema in its order; those that the table lacks are null."""
    rows = table.num_rows
    columns = [_as(table[f.name], f.type) if f.name in table.schema.names else pa.nulls(rows, f.type) for f in schema]
    return pa.table(columns, schema=schema)


def _as(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    return (
        column if column.type == wanted else column.cast(wanted)
    )  # a cast to the same type imports pyarrow.compute, 0.1 s
