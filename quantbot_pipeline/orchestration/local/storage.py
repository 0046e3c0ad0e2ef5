"""Dagster's own SQLite storage of a home, with its connections kept open, events stored together, and a run's event log made without Alembic.

Dagster opens a connection, and SQLAlchemy's engine, for each of the thousand events of a backfill, and loads all of its
migrations to make the event log of each run: 15 % of the CPU time. No public configuration changes that. What is
stored stays Dagster's, byte for byte in its schema: a home can go back to the plain storage at any time.

Belongs here: everything that knows the inside of Dagster's storage. It is known to fit the minor version SUPPORTED; under any other
Dagster, or one that has moved what is used here, `from_config_value` gives the plain storage and says so.
"""

import contextlib
import functools
import logging
import os
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

# The default storage of an instance: it has no public name, and its documentation names it so.
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData

SUPPORTED = "1.13"  # the range of `dagster` in pyproject.toml; a test holds both together
MOST_KEPT = 8  # files: the index, the runs, the schedules, and the event logs of a few runs
# How many events of the months of one asset Dagster gives to the storage together; where it is not set, each alone.
BATCH_SIZE, MOST_AT_ONCE = "DAGSTER_EVENT_BATCH_SIZE", "500"
BUSY_S = 30.0  # as Dagster waits for another writer
log = logging.getLogger(__name__)
# Engines of a process that forked. A SQLite connection may not be used, nor closed, in the child.
_left_behind: list[Any] = []


class LocalStorage(DagsterSqliteStorage):
    """What `dagster.yaml` of a home names; made by `from_config_value`."""

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Any) -> DagsterSqliteStorage:  # type: ignore[override]
        """Return the storage that keeps its connections, or under another Dagster the plain one."""
        base_dir = config_value["base_dir"]
        Path(base_dir).mkdir(parents=True, exist_ok=True)
        if dg.__version__.rpartition(".")[0] == SUPPORTED:
            with contextlib.suppress(ImportError, AttributeError):
                made = _keeping_storage()(base_dir, inst_data)
                os.environ.setdefault(BATCH_SIZE, MOST_AT_ONCE)
                return made
        log.warning(
            "Dagster %s is not %s.x: its state is kept by its own, slower storage; the rest works as ever",
            dg.__version__,
            SUPPORTED,
        )
        return DagsterSqliteStorage(base_dir, inst_data)


class Engines:
    """SQLAlchemy engines by file, each with one idle connection; the least recently used ones are closed.

    A connection is given to one user at a time, as Dagster's are. It is dropped when its file was removed or replaced, after an
    error, and in a child process.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[Any, tuple[int, int] | None]] = OrderedDict()
        self._owner = os.getpid()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def connection(self, path: str) -> Iterator[Any]:
        """A connection in a transaction, which ends with the block."""
        engine = self._engine(path)
        try:
            with engine.connect() as connection, connection.begin():
                yield connection
        except BaseException:
            engine.dispose()
            raise
        self._remember(path, engine)

    def _engine(self, path: str) -> Any:
        with self._lock:
            if self._owner != os.getpid():
                _left_behind.append(self._kept)
                self._kept, self._owner = OrderedDict(), os.getpid()
            if path in self._kept:
                engine, file = self._kept[path]
                if file is not None and file == _identity(path):
                    self._kept.move_to_end(path)
                    return engine
                del self._kept[path]
                engine.dispose()
            self._kept[path] = (engine := _engine_of(path), _identity(path))
            while len(self._kept) > MOST_KEPT:
                _, (oldest, _) = self._kept.popitem(last=False)
                oldest.dispose()
            return engine

    def _remember(self, path: str, engine: Any) -> None:
        """Note which file it is: SQLite has made it by now."""
        with self._lock:
            if path in self._kept and self._kept[path] == (engine, None):
                self._kept[path] = (engine, _identity(path))

    def dispose(self) -> None:
        """Close what is idle: the last one to close a file puts its log into it."""
        with self._lock:
            for engine, _ in self._kept.values() if self._owner == os.getpid() else ():
                engine.dispose()
            self._kept.clear()


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116  (a thousand times in a backfill)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _engine_of(path: str) -> Any:
    from sqlalchemy import create_engine
    from sqlalchemy.pool import QueuePool

    # One that is idle, as many more as are asked for at once: then nobody waits who did not wait before.
    return create_engine(
        f"sqlite:///{path}",
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=-1,
        connect_args={"timeout": BUSY_S, "check_same_thread": False},
    )


def _is_stamped(path: str) -> bool:
    """Whether Alembic's version stands in a database: then Dagster, too, leaves it as it is."""
    if not os.path.exists(path):  # noqa: PTH110  (once for every run that the UI shows)
        return False
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=BUSY_S)) as con:
            return bool(con.execute("SELECT version_num FROM alembic_version").fetchall())
    except sqlite3.Error:
        return False


