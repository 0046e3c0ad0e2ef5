"""What rules see of a table's columns, and the rules that many columns share."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Fault = tuple[str, str, Mask]  # column, what is wrong with it, the rows where it is


class Columns(Protocol):
    """A table's columns as numpy arrays; a null reads as NaN, 0, False or an empty text, and `absent` tells."""

    rows: int

    def __getitem__(self, name: str, /) -> npt.NDArray[Any]: ...
    def absent(self, name: str, /) -> Mask: ...
    def empty(self, name: str, /) -> Mask: ...
    def among(self, name: str, known: Sequence[str], /) -> Mask: ...
    def repeated(self, *names: str) -> Mask: ...
    def unlike(self, name: str, test: Callable[[str], bool], /) -> Mask: ...


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


def is_object(text: str) -> bool:
    """Whether a text is a JSON object with sorted keys."""
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return isinstance(value, dict) and list(value) == sorted(value)
