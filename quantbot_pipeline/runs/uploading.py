"""The commit of a run in an object store: files, `run.json`, a look at what is there, and `_SUCCESS` last.

The run is made in a folder on this machine, exactly as one that stays there. Every object is created at a key of its own, and
only if nothing is there. A failed run goes the same way without `_SUCCESS`.
"""

import time
from collections.abc import Callable
from pathlib import Path

from quantbot_pipeline.errors import IntegrityError, StoreError
from quantbot_pipeline.interrupts import put_off, stop_if_asked
from quantbot_pipeline.runs.commit import StagedRun
from quantbot_pipeline.runs.copies import Copies
from quantbot_pipeline.runs.manifest import MANIFEST_NAME, SUCCESS_NAME, RunDirectory, RunManifest


class UploadedRun(StagedRun):
    """A run being written in a folder on this machine, and committed in the store that `copies` are of.

    sweep_age_s: after which a sweep may remove what is not committed. opened: makes the handle of a run that is committed.
    """

    def __init__(
        self,
        copies: Copies,
        month: str,
        sweep_age_s: float,
        opened: Callable[[str], RunDirectory],
        run_id: str | None = None,
    ) -> None:
        super().__init__(copies.folder, month, run_id)
        self._copies, self._bucket, self._sweep_age_s, self._opened = copies, copies.bucket, sweep_age_s, opened

    def _publish(self, manifest: RunManifest, content: bytes, success: bytes) -> RunDirectory:
        """Create all objects, and `_SUCCESS` last. Raises StoreError saying whether the run may be there all the same."""
        began, bucket, run_dir = time.monotonic(), self._bucket, f"{self.month}/run_id={self.run_id}"
        files = {path.relative_to(self.path).as_posix(): path for path in self.path.rglob("*") if path.is_file()}
        sizes = {inside: path.stat().st_size for inside, path in files.items()}
        own = files.pop(MANIFEST_NAME)
        bucket.each(lambda inside: self._create(run_dir, inside, files[inside]), sorted(files))
        stop_if_asked()
        self._create(run_dir, MANIFEST_NAME, own)
        self._require_all_there(run_dir, sizes)
        if time.monotonic() - began > self._sweep_age_s / 2:  # a sweep may be at work
            raise StoreError(
                f"{bucket.url}/{run_dir}: not committed: its upload took longer than half of QUANTBOT_STAGING_MAX_AGE_S; run again"
            )
        completed = manifest.status == "completed"
        with put_off():
            if completed:
                self._vouch(run_dir, success)
            self._copies.adopt(self.path, run_dir, success if completed else None)
        return self._opened(run_dir)

    def _create(self, run_dir: str, inside: str, path: Path) -> None:
        self._bucket.put_new(f"{run_dir}/{inside}", path.read_bytes())

    def _require_all_there(self, run_dir: str, sizes: dict[str, int]) -> None:
        """Hold the store's listing against what was written: nothing else may be vouched for."""
        bucket = self._bucket
        found = {one.key.removeprefix(f"{run_dir}/"): one.size for one in bucket.listing(f"{run_dir}/")}
        if found != sizes:
            wrong = sorted(inside for inside in found.keys() | sizes.keys() if found.get(inside) != sizes.get(inside))
            raise StoreError(
                f"{bucket.url}/{run_dir}: not committed: {wrong[0]} is not there as it was written; run again"
            )

    def _vouch(self, run_dir: str, success: bytes) -> None:
        bucket = self._bucket
        try:
            bucket.put_new(f"{run_dir}/{SUCCESS_NAME}", success)
        except IntegrityError:
            raise
        except StoreError as e:
            raise StoreError(
                f"{bucket.url}/{run_dir}: unknown whether it is committed, for no answer came; "
                f"`quantbot backtest catalog-sync` shows it if it is ({str(e).split(': ', 1)[-1]})"
            ) from None
