"""Alerts as decisions: one per cause, grouped, repeated once a day, recovered; kept until every receiver has them."""

from typing import Any

import pytest

from quantbot_pipeline.monitoring.notices import (
    FORGET_S,
    KEEP_S,
    KINDS,
    MAX_UNSENT,
    REMIND_S,
    Finding,
    Message,
    State,
    decide,
    deliver,
)

NOW = 1_709_287_200.0  # 2024-03-01 10:00 UTC
LINK = "http://127.0.0.1:3000/runs/1"


def failed(month: str = "2024-02", text: str = "no candles", **more: Any) -> Finding:
    given = {"subject": "backtest in everything", "link": LINK} | more
    return Finding(f"failed_run:backtest:{month}", "failed_run", "failure", text, month, **given)


def standing(path: str = "2024-02/run_id=x", text: str = "checksum differs") -> Finding:
    cause = f"quarantined_run:{path}"
    return Finding(cause, "quarantined_run", "failure", text, path[:7], path, standing=True)


def after(*looks: tuple[float, list[Finding], list[str]]) -> tuple[State, list[list[Message]]]:
    """The state and the messages of each look; the state goes through JSON each time, as a cursor does."""
    state, said = State(), []
    for seconds, findings, recovered in looks:
        changes = [*((f.cause, f) for f in findings), *((cause, None) for cause in recovered)]
        state, messages = decide(State.model_validate_json(state.model_dump_json()), changes, NOW + seconds)
        said.append(messages)
    return state, said


def test_an_alert_has_the_month_what_it_concerns_and_the_link() -> None:
    state, [[message]] = after((0, [failed()], []))
    assert message.title == "quantbot: failed run, backtest in everything, 2024-02"
    assert message.body == f"no candles\nmonth: 2024-02\nconcerns: backtest in everything\nrun: {LINK}"
    assert (message.severity, message.at, message.sent) == ("failure", NOW, [])
    assert state.unsent == [message]
    assert list(state.open) == ["failed_run:backtest:2024-02"]


def test_a_cause_is_announced_once_counted_and_repeated_after_a_day() -> None:
    cause = failed()
    state, said = after(
        (0, [cause], []),
        (60, [cause], []),
        (REMIND_S - 1, [cause, cause], []),
        (REMIND_S, [cause], []),
        (REMIND_S + 60, [cause], []),
    )
    assert [len(messages) for messages in said] == [1, 0, 0, 1, 0]
    (again,) = said[3]
    assert again.title == "quantbot: again: failed run, backtest in everything, 2024-02"
    assert again.body.endswith("5 times since 2024-03-01 10:00 UTC")
    assert state.open[cause.cause].count == 6


def test_a_lasting_condition_is_not_counted_at_every_look() -> None:
    state, said = after(*((30.0 * look, [standing()], []) for look in range(10)), (REMIND_S, [standing()], []))
    assert [len(messages) for messages in said] == [1, *[0] * 9, 1]
    assert said[-1][0].body.endswith("\nsince 2024-03-01 10:00 UTC")
    assert state.open[standing().cause].count == 1


def test_a_recovery_is_announced_and_the_next_failure_is_new() -> None:
    cause = failed()
    state, said = after((0, [cause], []), (60, [], [cause.cause]), (90, [], [cause.cause]), (120, [cause], []))
    assert [[m.title.split(", ")[0] for m in messages] for messages in said] == [
        ["quantbot: failed run"],
        ["quantbot: recovered: failed run"],
        [],
        ["quantbot: failed run"],
    ]
    assert said[1][0].severity == "success"
    assert "no candles" in said[1][0].body
    assert state.open[cause.cause].count == 1


def test_what_happens_between_two_looks_is_told_in_its_order() -> None:
    """A failure that is over before anybody looked, and one that follows the end of another."""
    cause = failed()
    state, messages = decide(State(), [(cause.cause, cause), (cause.cause, None)], NOW)
    assert [m.title.split(", ")[0] for m in messages] == ["quantbot: failed run", "quantbot: recovered: failed run"]
    assert state.open == {}
    state, _ = decide(State(), [(cause.cause, cause)], NOW)
    second = failed(text="no disk")
    state, messages = decide(state, [(cause.cause, None), (cause.cause, second)], NOW + 60)
    assert [m.title.split(", ")[0] for m in messages] == ["quantbot: recovered: failed run", "quantbot: failed run"]
    assert (state.open[cause.cause].text, state.open[cause.cause].count) == ("no disk", 1)


def test_what_never_failed_does_not_recover() -> None:
    state, said = after((0, [], ["failed_run:backtest:2024-02"]))
    assert (state, said) == (State(), [[]])


