"""The commit of a run in an object store: files, `run.json`, a look at what is there, and `_SUCCESS` last.

The run is made in a folder on this machine, exactly as one that stays there. Every object is created at a key of its own, and
only if nothing is there. A failed run goes the same way without `_SUCCESS`.
"""

import time
from collections.abc import Callable, Mapping

from quantbot_pipeline.bucket import Bucket
from quantbot_pipeline.errors import IntegrityError, StoreError
from quantbot_pipeline.interrupts import put_off, stop_if_asked
from quantbot_pipeline.runs.commit import StagedRun
from quantbot_pipeline.runs.copies import Copies
from quantbot_pipeline.runs.manifest import MANIFEST_NAME, SUCCESS_NAME, RunDirectory


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

    def publish(self, success: bytes | None) -> RunDirectory:
        """Create all objects, and `_SUCCESS` last. Raises StoreError saying whether the run may be there all the same."""
        run_dir = f"{self.month}/run_id={self.run_id}"
        files = {path.relative_to(self.path).as_posix(): path for path in self.path.rglob("*") if path.is_file()}
        sizes = {inside: path.stat().st_size for inside, path in files.items()}
        upload(self._bucket, run_dir, sizes, lambda inside: files[inside].read_bytes(), self._sweep_age_s)
        with put_off():
            if success is not None:
                vouch(self._bucket, run_dir, success)
            self._copies.adopt(self.path, run_dir, success)
        return self._opened(run_dir)


def upload(
    bucket: Bucket, run_dir: str, sizes: Mapping[str, int], read: Callable[[str], bytes], sweep_age_s: float
) -> None:
    """Create the objects of a run, `run.json` last, and look that all are there: now it can be vouched for.

    sizes: of its files, without `_SUCCESS`. read: gives the bytes of one. Raises IntegrityError where other bytes are there.
    """
    began = time.monotonic()

    def create(inside: str) -> None:
        bucket.put_new(f"{run_dir}/{inside}", read(inside))

    bucket.each(create, sorted(sizes.keys() - {MANIFEST_NAME}))
    stop_if_asked()
    create(MANIFEST_NAME)
    _require_all_there(bucket, run_dir, sizes)
    if time.monotonic() - began > sweep_age_s / 2:  # a sweep may be at work
        raise StoreError(
            f"{bucket.url}/{run_dir}: not committed: its upload took longer than half of QUANTBOT_STAGING_MAX_AGE_S; run again"
        )


def _require_all_there(bucket: Bucket, run_dir: str, sizes: Mapping[str, int]) -> None:
    """Hold the store's listing against what was written: nothing else may be vouched for."""
    found = {one.key.removeprefix(f"{run_dir}/"): one.size for one in bucket.listing(f"{run_dir}/")}
    found.pop(SUCCESS_NAME, None)  # somebody else copied the same run
    if found != dict(sizes):
        wrong = sorted(inside for inside in found.keys() | sizes.keys() if found.get(inside) != sizes.get(inside))
        raise StoreError(f"{bucket.url}/{run_dir}: not committed: {wrong[0]} is not there as it was written; run again")


def vouch(bucket: Bucket, run_dir: str, success: bytes) -> None:
    """Create `_SUCCESS`: the commit. Raises StoreError saying that it is unknown where no answer came."""
    try:
        bucket.put_new(f"{run_dir}/{SUCCESS_NAME}", success)
    except IntegrityError:
        raise
    except StoreError as e:
        raise StoreError(
            f"{bucket.url}/{run_dir}: unknown whether it is committed, for no answer came; "
            f"`quantbot backtest catalog-sync` shows it if it is ({str(e).split(': ', 1)[-1]})"
        ) from None
