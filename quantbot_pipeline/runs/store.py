"""The runs of a home: which are there, and what dead processes left behind."""

from collections.abc import Iterator
from pathlib import Path
from quantbot_pipeline.errors import IntegrityError
from quantbot_pipeline.runs.manifest import MANIFEST_NAME
from quantbot_pipeline.runs.manifest import RunManifest
from quantbot_pipeline.runs.verify import check_run
from quantbot_pipeline.settings import Settings
import shutil
import time
from contextlib import suppress
from pathlib import Path
from quantbot_pipeline.durable import locked
from quantbot_pipeline.errors import StoreError
from quantbot_pipeline.runs.commit import STAGING

def sweep_staging(runs_dir: Path, max_age_s: float) -> int:
    """Remove staging left by dead processes: older than `max_age_s` and not locked. Returns how many runs were removed."""
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


def completed_runs(settings: Settings, month: str) -> Iterator[tuple[Path, RunManifest]]:
    """All runs of a month that keep their promises (names, sizes, `_SUCCESS`), in no particular order."""
    for path in (settings.runs_dir / month).glob(f"run_id=*/{MANIFEST_NAME}"):
        try:
            manifest = check_run(path.parent, checksums=False)
        except IntegrityError:
            continue  # the catalog quarantines it; here it only must not be believed
        if manifest.status == "completed":
            yield path.parent, manifest