Schema = tuple[list[str], list[str]]


def _schema_of(con: sqlite3.Connection) -> list[str]:
    """The statements that made a database, tables first; those of SQLite itself have none."""
    rows = con.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type DESC, name").fetchall()
    return [sql for (sql,) in rows]


@functools.cache
def _dagsters_schema() -> list[str]:
    """What this Dagster makes of an empty database."""
    # The tables of an event log, from which Dagster makes one.
    from dagster._core.storage.event_log.schema import SqlEventLogStorageMetadata
    from sqlalchemy import create_engine
    from sqlalchemy.pool import StaticPool

    engine = create_engine("sqlite://", poolclass=StaticPool)
    with engine.connect() as connection:
        SqlEventLogStorageMetadata.create_all(connection)
        made = _schema_of(connection.connection.dbapi_connection)  # type: ignore[arg-type]
    engine.dispose()
    return made


def _template(index: str) -> Schema | None:
    """The schema and the version of the index, where this Dagster made it; None where an earlier one did, and changed it since."""
    if not os.path.exists(index):  # noqa: PTH110
        return None
    with contextlib.closing(sqlite3.connect(index, timeout=BUSY_S)) as con:
        schema = _schema_of(con)
        version = [v for (v,) in con.execute("SELECT version_num FROM alembic_version")]
    own = [sql for sql in schema if "alembic_version" not in sql]
    return (schema, version) if version and own == _dagsters_schema() else None


def _make_shard(path: str, index: str) -> bool:
    """Make the event log of a run as Dagster would; False where it has to do so itself. Another process may be at it, too."""
    try:
        if (template := _template(index)) is None:
            return False
        schema, version = template
        with contextlib.closing(sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)) as con:
            con.execute("PRAGMA journal_mode=WAL")
            con.execute("BEGIN IMMEDIATE")
            if _schema_of(con):
                con.execute("ROLLBACK")
                return False
            for sql in schema:
                con.execute(sql)
            con.executemany("INSERT INTO alembic_version VALUES (?)", [(v,) for v in version])
            con.execute("COMMIT")
    except sqlite3.Error:  # a full disk, say: Dagster's own attempt says so in its words
        return False
    return True


@functools.cache
def _keeping_storage() -> type[DagsterSqliteStorage]:
    """Return the storage as a class. Raises ImportError or AttributeError where Dagster has moved what it is made of."""
    # The two storages of one file each: no public name stands for them.
    from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
    from dagster._core.storage.schedules.sqlite.sqlite_schedule_storage import SqliteScheduleStorage

    # Where the three lie in a home: a home must find them again with the plain storage.
    from dagster._core.storage.sqlite_storage import _event_logs_directory, _runs_directory, _schedule_directory

    event_log, runs, schedules = _event_log(), _keeping(SqliteRunStorage), _keeping(SqliteScheduleStorage)

    class Keeping(LocalStorage):
        def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
            self.base_dir, self._inst_data = base_dir, inst_data
            self._engines = engines = Engines()
            self._run_storage = _opened(runs, SqliteRunStorage, _runs_directory(base_dir), "runs", engines)
            self._event_log_storage = event_log(_event_logs_directory(base_dir), engines)
            self._schedule_storage = _opened(
                schedules, SqliteScheduleStorage, _schedule_directory(base_dir), "schedules", engines
            )
            super(DagsterSqliteStorage, self).__init__()

        def dispose(self) -> None:
            super().dispose()
            self._engines.dispose()

    return Keeping


