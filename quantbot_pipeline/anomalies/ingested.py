"""`late_calls` and `deleted_calls`: callers whose calls were taken in when their end was known. Source: docs/anomalies.md."""

import math
import sys
from collections.abc import Iterator

from quantbot_pipeline.anomalies.calls import Calls, rows_by
from quantbot_pipeline.anomalies.findings import CALLER, Finding, Span

LATE, DELETED = "late_calls", "deleted_calls"
LEAST = 20  # settled calls of each sort
CHANCE = 0.001


def late_calls(calls: Calls, span: Span) -> Iterator[Finding]:
    """Yield callers whose late calls hit 2x more often than those taken in in time, on all settled calls to the month's end.

    A caller has a row in a month in which it has a late call.
    """
    hit = calls.hit_2x
    for caller, rows in rows_by(calls.caller, calls.settled(span.end)).items():
        late = rows[calls.late[rows]]
        mine = late[calls.alert[late] >= span.start]
        if not len(mine) or min(len(late), len(rows) - len(late)) < LEAST:
            continue
        hits = int(hit[late].sum())
        p = fisher(hits, len(late), int(hit[rows].sum()), len(rows))
        if p < CHANCE:
            in_time = int(hit[rows].sum()) - hits
            yield Finding(
                LATE,
                CALLER,
                caller,
                int(calls.alert[mine[0]]),
                int(calls.alert[mine[-1]]) + 1,
                -math.log10(p),
                -math.log10(CHANCE),
                f"{hits} of {len(late)} calls that were taken in over 48 hours late doubled, and {in_time} of {len(rows) - len(late)} "
                "that were taken in in time.",
                {
                    "late": len(late),
                    "late_hits": hits,
                    "in_time": len(rows) - len(late),
                    "in_time_hits": in_time,
                    "p": p,
                },
                calls=tuple(mine.tolist()),
            )


def deleted_calls(calls: Calls, span: Span) -> Iterator[Finding]:
    """Yield callers of whose calls of the month a later ingest misses some; an error where those missing are losers.

    Losers are settled calls that did not double. All calls to the month's end count.
    """
    hit = calls.hit_2x
    for caller, rows in rows_by(calls.caller, calls.alert < span.end).items():
        mine = rows[calls.missing[rows] & (calls.alert[rows] >= span.start)]
        if not len(mine):
            continue
        settled = rows[calls.settled(span.end)[rows]]
        gone = settled[calls.missing[settled]]
        lost, losers = int((~hit[gone]).sum()), int((~hit[settled]).sum())
        p = fisher(lost, len(gone), losers, len(settled))
        are = "is" if len(mine) == 1 else "are"
        more = f" Of all {len(gone)} missing calls with a known end {lost} did not double." if len(gone) else ""
        yield Finding(
            DELETED,
            CALLER,
            caller,
            int(calls.alert[mine[0]]),
            int(calls.alert[mine[-1]]) + 1,
            float(len(mine)),
            1.0,
            f"{len(mine)} of the month's calls {are} missing in a later ingest of the same source that covers their time.{more}",
            {"missing": len(gone), "missing_losers": lost, "settled": len(settled), "losers": losers, "p": p},
            calls=tuple(mine.tolist()),
            is_error=p < CHANCE,
        )


def fisher(found: int, drawn: int, marked: int, whole: int) -> float:
    """Return the chance that of `drawn` of `whole` things, `marked` of them marked, `found` or more are marked (Fisher, one-sided).

    It is above 0, so that it has a logarithm.
    """
    from scipy.stats import hypergeom  # 0.5 s

    return max(float(hypergeom.sf(found - 1, whole, marked, drawn)), sys.float_info.min)
