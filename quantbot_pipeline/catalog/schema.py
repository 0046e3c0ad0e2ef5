"""Tables and views of the catalog file, and their order of creation.

The tables index runs; the views read the runs' Parquet files where they lie. Paths in tables are relative to the base, so the
catalog survives a move after a sync; a view needs absolute paths to work from any directory, so a sync writes them anew.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from quantbot_pipeline.duck import escape_glob, literal
from quantbot_pipeline.specs import GRID_SEARCH, KINDS
from quantbot_pipeline.versions import format_of

if TYPE_CHECKING:
    import pyarrow as pa

CATALOG_VERSION = format_of("catalog").current


def newest_runs(among: str = "true", apart: str = "artifact_type, strategy") -> str:
    """Return the SELECT of the run that reports take of each month, `among` the runs of a condition, for each of `apart`.

    The newest completed run that holds the artifact counts. The newest on an interval that could measure no call at all gives way
    to the newest on another interval that could. A run without a strategy counts as a grid search.
    """
    return f"""WITH newest AS (
        SELECT artifact_type, coalesce(json_extract_string(parameters_json, '$.strategy_id'), '{GRID_SEARCH}') AS strategy, r.*
        FROM backtest_runs_catalog AS r JOIN backtest_artifacts_catalog AS a USING (run_id)
        WHERE status = 'completed' AND {among}
        QUALIFY row_number() OVER (PARTITION BY {apart}, month, dataset_interval
                                   ORDER BY r.created_at DESC, run_id DESC) = 1)
    SELECT * FROM newest
    QUALIFY row_number() OVER (PARTITION BY {apart}, month
                               ORDER BY dataset_calls_excluded < dataset_calls_count DESC, created_at DESC, run_id DESC) = 1"""


def kind_of_run() -> str:
    """Return the SQL of the command that made a run of the catalog; of a kind that this version does not know, its strategy or type."""
    whens = " ".join(
        f"WHEN run_type = {literal(kind.run_type)}"
        + (
            ""
            if kind.strategy is None
            else f" AND coalesce(json_extract_string(parameters_json, '$.strategy_id'), '{GRID_SEARCH}') = {literal(kind.strategy)}"
        )
        + f" THEN {literal(kind.command)}"
        for kind in KINDS.values()
    )
    return f"CASE {whens} ELSE coalesce(json_extract_string(parameters_json, '$.strategy_id'), run_type) END"


# The runs of a catalog of any version: earlier ones have no names, notes and tags. A file's own columns come first.
NOTED = "FROM backtest_runs_catalog UNION ALL BY NAME SELECT NULL::VARCHAR AS name, NULL::VARCHAR AS note, NULL::VARCHAR AS tags WHERE false"

TABLES = f"""
CREATE TABLE IF NOT EXISTS backtest_runs_catalog (
    run_id VARCHAR PRIMARY KEY, run_type VARCHAR NOT NULL, status VARCHAR NOT NULL, month VARCHAR NOT NULL,
    created_at TIMESTAMP NOT NULL, started_at TIMESTAMP, completed_at TIMESTAMP,
    git_commit VARCHAR, git_branch VARCHAR, git_dirty BOOLEAN,
    dataset_from VARCHAR, dataset_to VARCHAR, dataset_interval VARCHAR, dataset_calls_count BIGINT,
    dataset_calls_excluded BIGINT, parameters_json VARCHAR, config_hash VARCHAR,
    timing_plan_ms DOUBLE, timing_coverage_ms DOUBLE, timing_slice_ms DOUBLE, timing_execution_ms DOUBLE,
    timing_optimization_ms DOUBLE, timing_total_ms DOUBLE,
    artifacts_json VARCHAR, run_dir VARCHAR NOT NULL, manifest_path VARCHAR NOT NULL, cataloged_at TIMESTAMP NOT NULL,
    name VARCHAR, note VARCHAR, tags VARCHAR);
CREATE TABLE IF NOT EXISTS backtest_artifacts_catalog (
    run_id VARCHAR, artifact_type VARCHAR, artifact_path VARCHAR NOT NULL, rows BIGINT NOT NULL, bytes BIGINT NOT NULL,
    sha256 VARCHAR NOT NULL, created_at TIMESTAMP NOT NULL, cataloged_at TIMESTAMP NOT NULL, columns VARCHAR NOT NULL,
    PRIMARY KEY (run_id, artifact_type));
CREATE TABLE IF NOT EXISTS quarantine (path VARCHAR PRIMARY KEY, reason VARCHAR NOT NULL, detected_at TIMESTAMP NOT NULL);
CREATE TABLE IF NOT EXISTS catalog_meta (key VARCHAR PRIMARY KEY, value VARCHAR NOT NULL);
CREATE OR REPLACE VIEW latest_runs AS
    SELECT * FROM backtest_runs_catalog WHERE status = 'completed'
    QUALIFY row_number() OVER (PARTITION BY run_type, month, config_hash ORDER BY created_at DESC, run_id DESC) = 1;