def test_the_months_of_one_run_are_one_message() -> None:
    months = ["2023-11", "2023-12", "2024-01", "2024-03"]
    _, [[message]] = after((0, [failed(month) for month in months], []))
    assert message.title.endswith("2023-11 to 2024-01, 2024-03")
    assert message.body.count("no candles") == 1
    state, (_, [over], [rest]) = after(
        (0, [failed(month) for month in months], []),
        (60, [], [failed(month).cause for month in months[:3]]),
        (90, [], [failed(months[3]).cause]),
    )
    assert over.title == "quantbot: recovered: failed run, backtest in everything, 2023-11 to 2024-01"
    assert rest.title.endswith("everything, 2024-03")
    assert state.open == {}


def test_other_texts_are_listed_in_the_same_message() -> None:
    _, [[message]] = after((0, [failed("2024-01", "no candles"), failed("2024-02", "disk full")], []))
    first, second = message.body.split("\n\n")
    assert first.startswith("no candles\nmonth: 2024-01")
    assert second.startswith("disk full\nmonth: 2024-02")


def test_different_causes_are_different_messages_but_a_storm_is_one() -> None:
    few = [standing(f"2024-02/run_id={i}") for i in range(5)]
    _, [messages] = after((0, [*few, failed()], []))
    assert len(messages) == 6
    many = [standing(f"2024-02/run_id={i}") for i in range(30)]
    state, [[storm, other]] = after((0, [*many, failed()], []))
    assert storm.title == "quantbot: quarantined run, 30 at once, 2024-02"
    assert storm.body.endswith("and 20 more")
    assert other.title.startswith("quantbot: failed run")
    assert len(state.open) == 31


def test_every_kind_has_a_name() -> None:
    for kind in KINDS:
        _, [[message]] = after((0, [Finding("c", kind, "warning", "text")], []))
        assert message.title == f"quantbot: {KINDS[kind]}"
        assert message.body == "text"
        assert message.severity == "warning"


def test_a_cause_that_nobody_sees_again_is_forgotten() -> None:
    state, _ = after((0, [failed()], []), (FORGET_S, [], []))
    assert state.open == {}
    state, _ = after((0, [standing()], []), (FORGET_S / 2, [standing()], []), (FORGET_S, [], []))
    assert list(state.open) == [standing().cause]


# --- delivery ---------------------------------------------------------------------------------------------------------


class Receivers:
    """Receivers that take messages or not; what they took, in order."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.asked: list[str] = []
        self.took: list[tuple[str, str]] = []

    def send(self, url: str, message: Message) -> bool:
        self.asked.append(url)
        if url not in self.down:
            self.took.append((url, message.title))
        return url not in self.down


@pytest.fixture
def waiting() -> State:
    """Two messages to be sent."""
    state, _ = after((0, [failed("2024-01"), standing()], []))
    return state


def test_what_was_taken_is_not_kept(waiting: State) -> None:
    receivers = Receivers()
    state, refused = deliver(waiting, ["a://", "b://"], receivers.send, NOW)
    assert (state.unsent, refused) == ([], [])
    assert state.open == waiting.open
    titles = [message.title for message in waiting.unsent]
    assert receivers.took == [(url, title) for title in titles for url in ("a://", "b://")]


def test_a_message_is_retried_only_where_it_was_not_taken(waiting: State) -> None:
    receivers = Receivers()
    receivers.down = {"b://secret@host"}
    state, refused = deliver(waiting, ["a://", "b://secret@host"], receivers.send, NOW)
    assert refused == ["b://secret@host"]
    assert receivers.asked.count("b://secret@host") == 1  # once a round: it may hang
    assert "secret" not in state.model_dump_json()
    receivers.down, receivers.took = set(), []
    state, refused = deliver(
        State.model_validate_json(state.model_dump_json()), ["a://", "b://secret@host"], receivers.send, NOW + 30
    )
    assert (state.unsent, refused) == ([], [])
    assert receivers.took == [("b://secret@host", message.title) for message in waiting.unsent]


def test_without_receivers_nothing_waits(waiting: State) -> None:
    assert deliver(waiting, [], Receivers().send, NOW)[0].unsent == []


def test_what_nobody_takes_for_a_week_is_dropped(waiting: State) -> None:
    receivers = Receivers()
    receivers.down = {"a://"}
    for seconds, left in ((0.0, 2), (KEEP_S - 1, 2), (KEEP_S, 0)):
        assert len(deliver(waiting, ["a://"], receivers.send, NOW + seconds)[0].unsent) == left


def test_the_state_does_not_grow_without_end() -> None:
    looks = [(float(i), [failed(text=str(i))] if i % 2 else [], [] if i % 2 else [failed().cause]) for i in range(500)]
    state, _ = after(*looks)
    assert len(state.unsent) == MAX_UNSENT
    assert state.unsent[-1].at == NOW + 499
