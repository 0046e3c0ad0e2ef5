"""What a layout says: the names of a source's columns, the places of unnamed ones, and whose time the stamp is.

Belongs here: the form of a layout. Does not: a source, which has a file of its own.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

TIME_TO_VOLUME = ("time", "open", "high", "low", "close", "volume")


@dataclass(frozen=True)
class Layout:
    """One source of candles.

    `names` are names of its columns by canonical name, the preferred one first. `by_place` names the columns of rows without
    names, for as many columns as it has. `rows_at` is where a JSON document has such rows, `token_at` where it names its
    token. `close_stamped`: its rows without names carry the close time. `file_name` is a pattern with the groups `token` and
    `step` (`5m`) or `minutes`, and `kind` where the source writes other things beside candles.
    """

    name: str
    what: str
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    by_place: tuple[str, ...] = ()
    rows_at: tuple[str, ...] = ()
    token_at: tuple[tuple[str, ...], ...] = ()
    close_stamped: bool = False
    file_name: re.Pattern[str] | None = None
