"""The runs of a home: what a place for runs can do, and the folder on this machine that is the usual one.

Belongs here: which runs there are and where they lie. Does not: how one is committed (`commit`) or checked (`verify`), and runs in
an object store (`objects`).
"""

import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from quantbot_pipeline.durable import sha256_file
from quantbot_pipeline.errors import InputError, IntegrityError, StoreError

if TYPE_CHECKING:
    from quantbot_pipeline.runs.commit import StagedRun
    from quantbot_pipeline.runs.manifest import RunDirectory, RunManifest
    from quantbot_pipeline.runs.notes import Journal
    from quantbot_pipeline.runs.verify import Verified

TRASH = ".trash"
# A directory changed so recently may change again without its times telling; it is read anew at the next sync.
SETTLED_S = 2.0
RECEIVE_S = 60.0  # how long a copy of a run waits for another copy of the same run


class Listing(Protocol):
    """What a look at a place of runs sees; a sync takes one. `months`: {YYYY-MM: what tells this state of the month from others}.

    tells_success: whether the signature of a month changes when a `_SUCCESS` comes.
    """

    months: dict[str, str]
    dangling: list[str]
    tells_success: bool

    def names(self, month: str) -> list[str]:
        """Names `run_id=…` of a month, ascending."""
        ...

    def contents(self, run_dir: str) -> dict[str, int]:
        """{path inside: bytes} of all that the store has of a run; -1 for what is no regular file."""
        ...

    def is_settled(self, month: str) -> bool:
        """Whether the signature will tell every later change."""
        ...

    def examine(self, month: str, name: str) -> "Verified":
        """What a run that keeps its promises holds. Raises IntegrityError naming the file that does not."""
        ...

    def missing(self, paths: Iterable[str]) -> set[str]:
        """Those of some files (relative to the runs) that are gone."""
        ...

    def elsewhere(self, paths: Iterable[str]) -> set[str]:
        """Those of some files that are there and have no copy on this machine."""
        ...


def run_dirs(listing: Listing) -> list[str]:
    """Return every run directory that a look sees, `YYYY-MM/run_id=…`, ascending."""
    return [f"{month}/{name}" for month in sorted(listing.months) for name in listing.names(month)]


class RunStore(Protocol):
    """A place where runs are kept: begin and commit, list, open, set aside.

    folder: on this machine; of runs that are kept elsewhere it holds copies. place: how the store is named in messages. Run
    directories are given as `YYYY-MM/run_id=…`.
    """

    @property
    def folder(self) -> Path: ...
    @property
    def place(self) -> str: ...
    @property
    def journal(self) -> "Journal": ...
    def begin(self, month: str) -> "StagedRun":
        """Begin a run of a month; nobody sees it before its commit."""
        ...

    def receive(self, run_dir: str, files: Mapping[str, int], read: Callable[[str], bytes]) -> None:
        """Commit a run that is committed elsewhere: `files` of it with their bytes, which `read` gives; `_SUCCESS` last.

        Raises IntegrityError for a run that is there with other bytes.
        """
        ...

    def sweep(self) -> int:
        """Remove what dead processes left; return how many runs were removed."""
        ...

    def listing(self, among: Collection[str] | None = None) -> Listing:
        """Look at what there is, in all months or in those `among`."""
        ...

    def completed(self, month: str) -> "Iterator[tuple[RunDirectory, RunManifest]]":
        """Yield the runs of a month that keep their promises (names, sizes, `_SUCCESS`), in no particular order."""
        ...

    def open(self, run_dir: str) -> "RunDirectory":
        """Return a run of the catalog; nothing is read yet."""
        ...

    def at(self, text: str) -> "RunDirectory":
        """Return the run whose directory was printed as `text`."""
        ...

    def find(self, run_id: str) -> "RunDirectory":
        """Return the directory of a run. Raises InputError when there is none."""
        ...

    def fetch(self, files: Sequence[str]) -> None:
        """Have some files of cataloged runs in `folder`."""
        ...

    def fresh(self, run_dir: str) -> AbstractContextManager[Path]:
        """A folder that holds all that the store has of a run at this moment, so that it can be verified."""
        ...

    def sizes(self, files: Sequence[str]) -> dict[str, int | str]:
        """{file: its bytes, or what is wrong with it in words}."""
        ...

    def digest(self, file: str) -> str:
        """SHA-256 of a file as the store has it now."""
        ...

    def read(self, file: str) -> bytes:
        """Bytes of a file as the store has them now. Raises IntegrityError without one."""
        ...

    def written_s(self, run_dir: str, missing: float) -> float:
        """When a run was last touched, in seconds since 1970; `missing` for one that is gone."""
        ...

    def to_trash(self, run_dirs: Iterable[str]) -> list[str]:
        """Set runs aside in `.trash/`; return those that were there to be moved."""
        ...

    def trashed(self, run_id: str) -> bool:
        """Whether a run lies in the trash."""
        ...

    def empty_trash(self, before_ms: int) -> list[str]:
        """Remove runs in the trash that were created before `before_ms`; return their directories, relative to the trash."""
        ...


