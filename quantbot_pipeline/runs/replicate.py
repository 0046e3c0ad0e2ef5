"""Replication: the committed runs of one place copied to another, one way, each of them whole or not at all.

Belongs here: what a destination lacks, the copying of it, what differs, how far the destination is behind. Does not: how a place
commits a run (`commit`, `uploading`), nor which places a home has (`home`). Failed runs and the trash stay where they are, and what
is deleted at the source stays at the destination.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from quantbot_pipeline.errors import IntegrityError
from quantbot_pipeline.interrupts import stop_if_asked
from quantbot_pipeline.runs.manifest import MANIFEST_NAME, SUCCESS_NAME, parse_moment, read_manifest
from quantbot_pipeline.runs.notes import NOTES, Journal, entries
from quantbot_pipeline.runs.store import Listing, RunStore, run_dirs
from quantbot_pipeline.runs.verify import require_named, vouched_manifest

AT_ONCE = 8  # runs that are verified
WAIT_S = 60.0  # for whoever writes into the journal
Files = Mapping[str, int]  # {path inside a run: bytes}


class BrokenSourceError(IntegrityError):
    """A run does not keep its promises where it comes from, so that it is not copied."""


class Comparison(NamedTuple):
    """The committed runs of a source beside those of a destination: what it lacks, has alike, and has otherwise, with the reason."""

    missing: list[str]
    alike: list[str]
    differing: dict[str, str]


@dataclass
class Replication:
    """What a replication did. `missing`: what the destination lacks still; it was not asked for, or is broken at the source."""

    source: str
    destination: str
    copied: dict[str, int] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    alike: list[str] = field(default_factory=list)
    differing: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    notes: int = 0

    @property
    def faults(self) -> dict[str, str]:
        """What somebody has to look at, by run directory."""
        return self.differing | self.broken

    @property
    def compared(self) -> Comparison:
        """The two places as they are now."""
        return Comparison(self.missing, [*self.alike, *self.copied], self.differing)

    def of_month(self, month: str) -> "Replication":
        """What of it is one month's."""

        def own(run_dir: str) -> bool:
            return run_dir.startswith(f"{month}/")

        return replace(
            self,
            copied={run_dir: size for run_dir, size in self.copied.items() if own(run_dir)},
            missing=[run_dir for run_dir in self.missing if own(run_dir)],
            alike=[run_dir for run_dir in self.alike if own(run_dir)],
            differing={run_dir: why for run_dir, why in self.differing.items() if own(run_dir)},
            broken={run_dir: why for run_dir, why in self.broken.items() if own(run_dir)},
        )

    def rows(self) -> list[dict[str, Any]]:
        """One row for each run that is not alike, in the columns COLUMNS."""
        said = [
            *((run_dir, "copied", f"{size:,} bytes") for run_dir, size in self.copied.items()),
            *(
                (run_dir, "missing", "not at the destination yet")
                for run_dir in self.missing
                if run_dir not in self.broken
            ),
            *((run_dir, "differs", why) for run_dir, why in self.differing.items()),
            *((run_dir, "broken", why) for run_dir, why in self.broken.items()),
        ]
        return [dict(zip(COLUMNS, (self.destination, *row), strict=True)) for row in sorted(said)]


COLUMNS = ("destination", "run_dir", "state", "detail")


