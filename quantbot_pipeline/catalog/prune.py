"""Pruning old runs in two steps: set aside in `runs/.trash/`, and, after a look, removed for good.

The newest completed run of its type, month and configuration is what every report reads: it stays unless forced.
"""

import shutil
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from quantbot_pipeline.catalog.catalog import Catalog, reading
from quantbot_pipeline.errors import IntegrityError, StoreError
from quantbot_pipeline.runs.manifest import read_manifest
from quantbot_pipeline.runs.store import LocalRuns

TRASH = ".trash"


def set_aside(catalog: Catalog, before_ms: int, *, force: bool = False) -> list[str]:
    """Move cataloged runs created before `before_ms` (UTC) to the trash; returns their directories, relative to the runs."""
    with reading(catalog) as con:
        rows = con.execute(
            """SELECT run_dir FROM backtest_runs_catalog WHERE created_at < make_timestamp_ms($before)
               AND ($force OR run_id NOT IN (SELECT run_id FROM latest_runs)) ORDER BY run_dir""",
            {"before": before_ms, "force": force},
        ).fetchall()
    return to_trash(catalog.runs, [run_dir for (run_dir,) in rows])


def newest_of(catalog: Catalog, run_ids: Sequence[str]) -> list[str]:
    """Return those of some runs that are the newest completed ones of their type, month and configuration."""
    with reading(catalog) as con:
        rows = con.execute(
            "SELECT run_id FROM latest_runs WHERE run_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY 1", [list(run_ids)]
        ).fetchall()
    return [run_id for (run_id,) in rows]


def to_trash(runs: LocalRuns, run_dirs: Iterable[str]) -> list[str]:
    """Move run directories (relative to the runs) to the trash; return those that were there to be moved."""
    moved, base = [], runs.folder
    for run_dir in run_dirs:
        source, target = base / run_dir, base / TRASH / run_dir
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


def empty_trash(runs: LocalRuns, before_ms: int) -> list[str]:
    """Remove runs in the trash that were created before `before_ms`; returns their directories, relative to the trash."""
    removed, trash = [], runs.folder / TRASH
    for run_dir in sorted(trash.glob("*/run_id=*")):
        try:
            created = datetime.fromisoformat(read_manifest(run_dir).created_at).astimezone(UTC)
        except IntegrityError:
            continue  # not something this program set aside
        if created.timestamp() * 1000 < before_ms:
            shutil.rmtree(run_dir)
            removed.append(run_dir.relative_to(trash).as_posix())
    return removed
