"""One committed run as the Python API gives it: its manifest, its notes, its artifacts as frames."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from quantbot_pipeline.runs.manifest import RunManifest, folder_of, read_manifest

if TYPE_CHECKING:
    import pandas as pd

    from quantbot_pipeline.runs.manifest import RunDirectory
    from quantbot_pipeline.runs.notes import Journal, RunNotes


class CommittedRun:
    """One committed run: `manifest` is its run.json, `path` its directory, `frame(artifact)` its rows.

    Of a run in an object store `path` is a handle: its text is the URL, `path / "run.json"` a verified copy on this machine.
    """

    def __init__(
        self, path: "RunDirectory", manifest: RunManifest | None = None, journal: "Journal | None" = None
    ) -> None:
        self.path = path
        self.manifest = manifest or read_manifest(path)
        self._journal = journal

    def __repr__(self) -> str:
        m = self.manifest
        return f"CommittedRun({m.run_type} {m.month}, {m.status}, {m.run_id})"

    @property
    def name(self) -> str | None:
        """The name that `quantbot runs name` gave it."""
        return self._notes().name

    @property
    def note(self) -> str | None:
        """The note that `quantbot runs note` wrote."""
        return self._notes().note

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags that `quantbot runs tag` gave it."""
        return self._notes().tags

    def _notes(self) -> "RunNotes":
        from quantbot_pipeline.runs.notes import RunNotes, read_notes

        place = self._journal or folder_of(self.path).parent.parent
        return read_notes(place).get(self.manifest.run_id, RunNotes())

    def frame(self, artifact: str, columns: Sequence[str] | None = None) -> "pd.DataFrame":
        """Return the rows of one artifact (`paths`, `trades`, …), every byte verified first.

        Beside a prediction, and beside what explains one, stand the verdicts of its target as of this run. Raises
        IntegrityError when the file is not what was committed or the run has no such artifact.
        """
        from quantbot_pipeline.frames import frame_of
        from quantbot_pipeline.reports.predictions import artifact_with_verdicts

        return frame_of(
            artifact_with_verdicts(self.path, self.manifest, artifact, columns), run_id=self.manifest.run_id
        )