def replicate(
    source: RunStore,
    destination: RunStore,
    *,
    months: Collection[str] | None = None,
    verify: bool = False,
    dry_run: bool = False,
    tell: Callable[[str], object] = lambda run_dir: None,
) -> Replication:
    """Copy the committed runs that a destination lacks; return what was done and what differs.

    months: those that are looked at, all without. verify: read every byte at the destination, too. dry_run: copy nothing.
    tell: hears of each run before it is copied. What differs at the destination stays as it is. Raises StoreError when a place
    does not answer; what is copied by then stays, and the next call goes on.
    """
    found = source.listing(months)
    files = {run_dir: found.contents(run_dir) for run_dir in run_dirs(found)}
    compared = compare(files, _contents(destination.listing(months)))
    done = Replication(source.place, destination.place, alike=compared.alike, differing=dict(compared.differing))
    for run_dir in compared.missing:
        stop_if_asked()
        if dry_run:
            done.missing.append(run_dir)
            continue
        tell(run_dir)
        _copy(source, destination, run_dir, files[run_dir], done)
    if verify:
        done.differing |= _verified(source, destination, [*done.alike, *done.copied], files, done)
        done.alike = [run_dir for run_dir in done.alike if run_dir not in done.faults]
    if not dry_run:
        _copy_notes(source, destination, done)
    return done


def compare(source: Mapping[str, Files], destination: Mapping[str, Files]) -> Comparison:
    """Compare by names and sizes. What is not committed at the source does not count, nor what is only at the destination.

    A run without `_SUCCESS`, or with a part of it, is a copy that was stopped: it is missing still.
    """
    found = Comparison([], [], {})
    for run_dir, wanted in sorted(source.items()):
        if SUCCESS_NAME not in wanted:
            continue
        there = destination.get(run_dir, {})
        if there.get(SUCCESS_NAME, -1) < wanted[SUCCESS_NAME]:
            found.missing.append(run_dir)
        elif unlike := sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name)):
            found.differing[run_dir] = _unlike(unlike[0], wanted, there)
        else:
            found.alike.append(run_dir)
    return found


def _unlike(inside: str, wanted: Files, there: Files) -> str:
    if inside not in there:
        return f"{inside}: missing"
    if inside not in wanted:
        return f"{inside}: not at the source"
    return f"{inside}: {there[inside]} bytes, {wanted[inside]} at the source"


def _contents(found: Listing) -> dict[str, dict[str, int]]:
    return {run_dir: found.contents(run_dir) for run_dir in run_dirs(found)}


def lacking(source: RunStore, destination: RunStore, months: Collection[str] | None = None) -> Comparison:
    """Compare two places by their listings; no file of a run is read."""
    return compare(_contents(source.listing(months)), _contents(destination.listing(months)))


# --- one run ----------------------------------------------------------------------------------------------------------


class _Promised:
    """A committed run of a source: its files are read once each, and held against the manifest on the way."""

    def __init__(self, source: RunStore, run_dir: str, files: Files) -> None:
        """Raises BrokenSourceError for a run that does not keep its promises."""
        self._source, self._run_dir = source, run_dir
        try:
            self._own = {name: source.read(f"{run_dir}/{name}") for name in (MANIFEST_NAME, SUCCESS_NAME)}
            where, content = f"{source.place}/{run_dir}", self._own[MANIFEST_NAME]
            manifest = vouched_manifest(where, run_dir.split("/")[0], content, lambda: self._own[SUCCESS_NAME])
            require_named(where, manifest, files)
        except IntegrityError as e:
            raise BrokenSourceError(str(e)) from None
        self.sha256: dict[str, str | None] = {name: hashlib.sha256(own).hexdigest() for name, own in self._own.items()}
        self.sha256 |= {entry.path: entry.sha256 for entry in manifest.artifacts.values()}
        self.sha256 |= {path: manifest.logs_sha256.get(name) for name, path in manifest.logs.items()}
        if absent := sorted(self.sha256.keys() - files.keys()):
            raise BrokenSourceError(f"{where}/{absent[0]}: missing")

    def read(self, inside: str) -> bytes:
        """The bytes of a file. Raises BrokenSourceError for others than were promised."""
        if inside in self._own:
            return self._own[inside]
        file = f"{self._run_dir}/{inside}"
        try:
            content = self._source.read(file)
        except IntegrityError as e:
            raise BrokenSourceError(str(e)) from None
        if self.sha256[inside] not in (None, hashlib.sha256(content).hexdigest()):
            raise BrokenSourceError(f"{self._source.place}/{file}: checksum differs from run.json")
        return content


