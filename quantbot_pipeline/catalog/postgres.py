"""The shared catalog as tables of a Postgres database: the tables and rows of the DuckDB file, which is made from them where they are read.

Belongs here: how rows travel both ways, and the sentence for whatever goes wrong. Does not: what is in a row (`sync`), nor what the
tables are (`schema`): they are read from there. SQLAlchemy comes with Dagster; psycopg2 is the extra `postgres`.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import duckdb

from quantbot_pipeline.catalog.schema import CATALOG_VERSION, TABLES, cataloged_files, create_views, insert_rows
from quantbot_pipeline.catalog.shared import OvertakenError, noted_tag, put_in_place, require_not_newer
from quantbot_pipeline.duck import STORAGE, quoted
from quantbot_pipeline.errors import InputError, StoreError

STATE = "catalog_state"  # one row: the tag of what is in the tables
LOCK = 7_121_972_026  # of whoever publishes; held until the transaction ends
Row = tuple[Any, ...]


@dataclass(frozen=True)
class PostgresCatalog:
    """The catalog in the database of a URL `postgresql://user@host/database`; the password comes from PGPASSWORD or ~/.pgpass."""

    url: str
    base: str

    @property
    def place(self) -> str:
        """The URL without its options."""
        return self.url.split("?")[0]

    def pull(self, path: Path) -> str | None:
        """Make the file anew from the tables, if they changed: one query where they did not."""
        with self._connected() as con:
            con = con.execution_options(isolation_level="REPEATABLE READ")
            with con.begin():
                tag = self._state(con)
                if tag is None or noted_tag(path) == tag:
                    return tag
                rows = {name: _read(con, table) for name, table in _tables().items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.pulled")
        try:
            _write_file(temporary, rows, self.base)
            put_in_place(temporary, path, tag)
        finally:
            temporary.unlink(missing_ok=True)
        return tag

    def offer(self, private: Path, tag: str | None) -> str:
        """Bring the tables in line with a file, if they are in this state still."""
        wanted, new = _read_file(private), uuid.uuid4().hex
        with self._connected() as con, con.begin():
            con.execute(self._sql.select(self._sql.func.pg_advisory_xact_lock(LOCK)))
            if self._state(con) != tag:
                raise OvertakenError(f"{self.place}: another machine was faster; run again")
            if tag is None:  # nothing, or of an older version
                _metadata().drop_all(con)
                _metadata().create_all(con)
            for name, table in _tables().items():
                _change(con, table, wanted[name])
            state = _metadata().tables[STATE]
            con.execute(state.delete())
            con.execute(state.insert(), {"tag": new, "version": CATALOG_VERSION})
        return new

    def _state(self, con: Any) -> str | None:
        """The tag of the tables; None without any, or where they are of an older version. Raises StoreError for a newer one."""
        if not self._sql.inspect(con).has_table(STATE):
            return None
        state = _metadata().tables[STATE]
        found = con.execute(self._sql.select(state.c.tag, state.c.version)).first()
        if found is None:
            return None
        require_not_newer(found.version, self.place)
        return str(found.tag) if found.version == CATALOG_VERSION else None

    @cached_property
    def _sql(self) -> Any:
        import sqlalchemy

        return sqlalchemy

    @cached_property
    def _engine(self) -> Any:
        try:
            import psycopg2  # noqa: F401
        except ImportError:
            raise InputError(
                f"{self.place}: Postgres needs the extra postgres: pip install 'quantbot-pipeline[postgres]'"
            ) from None
        from sqlalchemy.pool import NullPool

        url = self._sql.make_url(self.url).set(drivername="postgresql+psycopg2")
        return self._sql.create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": 10})

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        """A connection. Raises StoreError for whatever goes wrong, without the words of the client: they may hold a password."""
        try:
            with self._engine.connect() as con:
                yield con
        except self._sql.exc.OperationalError:
            raise StoreError(
                f"{self.place}: no connection, or it broke; check that Postgres runs there, the address, PGPASSWORD or ~/.pgpass"
            ) from None
        except self._sql.exc.SQLAlchemyError as e:
            code = getattr(getattr(e, "orig", None), "pgcode", None) or type(e).__name__
            raise StoreError(
                f"{self.place}: Postgres refused ({code}); check the rights of the user in the database"
            ) from None


# --- tables -----------------------------------------------------------------------------------------------------------


@cache
def _metadata() -> Any:
    """The tables as SQLAlchemy knows them, read from those of the DuckDB file, and one for the state."""
    import sqlalchemy as sa

    types = {
        "VARCHAR": sa.Text,
        "BIGINT": sa.BigInteger,
        "DOUBLE": sa.Double,
        "BOOLEAN": sa.Boolean,
        "TIMESTAMP": sa.DateTime,
    }
    with duckdb.connect() as con:
        con.execute(TABLES)
        columns = con.execute(
            """SELECT table_name, column_name, data_type, is_nullable FROM duckdb_columns()
               WHERE table_name IN (SELECT table_name FROM duckdb_tables()) ORDER BY table_oid, column_index"""
        ).fetchall()
        keys = con.execute(
            "SELECT table_name, constraint_column_names FROM duckdb_constraints() WHERE constraint_type = 'PRIMARY KEY'"
        ).fetchall()
    key_of, metadata = dict(keys), sa.MetaData()
    for name in dict.fromkeys(table for table, *_ in columns):
        own = [
            sa.Column(column, types[kind], primary_key=column in key_of[name], nullable=nullable)
            for table, column, kind, nullable in columns
            if table == name
        ]
        sa.Table(name, metadata, *own)
    sa.Table(
        STATE, metadata, sa.Column("tag", sa.Text, primary_key=True), sa.Column("version", sa.Text, nullable=False)
    )
    return metadata


def _tables() -> dict[str, Any]:
    """The tables of the file."""
    return {name: table for name, table in _metadata().tables.items() if name != STATE}


# --- rows -------------------------------------------------------------------------------------------------------------


def _read(con: Any, table: Any) -> list[Row]:
    return [tuple(row) for row in con.execute(table.select())]


def _read_file(path: Path) -> dict[str, list[Row]]:
    """The rows of a file, as Postgres can keep them: its texts hold no NUL."""
    with duckdb.connect(str(path), read_only=True) as con:
        found = {}
        for name, table in _tables().items():
            columns = ", ".join(quoted(column.name) for column in table.columns)
            rows = con.execute(f"SELECT {columns} FROM {quoted(name)}").fetchall()
            found[name] = [tuple(v.replace("\0", "\\0") if isinstance(v, str) else v for v in row) for row in rows]
    return found


def _change(con: Any, table: Any, wanted: list[Row]) -> None:
    """Bring one table in line: rows that are gone or changed are deleted, those that are new or changed inserted."""
    import sqlalchemy as sa

    columns, key = [column.name for column in table.columns], [column.name for column in table.primary_key]
    at = [columns.index(name) for name in key]
    before, now = ({tuple(row[i] for i in at): row for row in rows} for rows in (_read(con, table), wanted))
    gone = [k for k, row in before.items() if now.get(k) != row]
    new = [row for k, row in now.items() if before.get(k) != row]
    if gone:
        same = sa.and_(*(table.c[name] == sa.bindparam(f"key_{name}") for name in key))
        con.execute(table.delete().where(same), [{f"key_{n}": v for n, v in zip(key, k, strict=True)} for k in gone])
    if new:
        con.execute(table.insert(), [dict(zip(columns, row, strict=True)) for row in new])


def _write_file(path: Path, rows: dict[str, list[Row]], base: str) -> None:
    """Make a file of the rows, with its views."""
    with duckdb.connect(str(path), config={"storage_compatibility_version": STORAGE}) as con:
        con.execute("SET TimeZone = 'UTC'")
        con.execute("BEGIN")
        con.execute(TABLES)
        for name, table in _tables().items():
            insert_rows(con, name, [column.name for column in table.columns], rows[name])
        files = cataloged_files(con)
        create_views(con, Path(base), files, {path for *_, alike in files for path in alike})
        con.execute("COMMIT")
        con.execute("CHECKPOINT")