CREATE OR REPLACE VIEW newest_runs AS {newest_runs()};
"""


def insert_rows(
    con: duckdb.DuckDBPyConnection, table: str, columns: Sequence[str], rows: Sequence[tuple], **same: datetime
) -> None:
    """Insert through Arrow, at once; `same` are columns with one value for all rows. `table` is one of TABLES."""
    if not rows:
        return
    import pyarrow as pa

    types = con.table(table).limit(0).to_arrow_table().schema
    values = map(list, zip(*rows, strict=True))
    incoming = pa.table([pa.array(v, types.field(name).type) for name, v in zip(columns, values, strict=True)], columns)
    for name, value in same.items():
        incoming = incoming.append_column(name, pa.repeat(pa.scalar(value), len(rows)))
    con.register("incoming_rows", incoming)
    con.execute(f"INSERT INTO {table} BY NAME SELECT * FROM incoming_rows")
    con.unregister("incoming_rows")


def cataloged_files(con: duckdb.DuckDBPyConnection) -> list[tuple[str, str, list[str]]]:
    """Return (artifact type, columns, paths) of the files of all completed runs, as `create_views` takes them."""
    return con.execute(
        """SELECT artifact_type, columns, list(artifact_path ORDER BY artifact_path) FROM backtest_artifacts_catalog
           JOIN backtest_runs_catalog USING (run_id) WHERE status = 'completed' GROUP BY ALL ORDER BY ALL"""
    ).fetchall()


_DUCKDB_TYPES = {"string": "VARCHAR", "int64": "BIGINT", "double": "DOUBLE", "bool": "BOOLEAN"}


def create_views(
    con: duckdb.DuckDBPyConnection,
    base: Path,
    files: Iterable[tuple[str, str, list[str]]],
    elsewhere: Collection[str] = (),
) -> None:
    """One view per artifact type over all completed runs; `files` holds (artifact type, columns, paths relative to `base`).

    `alerts` has no run_id column of its own, so it is taken from the path. A type without files is an empty view. Files with
    the same columns are read as one: DuckDB then opens the first of them to know what all hold, and not ten thousand. The
    runs of a view are listed in the macro `cataloged_runs`, once for all views over the same runs: who opens a catalog reads
    all its views, and every list in them. A view that needs one of the files `elsewhere`, which are not on this machine, is an
    error for whoever reads it: part of the rows would be wrong numbers.
    """
    from quantbot_pipeline.artifacts.schemas import ARTIFACTS  # pyarrow, which a command that lists runs need not load

    lists: dict[str, int] = {}  # run directories, one a line, and the number of the list
    # The contract's columns come first and in its order, whatever an older run has.
    selects = {artifact_type: [_empty(schema)] for artifact_type, (_, schema) in ARTIFACTS.items()}
    for artifact_type, _, listed in files:
        if artifact_type not in ARTIFACTS:
            continue
        inside, schema = ARTIFACTS[artifact_type]
        paths = [path for path in listed if path not in elsewhere]
        if len(paths) < len(listed):
            selects[artifact_type].append(_not_here(len(listed) - len(paths), schema))
        if paths:
            runs = "\n".join(path.removesuffix(f"/{inside}") for path in paths)
            selects[artifact_type].append(_over(base, lists.setdefault(runs, len(lists) + 1), inside, schema))
    # A list travels as one text: as many literals take long to parse.
    texts = ", ".join(map(literal, lists))
    con.execute(f"CREATE OR REPLACE MACRO cataloged_runs(nth) AS string_split([{texts}][nth], {literal(chr(10))})")
    for artifact_type, parts in selects.items():
        con.execute(f"CREATE OR REPLACE VIEW {artifact_type} AS {' UNION ALL BY NAME '.join(parts)}")


def _empty(schema: "pa.Schema") -> str:
    columns = [f"NULL::{_DUCKDB_TYPES[str(f.type)]} AS {f.name}" for f in schema]
    prefix = [] if "run_id" in schema.names else ["NULL::VARCHAR AS run_id"]
    return f"SELECT {', '.join(prefix + columns)} WHERE false"


def _not_here(files: int, schema: "pa.Schema") -> str:
    """One row of errors: every column is one, so that no filter can leave the row out before somebody hears of it."""
    said = literal(f"{files} files of the runs are not on this machine: `quantbot query` fetches what it reads")
    columns = [f"error({said})::{_DUCKDB_TYPES[str(f.type)]} AS {f.name}" for f in schema]
    prefix = [] if "run_id" in schema.names else [f"error({said})::VARCHAR AS run_id"]
    return f"SELECT {', '.join(prefix + columns)} FROM range(1) WHERE error({said}) IS NOT NULL"


def _over(base: Path, nth: int, inside: str, schema: "pa.Schema") -> str:
    """All rows of files with the same columns: of the file `inside` each run of a list."""
    start, end = literal(escape_glob(str(base)) + "/"), literal(f"/{inside}")
    listed = f"list_transform(cataloged_runs({nth}), lambda run: {start} || run || {end})"
    source = f"read_parquet({listed}, union_by_name = false, hive_partitioning = false, filename = true)"
    run_id = "regexp_extract(filename, '.*run_id=([0-9a-f-]{36})', 1) AS run_id, "
    return f"SELECT {'' if 'run_id' in schema.names else run_id}* EXCLUDE (filename) FROM {source}"
