"""The caller leaderboard: what followed each caller's calls, over the newest run of every month."""

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from quantbot_pipeline.artifacts.manifest import read_manifest
from quantbot_pipeline.artifacts.verify import read_artifact
from quantbot_pipeline.catalog.query import newest_runs_with

COLUMNS = (
    "caller_name", "calls", "mints", "hit_2x_rate", "hit_3x_rate", "hit_4x_rate", "median_peak_multiple", "median_dd_bps",
    "median_min_to_2x",
)  # fmt: skip


def load_newest(catalog: Path, base: Path, artifact_type: str, interval: str | None = None) -> pa.Table | None:
    """The artifact of the newest run of every month, verified and concatenated; None without any run."""
    folders = [base / run_dir for run_dir in newest_runs_with(catalog, artifact_type, interval)]
    tables = [read_artifact(folder, read_manifest(folder), artifact_type) for folder in folders]
    return pa.concat_tables(tables) if tables else None


def leaderboard(catalog: Path, base: Path, interval: str | None = None) -> list[dict[str, Any]]:
    """One row per caller, best 2x rate first; rates in [0, 1], drawdown in basis points, time to 2x from the alert in minutes."""
    paths = load_newest(catalog, base, "paths", interval)
    if paths is None:
        return []
    with duckdb.connect() as con:
        con.register("newest_paths", paths)
        return (
            con.sql(
                """SELECT caller_name, count(*) AS calls, count(DISTINCT mint) AS mints, avg(hit_2x::INT) AS hit_2x_rate,
                          avg(hit_3x::INT) AS hit_3x_rate, avg(hit_4x::INT) AS hit_4x_rate,
                          median(peak_multiple) AS median_peak_multiple, median(dd_bps) AS median_dd_bps,
                          median((t_2x_ms - alert_ts_ms) / 60000.0) AS median_min_to_2x
                   FROM newest_paths GROUP BY 1 ORDER BY hit_2x_rate DESC, calls DESC, caller_name"""
            )
            .to_arrow_table()
            .to_pylist()
        )
