"""Changed verdicts as notices, on a real instance with a receiver: what is told, once, and what is not."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.home import Home
from quantbot_pipeline.monitoring.verdicts import Newest, Verdict, news_of, shown
from quantbot_pipeline.orchestration import notices_sensor
from quantbot_pipeline.orchestration.resources import Lab
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.support.builders import HOSTILE_WITH_NUL, artifact_rows, commit_run
from quantbot_pipeline_tests.support.receivers import Receiver


class Watched:
    """A home whose evidence is made up, and the sensor that looks at it with the cursor of the look before."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance, receiver: Receiver) -> None:
        folder.mkdir()
        self.home, self.instance, self.receiver = Home(Settings(home=folder)), instance, receiver
        self.cursor: str | None = None
        self.runs = 0

    def evidence(self, month: str, **verdicts: str) -> None:
        """Commit and register a run with these verdicts."""
        self.runs += 1
        names = sorted(verdicts)
        rows = artifact_rows(
            "evidence",
            len(names),
            caller_name=names,
            verdict=[verdicts[name] for name in names],
            e_value=[7.0] * len(names),
            e_threshold=[9.5] * len(names),
            units=[40] * len(names),
            towards=[None] * len(names),
            flags=[""] * len(names),
        )
        times = artifact_rows("evidence_times", 0)
        commit_run(
            self.home.runs.folder,
            month,
            tables={"alerts": artifact_rows("alerts", 2), "evidence": rows, "evidence_times": times},
            run_type="optimization",
            created_at=f"2024-06-01T00:00:{self.runs:02}.000Z",
            parameters={"config_hash": "c0ffee", "strategy_id": "evidence"},
        )
        assert sync(self.home.catalog).quarantined == 0

    def look(self) -> list[str]:
        """One look of the sensor; returns what was sent, title and first line of each."""
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor)
        result = notices_sensor.notices(context, lab=Lab(home=str(self.home.settings.home)))
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        return [
            f"{message['title'].removeprefix('quantbot: ')}: {message['message'].splitlines()[0]}"
            for message in self.receiver.take()
        ]


@pytest.fixture
def watched(tmp_path: Path, receiver: Receiver) -> Iterator[Watched]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Watched(tmp_path / "home", instance, receiver)


def test_every_change_of_a_verdict_is_told_once(watched: Watched) -> None:
    assert watched.look() == []
    watched.evidence("2024-01", ann="inconclusive", bob="none")
    assert watched.look() == []
    watched.evidence("2024-02", ann="evidence", bob="none")
    assert watched.look() == ["verdict, ann, 2024-02: ann: evidence, was inconclusive; e 7, 9.5 needed; 40 units"]
    assert watched.look() == []
    watched.evidence("2024-02", ann="evidence", bob="inconclusive")
    watched.evidence("2024-01", ann="none", bob="evidence")  # no newest month
    assert watched.look() == []
    watched.evidence("2024-03", ann="inconclusive", bob="none")
    assert sorted(watched.look()) == [
        "verdict, ann, 2024-03: ann: inconclusive, was evidence; e 7, 9.5 needed; 40 units",
        "verdict, bob, 2024-03: bob: none, was inconclusive; e 7, 9.5 needed; 40 units",
    ]
    watched.evidence("2024-03", ann="evidence", bob="none")  # within the day of the first
    assert [line.split(";")[0] for line in watched.look()] == [
        "verdict, ann, 2024-03: ann: evidence, was inconclusive",
    ]
    watched.evidence("2024-04", bob="none")
    assert watched.look() == ["verdict, ann, 2024-04: ann: inconclusive, was evidence; no unit is left"]
    assert '"open":{}' in str(watched.cursor)


def test_the_first_look_sums_up_who_is_claimed(watched: Watched) -> None:
    watched.evidence("2024-01", ann="evidence", bob="none", cy="evidence")
    assert watched.look() == [
        "verdict, 2 callers with evidence, 2024-01: evidence of an edge: ann, cy; 3 callers judged in all"
    ]
    assert watched.look() == []


def test_a_cursor_from_before_there_were_verdicts_goes_on(watched: Watched) -> None:
    watched.cursor = notices_sensor.Cursor(since=0).model_dump_json(exclude={"verdicts"})
    watched.evidence("2024-01", ann="none")
    assert watched.look() == []
    watched.evidence("2024-02", ann="evidence")
    assert len(watched.look()) == 1


def test_evidence_that_is_damaged_says_nothing_until_it_is_whole(watched: Watched) -> None:
    watched.evidence("2024-01", ann="none")
    watched.look()
    watched.evidence("2024-02", ann="evidence")
    (file,) = (watched.home.runs.folder / "2024-02").glob("*/results/evidence.parquet")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"x")
    assert watched.look() == []
    file.write_bytes(whole)
    assert len(watched.look()) == 1


def test_a_name_is_plain_text_whatever_it_holds() -> None:
    callers = {name: Verdict("evidence", 50.0, 20.0, 40) for name in HOSTILE_WITH_NUL}
    told, found = news_of(None, Newest("r", "2024-01", {}))
    assert found == []
    told, found = news_of(told, Newest("s", "2024-01", callers))
    assert len(found) == len(callers)
    for text in (text for finding in found for text in (finding.text, finding.subject)):
        assert text.isprintable()
        assert not set(text) & set("<>&*`[]@|'\"")
        assert len(text) < 700
    assert shown("sample:fast_follower") == "sample:fast_follower"
    assert shown("@all <b>") == "\\u0040all \\u003cb\\u003e"
    assert news_of(told, Newest("t", "2024-01", callers))[1] == []
