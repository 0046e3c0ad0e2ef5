"""Which scored calls are news: those that a model takes whose verdict is `better`; of any other number nobody is told.

Belongs here: the choice and its sentence. Does not: scoring, or when a message is sent.
"""

from collections.abc import Iterable
from typing import Any

from quantbot_pipeline.monitoring.notices import Finding
from quantbot_pipeline.monitoring.verdicts import shown
from quantbot_pipeline.months import month_of
from quantbot_pipeline.vocabulary import BETTER

KIND = "scored_call"


def score_news(rows: Iterable[dict[str, Any]]) -> list[Finding]:
    """Return what is told of scores: of a taken call the number, what is said of every call, and both verdicts."""
    findings = []
    for row in rows:
        if row["verdict"] != BETTER or not row["take"]:
            continue
        text = (
            f"{row['target']} {row['value']:.3g} ({row['base_value']:.3g} of any call) for {shown(row['caller_name'])} on "
            f"{shown(row['mint'])}; the verdict of {row['target']} is: {row['verdict']}; of its money: {row['money_verdict']}"
        )
        cause = f"{KIND}:{row['call_id']}:{row['target']}"
        month = month_of(row["alert_ts_ms"])
        findings.append(Finding(cause, KIND, "success", text, month, shown(row["mint"]), passing=True))
    return findings
