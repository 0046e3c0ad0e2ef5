"""The inbox: files dropped into `data/inbox/` become calls and candles in the stores; bad ones are set aside.

A file is taken once it has not changed between two looks, so a copy that is still going on is left alone. What was ingested moves
to `done/`, what cannot be read moves to `rejected/` with its reason beside it; neither blocks the others.
"""

import contextlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from quantbot_pipeline.durable import scratch_folder
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.interrupts import stop_if_asked

if TYPE_CHECKING:
    import duckdb

    from quantbot_pipeline.home import Home
    from quantbot_pipeline.ingest.formats.common import Incoming

DONE, REJECTED = "done", "rejected"
UNFINISHED = (".part", ".partial", ".tmp", ".crdownload", ".swp")
FOLDER = "put the file into a folder interval=5m (or another interval) of the inbox"


class Intake(NamedTuple):
    """What one look at some files did: rows changed by file, files set aside with their reason, months that changed."""

    ingested: dict[str, int]
    rejected: dict[str, str]
    call_months: list[str]
    candle_months: list[str]


def scan(inbox: Path) -> dict[str, str]:
    """{path relative to the inbox: size and modification time} of every file that waits there."""
    found = {}
    for parent, folders, names in os.walk(inbox):
        here = Path(parent)
        if here == inbox:
            folders[:] = [name for name in folders if name not in (DONE, REJECTED)]
        for name in names:
            if name.startswith(".") or name.lower().endswith(UNFINISHED):
                continue
            stat = (here / name).stat()
            found[(here / name).relative_to(inbox).as_posix()] = f"{stat.st_size}:{stat.st_mtime_ns}"
    return found


