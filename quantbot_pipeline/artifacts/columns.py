"""A table's columns as the rules of the contract see them, and the rules that many columns share."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Mask = npt.NDArray[np.bool_]
Fault = tuple[str, str, Mask]  # column, what is wrong with it, the rows where it is

TEXTS_AT_ONCE = 1 << 16  # as Python objects, a hundred bytes each and more


class Rows(Protocol):
    """The rows of an artifact: a `pyarrow.Table`, or something that reads a column whenever it is looked at."""

    @property
    def schema(self) -> pa.Schema: ...
    @property
    def num_rows(self) -> int: ...
    @property
    def column_names(self) -> list[str]: ...
    def __getitem__(self, name: str, /) -> pa.ChunkedArray: ...


class Columns:
    """A table's columns as numpy arrays; a null reads as NaN, 0, False or an empty text, and `absent` tells."""

    def __init__(self, table: Rows) -> None:
        self._table = table
        self.rows = table.num_rows

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        column = self._table[name]
        if column.null_count:
            fill: dict[pa.DataType, Any] = {pa.float64(): float("nan"), pa.int64(): 0, pa.bool_(): False}
            column = column.fill_null(fill.get(column.type, ""))
        return column.to_numpy()

    def absent(self, name: str) -> Mask:
        return self._table[name].is_null().to_numpy()

    def empty(self, name: str) -> Mask:
        """Rows whose text is empty; a null is not."""
        return self._mask(pc.equal(self._table[name], ""))

    def among(self, name: str, known: Sequence[str]) -> Mask:
        return self._mask(pc.is_in(self._table[name], value_set=pa.array(known, pa.string())))

    def codes(self, *names: str) -> npt.NDArray[np.int64]:
        """A number per row, equal for rows with equal values in all these columns."""
        combined = np.zeros(self.rows, np.int64)
        for name in names:
            encoded = pc.dictionary_encode(self._table[name], null_encoding="encode").combine_chunks()
            own = encoded.indices.to_numpy().astype(np.int64) if self.rows else combined
            combined = np.unique(combined * (own.max(initial=0) + 1) + own, return_inverse=True)[1]
        return combined

    def repeated(self, *names: str) -> Mask:
        """Rows whose values in these columns an earlier row has already."""
        codes = self.codes(*names)
        again = np.ones(self.rows, bool)
        again[np.unique(codes, return_index=True)[1]] = False
        return again

    def unlike(self, name: str, test: Callable[[str], bool]) -> Mask:
        """Rows whose text fails a test; a null passes. A text is tested once, or once in every so many rows."""
        column = self._table[name]
        failing = {
            text
            for first in range(0, len(column), TEXTS_AT_ONCE)
            for text in pc.unique(column[first : first + TEXTS_AT_ONCE]).to_pylist()
            if text is not None and not test(text)
        }
        return self.among(name, list(failing)) & ~self.absent(name) if failing else np.zeros(self.rows, bool)

    def _mask(self, column: pa.ChunkedArray) -> Mask:
        return column.fill_null(False).to_numpy()


def above(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Mask:
    """`a > b` by more than a summation's order can do."""
    return a > b + 1e-6 + 1e-9 * np.abs(b)


def outside(values: npt.NDArray[Any], low: float, high: float) -> Mask:
    """Out of [low, high]; NaN is not."""
    return (values < low) | (values > high)


def apart(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Mask:
    """Return where two numbers differ by more than a summation's order can do."""
    return above(a, b) | above(b, a)


def named(t: Columns, *names: str) -> Iterator[Fault]:
    for name in names:
        yield name, "empty", t.empty(name)


def rates(t: Columns, *names: str) -> Iterator[Fault]:
    for name in names:
        yield name, "outside 0 to 1", outside(t[name], 0, 1)


def counts(t: Columns, *names: str) -> Iterator[Fault]:
    for name in names:
        yield name, "negative", t[name] < 0
