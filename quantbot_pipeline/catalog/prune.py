"""Pruning old runs in two steps: set aside in `runs/.trash/`, and, after a look, removed for good by the store of runs.

The newest completed run of its type, month and configuration is what every report reads: it stays unless forced.
"""

from collections.abc import Sequence

from quantbot_pipeline.catalog.catalog import Catalog, reading


def set_aside(catalog: Catalog, before_ms: int, *, force: bool = False) -> list[str]:
    """Move cataloged runs created before `before_ms` (UTC) to the trash; returns their directories, relative to the runs."""
    with reading(catalog) as con:
        rows = con.execute(
            """SELECT run_dir FROM backtest_runs_catalog WHERE created_at < make_timestamp_ms($before)
               AND ($force OR run_id NOT IN (SELECT run_id FROM latest_runs)) ORDER BY run_dir""",
            {"before": before_ms, "force": force},
        ).fetchall()
    return catalog.runs.to_trash(run_dir for (run_dir,) in rows)


def newest_of(catalog: Catalog, run_ids: Sequence[str]) -> list[str]:
    """Return those of some runs that are the newest completed ones of their type, month and configuration."""
    with reading(catalog) as con:
        rows = con.execute(
            "SELECT run_id FROM latest_runs WHERE run_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY 1", [list(run_ids)]
        ).fetchall()
    return [run_id for (run_id,) in rows]
