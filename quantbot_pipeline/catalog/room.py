"""A locked room for anybody's SQL: one SELECT over the catalog's tables and views, which can reach nothing else."""

import itertools
import json
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import duckdb
import pyarrow as pa

from quantbot_pipeline.artifacts.schemas import ARTIFACTS
from quantbot_pipeline.catalog.catalog import Catalog, reading
from quantbot_pipeline.catalog.schema import CATALOG_VERSION, TABLES
from quantbot_pipeline.duck import quoted
from quantbot_pipeline.errors import InputError, QuantbotError
from quantbot_pipeline.specs import maker_of

if TYPE_CHECKING:
    import pyarrow.dataset as ds

# Functions that make rows and reach nothing; no other may stand in a FROM. Some of DuckDB's take an address in memory.
TABLE_FUNCTIONS = frozenset(
    (
        "range",
        "generate_series",
        "unnest",
        "repeat",
        "json_each",
        "json_tree",
        "histogram",
        "histogram_values",
        "pragma_table_info",
        "duckdb_columns",
        "duckdb_functions",
        "duckdb_tables",
        "duckdb_types",
        "duckdb_views",
    )
)
TEXT_TYPES = ("INTERVAL", "BIT", "BIGNUM", "UHUGEINT", "TIME WITH TIME ZONE", "TIME_NS")
OUT_OF_REACH = "a query reads the catalog's tables and views, no file and no address"
WRITES = re.compile(r"(INSERT|UPDATE|DELETE|MERGE|COPY|CREATE)\w*_QUERY_NODE")  # DuckDB 2 has them inside WITH


