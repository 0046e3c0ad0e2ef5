"""What every read of the Python API shares: the newest run of each month, and what `frame.attrs` says of the runs behind a frame."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from quantbot_pipeline import home as base
from quantbot_pipeline.runs.manifest import RunManifest, read_manifest

if TYPE_CHECKING:
    import pandas as pd


class Reading(base.Home):
    """A home whose reports become frames."""

    def _rows(self, artifact: str, caller: str | None, **which: str | None) -> "pd.DataFrame":
        import pyarrow.compute as pc

        from quantbot_pipeline.frames import frame_of
        from quantbot_pipeline.reports.remarks import load_newest

        rows = load_newest(self.catalog, artifact, **which)
        if caller is not None:
            rows = rows.filter(pc.equal(rows["caller_name"], caller))
        return frame_of(rows, **self._attrs(artifact, (), **which))

    def _attrs(self, artifact: str, rows: Sequence[dict[str, Any]], **which: str | None) -> dict[str, Any]:
        from quantbot_pipeline.catalog.last_sync import unregistered_remarks
        from quantbot_pipeline.reports.remarks import ended_remarks, remarks

        said = remarks(self.catalog, artifact, **which) + ended_remarks(rows) + unregistered_remarks(self.catalog)
        return told(self._newest(artifact, **which)) | {"remarks": said}

    def _newest(self, artifact: str, **which: str | None) -> list[RunManifest]:
        from quantbot_pipeline.catalog.catalog import newest_runs_with

        found = newest_runs_with(self.catalog, artifact, **which)
        return [read_manifest(self.runs.open(run_dir)) for run_dir in found]


def told(runs: Sequence[RunManifest]) -> dict[str, Any]:
    """Return what `frame.attrs` says of the runs behind a frame: {run id: month} and {run id: configuration}."""
    return {
        "runs": {m.run_id: m.month for m in runs},
        "config_hashes": {m.run_id: m.parameters.get("config_hash") for m in runs},
    }
