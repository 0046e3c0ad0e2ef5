"""Candles of the windows that calls of the store still miss: asked for page by page, kept raw, then ingested like files.

Belongs here: the order of the steps, and the report. Does not: arithmetic of windows, and what is said to a host.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, Field

from quantbot_pipeline.errors import InputError, counted
from quantbot_pipeline.home import Home
from quantbot_pipeline.ingest.candles import ingest_candles
from quantbot_pipeline.ingest.connectors.common import Answer, Source, SourceError, Span, Token, UnknownThere
from quantbot_pipeline.ingest.connectors.raw import RawStore
from quantbot_pipeline.ingest.connectors.registry import source_of
from quantbot_pipeline.ingest.connectors.windows import missing_slots, stored_slots, windows_of
from quantbot_pipeline.ingest.report import IngestReport
from quantbot_pipeline.interrupts import stop_if_asked
from quantbot_pipeline.market.calls import read_calls
from quantbot_pipeline.vocabulary import INTERVALS_MS

AT_ONCE = 2_000  # answers of one ingest: each one rewrites the months that it changes
HORIZON_MS = 172_800_000


class FetchReport(BaseModel):
    """What a fetch found missing, asked for and brought in.

    `left_out` counts tokens that the source cannot be asked for, by reason. `refused` has the sentence of each token whose
    answers the ingest refuses. `stopped` is why the fetch ended early; what was kept until then is in the store.
    """

    source: str
    interval: str
    calls: int
    windows: int
    missing: int
    requests: int
    answers: int = 0
    empty: int = 0
    left_out: dict[str, int] = Field(default_factory=dict)
    inserted: int = 0
    updated: int = 0
    rejected: dict[str, int] = Field(default_factory=dict)
    months: list[str] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    refused: dict[str, str] = Field(default_factory=dict)
    stopped: str = ""
    dry_run: bool = False

    def require_whole(self) -> "FetchReport":
        """Return the report. Raises SourceError where the fetch ended early, and InputError where answers were refused."""
        if self.stopped:
            raise SourceError(self.stopped)
        if self.refused:
            first = next(iter(self.refused.values()))
            raise InputError(
                f"answers for {counted(len(self.refused), 'token')} are refused, the others are in: {first}"
            )
        return self


class Plan(NamedTuple):
    """What a source is to be asked: the pages of each token, and what is known of all."""

    pages: dict[Token, list[Span]]
    calls: int
    windows: int
    missing: int  # windows of which a candle is missing
    lookups: int
    left_out: dict[str, int]

    @property
    def requests(self) -> int:
        return sum(map(len, self.pages.values())) + self.lookups


@dataclass
class _Done:
    answers: int = 0
    empty: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    reports: list[IngestReport] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    stopped: str = ""


def fetch_candles(
    home: Home,
    source: str,
    interval: str,
    *,
    from_ms: int = 0,
    to_ms: int = 1 << 62,
    horizon_ms: int = HORIZON_MS,
    dry_run: bool = False,
    now_ms: int | None = None,
) -> FetchReport:
    """Fetch what the windows of calls with `from_ms <= alert < to_ms` still miss, and ingest it.

    A source is asked for nothing that it answered before. A fetch that was killed goes on where it ended. `dry_run` says how
    many requests there would be, and sends none. Raises InputError for a source, an interval or a key that is wrong.
    """
    if interval not in INTERVALS_MS:
        raise InputError(f"interval {interval!r} is unknown; choose one of {', '.join(INTERVALS_MS)}")
    settings = home.settings
    raw = RawStore(settings.raw_dir, source, settings.lock_timeout_s)
    asked = source_of(source, interval, settings, raw, with_key=not dry_run)
    now = int(time.time() * 1000) if now_ms is None else now_ms
    if dry_run:
        plan = make_plan(home, asked, raw, from_ms, to_ms, horizon_ms, now)
        return _report(asked, plan, plan.requests, _Done(left_out=Counter(plan.left_out)), dry_run=True)
    with raw.writing():
        done = _Done()
        _ingest(home, raw, interval, done)  # of a fetch that was killed
        plan = make_plan(home, asked, raw, from_ms, to_ms, horizon_ms, now)
        done.left_out.update(plan.left_out)
        try:
            _ask_all(home, asked, raw, plan, done)
        except SourceError as e:
            done.stopped = str(e)
        _ingest(home, raw, interval, done)
    return _report(asked, plan, asked.sent, done, dry_run=False)


def make_plan(
    home: Home, source: Source, raw: RawStore, from_ms: int, to_ms: int, horizon_ms: int, now_ms: int
) -> Plan:
    """Return what the windows of these calls still miss, as pages of the source; nothing is asked."""
    step = INTERVALS_MS[source.interval]
    calls = read_calls(home.calls, from_ms, to_ms).calls
    windows = windows_of(calls, step, horizon_ms, now_ms - source.settle_ms)
    stored = stored_slots(home.candles.folder, source.interval, windows)
    pages: defaultdict[Token, list[Span]] = defaultdict(list)
    left_out: Counter[str] = Counter()
    missing = lookups = 0
    for token, spans in windows.items():
        kept = raw.kept(source.interval, token.mint)
        for span in spans:
            slots = missing_slots(span, step, stored.get(token.mint, ()), kept)  # type: ignore[arg-type]
            found = source.pages(slots, step) if slots else []
            missing += bool(slots)
            pages[token] += [page for page in found if page not in pages[token]]
        reason = source.left_out(token) if pages[token] else None
        if reason is not None:
            left_out[reason] += 1
        if reason is not None or not pages[token]:
            del pages[token]
        else:
            lookups += source.lookups(token)
    return Plan(dict(pages), calls.num_rows, sum(map(len, windows.values())), missing, lookups, dict(left_out))


def _ask_all(home: Home, source: Source, raw: RawStore, plan: Plan, done: _Done) -> None:
    if plan.pages:
        source.begin()
    since = 0
    for token, pages in plan.pages.items():
        reason = source.left_out(token)  # what could be known only after `begin`
        if reason is not None:
            done.left_out[reason] += 1
            continue
        for page in pages:
            stop_if_asked()
            try:
                for answer in _answers(source, token, page):
                    raw.keep(source.interval, token.mint, answer)
                    done.answers += 1
                    done.empty += not answer.rows
                    since += 1
            except UnknownThere:
                reason = source.left_out(token)
                if reason is not None:
                    done.left_out[reason] += 1
                    break
                raw.keep(source.interval, token.mint, Answer(b"status 404", 0, page))
                done.answers += 1
                done.empty += 1
        if since >= AT_ONCE:
            _ingest(home, raw, source.interval, done)
            since = 0


def _answers(source: Source, token: Token, page: Span) -> Iterator[Answer]:
    """Ask until a page is covered."""
    start = page.start
    while start < page.end:
        answer = source.ask(token, Span(start, page.end))
        if answer.covered.end <= start:
            raise SourceError(
                f"{source.name}, {token.mint}: an answer that covers nothing; the interface may have changed"
            )
        yield answer
        start = answer.covered.end


def _ingest(home: Home, raw: RawStore, interval: str, done: _Done) -> None:
    """Bring the kept answers that the store may lack through the ingest of files; one bad token does not stop the others."""
    pending = raw.pending(interval)
    if not pending:
        return
    try:
        _take(home, raw, interval, pending, done)
    except InputError:
        of_token: defaultdict[str, dict[Path, Path]] = defaultdict(dict)
        for answer, marker in pending.items():
            of_token[answer.parent.name][answer] = marker
        for folder, some in of_token.items():
            try:
                _take(home, raw, interval, some, done)
            except InputError as e:
                done.refused[folder.partition("=")[2]] = str(e)


def _take(home: Home, raw: RawStore, interval: str, pending: dict[Path, Path], done: _Done) -> None:
    report = ingest_candles(list(pending), home.candles, interval, stamp="open")
    done.reports.append(report)
    for marker in pending.values():
        raw.taken(marker)


def _report(source: Source, plan: Plan, requests: int, done: _Done, *, dry_run: bool) -> FetchReport:
    rejected: Counter[str] = Counter()
    for report in done.reports:
        rejected.update(report.rejected)
    return FetchReport(
        source=source.name,
        interval=source.interval,
        calls=plan.calls,
        windows=plan.windows,
        missing=plan.missing,
        requests=requests,
        answers=done.answers,
        empty=done.empty,
        left_out=dict(sorted(done.left_out.items())),
        inserted=sum(report.inserted for report in done.reports),
        updated=sum(report.updated for report in done.reports),
        rejected=dict(sorted(rejected.items())),
        months=sorted({month for report in done.reports for month in report.months}),
        notes=[note for report in done.reports for note in report.notes],
        refused=done.refused,
        stopped=done.stopped,
        dry_run=dry_run,
    )
