"""Calls that arrive are scored once, kept with their verdict, and told of only where the verdict is `better`."""

import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from quantbot_pipeline.backtest.scores import add_scores, kept_scores, scores_file, unscored
from quantbot_pipeline.backtest.scoring import SCORES
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.errors import IntegrityError
from quantbot_pipeline.home import Home
from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.monitoring.scored import score_news
from quantbot_pipeline.months import month_of
from quantbot_pipeline.orchestration.resources import Lab
from quantbot_pipeline.orchestration.scoring_sensor import arriving_calls, score_arrivals
from quantbot_pipeline_tests.support import builders, forecasts
from quantbot_pipeline_tests.support.builders import HOSTILE_WITH_NUL

HOUR = 3_600_000


def scores(n: int, **values: object) -> pa.Table:
    """Made-up scores of `n` calls of January."""
    made: dict[str, object] = {"int64": 1_704_100_000_000, "double": 0.5, "bool": True, "string": "word"}
    columns = {f.name: [values.get(f.name, made[str(f.type)])] * n for f in SCORES}
    columns["call_id"] = [f"call {i}" for i in range(n)]
    return pa.table(
        {name: pa.array(column, SCORES.field(name).type) for name, column in columns.items()}, schema=SCORES
    )


def test_a_call_is_kept_once_per_target_and_what_was_said_first_stays(tmp_path: Path) -> None:
    home = builders.make_home(tmp_path / "home")
    assert kept_scores(home).num_rows == 0
    assert add_scores(home, scores(2, target="win", value=0.1)) == 2
    assert add_scores(home, scores(3, target="win", value=0.9)) == 1
    assert add_scores(home, scores(1, target="return")) == 1
    kept = kept_scores(home, "2024-01")
    assert kept["value"].to_pylist() == [0.1, 0.1, 0.9, 0.5]
    assert unscored(home, scores(5)).num_rows == 2
    content = scores_file(home, "2024-01").read_bytes()
    scores_file(home, "2024-01").write_bytes(content[:-40])
    with pytest.raises(IntegrityError, match=r"2024-01\.parquet: not readable"):
        kept_scores(home)


def test_only_a_taken_call_of_a_better_target_is_news() -> None:
    rows = [
        {"call_id": f"{verdict} {take}", "target": "win", "value": 0.7, "base_value": 0.4, "caller_name": "ann", "mint": "m",
         "alert_ts_ms": 1_704_100_000_000, "verdict": verdict, "money_verdict": "not shown", "take": take}
        for verdict in ("better", "no better than the base rate", "too little data")
        for take in (True, False)
    ]  # fmt: skip  # a row on two lines
    (finding,) = score_news(rows)
    assert finding.cause == "scored_call:better True:win" and finding.passing
    assert "0.7 (0.4 of any call)" in finding.text and "better; of its money: not shown" in finding.text


@pytest.mark.parametrize("name", HOSTILE_WITH_NUL)
def test_names_from_outside_are_plain_text_in_a_notice(name: str) -> None:
    row = {
        "call_id": "1",
        "target": "win",
        "value": 0.7,
        "base_value": 0.4,
        "caller_name": name,
        "mint": name,
        "alert_ts_ms": 0,
    }
    (finding,) = score_news([row | {"verdict": "better", "money_verdict": "not shown", "take": True}])
    assert not set(finding.text) & set("<>`*[]\n\x00") and len(finding.text) < 600


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def test_the_sensor_scores_what_arrives_once(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    home = forecasts.make_home(tmp_path / "home", until=builders.ms("2024-02-20"))
    lab = Lab(home=str(home.path))

    def look(cursor: str | None) -> tuple[str, str | None]:
        result = arriving_calls(dg.build_sensor_context(instance=instance, cursor=cursor), lab=lab)
        assert isinstance(result, dg.SensorResult) and isinstance(result.skip_reason, dg.SkipReason)
        return str(result.skip_reason.skip_message), result.cursor

    now = round(time.time() * 1000)
    arrive(home, [("new 1", now - HOUR), ("new 2", now - 2 * HOUR), ("old", now - 30 * 24 * HOUR)])
    said, cursor = look(None)
    assert "no catalog yet" in said and kept_scores(home).num_rows == 0
    forecasts.model(home, "2024-02")
    sync(home.catalog)
    said, cursor = look(cursor)
    assert said == "4 scores", "two calls of two targets; the old call is history"
    kept = kept_scores(home, month_of(now - HOUR))
    assert "new 1" in kept["call_id"].to_pylist() and set(kept["verdict"].to_pylist()) == {"too little data"}
    said, cursor = look(cursor)
    assert said == "no call has arrived"
    arrive(home, [("new 3", now - HOUR)])
    assert look(cursor)[0] == "2 scores"
    assert score_arrivals(home, now)[0].num_rows == 0


def arrive(home: Home, calls: list[tuple[str, int]]) -> None:
    """Ingest calls by their id and alert time (UTC ms)."""
    rows = [builders.call("token1", at, "ann", call_id=name) for name, at in calls]
    ingest_calls([builders.write_jsonl(home.path / "inbox" / f"{rows[0]['call_id']}.jsonl", rows)], home.calls)
