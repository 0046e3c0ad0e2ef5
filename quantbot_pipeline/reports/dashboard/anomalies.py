"""What is odd in the inputs, for the page: how much of which kind in which month, the worst rows, and candles around some.

Belongs here: which rows and pictures travel to the page. Does not: how a row is found, or how bad it is.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quantbot_pipeline.catalog.catalog import Catalog
from quantbot_pipeline.reports.anomalies import anomalies
from quantbot_pipeline.reports.page.candles import Span, read_windows
from quantbot_pipeline.reports.page.encode import Index, of_rows
from quantbot_pipeline.reports.remarks import manifests_behind
from quantbot_pipeline.vocabulary import INTERVALS_MS

Row = dict[str, Any]

ROWS = 400  # the worst ones; all are counted
DRAWN = 12  # with candles around them
MAX_CANDLES = 160  # per picture: neighbours are merged beyond that
MARGIN = 24  # candles shown before and behind, at least
SHOWN = (
    "month", "severity", "kind", "subject_type", "subject", "caller", "other_subject", "from_ts_ms", "to_ts_ms", "calls_touched",
    "hits_touched", "reason", "verdict", "picture",
)  # fmt: skip  # a table: what belongs together stands on one line


def anomalies_section(catalog: Catalog, candles: Path, callers: Index[str]) -> tuple[dict[str, Any], list[Row]]:
    """Return the section, and all rows of the newest runs; rows refer to `callers` by position."""
    manifests = {m.run_id: m for m in manifests_behind(catalog, "anomalies")}
    rows = anomalies(catalog) if manifests else []
    for row in rows:
        row["caller"] = callers.of(row["subject"]) if row["subject_type"] == "caller" else None
    counts = Counter((row["month"], row["kind"], row["severity"]) for row in rows)
    shown = rows[:ROWS]
    pictures = _pictures(shown, {run_id: m.dataset.interval for run_id, m in manifests.items()}, candles)
    section = {
        "months": sorted(m.month for m in manifests.values()),
        "total": len(rows),
        "counts": of_rows(
            [{"month": month, "kind": kind, "severity": how, "rows": n} for (month, kind, how), n in counts.items()],
            ("month", "kind", "severity", "rows"),
        ),
        "rows": of_rows([row | {"picture": pictures.get(i)} for i, row in enumerate(shown)], SHOWN),
    }
    return section, rows


def _pictures(rows: Sequence[Row], intervals: dict[str, str], candles: Path) -> dict[int, Any]:
    """Return {row: candles around it} of the first rows that are about one token, or two."""
    of_tokens = [i for i, row in enumerate(rows) if row["subject_type"] == "mint" or row["kind"] == "duplicate_series"]
    drawn = of_tokens[:DRAWN]
    spans = [_span(rows[i], intervals[rows[i]["run_id"]]) for i in drawn]
    windows = read_windows(candles, spans, MAX_CANDLES)
    return {i: window for i, window in zip(drawn, windows, strict=True) if window is not None}


def _span(row: Row, interval: str) -> Span:
    """Return the time around a finding: itself, and as much before and behind, or 24 candles."""
    start, end = row["from_ts_ms"], row["to_ts_ms"]
    margin = max(MARGIN * INTERVALS_MS[interval], (end - start) // 2)
    return Span(row["subject"], interval, start - margin, end + margin, start, None)


def odd_around(call: Row, rows: Sequence[Row]) -> list[Row]:
    """Return what is odd of a call's token, of its caller or of the whole market, within the time from its alert to its window's end."""
    start, end = call["alert_ts_ms"], call["entry_ts_ms"] + call["observed_ms"]
    names = {call["mint"], call["caller_name"]}
    return [
        {name: row[name] for name in ("severity", "kind", "subject", "from_ts_ms", "reason", "verdict")}
        for row in rows
        if row["from_ts_ms"] < end
        and row["to_ts_ms"] >= start
        and (row["subject_type"] == "market" or names & {row["subject"], row["other_subject"]})
    ]