class Answer(NamedTuple):
    """What a query gives: the columns at once, the rows as they come."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]


@contextmanager
def answering(catalog: Catalog, sql: str, *, timeout_s: float = 300.0) -> Iterator[Answer]:
    """The rows of one SELECT over the catalog's tables and views; whoever wrote it, it can only read them.

    Raises InputError for what is not one SELECT, or is wrong SQL. Raises QuantbotError when it needs more memory or time than it
    may have, and when a file of a run is gone. Both may come while batches are read.
    """
    with ExitStack() as stack:
        with _explaining(catalog.memory_limit, timeout_s):
            con = stack.enter_context(_locked_room(catalog, sql))
            _require_select(con, sql)
        stop = threading.Timer(timeout_s, con.interrupt)
        stop.daemon = True
        stop.start()
        try:
            with _explaining(catalog.memory_limit, timeout_s):
                relation = con.sql(sql)
                _require_distinct(relation.columns)
                reader = relation.project(_as_values(relation)).to_arrow_reader(10_000)
            with reader:
                yield Answer(reader.schema, _batches(reader, catalog.memory_limit, timeout_s))
        finally:
            stop.cancel()


def why_nothing(catalog: Catalog, sql: str) -> list[str]:
    """Return what to say of a query that found no row: what it says of itself in its first comment, and which views are empty."""
    lines = itertools.takewhile(lambda line: line.startswith("--"), sql.strip().splitlines())
    said = " ".join(line.lstrip("- ").rstrip(" .") for line in lines)
    with reading(catalog) as con:
        held = con.execute(
            """SELECT DISTINCT artifact_type FROM backtest_artifacts_catalog JOIN backtest_runs_catalog USING (run_id)
               WHERE status = 'completed'"""
        ).fetchall()
    words = set(re.findall(r"\w+", re.sub(r"'[^']*'", "", sql).lower()))
    missing = sorted((words & ARTIFACTS.keys()) - {name for (name,) in held})
    empty = [
        f"no cataloged run holds {name}: `quantbot backtest {maker_of(name)} --from MONTH --to MONTH` makes one"
        for name in missing
    ]
    return [f"no row was found{f' ({said})' if said else ''}", *empty]


def _batches(reader: pa.RecordBatchReader, memory_limit: str, timeout_s: float) -> Iterator[pa.RecordBatch]:
    while True:
        with _explaining(memory_limit, timeout_s):
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                return
        yield batch  # outside: what the reader of the batch gets wrong is not the query's fault


@contextmanager
def _explaining(memory_limit: str, timeout_s: float) -> Iterator[None]:
    """Whatever a query dies of, as one line for whoever wrote it."""
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as e:  # while rows stream, all of DuckDB's come as Arrow's
        text = str(e)
        if isinstance(e, duckdb.InterruptException) or text.startswith("INTERRUPT Error"):
            raise QuantbotError(
                f"the query was stopped after {timeout_s:g} s; filter more, or raise --timeout"
            ) from None
        out_of_memory = isinstance(e, duckdb.OutOfMemoryException) or text.startswith("Out of Memory Error")
        if out_of_memory or "could not allocate" in text:
            raise QuantbotError(
                f"the query needs more than {memory_limit} of memory; filter or aggregate, or raise QUANTBOT_MEMORY_LIMIT"
            ) from None
        raise _explained(text) from None
    except RuntimeError as e:
        if str(e) == "Query interrupted":  # what DuckDB makes of Ctrl-C
            raise KeyboardInterrupt from None
        raise


@contextmanager
def _locked_room(catalog: Catalog, sql: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory that holds the catalog's tables and views and can reach nothing else.

    The catalog file is read and closed before: so there is no file that a statement could open, not even one of ours. The
    views are Arrow datasets over exactly the cataloged files; DuckDB itself may not touch the file system any more. A view
    whose name does not stand in the statement stays empty: `pyarrow.dataset` takes 0.6 s to import, and files of thousands
    of runs their time.
    """
    con = duckdb.connect(
        config={
            "memory_limit": catalog.memory_limit,
            "temp_directory": "",
            "allow_persistent_secrets": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
    )
    try:
        con.execute("SET TimeZone = 'UTC'")
        con.execute(TABLES)
        for table, rows in _tables(catalog).items():
            con.register("incoming", rows)
            con.execute(f"INSERT INTO {table} BY NAME FROM incoming")
            con.unregister("incoming")
        files = con.execute(
            """SELECT artifact_type, run_id, artifact_path, columns FROM backtest_artifacts_catalog
               JOIN backtest_runs_catalog USING (run_id) WHERE status = 'completed' ORDER BY artifact_path"""
        ).fetchall()
        for artifact_type in ARTIFACTS:
            asked = artifact_type in sql.lower()
            mine = [(run_id, path) for kind, run_id, path, _ in files if asked and kind == artifact_type]
            catalog.runs.fetch([path for _, path in mine])
            more = _unknown_columns(columns for kind, _, _, columns in files if kind == artifact_type)
            here = [(run_id, str(catalog.runs.folder / path)) for run_id, path in mine]
            con.register(artifact_type, _dataset(artifact_type, here, more))
        con.execute("SET python_enable_replacements = false")
        con.execute("SET enable_external_access = false")
        con.execute("SET lock_configuration = true")
        yield con
    finally:
        con.close()


def _tables(catalog: Catalog) -> dict[str, pa.Table]:
    with reading(catalog) as con:
        names = [
            name for (name,) in con.execute("SELECT table_name FROM duckdb_tables() WHERE NOT internal").fetchall()
        ]
        versions = (
            con.execute("SELECT value FROM catalog_meta WHERE key = 'version'").fetchall()
            if "catalog_meta" in names
            else []
        )
        if versions != [(CATALOG_VERSION,)]:
            raise InputError(
                f"{catalog.path}: made by another version of quantbot; make it anew with `quantbot backtest catalog-sync`"
            )
        known = [name for name in names if f"EXISTS {name} (" in TABLES]
        return {name: con.sql(f"FROM {name}").to_arrow_table() for name in known}


def _unknown_columns(listed: Iterable[str]) -> list[pa.Field]:
    """The columns that newer versions appended: in a list of columns (`a,b,new:double`) they alone have a type."""
    found: dict[str, pa.DataType] = {}
    for words in {word for columns in set(listed) for word in columns.split(",") if ":" in word}:
        name, _, kind = words.rpartition(":")
        if kind in ("string", "int64", "double", "bool"):
            found.setdefault(name, pa.type_for_alias(kind))
    return [pa.field(name, found[name]) for name in sorted(found)]


def _dataset(
    artifact_type: str, files: list[tuple[str, str]], more: Sequence[pa.Field] = ()
) -> "ds.Dataset | pa.Table":
    """The rows of (run_id, path) as the catalog's view shows them: `alerts` gets the run_id that its files lack."""
    schema = pa.schema([*ARTIFACTS[artifact_type][1], *more])
    if "run_id" not in schema.names:
        schema = schema.insert(0, pa.field("run_id", pa.string()))
    if not files:
        return schema.empty_table()
    import pyarrow.dataset as ds
    from pyarrow.fs import LocalFileSystem

    checked = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    return ds.FileSystemDataset.from_paths(
        [path for _, path in files],
        schema=schema,
        format=ds.ParquetFileFormat(default_fragment_scan_options=checked),
        filesystem=LocalFileSystem(),
        partitions=[ds.field("run_id") == run_id for run_id, _ in files],
    )


def _require_select(con: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Refuse everything but one SELECT that calls known table functions and changes nothing.

    The locked room holds without this; it is for a plain message, and against functions that take an address in memory.
    """
    try:
        sql.encode()
        statements = con.extract_statements(sql)
        [(text,)] = con.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()
        tree = json.loads(text)
    except duckdb.Error as e:
        raise _explained(str(e)) from None
    except UnicodeEncodeError:
        raise InputError("the query is not UTF-8 text") from None
    except RecursionError:
        raise InputError("the query is nested too deeply; split it with WITH") from None
    if len(statements) != 1 or tree["error"]:
        raise InputError(
            "a query is one SELECT (or FROM, WITH, VALUES, DESCRIBE, SUMMARIZE, SHOW TABLES), nothing else"
        )
    for node in _nodes(tree):
        kind = node.get("type")
        if isinstance(kind, str) and WRITES.fullmatch(kind):
            raise InputError("a query reads; it inserts, updates, deletes and copies nothing")
        if kind == "TABLE_FUNCTION" and (name := node["function"]["function_name"].lower()) not in TABLE_FUNCTIONS:
            raise InputError(f"{name}() is out of reach: {OUT_OF_REACH}")


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object in a JSON value."""
    left = [tree]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            yield value
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)


def _require_distinct(columns: list[str]) -> None:
    """Two columns of one name cannot both be in a JSON object, nor be told apart in a file, nor, in any case, by DuckDB."""
    lower = [name.lower() for name in columns]
    twice = sorted(name for name in columns if lower.count(name.lower()) > 1)
    if twice:
        raise InputError(f"two columns are called {' and '.join(map(repr, twice[:2]))}; give one another name with AS")


def _as_values(relation: duckdb.DuckDBPyRelation) -> str:
    """A select list that turns what neither Parquet nor JSON can hold into text."""
    kinds = zip(map(quoted, relation.columns), map(str, relation.types), strict=True)
    return ", ".join(f"{name}::VARCHAR AS {name}" if kind in TEXT_TYPES else name for name, kind in kinds)


def _explained(text: str) -> QuantbotError:
    """DuckDB's message about a query as one line, without the lines that show where."""
    if "stream registered as" in text or text.startswith("IOError"):
        return QuantbotError(
            f"a file of a run is not readable ({text[:300]}); sync the catalog, or see `quantbot backtest verify`"
        )
    if text.startswith("Permission Error"):
        return InputError(f"{OUT_OF_REACH}; `SHOW TABLES` lists them")
    kept = text.split("\nLINE ")[0].split("\n\n")[0]
    return InputError(f"query: {kept[:400].strip()}")
