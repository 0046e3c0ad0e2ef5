"""How tables travel to the page: columns as lists, repeated texts as positions in one list, numbers that JSON can hold."""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Columns = dict[str, list[Any]]
K = TypeVar("K")


class Index(Generic[K]):
    """Values in order of their first appearance; a value travels as its position."""

    def __init__(self, *first: K) -> None:
        self.values: list[K] = []
        self._at: dict[K, int] = {}
        for value in first:
            self.of(value)

    def of(self, value: K) -> int:
        """The position of a value, which is appended when it is new."""
        if value not in self._at:
            self._at[value] = len(self.values)
            self.values.append(value)
        return self._at[value]

    def of_each(self, column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
        """The positions of a column's values (no nulls), one look-up per distinct value."""
        coded = column.combine_chunks().dictionary_encode()
        positions = np.array([self.of(value) for value in coded.dictionary.to_pylist()], dtype=np.int64)
        return positions[coded.indices.to_numpy()] if len(coded) else np.empty(0, np.int64)


def columns(table: pa.Table, digits: dict[str, int] | None = None) -> Columns:
    """{name: values}; NaN and infinities become null, and the columns in `digits` are rounded."""
    return {name: _values(table[name], (digits or {}).get(name)) for name in table.column_names}


def _values(column: pa.ChunkedArray, digits: int | None) -> list[Any]:
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_finite(column), column, None)
        column = column if digits is None else pc.round(column, digits)
        column = column.cast(pa.int64()) if digits == 0 else column
    return column.to_pylist()


def of_rows(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> Columns:
    """The same for a list of row dicts."""
    return {name: [row[name] for row in rows] for name in names}


def histogram(
    group: npt.NDArray[np.int64], values: npt.NDArray[np.float64], edges: Sequence[float], groups: int
) -> npt.NDArray[np.int64]:
    """(groups, len(edges) + 1) counts of `values`: bin i holds edges[i-1] <= value < edges[i]."""
    counts = np.zeros((groups, len(edges) + 1), dtype=np.int64)
    np.add.at(counts, (group, np.searchsorted(edges, values, side="right")), 1)
    return counts
