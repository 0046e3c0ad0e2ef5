"""Candles from files into the store: reading, judgement of the whole, and the order to merge."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import duckdb
import numpy as np
import pyarrow as pa

from quantbot_pipeline.duck import workspace
from quantbot_pipeline.durable import locked, scratch_folder
from quantbot_pipeline.errors import InputError, counted
from quantbot_pipeline.ingest import spacing
from quantbot_pipeline.ingest.candle_merge import merge
from quantbot_pipeline.ingest.candle_rows import Asked, stage
from quantbot_pipeline.ingest.candle_sources import FORMATS, candle_sources
from quantbot_pipeline.ingest.packed import plain_files
from quantbot_pipeline.ingest.report import IngestReport
from quantbot_pipeline.ingest.times import local_time
from quantbot_pipeline.market.candle_files import CandleStore
from quantbot_pipeline.months import iso_ms
from quantbot_pipeline.vocabulary import INTERVALS_MS

__all__ = ["FORMATS", "ingest_candles"]

Stamp = Literal["open", "close"]


@dataclass
class _Staged:
    """What was read: the files as messages call them, remarks, and what was left out."""

    shown: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def names(self) -> str:
        return ", ".join(self.shown[:3]) + (" …" if len(self.shown) > 3 else "")


def ingest_candles(
    paths: Sequence[Path],
    store: CandleStore,
    interval: str,
    *,
    fmt: str = "auto",
    mint: str | None = None,
    mapping: Mapping[str, str] | None = None,
    stamp: Stamp | None = None,
    timezone: str | None = None,
    now_ms: int | None = None,
) -> IngestReport:
    """Merge the candles of `paths` into `store`; the last valid row of a (mint, ts_ms) wins, a later ingest wins over all.

    `mint` is the token of files that name none, `mapping` says which column is which ({canonical name: name in the file}),
    `stamp` whether times are those of the open or of the close, `timezone` where local times were taken. Ingesting the same
    again changes nothing and rewrites no file. Memory is bounded by the limit of the store; what does not fit spills beside
    the store. Raises InputError before anything is written.
    """
    if interval not in INTERVALS_MS:
        raise InputError(f"interval {interval!r} is unknown; choose one of {', '.join(INTERVALS_MS)}")
    now = int(time.time() * 1000) if now_ms is None else now_ms
    asked = Asked(interval, now, fmt, mint, mapping or {}, stamp)
    sources = candle_sources(paths, interval, fmt)
    folder = store.folder
    if store.elsewhere is not None:
        store.elsewhere.require_honest_store()
    folder.mkdir(parents=True, exist_ok=True)
    with (
        locked(folder / ".ingest.lock", store.lock_timeout_s),
        scratch_folder(folder, ".spill-") as spill,
        workspace(memory_limit=store.memory_limit, temp_directory=str(spill)) as con,
    ):
        for left in folder.glob("interval=*/month=*/.*.parquet.tmp"):
            left.unlink(missing_ok=True)  # of an ingest that was killed
        local_time(con, timezone)
        staged = _read(con, sources.files, asked, spill)
        staged.left_out = sources.left_out
        walk = _judge(con, staged, interval)
        report = merge(
            con, store, interval, staged.shown, superseded=walk.superseded_rows, wicks=spacing.grouped(walk.wicks)
        )
    return report.model_copy(update={"left_out": staged.left_out, "notes": staged.notes, "store": store.place})


def _read(con: duckdb.DuckDBPyConnection, files: Sequence[Path], asked: Asked, spill: Path) -> _Staged:
    """Read every file into the table `judged`."""
    con.execute(
        "CREATE TEMP TABLE judged (seq BIGINT, mint VARCHAR, t DOUBLE, open DOUBLE, high DOUBLE, low DOUBLE, "
        "close DOUBLE, volume DOUBLE, reason VARCHAR, text VARCHAR)"
    )
    staged = _Staged()
    for path in files:
        with plain_files(path, spill) as plain:
            for file in plain:
                notes = stage(con, len(staged.shown), file, asked)
                staged.shown.append(file.shown)
                staged.notes += [f"{file.shown}: {note}" for note in notes]
    return staged


def _judge(con: duckdb.DuckDBPyConnection, staged: _Staged, interval: str) -> spacing.OrderWalk:
    """Judge all rows together; leave the valid ones, the last of each token and time, in the table `ordered`."""
    if not con.execute("SELECT count(*) FROM judged").fetchall()[0][0]:
        raise InputError(f"{staged.names}: no rows; expected candles")
    spacing.refuse_other_grid(con, staged.names, interval, "judged")
    con.execute(
        "CREATE TEMP TABLE ordered AS SELECT seq, mint, t, open, high, low, close, volume FROM judged "
        "WHERE reason IS NULL ORDER BY mint, t, seq"
    )
    con.execute("DELETE FROM judged WHERE reason IS NULL")
    walk = spacing.walk_along(con, "ordered", INTERVALS_MS[interval])
    _refuse_contradictions(con, staged, walk)
    if walk.coarse is not None:
        raise InputError(_coarse(con, staged, walk.coarse, interval))
    superseded = walk.superseded()
    if len(superseded):
        con.register("superseded_rows", pa.table({"place": superseded.astype(np.int64)}))
        con.execute("DELETE FROM ordered WHERE rowid IN (SELECT place FROM superseded_rows)")
        con.unregister("superseded_rows")
    return walk


def _place(con: duckdb.DuckDBPyConnection, staged: _Staged, place: int) -> tuple[str, int]:
    """(file, row) of a row of `ordered`."""
    ((seq,),) = con.execute("SELECT seq FROM ordered WHERE rowid = ?", [place]).fetchall()
    return staged.shown[seq >> 40], seq & ((1 << 40) - 1)


def _coarse(con: duckdb.DuckDBPyConnection, staged: _Staged, found: spacing.Coarse, interval: str) -> str:
    file, row = _place(con, staged, found.place)
    right = spacing.interval_of(found.step_ms)
    mend = f"pass --interval {right}, or take the rows of other intervals out" if right else "take these rows out"
    return (
        f"{file}: row {row}: from {iso_ms(int(found.t))} on, candles of {found.mint} are {spacing.spelled(found.step_ms)} apart, "
        f"{spacing.RUN} times in a row or more, not {interval}; {mend}"
    )


def _refuse_contradictions(con: duckdb.DuckDBPyConnection, staged: _Staged, walk: spacing.OrderWalk) -> None:
    """Refuse an ingest of which too many rows, or too many times of one token, contradict each other."""
    if walk.contradictions >= max(spacing.CONTRADICTING_ROWS, spacing.CONTRADICTING_SHARE * walk.rows):
        what = (
            f"{counted(walk.contradictions, 'row')} of {walk.rows:,} contradict another row of the same token and time"
        )
        limit = f"more than {spacing.CONTRADICTING_SHARE:.0%}"
        raise InputError(_contradiction(con, staged, next(iter(walk.examples.values())), what, limit))
    for mint, n in walk.by_token.most_common():
        if n < spacing.CONTRADICTING_ROWS:
            return
        ((times,),) = con.execute("SELECT count(DISTINCT t) FROM ordered WHERE mint = ?", [mint]).fetchall()
        if n >= spacing.CONTRADICTING_TIMES * times:
            what = f"{counted(n, 'row')} of {mint} contradict another row of the same time, of which it has {times:,}"
            limit = f"more than {spacing.CONTRADICTING_TIMES:.0%}"
            raise InputError(_contradiction(con, staged, walk.examples[mint], what, limit))


def _contradiction(
    con: duckdb.DuckDBPyConnection, staged: _Staged, example: spacing.Contradiction, what: str, limit: str
) -> str:
    (file, row), (other, other_row) = (_place(con, staged, place) for place in (example.first, example.second))
    cause = (
        f"are {file} and {other} both of this token?"
        if file != other
        else "has the file rows of two tokens, or a part of the time in another column?"
    )
    return (
        f"{file}: {what} ({limit}): row {row} and row {other_row}"
        + (f" of {other}" if file != other else "")
        + f", {example.mint} at {iso_ms(int(example.t))}, close {example.closes[0]:g} and {example.closes[1]:g}; {cause}"
    )
