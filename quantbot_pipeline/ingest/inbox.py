"""The inbox: files dropped into `data/inbox/` become calls and candles in the stores; bad ones are set aside.

A file is taken once it has not changed between two looks, so a copy that is still going on is left alone. What was ingested moves
to `done/`, what cannot be read moves to `rejected/` with its reason beside it; neither blocks the others.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from quantbot_pipeline.durable import scratch_folder
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.interrupts import stop_if_asked

if TYPE_CHECKING:
    from quantbot_pipeline.home import Home

DONE, REJECTED = "done", "rejected"
UNFINISHED = (".part", ".partial", ".tmp", ".crdownload", ".swp")
INTERVAL_WORD = re.compile(r"(?:^|[^0-9a-z])(1m|5m|15m|1h)(?:[^0-9a-z]|$)")


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
            result.ingested[relative] = report.inserted + report.updated
            _move(path, inbox / DONE / relative)
        except InputError as e:
            stop_if_asked()  # a request to stop is no fault of the file
            result.rejected[relative] = str(e)
            moved = _move(path, inbox / REJECTED / relative)
            moved.with_name(moved.name + ".reason.txt").write_text(str(e) + "\n", encoding="utf-8")
    return result


def candle_interval(path: Path, **limits: str) -> str | None:
    """The interval of a file of candles: from its folder (`interval=5m`), its name (`x_5m.csv`) or its times; None: calls.

    Raises InputError for a file that is neither.
    """
    from quantbot_pipeline.duck import workspace
    from quantbot_pipeline.ingest.candles import COLUMNS
    from quantbot_pipeline.ingest.files import hive_value
    from quantbot_pipeline.ingest.formats.common import Column
    from quantbot_pipeline.ingest.formats.registry import format_of, load
    from quantbot_pipeline.ingest.times import TO_MS, infer_unit, raw_time_sql
    from quantbot_pipeline.vocabulary import INTERVALS_MS

    fmt = format_of(path, "auto")
    if fmt == "duckdb":
        return None
    optional = [Column(c.name, c.aliases, required=False) for c in COLUMNS]
    with workspace(**limits) as con:
        found = load(con, path, fmt, optional)
        if not {"open", "high", "low", "close"} <= found.keys():
            return None
        named = hive_value(path, "interval") or next(iter(INTERVAL_WORD.findall(path.name.lower())), None)
        if named in INTERVALS_MS:
            return named
        if "ts_ms" not in found:
            raise InputError(f"{path}: candles without a column ts_ms, timestamp or date")
        time = raw_time_sql("ts_ms", found["ts_ms"].type)
        con.execute(f"CREATE TEMP TABLE timed AS SELECT row_no, {time} AS t FROM incoming")
        unit = infer_unit(con, path, "timed", "t", found["ts_ms"].source)
        for interval, step in reversed(INTERVALS_MS.items()):
            off = con.execute(f"SELECT count(*) FROM timed WHERE (t {TO_MS[unit]}) % ? <> 0", [step]).fetchall()
            if off == [(0,)]:
                return interval
    raise InputError(f"{path}: interval unclear; put the file into a folder interval=5m (or 1m, 15m, 1h) of the inbox")


def _move(path: Path, target: Path) -> Path:
    """Move without overwriting: a second file of the same name gets a number."""
    target.parent.mkdir(parents=True, exist_ok=True)
    free, n = target, 1
    while free.exists():
        free = target.with_name(f"{target.stem}.{n}{target.suffix}")
        n += 1
    return path.rename(free)
