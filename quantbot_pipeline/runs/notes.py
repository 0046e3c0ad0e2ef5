"""Names, notes and tags of runs, kept beside the runs: `runs/.notes/journal.jsonl`, one line per change, never rewritten.

A run stays as it was committed. Each line says which run, when, and what is new; the last word on a thing counts. A name belongs to
one run: the last that got it. A line that is torn by a crash is passed over.
Belongs here: what the journal says of each run, and a journal that is a file. Does not: a journal in an object store (`objects`);
which run a person means (`catalog.chosen`).
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from quantbot_pipeline.durable import append_line, locked
from quantbot_pipeline.errors import InputError, IntegrityError
from quantbot_pipeline.kept import identity_of
from quantbot_pipeline.months import iso_now
from quantbot_pipeline.version import __version__
from quantbot_pipeline.versions import Version, format_of, read_version

NOTES = ".notes"
JOURNAL = "journal.jsonl"
LONGEST_NOTE = 10_000
_WORD = re.compile(r"\w[\w.:/+-]{0,63}")
_RUN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{4}-\d{2}")


class RunNotes(NamedTuple):
    """What people say of a run."""

    name: str | None = None
    note: str | None = None
    tags: tuple[str, ...] = ()


class Journal(Protocol):
    """Where the lines of a journal are kept."""

    def content(self) -> bytes:
        """All lines, in their order."""
        ...

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add a line, for good."""
        ...

    def signature(self) -> str:
        """What tells this state of the journal from every other."""
        ...

    def writing(self, timeout_s: float) -> AbstractContextManager[object]:
        """One writer at a time, where the place has locks."""
        ...

    def is_there(self, run_id: str) -> bool:
        """Whether there is a run of this id beside the journal."""
        ...


@dataclass(frozen=True)
class FileJournal:
    """The journal in a folder of runs."""

    folder: Path

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / NOTES / JOURNAL

    def content(self) -> bytes:
        """All lines; none without a file."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add a line; the first says the version."""
        if not self.path.exists():
            append_line(self.path, json.dumps(said_version()))
        append_line(self.path, json.dumps(entry, ensure_ascii=False))

    def signature(self) -> str:
        """Device, inode, size and times of the file."""
        return str(identity_of([self.path]))

    def writing(self, timeout_s: float) -> AbstractContextManager[object]:
        """Hold the lock beside the file."""
        return locked(self.folder / NOTES / ".journal.lock", timeout_s)

    def is_there(self, run_id: str) -> bool:
        """Whether there is a run of this id in the folder."""
        return any((month / f"run_id={run_id}").is_dir() for month in self.folder.glob("[0-9]*-[0-9]*"))


def said_version() -> dict[str, str]:
    """Return what a journal says of its version."""
    return {"version": format_of("journal").current, "written_by": __version__}


def _journal(place: Journal | Path) -> Journal:
    return FileJournal(place) if isinstance(place, Path) else place


def read_notes(place: Journal | Path) -> dict[str, RunNotes]:
    """Return what a journal, or that in a folder of runs, says of each run, without runs of which it says nothing any more.

    Raises IntegrityError for a journal of a newer major version.
    """
    found: dict[str, RunNotes] = {}
    for entry in entries(_journal(place)):
        _apply(found, entry)
    return {run_id: notes for run_id, notes in found.items() if notes != RunNotes()}


def journal_version(place: Journal | Path) -> Version:
    """Return the version that the journal says. Raises IntegrityError for a newer major version, and for what is none."""
    for entry in _lines(_journal(place)):
        if "version" in entry:
            return _judged(entry)
    return read_version("journal", None, NOTES, IntegrityError)


def journal_signature(place: Journal | Path) -> str:
    """Return what tells this state of the journal from every other."""
    return _journal(place).signature()


def name_run(
    place: Journal | Path, run_id: str, name: str | None, *, move: bool = False, timeout_s: float = 60.0
) -> None:
    """Give a run a name; None takes it away. Raises InputError for a name that another run has, unless it is to `move`."""
    if name is not None:
        _require_word("a name", name)
    journal = _journal(place)
    with journal.writing(timeout_s):
        found = read_notes(journal)
        owner = next((other for other, notes in found.items() if name is not None and notes.name == name), run_id)
        if owner != run_id and not move and journal.is_there(owner):
            raise InputError(f"name {name!r}: run {owner} has it; take another, or move it with --move")
        _write(journal, run_id, {"name": name})


def note_run(place: Journal | Path, run_id: str, text: str | None, *, timeout_s: float = 60.0) -> None:
    """Write the note of a run in place of the one before; None or an empty text takes it away."""
    text = (text or "").strip() or None
    if text is not None and (len(text) > LONGEST_NOTE or "\x00" in text):
        raise InputError(f"a note has at most {LONGEST_NOTE:,} characters, and no NUL; shorten it")
    _write_alone(_journal(place), run_id, {"note": text}, timeout_s)


def tag_run(
    place: Journal | Path, run_id: str, add: Sequence[str] = (), remove: Sequence[str] = (), *, timeout_s: float = 60.0
) -> None:
    """Add tags to a run and take others away."""
    for tag in (*add, *remove):
        _require_word("a tag", tag)
    _write_alone(_journal(place), run_id, {"add_tags": list(add), "remove_tags": list(remove)}, timeout_s)


# --- the journal ------------------------------------------------------------------------------------------------------


def _write_alone(journal: Journal, run_id: str, what: Mapping[str, Any], timeout_s: float) -> None:
    with journal.writing(timeout_s):
        read_notes(journal)  # one of a newer version is refused before anything is written
        _write(journal, run_id, what)


def _write(journal: Journal, run_id: str, what: Mapping[str, Any]) -> None:
    journal.append({"at": iso_now(), "run_id": run_id, **what})


def entries(journal: Journal) -> Iterator[dict[str, Any]]:
    """Yield what the journal says of runs, in its order."""
    for entry in _lines(journal):
        if "version" in entry:
            _judged(entry)
        if isinstance(entry.get("run_id"), str):
            yield entry


def _judged(entry: Mapping[str, Any]) -> Version:
    where = f"{NOTES}/{JOURNAL}"
    return read_version("journal", entry["version"], where, IntegrityError, entry.get("written_by"))


def _lines(journal: Journal) -> Iterator[dict[str, Any]]:
    """Yield the whole lines of the journal; what a crash or a hand left between them is passed over."""
    for line in journal.content().split(b"\n"):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict):
            yield entry


def _apply(found: dict[str, RunNotes], entry: Mapping[str, Any]) -> None:
    run_id = entry["run_id"]
    notes = found.get(run_id, RunNotes())
    for key in ("name", "note"):
        if key in entry and (entry[key] is None or isinstance(entry[key], str)):
            notes = notes._replace(**{key: entry[key]})
    if notes.name is not None:
        for other in [other for other, said in found.items() if other != run_id and said.name == notes.name]:
            found[other] = found[other]._replace(name=None)
    tags = (set(notes.tags) | set(_words(entry.get("add_tags")))) - set(_words(entry.get("remove_tags")))
    found[run_id] = notes._replace(tags=tuple(sorted(tags)))


def _words(value: Any) -> Iterable[str]:
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []


def _require_word(what: str, text: str) -> None:
    if not _WORD.fullmatch(text) or _RUN_ID.fullmatch(text):
        raise InputError(
            f"{what} is at most 64 letters, digits and . _ : / + -, begins with a letter or digit, "
            f"and is neither a run id nor a month (given: {text[:80]!r})"
        )
