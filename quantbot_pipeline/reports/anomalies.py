"""What was odd in each month, from the newest run of each month: the rows of `quantbot anomalies` and of the Python API."""

from typing import Any

from quantbot_pipeline.catalog.catalog import Catalog
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.reports.remarks import load_newest
from quantbot_pipeline.reports.verdicts import verdicts_for
from quantbot_pipeline.vocabulary import ANOMALY_KINDS, SEVERITIES

COLUMNS = (
    "month",
    "severity",
    "kind",
    "subject_type",
    "subject",
    "other_subject",
    "from_ts_ms",
    "to_ts_ms",
    "score",
    "limit",
    "calls_touched",
    "hits_touched",
    "reason",
    "details",
    "run_id",
    "verdict",
)
PRINTED = ("month", "severity", "kind", "subject", "verdict", "calls_touched", "hits_touched", "reason")


def anomalies(
    catalog: Catalog,
    *,
    severity: str | None = None,
    kind: str | None = None,
    subject: str | None = None,
    interval: str | None = None,
) -> list[dict[str, Any]]:
    """Return the anomalies of the newest run of each month, the worst first, within a severity the newest month first.

    severity: that one and worse ones. subject: a mint or a caller, whichever side of a pair. verdict: of a caller as of the row's
    month, null where there is none: what is odd in outcomes is no verdict. Raises InputError for a severity or a kind that does not
    exist and without a catalog, IntegrityError when a file is not what was committed.
    """
    _require("severity", severity, SEVERITIES)
    _require("kind", kind, ANOMALY_KINDS)
    rows = load_newest(catalog, "anomalies", interval=interval).select(COLUMNS[:-1]).to_pylist()
    wanted = SEVERITIES[: SEVERITIES.index(severity) + 1] if severity else SEVERITIES
    found = [
        row
        for row in rows
        if row["severity"] in wanted
        and kind in (None, row["kind"])
        and subject in (None, row["subject"], row["other_subject"])
    ]
    verdicts = verdicts_for(catalog, (row["month"] for row in found if row["subject_type"] == "caller"), interval)
    for row in found:
        row["verdict"] = verdicts.of(row["subject"], row["month"]) if row["subject_type"] == "caller" else None
    found.sort(key=lambda row: (row["from_ts_ms"], row["subject"]))
    found.sort(key=lambda row: row["month"], reverse=True)
    return sorted(found, key=lambda row: SEVERITIES.index(row["severity"]))


def _require(option: str, given: str | None, known: tuple[str, ...]) -> None:
    if given is not None and given not in known:
        raise InputError(f"--{option} {given!r}: unknown; choose one of {', '.join(known)}")
