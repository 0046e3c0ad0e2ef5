"""How a file becomes durable and visible: fsync, atomic replacement, locks, scratch folders.

Belongs here: the few file system primitives on which every store's promise rests. Nothing here knows what is in a file.
"""

import contextlib
import errno
import glob
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from quantbot_pipeline.errors import StoreError

# What the system says when it is the disk that fails, and not the file that is wrong.
_DISK_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EFBIG,
    errno.EMFILE,
)
_DISK_WORDS = (*map(os.strerror, _DISK_ERRORS), "fsync failed")
MEND_DISK = "free space there (`quantbot prune` removes superseded runs) or check its rights, then run again"


def fsync_path(path: Path) -> None:
    """Flush a file or a directory to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a new file and flush it; fails if the file exists, so that nothing is overwritten by accident."""
    with path.open("xb") as f:
        f.write(content)
        f.flush()
        os.fsync(f.fileno())


def append_line(path: Path, text: str) -> None:
    """Append one line to a file and flush it. A line before it that a crash has torn is ended first, so that it costs itself alone.

    For files with one writer at a time. A reader may see the torn line.
    """
    begun = path.exists()
    with path.open("ab+") as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
        torn = bool(end) and file.read(1) != b"\n"
        file.write((b"\n" if torn else b"") + text.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    if not begun:
        fsync_path(path.parent)


def replace(temporary: Path, target: Path) -> None:
    """Flush `temporary` and put it in the place of `target`, atomically; readers see the old file or the new one."""
    fsync_path(temporary)
    temporary.replace(target)
    fsync_path(target.parent)


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A temporary path beside `target` that takes its place when the block ends well, and is removed when it does not.

    For files with one writer at a time; a full disk is not left fuller.
    """
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        yield temporary
        replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


@contextlib.contextmanager
def locked(path: Path, timeout_s: float) -> Iterator[Callable[[], None]]:
    """Hold the lock file `path`; the kernel lets go of it when the process dies.

    Yields a function that raises StoreError if somebody has removed the file meanwhile: another process may then hold a lock
    of the same name. Raises StoreError when another process holds it for longer than `timeout_s` (below 0: never), when it was
    removed while it was taken, and where the file system has no locks.
    """
    import filelock

    path.parent.mkdir(parents=True, exist_ok=True)
    held: os.stat_result | None = None  # of the file that is locked, which need not be the one at the path

    def remember(fd: int) -> None:
        nonlocal held
        held = os.fstat(fd)

    def check() -> None:
        try:
            same = held is not None and os.path.samestat(path.stat(), held)
        except FileNotFoundError:
            same = False
        if not same:
            raise StoreError(f"{path}: removed while it was held, so that another process may write too; run again")

    lock = filelock.FileLock(path, timeout=timeout_s, on_acquired=remember)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise StoreError(
            f"{path}: another process has held this lock for {timeout_s:g} s; wait for it, or raise QUANTBOT_LOCK_TIMEOUT_S"
        ) from None
    except OSError as e:
        if e.errno != errno.ENOSYS:
            raise
        raise StoreError(
            f"{path}: this file system has no locks; set QUANTBOT_HOME to a folder on one that has"
        ) from None
    try:
        check()
        yield check
    finally:
        lock.release()


SWEEP_S = 10.0  # within which a process that removes what dead ones left lets go of a lock


@contextlib.contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A folder of this process alone, `<prefix><32 hex digits>` in `parent`, for what nobody needs afterwards; gone at the end.

    Those of the same prefix whose processes were killed are removed first: nobody holds the lock beside them any more. Raises
    StoreError or OSError where no folder or lock can be made.
    """
    for lock in parent.glob(f"{glob.escape(prefix)}{'[0-9a-f]' * 32}.lock"):
        with contextlib.suppress(StoreError, OSError), locked(lock, 0):
            _remove_scratch(lock)
    lock = parent / f"{prefix}{uuid.uuid4().hex}.lock"
    lock.touch(exist_ok=False)  # where nothing can be written the lock would try again and again
    try:
        with locked(lock, SWEEP_S):
            folder = lock.with_suffix("")
            folder.mkdir(mode=0o700)
            yield folder
    finally:
        _remove_scratch(lock)


def _remove_scratch(lock: Path) -> None:
    """The folder, then its lock: whoever dies in between leaves what the next sweep finds."""
    shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
    lock.unlink(missing_ok=True)


def disk_fault(error: Exception) -> str | None:
    """The system's words in an error (also of DuckDB or Arrow) that the disk caused; None for any other error."""
    return next((words for words in _DISK_WORDS if words in str(error)), None)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Raises StoreError, saying where and how to mend it, for an OSError that the disk caused while writing to `path`."""
    try:
        yield
    except OSError as e:
        if (words := disk_fault(e)) is None:
            raise
        raise StoreError(f"{path}: {words}; {MEND_DISK}") from e
