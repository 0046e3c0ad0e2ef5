"""Alerts: what is said, to whom it has been said already, and what is still to be sent. Pure; nothing here sends or looks.

A finding is something wrong, named by its cause. A cause is announced once; while it lasts it is counted and announced again
at most once a day; when it is over, that is announced too. Messages wait in the state until every receiver has taken them,
so the state (plain JSON, the cursor of a sensor) is all that a restart needs.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel

from quantbot_pipeline.months import contiguous

Severity = Literal["failure", "warning", "success"]

KINDS = {
    "failed_run": "failed run",
    "failed_catalog_sync": "failed catalog sync",
    "failed_check": "failed check",
    "performance_regression": "performance regression",
    "quarantined_run": "quarantined run",
    "rejected_file": "rejected file",
    "low_disk": "low disk",
    "waiting_run": "waiting run",
    "changed_verdict": "verdict",
    "changed_model_verdict": "verdict of predictions",
    "scored_call": "call that a model takes",
}
REMIND_S = 86_400.0
KEEP_S = 7 * 86_400.0  # a message that nobody takes for a week is dropped; it is in the log
FORGET_S = 30 * 86_400.0  # a cause that is neither seen again nor over for a month
MAX_UNSENT = 200
MAX_SEPARATE = 5  # more new causes of one kind at once are one message: a storm has one cause that nobody has named yet
MAX_LISTED = 10


@dataclass(frozen=True)
class Finding:
    """Something wrong. `cause` names it across time; `subject` is the caller, file, run or job that it concerns.

    A standing finding is a condition that is seen again at every look; any other is an event, and each one counts. A passing
    one is news: it is told once, and is never open.
    """

    cause: str
    kind: str
    severity: Severity
    text: str
    month: str = ""
    subject: str = ""
    link: str = ""
    standing: bool = False
    passing: bool = False


class Entry(BaseModel):
    """An open cause: what was last seen of it, how often, and since when (seconds since 1970)."""

    kind: str
    severity: Severity
    text: str
    month: str
    subject: str
    link: str
    standing: bool
    count: int = 1
    since: float
    last: float
    announced: float | None = None


class Message(BaseModel):
    """What one receiver reads; `sent` holds fingerprints of the receivers that have it."""

    title: str
    body: str
    severity: Severity
    at: float
    sent: list[str] = []


class State(BaseModel):
    """Open causes, and messages on their way, oldest first."""

    open: dict[str, Entry] = {}
    unsent: list[Message] = []


Turn = Literal["", "again", "recovered"]
Change = tuple[str, Finding | None]  # a cause, and what was found of it; None: it is over


def decide(state: State, changes: Iterable[Change], now: float) -> tuple[State, list[Message]]:
    """(next state, messages to send now) from what changed, in the order in which it happened; `now` in seconds since 1970.

    A cause may be over that is not open: nobody hears of that. What fails and is over again between two looks is told as both:
    a failure that nobody hears of is the worse one. The messages are in the next state's `unsent` too.
    """
    still_open = {cause: entry for cause, entry in state.open.items() if now - entry.last < FORGET_S}
    news: list[tuple[Turn, Entry]] = []
    for cause, finding in changes:
        if finding is None:
            if cause in still_open:
                news.append(("recovered", still_open.pop(cause)))
        elif finding.passing:
            news.append(("", _seen(None, finding, now)))
        else:
            entry = still_open[cause] = _seen(still_open.get(cause), finding, now)
            if entry.announced is None or now - entry.announced >= REMIND_S:
                news.append(("" if entry.announced is None else "again", entry))
                entry.announced = now
    messages = [_compose(turn, entries, now) for turn, entries in _grouped(news)]
    return State(open=still_open, unsent=[*state.unsent, *messages][-MAX_UNSENT:]), messages


def _seen(known: Entry | None, finding: Finding, now: float) -> Entry:
    """The entry of a cause after one more look at it."""
    latest = {key: value for key, value in asdict(finding).items() if key not in ("cause", "passing")} | {"last": now}
    if known is None:
        return Entry(**latest, since=now)
    return known.model_copy(update=latest | {"count": known.count + (0 if finding.standing else 1)})


def _grouped(news: Sequence[tuple[Turn, Entry]]) -> list[tuple[Turn, list[Entry]]]:
    """One group per kind and subject; one per kind where there are many subjects."""
    subjects: dict[tuple[Turn, str], set[str]] = {}
    for turn, entry in news:
        subjects.setdefault((turn, entry.kind), set()).add(entry.subject)
    groups: dict[tuple[Turn, str, str], list[Entry]] = {}
    for turn, entry in news:
        together = len(subjects[turn, entry.kind]) > MAX_SEPARATE
        groups.setdefault((turn, entry.kind, "" if together else entry.subject), []).append(entry)
    return [(turn, entries) for (turn, _, _), entries in groups.items()]


def _compose(turn: Turn, entries: list[Entry], now: float) -> Message:
    """`quantbot: failed run, everything, 2026-03` and below it what, where and since when."""
    subjects = list(dict.fromkeys(entry.subject for entry in entries))
    parts = [
        KINDS[entries[0].kind],
        subjects[0] if len(subjects) == 1 else f"{len(subjects)} at once",
        _months(entries),
    ]
    alike: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in entries:
        alike.setdefault((entry.subject, entry.text, entry.link), []).append(entry)
    paragraphs = [_paragraph(same, turn) for same in list(alike.values())[:MAX_LISTED]]
    if len(alike) > MAX_LISTED:
        paragraphs.append(f"and {len(alike) - MAX_LISTED} more")
    found = {entry.severity for entry in entries}
    worst: Severity = "failure" if "failure" in found else "warning" if "warning" in found else "success"
    return Message(
        title=f"quantbot: {turn}{': ' if turn else ''}{', '.join(part for part in parts if part)}",
        body="\n\n".join(paragraphs),
        severity="success" if turn == "recovered" else worst,
        at=now,
    )


def _paragraph(same: list[Entry], turn: Turn) -> str:
    """One text, with everything that it was found for."""
    first = same[0]
    lines = [first.text]
    named = {"month": _months(same), "concerns": first.subject, "run": first.link}
    lines += [f"{name}: {value}" for name, value in named.items() if value]
    if turn:
        count, since = max(e.count for e in same), min(e.since for e in same)
        times = f"{count} times since" if count > 1 else "since"
        lines.append(f"{times} {datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M} UTC")
    return "\n".join(lines)


def _months(entries: Iterable[Entry]) -> str:
    """`2026-01 to 2026-03, 2026-06`."""
    stretches = contiguous(sorted({entry.month for entry in entries if entry.month}))
    return ", ".join(s[0] if len(s) == 1 else f"{s[0]} to {s[-1]}" for s in stretches)


def deliver(
    state: State, urls: Sequence[str], send: Callable[[str, Message], bool], now: float
) -> tuple[State, list[str]]:
    """Send what is unsent to every receiver that lacks it; (next state, receivers that did not take a message).

    A receiver that fails once is not asked again in this round: it may hang, and a round is short. The state knows receivers
    only by fingerprint, because their URLs hold passwords.
    """
    refused: dict[str, None] = {}
    left: list[Message] = []
    for message in state.unsent:
        sent = list(message.sent)
        for url in urls:
            if fingerprint(url) in sent or url in refused:
                continue
            if send(url, message):
                sent.append(fingerprint(url))
            else:
                refused[url] = None
        if any(fingerprint(url) not in sent for url in urls) and now - message.at < KEEP_S:
            left.append(message.model_copy(update={"sent": sent}))
    return State(open=state.open, unsent=left), list(refused)


def fingerprint(url: str) -> str:
    """Tells receivers apart without their passwords."""
    return hashlib.sha256(url.encode()).hexdigest()[:12]