@dataclass(frozen=True)
class LocalRuns:
    """Run directories `YYYY-MM/run_id=<uuid>/` in `folder`; staging older than `staging_max_age_s` is swept when unlocked."""

    folder: Path
    staging_max_age_s: float = 3600.0

    @property
    def place(self) -> str:
        """The folder."""
        return str(self.folder)

    @property
    def journal(self) -> "Journal":
        """Names, notes and tags of the runs."""
        from quantbot_pipeline.runs.notes import FileJournal

        return FileJournal(self.folder)

    def begin(self, month: str) -> "StagedRun":
        """Begin a run of a month; nobody sees it before its commit."""
        from quantbot_pipeline.runs.commit import StagedRun

        return StagedRun(self.folder, month)

    def receive(self, run_dir: str, files: Mapping[str, int], read: Callable[[str], bytes]) -> None:
        """Commit a run that is committed elsewhere, `_SUCCESS` last. Raises IntegrityError for one that is there with other bytes."""
        from quantbot_pipeline.runs.commit import receive

        receive(self.folder, run_dir, files, read, RECEIVE_S)

    def sweep(self) -> int:
        """Remove what dead processes left in staging; return how many runs were removed."""
        from quantbot_pipeline.runs.commit import sweep_staging

        return sweep_staging(self.folder, self.staging_max_age_s)

    def listing(self, among: Collection[str] | None = None) -> "LocalListing":
        """Look at the folder, in all months or in those `among`."""
        return LocalListing(self.folder, among)

    def completed(self, month: str) -> "Iterator[tuple[Path, RunManifest]]":
        """Yield the runs of a month that keep their promises (names, sizes, `_SUCCESS`), in no particular order."""
        from quantbot_pipeline.runs.manifest import MANIFEST_NAME
        from quantbot_pipeline.runs.verify import check_run

        for path in (self.folder / month).glob(f"run_id=*/{MANIFEST_NAME}"):
            try:
                manifest = check_run(path.parent, checksums=False)
            except IntegrityError:
                continue  # the catalog quarantines it; here it only must not be believed
            if manifest.status == "completed":
                yield path.parent, manifest

    def open(self, run_dir: str) -> Path:
        """Return the directory of a run."""
        return self.folder / run_dir

    def at(self, text: str) -> Path:
        """Return the directory as a path."""
        return Path(text)

    def find(self, run_id: str) -> Path:
        """Return the directory of a run. Raises InputError when there is none."""
        name = f"run_id={run_id}"
        for month in sorted(self.folder.iterdir()) if self.folder.is_dir() else ():
            if (month / name).is_dir() and Path(name).name == name:
                return month / name
        raise InputError(f"run {run_id!r}: not in {self.folder}; `quantbot backtest catalog-query` lists the runs")

    def fetch(self, files: Sequence[str]) -> None:
        """They are here."""

    def fresh(self, run_dir: str) -> AbstractContextManager[Path]:
        """The directory itself."""
        return nullcontext(self.folder / run_dir)

    def sizes(self, files: Sequence[str]) -> dict[str, int | str]:
        """{file: its bytes, or the system's words}."""
        return {file: _size(self.folder / file) for file in files}

    def digest(self, file: str) -> str:
        """SHA-256 of a file."""
        return sha256_file(self.folder / file)

    def read(self, file: str) -> bytes:
        """Bytes of a file. Raises IntegrityError without one."""
        path = self.folder / file
        try:
            if path.is_symlink():
                raise IntegrityError(f"{path}: a symbolic link; what it points to can change")
            return path.read_bytes()
        except OSError as e:
            raise IntegrityError(f"{path}: {e.strerror or e}") from None

    def written_s(self, run_dir: str, missing: float) -> float:
        """The time of the directory."""
        try:
            return (self.folder / run_dir).stat().st_mtime
        except FileNotFoundError:  # removed since the listing
            return missing

    def to_trash(self, run_dirs: Iterable[str]) -> list[str]:
        """Move run directories to the trash; return those that were there to be moved. Raises StoreError."""
        moved = []
        for run_dir in run_dirs:
            source, target = self.folder / run_dir, self.folder / TRASH / run_dir
            if source.is_dir() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    source.rename(target)
                except OSError as e:
                    raise StoreError(
                        f"{source}: not moved to {target.parent}: {e.strerror or e}; move it by hand"
                    ) from None
                moved.append(run_dir)
        return moved

    def trashed(self, run_id: str) -> bool:
        """Whether a run lies in the trash."""
        trash = self.folder / TRASH
        return any((month / f"run_id={run_id}").exists() for month in (trash.iterdir() if trash.is_dir() else ()))

    def empty_trash(self, before_ms: int) -> list[str]:
        """Remove runs in the trash that were created before `before_ms`; return their directories, relative to the trash."""
        from quantbot_pipeline.runs.manifest import read_manifest

        removed, trash = [], self.folder / TRASH
        for run_dir in sorted(trash.glob("*/run_id=*")):
            try:
                created = read_manifest(run_dir).created_at
            except IntegrityError:
                continue  # not something this program set aside
            if is_before(created, before_ms):
                shutil.rmtree(run_dir)
                removed.append(run_dir.relative_to(trash).as_posix())
        return removed