def _copy(source: RunStore, destination: RunStore, run_dir: str, files: Files, done: Replication) -> None:
    try:
        destination.receive(run_dir, files, _Promised(source, run_dir, files).read)
        done.copied[run_dir] = sum(files.values())
    except BrokenSourceError as e:
        done.broken[run_dir] = str(e)
        done.missing.append(run_dir)
    except IntegrityError as e:
        done.differing[run_dir] = str(e)


def _verified(
    source: RunStore, destination: RunStore, runs: Sequence[str], files: Mapping[str, Files], done: Replication
) -> dict[str, str]:
    """Read some runs at the destination; return {run directory: the first file that is not as promised at the source}."""

    def look(run_dir: str) -> tuple[str, str | None]:
        stop_if_asked()
        try:
            promised = _Promised(source, run_dir, files[run_dir])
        except BrokenSourceError as e:
            done.broken[run_dir] = str(e)
            return run_dir, None
        try:
            for inside, sha256 in sorted(promised.sha256.items()):
                content = destination.read(f"{run_dir}/{inside}")
                if sha256 not in (None, hashlib.sha256(content).hexdigest()):
                    return run_dir, f"{inside}: other bytes than the source promises"
        except IntegrityError as e:
            return run_dir, str(e)
        return run_dir, None

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return {run_dir: why for run_dir, why in pool.map(look, runs) if why is not None}


# --- notes ------------------------------------------------------------------------------------------------------------


def _copy_notes(source: RunStore, destination: RunStore, done: Replication) -> None:
    """Add what the journal of the source says beyond that of the destination; one that says something else is left."""
    try:
        if not (wanted := _lines(source.journal)):
            return
        with destination.journal.writing(WAIT_S):
            there = _lines(destination.journal)
            if list(wanted)[: len(there)] != list(there):
                done.differing[NOTES] = "its names, notes and tags are not the beginning of those at the source"
                return
            for line in list(wanted)[len(there) :]:
                destination.journal.append(wanted[line])
                done.notes += 1
    except IntegrityError as e:
        done.broken[NOTES] = str(e)


def _lines(journal: Journal) -> dict[str, dict[str, Any]]:
    """What a journal says, each line once: two replications at once may both have added one."""
    said = [{key: value for key, value in entry.items() if key not in WRITER_KEYS} for entry in entries(journal)]
    return {json.dumps(entry, sort_keys=True): entry for entry in said}


WRITER_KEYS = ("version", "written_by")  # of the machine that wrote the line, not of what it says


# --- lag --------------------------------------------------------------------------------------------------------------


class Lag(NamedTuple):
    """How far a destination is behind, in seconds.

    lag_s: from its newest run to the newest at the source; of a destination without runs, from the oldest run at the source.
    waiting_s: how long ago the oldest run was made that it lacks. Both are 0 where it lacks none.
    """

    lag_s: float
    waiting_s: float


def lag_of(source: RunStore, compared: Comparison, now_s: float) -> Lag:
    """Return how far a destination is behind; the manifests of the source tell when the runs were made."""
    if not compared.missing:
        return Lag(0.0, 0.0)
    lacked = _made_s(source, compared.missing)
    if not lacked:
        return Lag(0.0, 0.0)
    there = _made_s(source, [*compared.alike, *compared.differing])
    newest = max([*lacked, *there])
    return Lag(newest - max(there, default=min(lacked)), max(0.0, now_s - min(lacked)))


def _made_s(source: RunStore, runs: Sequence[str]) -> list[float]:
    """When some runs were made, in seconds since 1970. Those that are broken are left out: the catalog tells of them."""
    found = []
    for run_dir in runs:
        with suppress(IntegrityError):
            found.append(parse_moment(read_manifest(source.open(run_dir)).created_at).timestamp())
    return found
