"""The verdict beside a row of another report: what the evidence of its month, or of the last one before, says of its caller."""

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

from quantbot_pipeline.catalog.catalog import Catalog, newest_runs_with
from quantbot_pipeline.reports.remarks import read_each
from quantbot_pipeline.runs.manifest import read_manifest


class Verdicts(NamedTuple):
    """Verdicts by month, ascending, and by caller."""

    months: list[str]
    by_caller: list[dict[str, str]]

    def of(self, caller: str, month: str) -> str | None:
        """Return a caller's verdict as of a month; None where there is none."""
        at = bisect_right(self.months, month)
        return self.by_caller[at - 1].get(caller) if at else None


def verdicts_for(catalog: Catalog, months: Iterable[str], interval: str | None = None) -> Verdicts:
    """Return the verdicts that rows of these months need, from the newest evidence of each month.

    Raises IntegrityError when a file is not what was committed.
    """
    wanted = set(months)
    run_dirs = newest_runs_with(catalog, "evidence", interval=interval) if wanted else []
    known = [read_manifest(catalog.runs.folder / run_dir).month for run_dir in run_dirs]
    used = sorted({at - 1 for month in wanted if (at := bisect_right(known, month))})
    found = Verdicts([], [])
    columns = ("caller_name", "verdict")
    for manifest, rows in read_each(catalog, [run_dirs[i] for i in used], "evidence", columns):
        found.months.append(manifest.month)
        found.by_caller.append(dict(zip(rows["caller_name"].to_pylist(), rows["verdict"].to_pylist(), strict=True)))
    return found