def is_before(created_at: str, before_ms: int) -> bool:
    """Whether a time of a manifest is before a moment in UTC ms."""
    return datetime.fromisoformat(created_at).astimezone(UTC).timestamp() * 1000 < before_ms


def _size(path: Path) -> int | str:
    try:
        return path.stat().st_size
    except OSError as e:
        return (e.strerror or str(e)).lower()


class LocalListing:
    """A look at a folder of runs. A month may be a link to a folder elsewhere, as the folder of runs may be one."""

    tells_success = False  # it is put into the run's directory, which does not touch the month's

    def __init__(self, folder: Path, among: Collection[str] | None = None) -> None:
        self._folder = folder
        found = month_signatures(folder)
        self.months = {month: found[month] for month in found if among is None or month in among}
        self.dangling: list[str] = dangling_months(folder)

    def names(self, month: str) -> list[str]:
        """Names `run_id=…` of a month, ascending."""
        return sorted(entry.name for entry in os.scandir(self._folder / month) if entry.name.startswith("run_id="))

    def contents(self, run_dir: str) -> dict[str, int]:
        """{path inside: bytes} of all that is in a run's directory; -1 for what is no regular file."""
        root, found, folders = f"{self._folder}/{run_dir}", {}, [""]
        while folders:
            inside = folders.pop()
            with suppress(FileNotFoundError, NotADirectoryError), os.scandir(f"{root}/{inside}") as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(f"{inside}{entry.name}/")
                    else:
                        regular = entry.is_file(follow_symlinks=False)
                        found[inside + entry.name] = entry.stat(follow_symlinks=False).st_size if regular else -1
        return found

    def is_settled(self, month: str) -> bool:
        """Whether the month was last changed long enough ago."""
        stat = (self._folder / month).stat()
        return time.time() - max(stat.st_mtime, stat.st_ctime) > SETTLED_S

    def examine(self, month: str, name: str) -> "Verified":
        """What a run that keeps its promises holds, every byte verified."""
        from quantbot_pipeline.runs.verify import examine_run

        return examine_run(self._folder / month / name)

    def missing(self, paths: Iterable[str]) -> set[str]:
        """Those of some files that are gone."""
        base = str(self._folder)
        return {path for path in paths if not os.path.isfile(f"{base}/{path}")}  # noqa: PTH113  (a Path per file costs twice the test)

    def elsewhere(self, paths: Iterable[str]) -> set[str]:
        """None."""
        return set()


def month_signatures(base: Path) -> dict[str, str]:
    """{month: signature of its directory}; changes whenever a run directory appears or goes.

    A month may be a link to a folder elsewhere, as `runs/` may be one.
    """
    if not base.exists():
        return {}
    return {
        entry.name: signature_of(Path(entry.path))
        for entry in os.scandir(base)
        if is_month(entry.name) and entry.is_dir()
    }


def dangling_months(base: Path) -> list[str]:
    """Return the months that are links to nothing: their disk may not be mounted."""
    if not base.exists():
        return []
    return sorted(e.name for e in os.scandir(base) if is_month(e.name) and e.is_symlink() and not e.is_dir())


def signature_of(path: Path) -> str:
    """Return inode, size and times of a file or folder. Raises FileNotFoundError without one."""
    stat = path.stat()
    return f"{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"


def is_month(name: str) -> bool:
    """Whether a name in the runs' folder is that of a month."""
    return len(name) == 7 and name[4] == "-" and name.replace("-", "").isdigit()
