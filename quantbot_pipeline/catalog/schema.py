"""Tables and views of the catalog file, and their order of creation.

The tables index runs; the views read the runs' Parquet files where they lie. Paths in tables are relative to the base, so the
catalog survives a move after a sync; a view needs absolute paths to work from any directory, so a sync writes them anew.
"""

from collections.abc import Iterable
from pathlib import Path

import duckdb
import pyarrow as pa

from quantbot_pipeline.artifacts.schemas import ARTIFACTS

CATALOG_VERSION = "1"

TABLES = """
CREATE TABLE IF NOT EXISTS backtest_runs_catalog (
    run_id VARCHAR PRIMARY KEY, run_type VARCHAR NOT NULL, status VARCHAR NOT NULL, month VARCHAR NOT NULL,
    created_at TIMESTAMP NOT NULL, started_at TIMESTAMP, completed_at TIMESTAMP,
    git_commit VARCHAR, git_branch VARCHAR, git_dirty BOOLEAN,
    dataset_from VARCHAR, dataset_to VARCHAR, dataset_interval VARCHAR, dataset_calls_count BIGINT,
    dataset_calls_excluded BIGINT, parameters_json VARCHAR, config_hash VARCHAR,
    timing_plan_ms DOUBLE, timing_coverage_ms DOUBLE, timing_slice_ms DOUBLE, timing_execution_ms DOUBLE,
    timing_optimization_ms DOUBLE, timing_total_ms DOUBLE,
    artifacts_json VARCHAR, run_dir VARCHAR NOT NULL, manifest_path VARCHAR NOT NULL, cataloged_at TIMESTAMP NOT NULL);
CREATE TABLE IF NOT EXISTS backtest_artifacts_catalog (
    run_id VARCHAR, artifact_type VARCHAR, artifact_path VARCHAR NOT NULL, rows BIGINT NOT NULL, bytes BIGINT NOT NULL,
    sha256 VARCHAR NOT NULL, created_at TIMESTAMP NOT NULL, cataloged_at TIMESTAMP NOT NULL,
    PRIMARY KEY (run_id, artifact_type));
CREATE TABLE IF NOT EXISTS quarantine (path VARCHAR PRIMARY KEY, reason VARCHAR NOT NULL, detected_at TIMESTAMP NOT NULL);
CREATE TABLE IF NOT EXISTS catalog_meta (key VARCHAR PRIMARY KEY, value VARCHAR NOT NULL);
CREATE OR REPLACE VIEW latest_runs AS
    SELECT * FROM backtest_runs_catalog WHERE status = 'completed'
    QUALIFY row_number() OVER (PARTITION BY run_type, month, config_hash ORDER BY created_at DESC, run_id DESC) = 1;
"""

_DUCKDB_TYPES = {pa.string(): "VARCHAR", pa.int64(): "BIGINT", pa.float64(): "DOUBLE", pa.bool_(): "BOOLEAN"}


def create_views(con: duckdb.DuckDBPyConnection, base: Path, files: Iterable[tuple[str, str]]) -> None:
    """One view per artifact type over all completed runs; `files` holds (artifact type, path relative to `base`).

    `alerts` has no run_id column of its own, so it is taken from the path. A type without files is an empty view.
    """
    by_type: dict[str, list[str]] = {}
    for artifact_type, path in files:
        by_type.setdefault(artifact_type, []).append(path)
    for artifact_type, (_, schema) in ARTIFACTS.items():
        paths = by_type.get(artifact_type)
        if paths:
            listed = ", ".join(_literal(_escape_glob(str(base / path))) for path in sorted(paths))
            source = f"read_parquet([{listed}], union_by_name = true, hive_partitioning = false, filename = true)"
            run_id = "regexp_extract(filename, '.*run_id=([0-9a-f-]{36})', 1)"
            select = (
                f"SELECT {run_id} AS run_id, * EXCLUDE (filename)"
                if "run_id" not in schema.names
                else "SELECT * EXCLUDE (filename)"
            )
            query = f"{select} FROM {source}"
        else:
            columns = [f"NULL::{_DUCKDB_TYPES[f.type]} AS {f.name}" for f in schema]
            prefix = [] if "run_id" in schema.names else ["NULL::VARCHAR AS run_id"]
            query = f"SELECT {', '.join(prefix + columns)} WHERE false"
        con.execute(f"CREATE OR REPLACE VIEW {artifact_type} AS {query}")


def _literal(text: str) -> str:
    """A SQL string literal; views cannot have parameters."""
    return "'" + text.replace("'", "''") + "'"


def _escape_glob(path: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in path)
