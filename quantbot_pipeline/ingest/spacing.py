"""How far apart a token's candles are, which rows contradict each other, and which wicks are freaks: judged before a write.

Belongs here: judgements of rows in the order of token and time. Does not: what a valid row is, or where it goes.
"""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.market.candle_files import WICKS_SCHEMA
from quantbot_pipeline.vocabulary import INTERVALS_MS

# Real thin tokens never had 6 equal gaps of two or more intervals in a row; a coarser file has nothing else.
RUN = 12
# Overlapping exports of one source differ in few candles: in sound files 6 % of all rows and 20 % of one token's times were
# seen. Two sources, or two symbols below one token, differ in nearly all.
CONTRADICTING_SHARE, CONTRADICTING_ROWS = 0.10, 5
CONTRADICTING_TIMES = 0.25  # of one token
SAME = 1e-6  # relative difference of two prices that are one, rounded differently
FREAK = 10.0  # times both neighbours
FEW = 20  # rows or times that prove nothing about an interval
COLUMNS = ("place", "mint", "t", "open", "high", "low", "close")  # of the rows in order
Floats = npt.NDArray[np.float64]


class Coarse(NamedTuple):
    """The first stretch of candles that are too far apart: its token, its first row, and their distance."""

    mint: str
    place: int
    t: float
    step_ms: float


class Contradiction(NamedTuple):
    """Two rows of one token and time with different prices, by their places."""

    mint: str
    t: float
    first: int
    second: int
    closes: tuple[float, float]


class OrderWalk:
    """One way along the rows, sorted by token, time and arrival. Feed it every batch, then `finish`."""

    def __init__(self, step_ms: int) -> None:
        self.step_ms = float(step_ms)
        self.rows = self.superseded_rows = self.contradictions = 0
        self.examples: dict[str, Contradiction] = {}  # the first of each token
        self.by_token: Counter[str] = Counter()
        self.coarse: Coarse | None = None
        self.wicks: list[pa.Table] = []
        self._superseded: list[npt.NDArray[np.int64]] = []
        self._held: pa.Table | None = None  # the last row: the next one may supersede it
        self._tail: pa.Table | None = None  # rows before it that a stretch may begin in
        self._judged = 0  # rows of the tail whose wicks are judged

    def feed(self, batch: pa.RecordBatch | pa.Table) -> None:
        """Take the next rows."""
        table = batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch])
        self.rows += table.num_rows
        if self._held is not None:
            table = pa.concat_tables([self._held, table]).combine_chunks()
        self._take(table, last=False)

    def finish(self) -> None:
        """Take the end: no further row comes."""
        if self._held is not None:
            self._take(self._held, last=True)
            self._held = None

    def superseded(self) -> npt.NDArray[np.int64]:
        """Return the places of the rows that a later row of the same token and time replaces."""
        return np.concatenate(self._superseded) if self._superseded else np.empty(0, np.int64)

    def _take(self, table: pa.Table, *, last: bool) -> None:
        n = table.num_rows
        if not n:
            return
        ready = table if last else table.slice(0, n - 1)
        self._held = None if last else table.slice(n - 1)
        if n > 1:
            again = _same_token(table) & (np.diff(_floats(table, "t")) == 0)
            if again.any():
                self._contradict(table, np.flatnonzero(again))
                self._superseded.append(ready["place"].to_numpy()[again[: ready.num_rows]])
                self.superseded_rows += int(again.sum())
                ready = ready.filter(pa.array(np.append(~again, True)[: ready.num_rows]))
        self._space(ready)

    def _contradict(self, table: pa.Table, at: npt.NDArray[np.int64]) -> None:
        differs = np.zeros(len(at), bool)
        for name in ("open", "high", "low", "close"):
            values = _floats(table, name)
            differs |= np.abs(values[at] - values[at + 1]) > SAME * np.abs(values[at + 1])
        self.contradictions += int(differs.sum())
        where = at[differs]
        mints = table["mint"].take(pa.array(where)).to_pylist()
        for mint in mints:
            self.by_token[mint] += 1
        for mint, i in zip(mints, where.tolist(), strict=True):
            if mint not in self.examples:
                row, other = table.slice(i, 1).to_pylist()[0], table.slice(i + 1, 1).to_pylist()[0]
                self.examples[mint] = Contradiction(
                    mint, row["t"], row["place"], other["place"], (row["close"], other["close"])
                )

    def _space(self, ready: pa.Table) -> None:
        """Judge distances and wicks of rows that stay."""
        window = ready if self._tail is None else pa.concat_tables([self._tail, ready]).combine_chunks()
        if window.num_rows > 2:
            same = _same_token(window)
            if self.coarse is None:
                self.coarse = _first_stretch(window, same, self.step_ms)
            self._find_wicks(window, same)
        keep = min(window.num_rows, RUN + 1)
        self._judged = max(0, keep - 1)
        self._tail = window.slice(window.num_rows - keep)

    def _find_wicks(self, window: pa.Table, same: npt.NDArray[np.bool_]) -> None:
        high = _floats(window, "high")
        freak = np.zeros(len(high), bool)
        freak[1:-1] = (high[1:-1] >= FREAK * np.maximum(high[:-2], high[2:])) & same[:-1] & same[1:]
        freak[: self._judged] = False
        if freak.any():
            at = np.flatnonzero(freak)
            t = _floats(window, "t")[at].astype(np.int64)
            mints = window["mint"].take(pa.array(at))
            columns = [mints, pa.array(t), *(pa.array(high[at + shift]) for shift in (0, -1, 1))]
            self.wicks.append(pa.table(columns, schema=WICKS_SCHEMA))


