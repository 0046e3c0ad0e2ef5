"""The sensor that raises alerts: it looks at finished Dagster runs, the queue, the quarantine, rejected files, the disk, the
newest verdicts and the newest anomalies.

Here is only the looking; what is announced, grouped, repeated or over is decided in `monitoring.notices`. Everything it must
remember is its cursor, so a restart neither forgets a cause nor announces it twice.
"""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg
from pydantic import BaseModel, ValidationError

from quantbot_pipeline.errors import InputError, QuantbotError
from quantbot_pipeline.ingest.inbox import REJECTED
from quantbot_pipeline.monitoring import anomalies as odd
from quantbot_pipeline.monitoring.model_verdicts import ModelsTold, model_news, newest_report
from quantbot_pipeline.monitoring.notices import Change, Finding, Message, State, decide, deliver
from quantbot_pipeline.monitoring.send import send
from quantbot_pipeline.monitoring.verdicts import Told, newest_verdicts, news_of
from quantbot_pipeline.orchestration.assets.catalog import CATALOG
from quantbot_pipeline.orchestration.assets.inputs import INBOX_KEY
from quantbot_pipeline.orchestration.partitions import months_of
from quantbot_pipeline.orchestration.resources import Lab
from quantbot_pipeline.orchestration.retries import say_again
from quantbot_pipeline.orchestration.waiting import WILL_RETRY, free_slots, is_repeated, waiting_longer_than
from quantbot_pipeline.settings import Settings

if TYPE_CHECKING:
    from quantbot_pipeline.home import Home

T = TypeVar("T")
LOOK_BACK_S = 3600.0  # at the first look, failures of the last hour are news
OVERLAP_S = 60.0  # a run's row is stamped before it is written: look a little further back than the last one seen
MAX_RUNS = 200  # per look; more wait for the next one
# These two are seen directly, at every look and not only when the check runs.
STANDING_CHECKS = ("quarantine_empty", "free_disk")
# What this one finds is told row by row, as news.
TOLD_BY_ROW = ("anomalies",)
PROMISE_S = 120.0  # within which Dagster repeats a run that it says it will; it looks every few seconds
EVENTS = {
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.RUN_FAILURE,
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
}


class Cursor(BaseModel):
    """What the sensor remembers: how far it has looked (seconds since 1970), runs of the overlap, and the alerts.

    Failed runs that Dagster says it will repeat are remembered, too: it says so of some that it cannot repeat. verdicts: those
    told last; None before the first evidence. anomalies: those told; None before the first run that looked for them. models: those of predictions.
    """

    since: float
    seen: dict[str, float] = {}
    promised: dict[str, float] = {}
    alerts: State = State()
    verdicts: Told | None = None
    models: ModelsTold | None = None
    anomalies: odd.Told | None = None


def build_notices_sensor(interval_s: int) -> dg.SensorDefinition:
    """Return the sensor, which looks every `interval_s` seconds."""
    return dg.sensor(
        name="alerts_sensor",  # the name under which homes know whether it is on
        minimum_interval_seconds=interval_s,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Failed runs and checks, failed catalog syncs, regressions, quarantined runs, rejected files, low disk, runs that wait too long, changed verdicts and new anomalies of severity error become "
        "alerts: written to this log, and sent to QUANTBOT_ALERT_URLS. One per cause; recoveries are announced.",
    )(notices)


def notices(context: dg.SensorEvaluationContext, lab: Lab) -> dg.SensorResult:
    """Look, decide what is announced, send it, and remember it."""
    home, now = lab.open(), time.time()
    cursor = _read_cursor(context, now)
    for run_id in free_slots(context.instance):  # where a daemon runs without `quantbot ui`, nobody else does
        context.log.info(f"freed the slots of run {run_id}, which is over")
    for run_id in say_again(context.instance):
        context.log.info(f"said again that run {run_id} failed: nothing has repeated it")
    changes = [
        *_run_changes(context.instance, cursor, home.settings.ui_url, now),
        *_standing_changes(home, context.instance, cursor.alerts, now),
        *_verdict_changes(context, home, cursor),
    ]
    state, messages = decide(cursor.alerts, changes, now)
    for message in messages:
        log = context.log.info if message.severity == "success" else context.log.error
        log(f"{message.title}\n{message.body}")
    cursor.alerts, refused = deliver(state, home.settings.alert_urls, _send, now)
    for url in refused:
        context.log.warning(f"not delivered to {url.split('://')[0]}://…; tried again at the next look")
    summary = f"{len(messages)} new, {len(state.open)} open, {len(cursor.alerts.unsent)} to be sent"
    return dg.SensorResult(skip_reason=summary, cursor=cursor.model_dump_json())


