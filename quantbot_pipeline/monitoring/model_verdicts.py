"""Which targets' verdicts changed since the last look: what is better now, what no longer is, and whether its money is shown.

Belongs here: the newest report of the models, and what of it is news. Does not: when it is told, which is `notices`.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel

from quantbot_pipeline.monitoring.notices import Finding, Severity
from quantbot_pipeline.vocabulary import BETTER, BLEND, EARNS_MORE, TO_DATE, TOO_LITTLE_DATA

if TYPE_CHECKING:
    from quantbot_pipeline.catalog.catalog import Catalog

KIND = "changed_model_verdict"
COLUMNS = ("target", "model", "scope", "verdict", "money_verdict", "gain_over_base_z", "calls", "test_months")


class ModelsTold(BaseModel):
    """What was told last: the run, and [verdict, money verdict] of each target."""

    run_id: str
    verdicts: dict[str, tuple[str, str]]


class NewestReport(NamedTuple):
    """The newest report of the newest month: {target: its row}."""

    run_id: str
    month: str
    targets: dict[str, dict[str, Any]]


def newest_report(catalog: "Catalog", known: str = "") -> NewestReport | None:
    """Return the report of the newest month's newest run; None without a catalog, without a report, or if it is `known`.

    Raises InputError when the catalog cannot be read, IntegrityError when the file is not what was committed.
    """
    from quantbot_pipeline.catalog.catalog import newest_runs_with
    from quantbot_pipeline.runs.manifest import read_manifest
    from quantbot_pipeline.runs.verify import read_artifact

    if not catalog.is_there() or not (run_dirs := newest_runs_with(catalog, "model_report")):
        return None
    run_dir = catalog.runs.open(run_dirs[-1])
    made = read_manifest(run_dir)
    if made.run_id == known:
        return None
    rows = read_artifact(run_dir, made, "model_report", COLUMNS).to_pylist()
    to_date = [row for row in rows if row["model"] == BLEND and row["scope"] == TO_DATE]
    return NewestReport(made.run_id, made.month, {row["target"]: row for row in to_date})


def model_news(told: ModelsTold | None, newest: NewestReport) -> tuple[ModelsTold, list[Finding]]:
    """Return what is told from now on, and what is news; at the first look, targets that are better."""
    before = told.verdicts if told is not None else {}
    now = {name: (row["verdict"], row["money_verdict"]) for name, row in newest.targets.items()}
    findings = []
    for name, (verdict, money) in now.items():
        # A target of which nothing was told, or too little known, had no verdict yet.
        old, old_money = before.get(name, (TOO_LITTLE_DATA, ""))
        if verdict != old and (told is not None or verdict == BETTER):
            text = f"{name}: {verdict}, was {old}; {_figures(newest.targets[name])}"
            findings.append(_finding(newest, name, text, verdict == BETTER))
        elif verdict == BETTER and old_money and money != old_money:
            text = f"{name}: {verdict}; of its money: {money}, was {old_money}"
            findings.append(_finding(newest, f"{name} money", text, money == EARNS_MORE))
    return ModelsTold(run_id=newest.run_id, verdicts=now), findings


def _figures(row: dict[str, Any]) -> str:
    z = row["gain_over_base_z"]
    return f"z over the base rate {'unknown' if z is None else f'{z:.1f}'}, {row['calls']} calls of {row['test_months']} months"


def _finding(newest: NewestReport, subject: str, text: str, is_good: bool) -> Finding:
    cause = f"{KIND}:{newest.run_id}:{subject}"
    severity: Severity = "success" if is_good else "warning"
    return Finding(cause, KIND, severity, text, newest.month, subject, newest.run_id, passing=True)
