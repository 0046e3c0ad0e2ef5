"""The runs of a home, as a folder on this machine: begin one, look at those that keep their promises, sweep what died.

Belongs here: which runs there are and where they lie. Does not: how one is committed (`commit`) or checked (`verify`).
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantbot_pipeline.durable import locked
from quantbot_pipeline.errors import InputError, IntegrityError, StoreError

if TYPE_CHECKING:
    from quantbot_pipeline.runs.commit import StagedRun
    from quantbot_pipeline.runs.manifest import RunManifest


@dataclass(frozen=True)
class LocalRuns:
    """Run directories `YYYY-MM/run_id=<uuid>/` in `folder`; staging older than `staging_max_age_s` is swept when unlocked."""

    folder: Path
    staging_max_age_s: float = 3600.0

    def begin(self, month: str) -> "StagedRun":
        """Begin a run of a month; nobody sees it before its commit."""
        from quantbot_pipeline.runs.commit import StagedRun

        return StagedRun(self.folder, month)

    def sweep(self) -> int:
        """Remove what dead processes left in staging; return how many runs were removed."""
        return sweep_staging(self.folder, self.staging_max_age_s)

    def completed(self, month: str) -> Iterator[tuple[Path, "RunManifest"]]:
        """Yield the runs of a month that keep their promises (names, sizes, `_SUCCESS`), in no particular order."""
        from quantbot_pipeline.runs.manifest import MANIFEST_NAME
        from quantbot_pipeline.runs.verify import check_run

        for path in (self.folder / month).glob(f"run_id=*/{MANIFEST_NAME}"):
            try:
                manifest = check_run(path.parent, checksums=False)
            except IntegrityError:
                continue  # the catalog quarantines it; here it only must not be believed
            if manifest.status == "completed":
                yield path.parent, manifest

    def find(self, run_id: str) -> Path:
        """Return the directory of a run. Raises InputError when there is none."""
        name = f"run_id={run_id}"
        for month in sorted(self.folder.iterdir()) if self.folder.is_dir() else ():
            if (month / name).is_dir() and Path(name).name == name:
                return month / name
        raise InputError(f"run {run_id!r}: not in {self.folder}; `quantbot backtest catalog-query` lists the runs")


def sweep_staging(runs_dir: Path, max_age_s: float) -> int:
    """Remove staging left by dead processes: older than `max_age_s` and not locked. Returns how many runs were removed."""
    from quantbot_pipeline.runs.commit import STAGING

    swept = 0
    entries = sorted((runs_dir / STAGING).glob("*-*-*-*-*"))
    for folder in dict.fromkeys(entry.with_suffix("") for entry in entries):  # a lock file can be left alone, too
        if not _is_older(folder, max_age_s):
            continue
        lock = folder.with_suffix(".lock")
        with suppress(StoreError), locked(lock, 0):
            swept += folder.is_dir()
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)
    return swept


def _is_older(folder: Path, age_s: float) -> bool:
    """Whether a staging directory, or where there is none its lock file, was last touched so long ago."""
    for path in (folder, folder.with_suffix(".lock")):
        try:
            return time.time() - path.stat().st_mtime >= age_s
        except FileNotFoundError:  # committed or swept by another process meanwhile
            continue
    return False
