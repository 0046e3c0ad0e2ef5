"""The verdicts of the newest month, in order, and what a reader of them must know: what leads every list of callers.

Belongs here: how a verdict is read and remarked on. Does not: how it is reached (`evidence`), or what else a report shows.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from quantbot_pipeline.catalog.catalog import Catalog, newest_runs_with
from quantbot_pipeline.evidence.wording import standing
from quantbot_pipeline.months import next_month
from quantbot_pipeline.reports.remarks import NAMED, read_each, remarks
from quantbot_pipeline.runs.manifest import read_manifest

JUDGE = "quantbot backtest evidence --from {} --to {}"


class Verdicts(NamedTuple):
    """The newest month that was judged, None without one, and its rows of the artifact `evidence` in order."""

    month: str | None
    rows: list[dict[str, Any]]


def newest_verdicts(catalog: Catalog, interval: str | None = None) -> Verdicts:
    """Return the newest month's verdicts: evidence, inconclusive, none, each by falling e-value, then by name."""
    run_dirs = newest_runs_with(catalog, "evidence", interval=interval)[-1:]
    for manifest, table in read_each(catalog, run_dirs, "evidence"):
        return Verdicts(manifest.month, sorted(table.to_pylist(), key=standing))
    return Verdicts(None, [])


def verdict_remarks(catalog: Catalog, rows: Sequence[dict[str, Any]], interval: str | None = None) -> list[str]:
    """Return what to say of the verdicts in a leaderboard: part of a month, months not judged, callers without a verdict."""
    judged, known = _months(catalog, "evidence", interval), _months(catalog, "paths", interval)
    unjudged = [row["caller_name"] for row in rows if row["verdict"] is None]
    if not judged:
        how = JUDGE.format(known[0], known[-1]) if known else ""
        text = f"no caller has a verdict: `{how}` says how sure each edge is; then `quantbot backtest catalog-sync`"
        return [text] if rows else []
    month = judged[-1]
    found = remarks(catalog, "evidence", interval=interval, month=month)
    behind = known[-1:] > [month]
    how = JUDGE.format(next_month(month), known[-1]) if behind else JUDGE.format(month, month)
    if behind:
        found.append(f"the verdicts are of {month}, the calls go on to {known[-1]}: `{how}` judges them")
    if unjudged:
        named = ", ".join(map(repr, unjudged[:NAMED]))
        more = f" and {len(unjudged) - NAMED} more" if len(unjudged) > NAMED else ""
        found.append(
            f"no verdict in {month} on {named}{more}: none of their calls had seen its whole window by then; "
            f"ingest later candles, then `{how}`"
        )
    return found


def _months(catalog: Catalog, artifact_type: str, interval: str | None) -> list[str]:
    """Return the months that have an artifact, ascending."""
    run_dirs = newest_runs_with(catalog, artifact_type, interval=interval)
    return [read_manifest(catalog.runs.folder / run_dir).month for run_dir in run_dirs]
