"""A chat read live: batches, pieces of it at different times, an end in the middle. A server of Telegram's protocol does not
exist here: a stand-in for Telethon's client gives real messages of Telethon."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.home import Home
from quantbot_pipeline.ingest.connectors import telegram
from quantbot_pipeline.ingest.connectors.common import SourceError
from quantbot_pipeline.ingest.connectors.telegram import fetch_calls, telegram_keys
from quantbot_pipeline.market.calls import read_calls
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.support.builders import ms, solana_address

types = pytest.importorskip("telethon.tl.types")
START = datetime(2024, 1, 1, tzinfo=UTC)
CHANNEL = types.Channel(id=77, title="Gem calls", photo=None, date=START)


def message(number: int) -> Any:
    """A call every third message, and a reply of a bot that repeats it."""
    text = f"buy {solana_address(number // 3)}" if number % 3 in (1, 2) else "gm"
    answers = types.MessageReplyHeader(reply_to_msg_id=number - 1) if number % 3 == 2 else None
    when = START + timedelta(hours=number)
    return types.Message(id=number, peer_id=types.PeerChannel(77), message=text, date=when, reply_to=answers)


class Telegram:
    """The methods of Telethon's client that are used; `dies_at` is the message at which the connection ends."""

    def __init__(self, newest: int) -> None:
        self.newest, self.dies_at = newest, 0
        self.given: list[int] = []

    async def get_entity(self, name: Any) -> Any:
        if name != "@gems":
            raise ValueError("no such chat")
        return CHANNEL

    async def iter_messages(
        self,
        entity: Any,
        limit: int | None = None,
        *,
        offset_date: datetime | None = None,
        min_id: int = 0,
        max_id: int = 0,
        reverse: bool = False,
    ) -> AsyncIterator[Any]:
        assert reverse and entity is CHANNEL
        given = 0
        for number in range(min_id + 1, min(self.newest + 1, max_id or self.newest + 1)):
            found = message(number)
            if offset_date is not None and found.date < offset_date:
                continue
            if number == self.dies_at:
                raise SourceError("telegram: ConnectionError")
            if limit is None:
                self.given.append(number)
            yield found
            given += 1
            if given == limit:
                return

    @asynccontextmanager
    async def connect(self) -> AsyncIterator["Telegram"]:
        yield self


def calls_of(home: Home) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_calls(home.calls, 0, 1 << 62).calls.to_pylist()
    return rows


def test_a_chat_is_read_once_and_goes_on_where_it_was(tmp_path: Path) -> None:
    home, service = Home(Settings(home=tmp_path)), Telegram(500)
    new, report = fetch_calls(home, "@gems", connect=service.connect)
    assert (new, len(service.given)) == (500, 500)
    assert report is not None
    assert report.left_out["reply"] == 167
    made = calls_of(home)
    assert len(made) == report.inserted == 167
    assert {row["caller_name"] for row in made} == {"Gem calls"}
    assert (made[0]["mint"], made[0]["alert_ts_ms"]) == (solana_address(0), ms("2024-01-01T01:00:00"))
    assert fetch_calls(home, "@gems", connect=service.connect) == (0, None)
    service.newest = 510
    assert fetch_calls(home, "@gems", connect=service.connect)[0] == 10
    assert service.given == list(range(1, 511))
    assert len(calls_of(home)) == 170


@pytest.mark.parametrize("dies_at", [1, 2, 199, 200, 201, 401, 500])
def test_a_chat_that_broke_off_is_the_same_in_the_end(tmp_path: Path, dies_at: int) -> None:
    whole, broken = Home(Settings(home=tmp_path / "whole")), Home(Settings(home=tmp_path / "broken"))
    fetch_calls(whole, "@gems", connect=Telegram(500).connect)
    service = Telegram(500)
    service.dies_at = dies_at
    with pytest.raises(SourceError):
        fetch_calls(broken, "@gems", connect=service.connect)
    kept = (dies_at - 1) // telegram.BATCH * telegram.BATCH
    service.dies_at, service.given = 0, []
    assert fetch_calls(broken, "@gems", connect=service.connect)[0] == 500 - kept
    assert service.given == list(range(kept + 1, 501)), "nothing that was kept is asked for again"
    assert calls_of(broken) == calls_of(whole)


def test_pieces_of_a_chat_are_joined(tmp_path: Path) -> None:
    home, service = Home(Settings(home=tmp_path)), Telegram(500)
    fetch_calls(home, "@gems", from_ms=ms("2024-01-05"), to_ms=ms("2024-01-07"), connect=service.connect)
    assert service.given == list(range(96, 145)), "the one that shows the end is read and not kept"
    fetch_calls(home, "@gems", to_ms=ms("2024-01-10"), connect=service.connect)
    fetch_calls(home, "@gems", connect=service.connect)
    other = Home(Settings(home=tmp_path / "other"))
    fetch_calls(other, "@gems", connect=Telegram(500).connect)
    assert calls_of(home) == calls_of(other)
    assert len(service.given) == len(set(service.given)) + 2


def test_what_is_wrong_is_one_sentence(tmp_path: Path) -> None:
    home = Home(Settings(home=tmp_path))
    with pytest.raises(InputError, match="--chat '@other': this account knows no such chat"):
        fetch_calls(home, "@other", connect=Telegram(1).connect)
    keys = {"QUANTBOT_TELEGRAM_API_ID": "12", "QUANTBOT_TELEGRAM_API_HASH": "ab", "QUANTBOT_TELEGRAM_SESSION": "s"}
    assert telegram_keys(keys) == (12, "ab", "s")
    for name in keys:
        with pytest.raises(InputError, match=f"{name} is not set"):
            telegram_keys(keys | {name: " "})
    with pytest.raises(InputError, match="API_ID is no number"):
        telegram_keys(keys | {"QUANTBOT_TELEGRAM_API_ID": "secret"})


def test_a_session_that_is_none_is_named_and_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"API_ID": "12", "API_HASH": "ab", "SESSION": "no-session-at-all"}.items():
        monkeypatch.setenv(f"QUANTBOT_TELEGRAM_{name}", value)
    with pytest.raises(InputError, match="QUANTBOT_TELEGRAM_SESSION is no session") as refused:
        fetch_calls(Home(Settings(home=tmp_path)), "@gems")
    assert "no-session-at-all" not in str(refused.value)
