"""How a file of the candle store is opened: from the disk, or where the folder only looks like one, from elsewhere.

Belongs here: the one place where bytes of candles come from. Does not: what is in them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa


class Opened(NamedTuple):
    """The bytes of a file. fetch: has the bytes of some row groups here before they are read; None: all are here."""

    data: pa.NativeFile
    fetch: Callable[[Sequence[int]], None] | None = None


_ELSEWHERE: dict[Path, Callable[[Path], Opened]] = {}  # by folder of a store of candles


def opened_elsewhere(folder: Path, opener: Callable[[Path], Opened]) -> None:
    """Let the files in a folder of candles be opened so, in this process."""
    _ELSEWHERE[folder] = opener


def open_file(path: Path) -> Opened:
    """Open a file of the store as it is now."""
    within = path.parents[2:3]  # below the store: interval=…/month=…/candles.parquet
    opener = _ELSEWHERE.get(within[0]) if within else None
    return Opened(pa.OSFile(str(path))) if opener is None else opener(path)


def opened(path: Path) -> pa.NativeFile:
    """Open a file of the store as it is now, for a reader that reads on its own."""
    return open_file(path).data