def _event_log() -> Any:
    """Return the class of the event log: the index, and a file for each run."""
    # The storage whose connections are kept; it is Dagster's default, and has no public name.
    from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage

    # What is overridden and called below.
    SqliteEventLogStorage._connect, SqliteEventLogStorage._initdb, SqliteEventLogStorage.store_event_batch  # noqa: B018

    class EventLog(SqliteEventLogStorage):
        def __init__(self, base_dir: str, engines: Engines) -> None:
            self._engines = engines
            self._batch = threading.local()  # connections: those of the batch that this thread stores, by shard
            super().__init__(base_dir)

        def store_event_batch(self, events: Any) -> None:
            """Store events in one transaction of each file: a commit of each event's own took a tenth of a backfill."""
            with self._db_lock, contextlib.ExitStack() as transactions:
                self._batch.connections = {}
                self._batch.transactions = transactions
                try:
                    for event in events:
                        self.store_event(event)
                finally:
                    del self._batch.connections, self._batch.transactions

        @contextlib.contextmanager
        def _connect(self, shard: str) -> Iterator[Any]:
            held = getattr(self._batch, "connections", None)
            if held is None:
                with self._db_lock, self._transaction(shard) as connection:
                    yield connection
                return
            if shard not in held:
                held[shard] = self._batch.transactions.enter_context(self._transaction(shard))
            yield held[shard]

        @contextlib.contextmanager
        def _transaction(self, shard: str) -> Iterator[Any]:
            path = self.path_for_shard(shard)
            if shard not in self._initialized_dbs:
                self._initialize(shard, path)
                self._initialized_dbs.add(shard)
            with self._engines.connection(path) as connection:
                yield connection

        def _initialize(self, shard: str, path: str) -> None:
            index = self.path_for_shard(INDEX_SHARD_NAME)
            if _is_stamped(path) or (shard != INDEX_SHARD_NAME and _make_shard(path, index)):
                return
            engine = _engine_of(path)
            self._initdb(engine)
            engine.dispose()

    return EventLog


def _keeping(plain: Any) -> Any:
    """Return the class of a storage of one file, with its connections kept."""

    class Kept(plain):
        engines: Engines

        @contextlib.contextmanager
        def connect(self) -> Iterator[Any]:
            with self.engines.connection(self._conn_string.removeprefix("sqlite:///")) as connection:
                yield connection

    return Kept


def _opened(kept: Any, plain: Any, folder: str, name: str, engines: Engines) -> Any:
    """The storage of one file; Dagster's own way makes it, and brings one that an earlier version left up to date."""
    # The file's name as Dagster spells it.
    from dagster._core.storage.sqlite import create_db_conn_string

    where = create_db_conn_string(folder, name)
    if not _is_complete(where.removeprefix("sqlite:///"), name):
        plain.from_local(folder)
    made = kept(where)
    made.engines = engines
    return made


def _is_complete(path: str, name: str) -> bool:
    """Whether Dagster would find nothing to make in a database of runs or schedules."""
    if not _is_stamped(path):
        return False
    with contextlib.closing(sqlite3.connect(path, timeout=BUSY_S)) as con:
        return name != "runs" or bool(
            con.execute("SELECT 1 FROM sqlite_master WHERE name = 'instance_info'").fetchall()
        )
