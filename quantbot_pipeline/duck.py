"""Every way in which a DuckDB is opened, what its errors mean, and how a string from outside stands in a statement.

Belongs here: connections and their limits, publishing a file that one program writes and many read, files that somebody else
made, quoting. Does not: tables and queries of a store. Values travel as parameters wherever DuckDB takes them.
"""

import contextlib
import glob
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from quantbot_pipeline.durable import MEND_DISK, disk_fault, locked, replace, scratch_folder
from quantbot_pipeline.errors import InputError, IntegrityError, StoreError
from quantbot_pipeline.interrupts import stop_if_asked

if TYPE_CHECKING:
    import pyarrow as pa


def quoted(name: str) -> str:
    """A column or table name as a SQL identifier, whatever it contains."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A SQL string literal, for views: they cannot have parameters."""
    return "'" + text.replace("'", "''") + "'"


def escape_glob(path: str) -> str:
    """A path as a DuckDB glob pattern that matches only itself."""
    return re.sub(r"([*?\[])", r"[\1]", path)


@contextlib.contextmanager
def published_duckdb(
    target: Path, timeout_s: float, offer: Callable[[Path], object] | None = None
) -> Iterator["Publication"]:
    """Change a DuckDB file without ever blocking its readers: lock, private copy, checkpoint, replace.

    DuckDB lets one process write or many read. So writers serialize on `<target>.lock`, work on a copy, and swap it in;
    whoever has the old file open keeps a consistent snapshot. The copy replaces the target only if `publication.changed`
    is set and the block ends without an exception. `offer` is shown the finished copy before; its exceptions leave the target as it
    was. Raises StoreError when the disk fails; the target then stays as it was.
    """
    with locked(target.with_name(f".{target.name}.lock"), timeout_s) as check_lock:
        for orphan in target.parent.glob(f".{glob.escape(target.name)}.*.tmp*"):
            if orphan.is_dir():  # where a killed DuckDB had put what did not fit into memory
                shutil.rmtree(orphan, ignore_errors=True)
            else:
                orphan.unlink(missing_ok=True)
        private = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        publication = Publication(target, private, check_lock, offer)
        import duckdb

        try:
            yield publication
            publication.finish()
        except duckdb.Error as e:
            if (words := disk_fault(e)) is not None:
                raise StoreError(f"{target}: not written: {words}; {MEND_DISK}") from None
            raise
        finally:
            publication.discard()


class Publication:
    """One pending change of a published DuckDB file; see `published_duckdb`."""

    def __init__(
        self,
        target: Path,
        private: Path,
        check_lock: Callable[[], None],
        offer: Callable[[Path], object] | None = None,
    ) -> None:
        self.target = target
        self.check_lock = check_lock
        self.changed = False
        self._private, self._offer = private, offer
        self._con: duckdb.DuckDBPyConnection | None = None
        self._copy = True

    def start_empty(self) -> None:
        """Begin with an empty file instead of a copy of the published one; forgets what was changed so far."""
        self.discard()
        self._copy = False

    def connect(self) -> "duckdb.DuckDBPyConnection":
        """The connection to the private copy (made at the first call).

        Raises IntegrityError for a file that DuckDB cannot open, StoreError while another program writes to it, InputError
        for a path that DuckDB misunderstands.
        """
        if self._con is None:
            if set("?\\") & set(str(self.target.absolute())):  # it would write its log into another folder
                raise InputError(f"{self.target}: DuckDB takes no ? and no backslash in a path; choose another folder")
            if self._copy and self.target.exists():
                if _wal(self.target).exists():  # plain DuckDB was killed here; a copy would lose what it wrote
                    _open_for_writing(self.target).close()
                shutil.copyfile(self.target, self._private)
                _make_readable_by_older(self._private, self.target)
            self._con = _open_for_writing(self._private, self.target)
            self._con.execute("SET TimeZone = 'UTC'")
        return self._con

    def finish(self) -> None:
        """Swap the private copy in, if anything changed."""
        stop_if_asked()
        if self._con is not None and self.changed:
            self._con.execute("CHECKPOINT")
            self._con.close()
            self._con = None
            self.check_lock()
            if self._offer is not None:
                self._offer(self._private)
            try:
                replace(self._private, self.target)
            except FileNotFoundError:
                self.check_lock()  # without the lock our copy is an orphan to the next writer
                raise
            _wal(self.target).unlink(
                missing_ok=True
            )  # of the file that is no longer there: nobody could open the new one

    def discard(self) -> None:
        """Close and remove the private copy; harmless after `finish`."""
        if self._con is not None:
            self._con.close()
            self._con = None
        for leftover in (self._private, _wal(self._private)):
            leftover.unlink(missing_ok=True)


def _wal(path: Path) -> Path:
    """DuckDB's write-ahead log beside a file."""
    return path.with_name(path.name + ".wal")


def _open_for_writing(path: Path, shown: Path | None = None) -> "duckdb.DuckDBPyConnection":
    import duckdb

    try:
        return duckdb.connect(str(path), config={"storage_compatibility_version": STORAGE})
    except duckdb.Error as e:
        text = str(e).splitlines()[0][:160]
        if is_in_use(e) or isinstance(e, duckdb.ConnectionException):
            raise StoreError(in_use(shown or path)) from None
        if disk_fault(e) is not None:
            raise
        raise IntegrityError(f"{shown or path}: not readable as a DuckDB file ({text})") from None


