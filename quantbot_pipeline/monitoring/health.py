"""Whether the catalog and the disk agree, what is in quarantine, and how much space is left. It only looks."""

import hashlib
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from quantbot_pipeline.catalog.catalog import Catalog, reading
from quantbot_pipeline.runs.store import RunStore, run_dirs

GB = 1_000_000_000


class CatalogHealth(NamedTuple):
    """What was looked at, and what is wrong: a sentence per run or file."""

    runs: int
    files: int
    bytes: int
    sampled_files: int
    faults: list[str]


def inspect_catalog(catalog: Catalog, *, now_s: float, max_lag_s: float, sample_files: int, day: str) -> CatalogHealth:
    """Compare the catalog with `runs/`: every run older than `max_lag_s` is cataloged or in quarantine, every cataloged
    file is there with its size, and a sample (see `sample`) with its checksum. Raises InputError without a catalog."""
    with reading(catalog) as con:
        files = con.execute(
            """SELECT artifact_path, a.bytes, a.sha256 FROM backtest_artifacts_catalog a
               JOIN backtest_runs_catalog r USING (run_id) ORDER BY r.created_at DESC, artifact_path"""
        ).fetchall()
        cataloged = {d for (d,) in con.execute("SELECT run_dir FROM backtest_runs_catalog").fetchall()}
        aside = {path for (path,) in con.execute("SELECT path FROM quarantine").fetchall()}
    faults = [f"{path}: not in the catalog" for path in overdue(catalog.runs, cataloged | aside, now_s, max_lag_s)]
    sound, there = [], catalog.runs.sizes([path for path, *_ in files])
    for path, size, sha256 in files:
        fault = _size_fault(there[path], size)
        if fault:
            faults.append(f"{path}: {fault}")
        else:
            sound.append((path, sha256))
    checked = sample([path for path, _ in sound], sample_files, day)
    promised = dict(sound)
    faults += [
        f"{path}: checksum differs from the catalog" for path in checked if catalog.runs.digest(path) != promised[path]
    ]
    return CatalogHealth(len(cataloged), len(files), sum(size for _, size, _ in files), len(checked), faults)


def sample(newest_first: list[str], n: int, day: str) -> list[str]:
    """`n` files to verify: half of them the newest, the others drawn by the day, so that in time all have their turn."""
    newest, rest = newest_first[: (n + 1) // 2], newest_first[(n + 1) // 2 :]
    drawn = sorted(rest, key=lambda path: hashlib.sha256(f"{day} {path}".encode()).digest())
    return newest + drawn[: n - len(newest)]


def overdue(runs: RunStore, known: Iterable[str], now_s: float, max_lag_s: float) -> list[str]:
    """Run directories (relative to the runs) that nobody knows although they are older than `max_lag_s`."""
    present = set(run_dirs(runs.listing()))
    return [path for path in sorted(present - set(known)) if now_s - runs.written_s(path, now_s) > max_lag_s]


def _size_fault(found: int | str, size: int) -> str | None:
    if isinstance(found, str):
        return found
    return None if found == size else f"{found} bytes, the catalog says {size}"


def quarantined(catalog: Catalog, *, now_s: float, max_lag_s: float) -> dict[str, str]:
    """{run directory: reason} of what cannot be trusted; a commit that may still be going on is left out.

    No catalog, no quarantine. Raises InputError when the catalog cannot be read.
    """
    if not catalog.is_there():
        return {}
    with reading(catalog) as con:
        rows: Mapping[str, str] = dict(con.execute("SELECT path, reason FROM quarantine ORDER BY path").fetchall())
    return {
        path: reason
        for path, reason in rows.items()
        if "no _SUCCESS" not in reason or now_s - catalog.runs.written_s(path, now_s) > max_lag_s
    }


def free_gb(home: Path) -> float:
    """Free space of the disk that holds the home, in 10^9 bytes."""
    return shutil.disk_usage(home).free / GB
