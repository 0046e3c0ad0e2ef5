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
    """What tells one state of the stores from another, by month.

    Calls are only added, and a call learns its liquidity once, so two counts tell. A note of an earlier version lacks `with_liquidity`.
    """

    calls: dict[str, int] = {}
    with_liquidity: dict[str, int] | None = None
    candles: dict[str, str] = {}


class Note(BaseModel):
    """The run that is at work, its files and those of runs that were not told, and the stores as they were when all had been told."""

    run: str
    files: list[str]
    before: Stores


def note_begin(home: "Home", run: str, files: Sequence[str], is_told: Callable[[str], bool]) -> Note:
    """Write down that a run begins; what an earlier one has not told stays to be told."""
    earlier = read_note(home)
    untold = earlier if earlier is not None and not is_told(earlier.run) else None
    more = [] if untold is None else [file for file in untold.files if file not in files]
    note = Note(run=run, files=[*files, *more], before=stores_of(home) if untold is None else untold.before)
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
    before, now = note.before, stores_of(home)
    learnt = [] if before.with_liquidity is None else _differing(before.with_liquidity, now.with_liquidity or {})
    return sorted({*_differing(before.calls, now.calls), *learnt}), _differing(before.candles, now.candles)


def stores_of(home: "Home") -> Stores:
    """Return the state of the stores; no candle is read."""
    signatures: dict[str, str] = {}
    for file in sorted(home.candles.folder.glob("interval=*/month=*/candles.parquet")):
        stat, month = file.stat(), file.parent.name.removeprefix("month=")
        signatures[month] = f"{signatures.get(month, '')} {file.parent.parent.name} {stat.st_size} {stat.st_mtime_ns}"
    counts = _calls_of(home)
    return Stores(
        calls={month: calls for month, (calls, _) in counts.items()},
        with_liquidity={month: known for month, (_, known) in counts.items() if known},
        candles={month: hashlib.sha256(text.encode()).hexdigest()[:16] for month, text in signatures.items()},
    )


def _calls_of(home: "Home") -> dict[str, tuple[int, int]]:
    """{month: calls, those with a liquidity}; a store that somebody writes to is waited for, as an ingest does."""
    from quantbot_pipeline.market.calls import liquidity_statistics

    deadline = time.monotonic() + home.settings.lock_timeout_s
    while True:
        try:
            return liquidity_statistics(home.calls)
        except StoreError:
            if time.monotonic() >= deadline:
                raise
        stop_if_asked()
        time.sleep(0.2)


def _differing(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    return sorted(month for month in {*before, *now} if before.get(month) != now.get(month))


def _file(home: "Home") -> "Path":
    return home.settings.data_dir / NAME