def settled(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Files that are as they were at the last look, in byte order: their copy is complete."""
    return sorted((path for path, signature in now.items() if before.get(path) == signature), key=os.fsencode)


def take_in(home: "Home", paths: Sequence[str]) -> Intake:
    """Ingest files of the inbox and move each to `done/` or `rejected/`. Raises StoreError when a store stays locked."""
    from quantbot_pipeline.ingest.calls import ingest_calls
    from quantbot_pipeline.ingest.candles import ingest_candles

    inbox = home.settings.inbox_dir
    result = Intake({}, {}, [], [])
    for relative in paths:
        stop_if_asked()
        path = inbox / relative
        if not path.is_file() or path.is_symlink():
            continue  # taken by another run since
        try:
            with scratch_folder(home.settings.data_dir, ".inbox.spill-") as spill:
                interval = candle_interval(path, memory_limit=home.settings.memory_limit, temp_directory=str(spill))
            if interval is None:
                report = ingest_calls([path], home.calls)
            else:
                report = ingest_candles([path], home.candles, interval)
            (result.call_months if interval is None else result.candle_months).extend(report.months)
            report.require_some()
            result.ingested[relative] = report.inserted + report.updated
            _move(path, inbox / DONE / relative)
        except InputError as e:
            stop_if_asked()  # a request to stop is no fault of the file
            result.rejected[relative] = str(e)
            moved = _move(path, inbox / REJECTED / relative)
            _reason_of(moved).write_text(str(e) + "\n", encoding="utf-8")
    return result


def set_aside(inbox: Path, paths: Sequence[str]) -> dict[str, str]:
    """{path: reason} of those of these files that lie in `rejected/`, whichever run has moved them there."""
    found = {}
    for rejected, relative in ((inbox / REJECTED / relative, relative) for relative in paths):
        if rejected.is_file():
            found[relative] = "the run that set it aside was ended before it wrote down why"
            with contextlib.suppress(OSError):
                found[relative] = _reason_of(rejected).read_text(encoding="utf-8").rstrip("\n")
    return found


def candle_interval(path: Path, **limits: str) -> str | None:
    """The interval of a file of candles: from its folder (`interval=5m`), its name (`x_5m.csv`) or its times; None: calls.

    Raises InputError for a file that is neither, that states an interval which is none here, or whose times are too few.
    """
    from quantbot_pipeline.duck import workspace
    from quantbot_pipeline.ingest.candle_rules import PRICES, columns_of
    from quantbot_pipeline.ingest.formats.chats import is_chat
    from quantbot_pipeline.ingest.formats.registry import format_of, load
    from quantbot_pipeline.ingest.packed import plain_files

    optional = [replace(column, required=False) for column in columns_of({}, token_known=False, token_required=False)]
    with (
        tempfile.TemporaryDirectory(dir=limits.get("temp_directory")) as scratch,
        plain_files(path, Path(scratch)) as plain,
        workspace(**limits) as con,
    ):
        inside = plain[0].path
        if is_chat(inside):
            return None
        fmt = format_of(inside, "auto")
        if fmt == "duckdb":
            return None
        try:
            found = load(con, inside, fmt, optional)
        except InputError:
            if fmt == "json":
                return None  # a document without a table: whoever reads calls says what is wrong
            raise
        if not set(PRICES) <= found.keys():
            return None
        return _stated(path, con, found) or _by_times(path, con, found)


def _stated(path: Path, con: "duckdb.DuckDBPyConnection", found: "Incoming") -> str | None:
    """The interval that a file's folder, name or column states; None if nothing does. Raises InputError for two, or for none of ours."""
    from quantbot_pipeline.ingest.names import interval_word, stated_intervals
    from quantbot_pipeline.vocabulary import INTERVALS_MS

    stated = stated_intervals(path)
    if not stated and "step" in found:
        words = con.execute("SELECT DISTINCT step::VARCHAR FROM incoming WHERE step IS NOT NULL LIMIT 9").fetchall()
        stated = list(dict.fromkeys(step for (word,) in words if (step := interval_word(word.strip()))))
    if len(stated) > 1:
        raise InputError(f"{path}: interval unclear: it is said to be {' and '.join(stated)}; {FOLDER}")
    if stated and stated[0] not in INTERVALS_MS:
        raise InputError(f"{path}: {stated[0]} is not supported; candles are of {', '.join(INTERVALS_MS)}")
    return stated[0] if stated else None


def _by_times(path: Path, con: "duckdb.DuckDBPyConnection", found: "Incoming") -> str:
    """The interval by the distances of the candles: the smallest one, if it is often enough there and all times fit it."""
    from quantbot_pipeline.ingest.candle_rows import join_clock
    from quantbot_pipeline.ingest.spacing import RUN, interval_of
    from quantbot_pipeline.ingest.times import infer_unit, raw_time_sql, to_ms_sql

    if "ts_ms" not in found:
        raise InputError(f"{path}: candles without a column ts_ms, timestamp or date")
    join_clock(con, found)
    token = "mint::VARCHAR" if "mint" in found else "''"
    raw = raw_time_sql("ts_ms", found["ts_ms"].type)
    con.execute(f"CREATE TEMP TABLE timed AS SELECT row_no, {token} AS mint, {raw} AS t FROM incoming")
    unit = infer_unit(con, path, "timed", "t", found["ts_ms"].source)
    con.execute(f"CREATE TEMP TABLE spaced AS SELECT DISTINCT mint, {to_ms_sql('t', unit)} AS t FROM timed")
    distances = con.execute(
        """SELECT d, count(*) FROM (SELECT t - lag(t) OVER (PARTITION BY mint ORDER BY t) AS d FROM spaced)
           WHERE d IS NOT NULL GROUP BY d ORDER BY d LIMIT 1"""
    ).fetchall()
    for smallest, times in distances:
        interval = interval_of(smallest)
        ((odd,),) = con.execute("SELECT count(*) FROM spaced WHERE t % ? <> 0", [smallest]).fetchall()
        closes = con.execute("SELECT bool_and((t + 1) % ? = 0) FROM spaced", [smallest]).fetchall() == [(True,)]
        if interval is not None and times >= RUN and (not odd or closes):
            return interval
    raise InputError(f"{path}: interval unclear; {FOLDER}")


def _move(path: Path, target: Path) -> Path:
    """Move without overwriting: a second file of the same name gets a number."""
    target.parent.mkdir(parents=True, exist_ok=True)
    free, n = target, 1
    while free.exists():
        free = target.with_name(f"{target.stem}.{n}{target.suffix}")
        n += 1
    return path.rename(free)


def _reason_of(rejected: Path) -> Path:
    return rejected.with_name(f"{rejected.name}.reason.txt")