# The oldest storage holds all that our files need, so that clients from DuckDB 1.0 on can read them.
STORAGE, STORAGE_NUMBER = "v1.0.0", 64


def storage_number(path: Path) -> int:
    """Return the storage version in the header of a DuckDB file; 0 for what is none."""
    with path.open("rb") as file:
        head = file.read(20)
    return int.from_bytes(head[12:20], "little") if head[8:12] == b"DUCK" else 0


def _make_readable_by_older(path: Path, shown: Path) -> None:
    """Write a file of a newer storage anew in the oldest: earlier versions of this program wrote the newest."""
    if storage_number(path) <= STORAGE_NUMBER:
        return
    newer = path.with_name(f"{path.name}-newer")
    try:
        path.rename(newer)
        with _open_for_writing(path, shown) as con:
            con.execute("ATTACH ? AS newer (READ_ONLY)", [str(newer)])
            ((own,),) = con.execute("SELECT current_database()").fetchall()
            con.execute(f"COPY FROM DATABASE newer TO {quoted(own)}")
    except duckdb.Error as e:
        if disk_fault(e) is not None:
            raise
        raise IntegrityError(f"{shown}: not readable as a DuckDB file ({first_line(e)})") from None
    finally:
        newer.unlink(missing_ok=True)


def is_in_use(error: Exception) -> bool:
    """Whether DuckDB cannot open a file because it is open for writing: in another process, or by a reader in this one."""
    return any(words in str(error) for words in ("Could not set lock", "Unique file handle conflict"))


def in_use(path: Path) -> str:
    """What to say then."""
    return f"{path}: another program has it open for writing; close that program"


@contextlib.contextmanager
def workspace(**config: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A private in-memory DuckDB in which times without a zone are UTC, whatever the machine's zone.

    What it cannot do within its memory and disk is a StoreError; DuckDB reports it in three ways.
    """
    import pyarrow as pa

    try:
        with duckdb.connect(config=dict(config)) as con:
            con.execute("SET TimeZone = 'UTC'")
            yield con
    except (duckdb.Error, pa.ArrowException, OSError) as e:
        if isinstance(e, OSError) and e.errno is not None:
            raise  # the file system's own words
        raise StoreError(
            f"the ingest stopped: {first_line(e)}; give it more memory (QUANTBOT_MEMORY_LIMIT) or free disk space"
        ) from e


def first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


UNTRUSTED = "untrusted.main"  # where the tables of such a file are


@contextlib.contextmanager
def open_untrusted(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB file that somebody else may have made, read-only: nothing in it can read other files or load extensions.

    It is attached to an empty database, under the name UNTRUSTED: so its views, macros and schemas stand in for nothing of ours.
    What does not fit into memory spills beside it, into a folder of this connection; where none can be made, nothing spills.
    """
    with contextlib.ExitStack() as stack:
        spill = ""
        with contextlib.suppress(StoreError, OSError):
            spill = str(stack.enter_context(scratch_folder(path.parent, f".{path.name}.spill-")))
        con = stack.enter_context(duckdb.connect(config={"temp_directory": spill}))
        for option in ("autoinstall_known_extensions", "autoload_known_extensions"):
            con.execute(f"SET {option} = false")
        con.execute("ATTACH ? AS untrusted (TYPE duckdb, READ_ONLY)", [str(path)])
        con.execute("SET enable_external_access = false")
        yield con


def release_untrusted(con: duckdb.DuckDBPyConnection) -> None:
    """Let go of the file, so that others may write to it; what was copied from it stays."""
    con.execute("DETACH DATABASE IF EXISTS untrusted")


def untrusted_tables(con: duckdb.DuckDBPyConnection) -> list[str]:
    """The tables of the schema main of an untrusted file. A view is none: it is somebody's program, and runs when it is read."""
    listed = con.execute(
        """SELECT table_name FROM duckdb_tables()
           WHERE schema_name = 'main' AND database_name = 'untrusted' AND NOT internal ORDER BY 1"""
    )
    return [name for (name,) in listed.fetchall()]


# Databases in memory that a reader left behind: making one takes twice as long as opening a catalog and asking it.
_idle: list[duckdb.DuckDBPyConnection] = []
# The innermost that somebody has: `database_of` inside its block is a second connection to it (0.2 ms; another database 10).
_innermost: ContextVar[duckdb.DuckDBPyConnection | None] = ContextVar("_innermost", default=None)


@contextmanager
def memory_database() -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory for one at a time; whoever comes next gets it again, unless an error came out of it."""
    try:
        con = _idle.pop()
    except IndexError:
        # Without threads of its own: sums have one order, so that the same rows give the same bits. The process may fork, too.
        con = duckdb.connect(config={"threads": 1, "async_threads": 0})
        con.execute("SET GLOBAL TimeZone = 'UTC'")  # of its further connections, too
    token = _innermost.set(con)
    try:
        yield con
    except BaseException:
        con.close()
        raise
    finally:
        _innermost.reset(token)
    _idle.append(con)


@contextmanager
def database_of(**tables: "pa.Table") -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that knows these Arrow tables by these names, and none of anybody else."""
    con = _innermost.get()
    with contextlib.nullcontext(con) if con is not None else memory_database() as whole, whole.cursor() as own:
        for name, table in tables.items():
            own.register(name, table)
        yield own