def _floats(table: pa.Table, name: str) -> Floats:
    return table[name].to_numpy()


def _same_token(table: pa.Table) -> npt.NDArray[np.bool_]:
    """Whether each row has the token of the one after it."""
    mint = table["mint"].combine_chunks()
    if isinstance(mint, pa.ChunkedArray):
        mint = mint.chunk(0)
    return np.asarray(pc.equal(mint[:-1], mint[1:]))


def _first_stretch(window: pa.Table, same: npt.NDArray[np.bool_], step: float) -> Coarse | None:
    """Return the first RUN equal distances of two or more steps in a row."""
    t = _floats(window, "t")
    apart = np.diff(t)
    wide = same & (apart > step)
    if int(wide.sum()) < RUN:
        return None
    equal = wide[1:] & wide[:-1] & (apart[1:] == apart[:-1])
    # Ends of stretches of equal distances; the difference of two ends is a length.
    breaks = np.flatnonzero(~np.append(equal, False))
    lengths = np.diff(np.append(-1, breaks))
    long = np.flatnonzero(lengths >= RUN)
    if not len(long):
        return None
    end, length = int(breaks[long[0]]), int(lengths[long[0]])
    begin = end - length + 1
    row = window.slice(begin, 1)
    return Coarse(row["mint"][0].as_py(), row["place"][0].as_py(), float(t[begin]), float(apart[begin]))


def walk_along(con: duckdb.DuckDBPyConnection, table: str, step_ms: int, batch_rows: int = 131_072) -> OrderWalk:
    """Walk along a table that was made in the order of token, time and arrival (`seq`)."""
    walk = OrderWalk(step_ms)
    rows = con.sql(f"SELECT rowid AS place, mint, t, open, high, low, close FROM {table} ORDER BY rowid")
    for batch in rows.to_arrow_reader(batch_rows):
        walk.feed(batch)
    walk.finish()
    return walk


def spelled(ms: float) -> str:
    """Return a distance in words: `30 minutes`, `4 hours`, `1 day`."""
    for name, unit in (("day", 86_400_000), ("hour", 3_600_000), ("minute", 60_000), ("second", 1_000)):
        if ms >= unit and ms % unit == 0:
            number = int(ms // unit)
            return f"{number} {name}" + ("s" if number > 1 else "")
    return f"{ms:g} ms"


def interval_of(ms: float) -> str | None:
    """Return the interval of so many milliseconds; None if there is none."""
    return next((name for name, step in INTERVALS_MS.items() if step == ms), None)


def refuse_other_grid(con: duckdb.DuckDBPyConnection, names: str, interval: str, table: str) -> None:
    """Refuse files that are plainly of another interval: most rows off the grid, or all on a coarser one."""
    timed = f"FROM {table} WHERE t > 0 AND t < 1e14"

    def count(what: str, *parameters: object) -> int:
        return int(con.execute(what, parameters).fetchall()[0][0])

    n = count(f"SELECT count(*) {timed}")
    if n < FEW:
        return
    if count(f"SELECT count(*) {timed} AND t % ? <> 0", INTERVALS_MS[interval]) > n / 2:
        raise InputError(f"{names}: most candles do not open on the {interval} grid; is --interval {interval} right?")
    coarser = [name for name, ms in INTERVALS_MS.items() if ms > INTERVALS_MS[interval]]
    fits = [
        name
        for name in coarser
        if not count(f"SELECT count(*) FROM (SELECT 1 {timed} AND t % ? <> 0 LIMIT 1)", INTERVALS_MS[name])
    ]
    if not fits or count(f"SELECT count(DISTINCT t) {timed}") < FEW:
        return  # the last candle of every token, at noon: few times prove nothing
    apart = _first_distance(con, table)
    raise InputError(
        f"{names}: every candle opens on the {fits[-1]} grid; pass --interval {fits[-1]}, not {interval} ({apart})"
    )


def _first_distance(con: duckdb.DuckDBPyConnection, table: str) -> str:
    """Name the token of the first row, and how far apart its first candles are."""
    ((mint, seq),) = con.execute(f"SELECT mint, seq FROM {table} ORDER BY seq LIMIT 1").fetchall()
    times = con.execute(
        f"SELECT DISTINCT t FROM {table} WHERE mint IS NOT DISTINCT FROM ? AND t > 0 AND t < 1e14 ORDER BY t LIMIT 2",
        [mint],
    ).fetchall()
    apart = f": its candles are {spelled(times[1][0] - times[0][0])} apart" if len(times) == 2 else ""
    return f"row {seq & ((1 << 40) - 1)}, token {mint}{apart}"


def grouped(tables: Iterable[pa.Table]) -> pa.Table:
    """Return the freak wicks of all batches as one table."""
    return pa.concat_tables([WICKS_SCHEMA.empty_table(), *tables])