def _read_cursor(context: dg.SensorEvaluationContext, now: float) -> Cursor:
    if context.cursor:
        try:
            return Cursor.model_validate_json(context.cursor)
        except ValidationError as e:  # of another version; better to announce twice than never
            context.log.warning(f"the cursor is not readable and begins anew: {e.errors()[0]['msg']}")
    return Cursor(since=now - LOOK_BACK_S)


def _send(url: str, message: Message) -> bool:
    return send(url, message.title, message.body, message.severity)


# --- finished Dagster runs --------------------------------------------------------------------------------------------


def _run_changes(instance: dg.DagsterInstance, cursor: Cursor, ui_url: str, now: float) -> Iterator[Change]:
    """What the runs that finished since the last look say, in the order in which they ended; moves the cursor."""
    records = instance.get_run_records(
        filters=dg.RunsFilter(
            statuses=[dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS],
            updated_after=datetime.fromtimestamp(cursor.since - OVERLAP_S, UTC),
        ),
        order_by="update_timestamp",
        ascending=True,
        limit=MAX_RUNS + len(cursor.seen),
    )
    oldest = cursor.since - LOOK_BACK_S
    # A tag on a run of last week updates it too; that is no news.
    fresh = [r for r in records if r.dagster_run.run_id not in cursor.seen and (r.end_time or now) >= oldest]
    for record in sorted(fresh, key=lambda r: r.end_time or now):
        yield from _changes_of_run(instance, record.dagster_run, _link(ui_url, record.dagster_run.run_id))
        if _is_promised(record.dagster_run):
            cursor.promised[record.dagster_run.run_id] = now
    yield from _broken_promises(instance, cursor, ui_url, now)
    stamps = {r.dagster_run.run_id: r.update_timestamp.timestamp() for r in records}
    cursor.since = max([cursor.since, *stamps.values()])
    cursor.seen = {id_: at for id_, at in (cursor.seen | stamps).items() if at > cursor.since - 2 * OVERLAP_S}


def _link(ui_url: str, run_id: str) -> str:
    return f"{ui_url.rstrip('/')}/runs/{run_id}"


def _is_promised(run: dg.DagsterRun) -> bool:
    """Whether Dagster says that it will repeat this run."""
    return run.status == dg.DagsterRunStatus.FAILURE and run.tags.get(WILL_RETRY) == "true"


def _broken_promises(instance: dg.DagsterInstance, cursor: Cursor, ui_url: str, now: float) -> Iterator[Change]:
    """The failures of runs that nothing has repeated in time; moves the cursor."""
    for run_id, since in list(cursor.promised.items()):
        run = instance.get_run_by_id(run_id)
        if run is None or is_repeated(instance, run):
            del cursor.promised[run_id]
        elif now - since >= PROMISE_S:
            del cursor.promised[run_id]
            yield from _failures(run, _events(instance, run), months_of(run.tags) or [""], _link(ui_url, run_id))
            yield from _over_since(instance, run_id)


def _over_since(instance: dg.DagsterInstance, run_id: str) -> Iterator[Change]:
    """What runs that ended after a run have made by now. Its failure is told late, and their successes were looked at before."""
    record = instance.get_run_record_by_id(run_id)
    ended = None if record is None else record.end_time
    if ended is None:
        return
    succeeded = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.SUCCESS], updated_after=datetime.fromtimestamp(ended - OVERLAP_S, UTC)
    )
    for later in instance.get_run_records(succeeded, order_by="update_timestamp", ascending=True, limit=MAX_RUNS):
        if later.end_time is not None and later.end_time > ended:
            changes = _changes_of_run(instance, later.dagster_run, "")
            yield from ((cause, None) for cause, finding in changes if finding is None)


