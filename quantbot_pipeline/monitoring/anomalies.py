"""What the anomalies of a month mean for whoever watches: how many of which severity, which are errors, and which of those are new.

Belongs here: reading the artifact for checks and notices. Does not: what is odd, which is in `anomalies`; when it is told, which is `notices`.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel

from quantbot_pipeline.errors import counted
from quantbot_pipeline.monitoring.notices import Finding
from quantbot_pipeline.monitoring.verdicts import shown
from quantbot_pipeline.vocabulary import SEVERITIES

if TYPE_CHECKING:
    from quantbot_pipeline.catalog.catalog import Catalog
    from quantbot_pipeline.runs.manifest import RunDirectory

KIND = "new_anomaly"
COLUMNS = ("kind", "severity", "subject", "other_subject", "from_ts_ms", "calls_touched", "hits_touched", "reason")
MONTHS_TOLD = 36  # newest months whose errors are remembered
ROWS_TOLD = 500  # of a month

Rows = Sequence[Mapping[str, Any]]


class Odd(NamedTuple):
    """The anomalies of one run: its id and month, and its rows with the columns of `COLUMNS`."""

    run_id: str
    month: str
    rows: list[dict[str, Any]]

    @property
    def counts(self) -> dict[str, int]:
        """How many rows of each severity."""
        found = Counter(row["severity"] for row in self.rows)
        return {severity: found[severity] for severity in SEVERITIES}

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The rows that say that the numbers of a call are wrong, if they are right."""
        return [row for row in self.rows if row["severity"] == "error"]


def read_anomalies(run_dir: "RunDirectory") -> Odd:
    """Return the anomalies of a committed run. Raises IntegrityError when the file is not what was committed."""
    from quantbot_pipeline.runs.manifest import read_manifest
    from quantbot_pipeline.runs.verify import read_artifact

    made = read_manifest(run_dir)
    return Odd(made.run_id, made.month, read_artifact(run_dir, made, "anomalies", COLUMNS).to_pylist())


def sentence(row: Mapping[str, Any]) -> str:
    """Return a row as a line: kind, subjects, reason, what it touches."""
    whose = shown(row["subject"]) + (f" and {shown(row['other_subject'])}" if row["other_subject"] is not None else "")
    touched = f"{counted(row['calls_touched'], 'call')} touched, {row['hits_touched']} of them 2x"
    return f"{row['kind']} of {whose}: {row['reason']} {touched}"


class Told(BaseModel):
    """What was told: the run of each month, and a digest of each of its errors."""

    runs: dict[str, str] = {}
    errors: dict[str, list[str]] = {}


def newest_anomalies(catalog: "Catalog", told: Told | None) -> list[Odd]:
    """Return the anomalies of the newest months whose newest run is not known yet, by month; none without a catalog.

    Raises InputError when the catalog cannot be read, IntegrityError when a file is not what was committed.
    """
    from quantbot_pipeline.catalog.catalog import newest_runs_with

    if not catalog.is_there():
        return []
    known = set(told.runs.values()) if told else set()
    fresh = [
        d for d in newest_runs_with(catalog, "anomalies")[-MONTHS_TOLD:] if d.rpartition("run_id=")[2] not in known
    ]
    return [read_anomalies(catalog.runs.open(run_dir)) for run_dir in fresh]


def news_of(told: Told | None, newest: Sequence[Odd]) -> tuple[Told, list[Finding]]:
    """Return what is told from now on, and the errors that are new; at the first look one summary, if there are any."""
    runs, errors = (dict(told.runs), dict(told.errors)) if told else ({}, {})
    findings = []
    for odd in newest:
        before = set(errors.get(odd.month, ()))
        digests = {_digest(row): row for row in odd.errors}
        findings += [_finding(odd, digest, row) for digest, row in digests.items() if digest not in before]
        runs[odd.month], errors[odd.month] = odd.run_id, list(digests)[:ROWS_TOLD]
    kept = sorted(runs)[-MONTHS_TOLD:]
    now = Told(runs={m: runs[m] for m in kept}, errors={m: errors[m] for m in kept})
    return now, (_summary(newest) if told is None else findings)


def _digest(row: Mapping[str, Any]) -> str:
    text = "\n".join(str(row[name]) for name in ("kind", "subject", "other_subject", "from_ts_ms"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _finding(odd: Odd, digest: str, row: Mapping[str, Any]) -> Finding:
    cause = f"{KIND}:{odd.month}:{digest}"
    return Finding(cause, KIND, "warning", sentence(row), odd.month, shown(row["subject"]), odd.run_id, passing=True)


def _summary(newest: Sequence[Odd]) -> list[Finding]:
    bad = [odd for odd in newest if odd.errors]
    if not bad:
        return []
    found = sum(len(odd.errors) for odd in bad)
    text = f"{counted(found, 'error')} in the inputs of {counted(len(bad), 'month')}; `quantbot anomalies --severity error` shows them"
    return [
        Finding(
            f"{KIND}:first", KIND, "warning", text, bad[-1].month, counted(found, "error"), bad[-1].run_id, passing=True
        )
    ]
