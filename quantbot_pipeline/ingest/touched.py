"""Which months the inbox has changed, also where a run was killed between the stores and its report.

A note beside the stores says how the stores were before the first run whose months nobody was told. Belongs here: the note, and what
differs from it. Does not: whether a run has told its months; Dagster knows.
"""

import contextlib
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from quantbot_pipeline.durable import disk_errors, replacing
from quantbot_pipeline.errors import StoreError
from quantbot_pipeline.interrupts import stop_if_asked

if TYPE_CHECKING:
    from pathlib import Path

    from quantbot_pipeline.home import Home

NAME = ".inbox-untold.json"


class Stores(BaseModel):
    """What tells one state of the stores from another, by month."""

    calls: dict[str, int] = {}
    candles: dict[str, str] = {}


class Note(BaseModel):
    """The run that is at work, its files, and the stores as they were when everything had been told."""

    run: str
    files: list[str]
    before: Stores


def note_begin(home: "Home", run: str, files: Sequence[str], is_told: Callable[[str], bool]) -> Note:
    """Write down that a run begins; what an earlier one has not told stays to be told."""
    earlier = read_note(home)
    before = earlier.before if earlier is not None and not is_told(earlier.run) else stores_of(home)
    note = Note(run=run, files=list(files), before=before)
    _file(home).parent.mkdir(parents=True, exist_ok=True)
    with disk_errors(_file(home)), replacing(_file(home)) as temporary:
        temporary.write_text(note.model_dump_json())
    return note


def read_note(home: "Home") -> Note | None:
    """Return the note; None without one that can be read."""
    with contextlib.suppress(OSError, ValidationError):
        return Note.model_validate_json(_file(home).read_bytes())
    return None


def forget(home: "Home") -> None:
    """Remove the note: all is told."""
    _file(home).unlink(missing_ok=True)


def changed_months(note: Note, home: "Home") -> tuple[list[str], list[str]]:
    """Return (months of calls, months of candles) that are not as the note says."""
    now = stores_of(home)
    return _differing(note.before.calls, now.calls), _differing(note.before.candles, now.candles)


def stores_of(home: "Home") -> Stores:
    """Return the state of the stores; no candle is read. The number of calls tells of new ones, and not of a
    liquidity that a stored call has learnt: that is told by the run itself, and lost if it is killed before.
    """
    signatures: dict[str, str] = {}
    for file in sorted(home.candles.folder.glob("interval=*/month=*/candles.parquet")):
        stat, month = file.stat(), file.parent.name.removeprefix("month=")
        signatures[month] = f"{signatures.get(month, '')} {file.parent.parent.name} {stat.st_size} {stat.st_mtime_ns}"
    return Stores(
        calls=_calls_of(home),
        candles={month: hashlib.sha256(text.encode()).hexdigest()[:16] for month, text in signatures.items()},
    )


def _calls_of(home: "Home") -> dict[str, int]:
    """{month: number of calls}; a store that somebody writes to is waited for, as an ingest does."""
    from quantbot_pipeline.market.calls import month_statistics

    deadline = time.monotonic() + home.settings.lock_timeout_s
    while True:
        try:
            return {month: counts["calls"] for month, counts in month_statistics(home.calls).items()}
        except StoreError:
            if time.monotonic() >= deadline:
                raise
        stop_if_asked()
        time.sleep(0.2)


def _differing(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    return sorted(month for month in {*before, *now} if before.get(month) != now.get(month))


def _file(home: "Home") -> "Path":
    return home.settings.data_dir / NAME