def _events(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[Any]:
    logged = instance.all_logs(run.run_id, of_type=EVENTS)
    return [entry.dagster_event for entry in logged if entry.dagster_event is not None]


def _changes_of_run(instance: dg.DagsterInstance, run: dg.DagsterRun, link: str) -> Iterator[Change]:
    events = _events(instance, run)
    months = months_of(run.tags) or [""]
    # What succeeds ends the failure of the same step and month, in whatever job; then comes what failed.
    for event in events:
        if event.is_step_success:
            yield from ((_cause(event.step_key, month), None) for month in dict.fromkeys([*months, ""]))
        elif event.is_step_materialization and event.step_key is not None:
            yield _cause(event.step_key, event.partition or ""), None
    if run.is_success:
        yield from ((_cause(_work(run), month), None) for month in months)
    for event in events:
        if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            yield from _check_changes(event.event_specific_data, link)
        elif event.asset_key == INBOX_KEY:
            yield from _rejected_files(event, link)
    if run.status == dg.DagsterRunStatus.FAILURE and not _is_promised(run):
        yield from _failures(run, events, months, link)


def _work(run: dg.DagsterRun) -> str:
    """The job, or the assets of a run that was launched without one."""
    if run.job_name != "__ASSET_JOB":
        return run.job_name
    return ", ".join(sorted(key.to_user_string() for key in run.asset_selection or ()))[:200] or "assets"


def _cause(what: str, month: str) -> str:
    """Of a failure: the step (or job) and the month. A sync that fails is a kind of its own, whatever failed in it."""
    kind = _kind(what)
    return kind if kind == "failed_catalog_sync" else f"{kind}:{what}:{month}"


def _kind(what: str) -> str:
    return "failed_catalog_sync" if what in ("catalog_sync", CATALOG.to_python_identifier()) else "failed_run"


def _failures(run: dg.DagsterRun, events: list[Any], months: list[str], link: str) -> Iterator[Change]:
    """The steps that failed, for the months that they did not make; the run itself if it ended without such a step."""
    failed = [e for e in events if e.is_step_failure]
    if not failed:
        text = next((e.message for e in events if e.event_type == dg.DagsterEventType.RUN_FAILURE), None) or "failed"
        yield from (_failure(_work(run), _work(run), month, text, link) for month in months)
    for event in failed:
        data = event.step_failure_data
        if data.error is not None and data.error.cls_name == "DagsterAssetCheckFailedError":
            continue  # the check itself is the finding
        made = {e.partition for e in events if e.is_step_materialization and e.step_key == event.step_key}
        for month in [m for m in months if m not in made] or months:
            yield _failure(event.step_key, _work(run), month, _reason(data), link)


def _failure(what: str, subject: str, month: str, text: str, link: str) -> Change:
    cause = _cause(what, month)
    where = subject if subject == what else f"{what} in {subject}"
    return cause, Finding(cause, _kind(what), "failure", text[:1500], month, where, link)


def _reason(data: Any) -> str:
    """The innermost message of a step's failure: Dagster wraps what an asset raised."""
    if data.user_failure_data is not None and data.user_failure_data.description:
        return str(data.user_failure_data.description)
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return "failed" if error is None else str(error.message).strip()


def _check_changes(evaluation: dg.AssetCheckEvaluation, link: str) -> Iterator[Change]:
    """A check's findings by month (see `checks._by_month`), or one for a check that has no months."""
    if evaluation.check_name in (*STANDING_CHECKS, *TOLD_BY_ROW):
        return
    name = f"{evaluation.asset_key.to_user_string()} {evaluation.check_name}"
    kind = "performance_regression" if evaluation.check_name == "regression" else "failed_check"
    values = {key: value.value for key, value in evaluation.metadata.items()}
    failed: Any = values.get("failed_months") or (
        {} if evaluation.passed else {"": [evaluation.description or "failed"]}
    )
    judged: Any = values.get("months", [""])
    for month in dict.fromkeys([*judged, *failed]):
        cause = f"check:{name}:{month}"
        if month not in failed:
            yield cause, None
            continue
        is_error = evaluation.severity == dg.AssetCheckSeverity.ERROR
        text, subject = "\n".join(failed[month][:5]), f"{name}, {values['subject']}" if "subject" in values else name
        yield cause, Finding(cause, kind, "failure" if is_error else "warning", text[:1500], month, subject, link)


def _rejected_files(event: Any, link: str) -> Iterator[Change]:
    metadata = event.step_materialization_data.materialization.metadata
    rejected: Any = metadata["rejected"].value if "rejected" in metadata else {}
    for path, reason in rejected.items():
        cause = f"rejected_file:{path}"
        yield (
            cause,
            Finding(
                cause, "rejected_file", "warning", f"set aside in inbox/{REJECTED}/: {reason}"[:1500], "", path, link
            ),
        )


# --- verdicts -----------------------------------------------------------------------------------------------------------


def _verdict_changes(context: dg.SensorEvaluationContext, home: "Home", cursor: Cursor) -> Iterator[Change]:
    """Yield what the newest evidence, report of the models and anomalies say anew; moves the cursor."""
    evidence = _readable(context, "verdicts", lambda: newest_verdicts(home.catalog, _run_of(cursor.verdicts)))
    if evidence is not None:
        cursor.verdicts, findings = news_of(cursor.verdicts, evidence)
        yield from ((finding.cause, finding) for finding in findings)
    report = _readable(context, "report of the models", lambda: newest_report(home.catalog, _run_of(cursor.models)))
    if report is not None:
        cursor.models, findings = model_news(cursor.models, report)
        yield from ((finding.cause, finding) for finding in findings)
    found = _readable(context, "anomalies", lambda: odd.newest_anomalies(home.catalog, cursor.anomalies))
    if found:
        cursor.anomalies, findings = odd.news_of(cursor.anomalies, found)
        yield from ((finding.cause, finding) for finding in findings)


def _run_of(told: Told | ModelsTold | None) -> str:
    return told.run_id if told else ""


def _readable(context: dg.SensorEvaluationContext, what: str, look: Callable[[], T]) -> T | None:
    """Return what a look finds; what cannot be read says nothing."""
    try:
        return look()
    except QuantbotError as e:
        context.log.warning(f"the newest {what} cannot be read: {e}")
        return None


# --- conditions that last -----------------------------------------------------------------------------------------------


def _standing_changes(home: "Home", instance: dg.DagsterInstance, state: State, now: float) -> Iterator[Change]:
    """Conditions seen at this look, and open ones that are not seen any more."""
    surveys: dict[str, Callable[[], list[Finding]]] = {
        "quarantined_run": lambda: _quarantine(home, now),
        "low_disk": lambda: _disk(home.settings),
        "waiting_run": lambda: _waiting(instance, home.settings, now),
    }
    for kind, look in surveys.items():
        try:
            found = look()
        except InputError:
            continue  # a catalog that cannot be read says nothing; the sync that mends it does
        lasting = {finding.cause: finding for finding in found}
        yield from ((cause, None) for cause, e in state.open.items() if e.kind == kind and cause not in lasting)
        yield from lasting.items()
    for cause, entry in state.open.items():
        gone = not (home.settings.inbox_dir / REJECTED / entry.subject).exists()
        if entry.kind == "rejected_file" and gone:
            yield cause, None


def _quarantine(home: "Home", now: float) -> list[Finding]:
    from quantbot_pipeline.monitoring.health import quarantined

    found = quarantined(home.catalog, now_s=now, max_lag_s=home.settings.catalog_max_lag_s)
    return [
        Finding(
            f"quarantined_run:{path}", "quarantined_run", "failure", reason, Path(path).parts[0], path, standing=True
        )
        for path, reason in found.items()
    ]


def _waiting(instance: dg.DagsterInstance, settings: Settings, now: float) -> list[Finding]:
    found = []
    for run, since, reason in waiting_longer_than(instance, settings.max_queued_s, now):
        months = months_of(run.tags)
        text = f"waits since {datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M} UTC" + (
            f": {reason}" if reason else ""
        )
        found.append(
            Finding(
                f"waiting_run:{run.run_id}",
                "waiting_run",
                "warning",
                f"{text}; the limit is {settings.max_queued_s:g} s (QUANTBOT_MAX_QUEUED_S)",
                months[0] if months else "",
                _work(run),
                _link(settings.ui_url, run.run_id),
                standing=True,
            )
        )
    return found


def _disk(settings: Settings) -> list[Finding]:
    from quantbot_pipeline.monitoring.health import free_gb

    free = free_gb(settings.home)
    if free >= settings.min_free_gb:
        return []
    text = f"{free:.1f} GB free, the limit is {settings.min_free_gb:g} GB"
    return [Finding("low_disk", "low_disk", "failure", text, "", str(settings.home), standing=True)]
