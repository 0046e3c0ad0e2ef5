"""The verdicts of the newest month in order, what a reader of them must know, and the verdict beside a row of another report.

Belongs here: how a verdict is read and remarked on. Does not: how it is reached (`evidence`), or what else a report shows.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from quantbot_pipeline.catalog.catalog import Catalog, newest_runs_with
from quantbot_pipeline.evidence.wording import standing
from quantbot_pipeline.months import next_month
from quantbot_pipeline.reports.remarks import NAMED, read_each, remarks

JUDGE = "quantbot backtest evidence --from {} --to {}"


class Verdicts(NamedTuple):
    """The newest month that was judged, None without one, and its rows of the artifact `evidence` in order."""

    month: str | None
    rows: list[dict[str, Any]]


class MonthlyVerdicts(NamedTuple):
    """The verdicts of every month that was asked for, ascending, by caller."""

    months: list[str]
    by_caller: list[dict[str, str]]

    def of(self, caller: str, month: str) -> str | None:
        """Return a caller's verdict as of a month; None where there is none."""
        at = bisect_right(self.months, month)
        return self.by_caller[at - 1].get(caller) if at else None


def newest_verdicts(catalog: Catalog, interval: str | None = None) -> Verdicts:
    """Return the newest month's verdicts: evidence, inconclusive, none, each by falling e-value, then by name."""
    run_dirs = newest_runs_with(catalog, "evidence", interval=interval)[-1:]
    for manifest, table in read_each(catalog, run_dirs, "evidence"):
        return Verdicts(manifest.month, sorted(table.to_pylist(), key=standing))
    return Verdicts(None, [])


def verdicts_for(catalog: Catalog, months: Iterable[str], interval: str | None = None) -> MonthlyVerdicts:
    """Return the verdicts that rows of these months need, from the newest evidence of each month.

    Raises IntegrityError when a file is not what was committed.
    """
    wanted = set(months)
    run_dirs = newest_runs_with(catalog, "evidence", interval=interval) if wanted else []
    known = list(map(_month_of, run_dirs))
    used = sorted({at - 1 for month in wanted if (at := bisect_right(known, month))})
    found = MonthlyVerdicts([], [])
    columns = ("caller_name", "verdict")
    for manifest, rows in read_each(catalog, [run_dirs[i] for i in used], "evidence", columns):
        found.months.append(manifest.month)
        found.by_caller.append(dict(zip(rows["caller_name"].to_pylist(), rows["verdict"].to_pylist(), strict=True)))
    return found


def verdict_remarks(catalog: Catalog, rows: Sequence[dict[str, Any]], interval: str | None = None) -> list[str]:
    """Return what to say of the verdicts in a leaderboard: part of a month, months not judged, callers without a verdict."""
    judged, known = _months(catalog, "evidence", interval), _months(catalog, "paths", interval)
    unjudged = [row["caller_name"] for row in rows if row["verdict"] is None]
    if not judged:
        how = JUDGE.format(known[0], known[-1]) if known else ""
        text = f"no caller has a verdict: `{how}` says how sure each edge is"
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
    return list(map(_month_of, newest_runs_with(catalog, artifact_type, interval=interval)))


def _month_of(run_dir: str) -> str:
    """Return the month of a run, which names the folder that it is in."""
    return PurePath(run_dir).parts[0]
