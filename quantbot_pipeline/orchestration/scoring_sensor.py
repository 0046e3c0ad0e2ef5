"""The sensor that scores calls as they arrive: rows of `data/scores/`, and a notice where the verdict is `better`.

Belongs here: which calls have arrived. Does not: scoring, keeping, or what is news. All that it must remember is its cursor.
"""

import json
import time
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import BaseModel, ValidationError

from quantbot_pipeline.errors import QuantbotError
from quantbot_pipeline.monitoring.notices import State, decide, deliver
from quantbot_pipeline.monitoring.scored import score_news
from quantbot_pipeline.monitoring.send import send
from quantbot_pipeline.orchestration.resources import Lab

if TYPE_CHECKING:
    import pyarrow as pa

    from quantbot_pipeline.home import Home

RECENT_MS = 7 * 86_400_000  # an older call is history: its month's run predicts it
MAX_CALLS = 500  # of one look; more wait for the next one


class Cursor(BaseModel):
    """How the store of calls was at the last look (a file's time and size), whether calls waited then, and messages on their way."""

    store: tuple[int, int] = (0, 0)
    waiting: bool = False
    alerts: State = State()


def build_scoring_sensor(interval_s: int) -> dg.SensorDefinition:
    """Return the sensor, which looks every `interval_s` seconds."""
    return dg.sensor(
        name="arriving_calls",
        minimum_interval_seconds=interval_s,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Calls of the last week that have arrived are scored by the committed models, within a minute; the scores are kept in "
        "data/scores/ with their verdicts. A call that is taken where the verdict is `better` becomes an alert.",
    )(arriving_calls)


def arriving_calls(context: dg.SensorEvaluationContext, lab: Lab) -> dg.SensorResult:
    """Score what has arrived, keep it, and tell what is news."""
    home, now = lab.open(), time.time()
    cursor = _read_cursor(context)
    store = _stamp(home)
    said = "no call has arrived"
    if store != cursor.store or cursor.waiting:
        try:
            scores, cursor.waiting = score_arrivals(home, round(now * 1000))
        except QuantbotError as e:  # no models yet, or a file that somebody must mend
            said, cursor.waiting = str(e), True
        else:
            said = f"{scores.num_rows} scores"
            findings = score_news(scores.to_pylist())
            cursor.alerts, messages = decide(cursor.alerts, [(f.cause, f) for f in findings], now)
            for message in messages:
                context.log.info(f"{message.title}\n{message.body}")
        cursor.store = store
    cursor.alerts, refused = deliver(
        cursor.alerts, home.settings.alert_urls, lambda url, m: send(url, m.title, m.body, m.severity), now
    )
    for url in refused:
        context.log.warning(f"not delivered to {url.split('://')[0]}://…; tried again at the next look")
    return dg.SensorResult(skip_reason=said, cursor=cursor.model_dump_json())


def score_arrivals(home: "Home", now_ms: int) -> "tuple[pa.Table, bool]":
    """Score and keep the recent calls that have no score; return the new scores, and whether calls are left for the next look.

    Raises InputError where no models are cataloged.
    """
    from quantbot_pipeline.backtest.scores import add_scores, unscored
    from quantbot_pipeline.backtest.scoring import SCORES, score
    from quantbot_pipeline.market.calls import read_calls
    from quantbot_pipeline.reports.predictions import verdicts_of

    recent = read_calls(home.calls, now_ms - RECENT_MS, now_ms + 1).calls
    new = unscored(home, recent) if recent.num_rows else recent
    if not new.num_rows:
        return SCORES.empty_table(), False
    scores = score(home, new.slice(0, MAX_CALLS), verdicts_of(home.catalog))
    add_scores(home, scores)
    return scores, new.num_rows > MAX_CALLS


def _stamp(home: "Home") -> tuple[int, int]:
    """Return what changes when the store of calls does."""
    try:
        found = home.calls.path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def _read_cursor(context: dg.SensorEvaluationContext) -> Cursor:
    try:
        return Cursor.model_validate(json.loads(context.cursor)) if context.cursor else Cursor()
    except (ValueError, ValidationError):  # of another version: what is kept already is not scored again
        return Cursor()
