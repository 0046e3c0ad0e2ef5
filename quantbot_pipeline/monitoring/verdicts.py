"""Which callers' verdicts changed since the last look: new evidence, evidence that is lost, and verdicts of `none`.

Belongs here: the newest evidence, and what of it is news. Does not: when it is told, which is `notices`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel

from quantbot_pipeline.errors import counted
from quantbot_pipeline.monitoring.notices import Finding, Severity

if TYPE_CHECKING:
    from quantbot_pipeline.catalog.catalog import Catalog

KIND = "changed_verdict"
PLAIN = "inconclusive"  # the verdict of every caller of whom nothing was told
NAMED = 10  # callers in one sentence
SHOWN = 60  # characters of a name
MARKUP = frozenset("<>&*`~[]()|@#/\\\"'!=")  # what chats and mails read as more than text


class Told(BaseModel):
    """What was told last: the run, and the verdict of every caller that has another one than `inconclusive`."""

    run_id: str
    verdicts: dict[str, str]


class Verdict(NamedTuple):
    """A caller's verdict, and the figures behind it."""

    verdict: str
    e_value: float
    e_threshold: float
    units: int


class Newest(NamedTuple):
    """The newest evidence of the newest month."""

    run_id: str
    month: str
    callers: Mapping[str, Verdict]


def newest_verdicts(catalog: "Catalog", known: str = "") -> Newest | None:
    """Return the verdicts of the newest month's newest run; None without a catalog, without evidence, or if it is `known`.

    Raises InputError when the catalog cannot be read, IntegrityError when the file is not what was committed.
    """
    from quantbot_pipeline.catalog.catalog import newest_runs_with
    from quantbot_pipeline.runs.manifest import read_manifest
    from quantbot_pipeline.runs.verify import read_artifact

    if not catalog.is_there():
        return None
    run_dirs = newest_runs_with(catalog, "evidence")
    if not run_dirs:
        return None
    run_dir = catalog.runs.open(run_dirs[-1])
    made = read_manifest(run_dir)
    if made.run_id == known:
        return None
    rows: list[dict[str, Any]] = read_artifact(
        run_dir, made, "evidence", ("caller_name", "verdict", "e_value", "e_threshold", "units")
    ).to_pylist()
    callers = {row.pop("caller_name"): Verdict(**row) for row in rows}
    return Newest(made.run_id, made.month, callers)


def news_of(told: Told | None, newest: Newest) -> tuple[Told, list[Finding]]:
    """Return what is told from now on, and what is news; at the first look, one summary if anybody is claimed."""
    now = {name: found.verdict for name, found in newest.callers.items() if found.verdict != PLAIN}
    findings = _summary(newest) if told is None else _changes(told.verdicts, now, newest)
    return Told(run_id=newest.run_id, verdicts=now), findings


def _summary(newest: Newest) -> list[Finding]:
    claimed = sorted(
        (name for name, found in newest.callers.items() if found.verdict == "evidence"),
        key=lambda name: (-newest.callers[name].e_value, name),
    )
    if not claimed:
        return []
    named = ", ".join(map(shown, claimed[:NAMED])) + (
        f" and {len(claimed) - NAMED} more" if len(claimed) > NAMED else ""
    )
    text = f"evidence of an edge: {named}; {counted(len(newest.callers), 'caller')} judged in all"
    return [_finding(newest, "", counted(len(claimed), "caller") + " with evidence", text, "success")]


def _changes(before: Mapping[str, str], now: Mapping[str, str], newest: Newest) -> list[Finding]:
    findings = []
    for name in sorted({*before, *now}):
        old, new = before.get(name, PLAIN), now.get(name, PLAIN)
        if old == new or (old, new) == ("none", PLAIN):
            continue
        found = newest.callers.get(name)
        figures = (
            "no unit is left"
            if found is None
            else f"e {found.e_value:.3g}, {found.e_threshold:.3g} needed; {counted(found.units, 'unit')}"
        )
        text = f"{shown(name)}: {new}, was {old}; {figures}"
        findings.append(_finding(newest, name, shown(name), text, "success" if new == "evidence" else "warning"))
    return findings


def _finding(newest: Newest, name: str, subject: str, text: str, severity: Severity) -> Finding:
    cause = f"{KIND}:{newest.run_id}:{name}"
    return Finding(cause, KIND, severity, text, newest.month, subject, newest.run_id, passing=True)


def shown(name: str) -> str:
    """Return a caller's name as plain text: markup, mentions, links and what cannot be seen become escapes."""
    cut = name if len(name) <= SHOWN else f"{name[:SHOWN]}…"
    return "".join(c if c.isprintable() and c not in MARKUP else _escape(c) for c in cut)


def _escape(character: str) -> str:
    return f"\\u{ord(character):04x}"
