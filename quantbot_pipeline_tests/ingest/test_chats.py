"""Chat exports of every kind: whose call it is, when it was, what is no call, and that no format need be named."""

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.home import Home
from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.ingest.formats.telegram_html import MAX_MESSAGE, MAX_TAG
from quantbot_pipeline.ingest.inbox import take_in
from quantbot_pipeline.ingest.report import IngestReport
from quantbot_pipeline.market.calls import CallStore
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.support.builders import HOUR_MS, ms, solana_address, write_csv, write_jsonl, write_parquet

A, B, POOL, WALLET = (solana_address(n) for n in range(4))
T = ms("2025-02-06T11:00:00")


def said(number: int | None, text: Any, minutes: float = 0, **more: Any) -> dict[str, Any]:
    """A message of Telegram Desktop, so many minutes after T."""
    entry = {
        "id": number,
        "type": "message",
        "date_unixtime": str(T // 1000 + round(minutes * 60)),
        "from": "Ann",
        "from_id": "user1",
    }
    return {k: v for k, v in (entry | {"text": text, "text_entities": []} | more).items() if k != "id" or v is not None}


def chat(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "Chan", "type": "public_channel", "id": 8, "messages": list(messages)} | more


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def ingest(path: Path, **options: Any) -> tuple[IngestReport, list[tuple[Any, ...]]]:
    """Ingest into a store of its own beside the file; return the report and (caller, mint, time) of the calls."""
    store = path.parent / "store" / "alerts.duckdb"
    report = ingest_calls([path], CallStore(store), **options).require_some()
    parts = (report.inserted, report.updated, report.unchanged, report.superseded, *report.rejected.values())
    assert report.rows == sum(parts)
    with duckdb.connect(str(store), read_only=True) as con:
        rows = con.execute("SELECT caller_name, mint, alert_ts_ms FROM alerts ORDER BY alert_ts_ms, caller_name, mint")
        return report, rows.fetchall()


# --- Telegram Desktop, JSON -------------------------------------------------------------------------------------------


def test_an_address_may_be_in_a_hidden_link_or_a_button(tmp_path: Path) -> None:
    hidden = [{"type": "text_link", "text": "Buy here", "href": f"https://pump.fun/coin/{A}"}, "!"]
    button = [
        [{"type": "url", "text": "Buy", "data": f"https://t.me/bot?start=1_{B}"}, {"type": "callback", "data": None}],
        "x",
    ]
    path = write(tmp_path / "result.json", chat(said(1, hidden), said(2, "", 1, inline_bot_buttons=button)))
    report, calls = ingest(path)
    assert calls == [("Chan", A, T), ("Chan", B, T + 60_000)]
    assert (report.left_out, report.notes) == ({}, [])


def test_the_words_of_a_link_belong_to_the_link(tmp_path: Path) -> None:
    link = {"type": "text_link", "text": WALLET, "href": f"https://solscan.io/account/{WALLET}"}
    report, calls = ingest(write(tmp_path / "result.json", chat(said(1, ["whale ", link, " buys ", A]))))
    assert (calls, report.left_out) == ([("Chan", A, T)], {"wallet": 1})


GROUP = chat(
    said(10, A),
    said(11, f"Token {A}", 0.1, **{"from": "Rick", "from_id": "user9", "reply_to_message_id": 10}),
    said(12, f"{A} stats", 0.2, **{"from": "Phanes", "from_id": "user8", "reply_to_message_id": 11}),
    said(20, f"me too {A}", 60, **{"from": "Bob", "from_id": "user2"}),
    said(21, f"/pnl {A}", 61, **{"from": "Cem", "from_id": "user3"}),
    said(22, f"{A} and {B}", 62, **{"from": "Cem", "from_id": "user3", "reply_to_message_id": 20}),
    said(23, f"again {A}", 63),
    name="Den", type="private_supergroup",
)  # fmt: skip  # a table: what belongs together stands on one line


def test_replies_that_repeat_an_address_commands_and_repetitions_are_no_calls(tmp_path: Path) -> None:
    report, calls = ingest(write(tmp_path / "result.json", GROUP), caller_from="sender")
    assert calls == [("Ann", A, T), ("Bob", A, T + HOUR_MS), ("Cem", B, T + HOUR_MS + 120_000)]
    assert (report.left_out, report.notes) == ({"command": 1, "repeated": 1, "reply": 3}, [])


def test_a_group_says_that_its_senders_are_one_caller(tmp_path: Path) -> None:
    report, calls = ingest(write(tmp_path / "result.json", GROUP))
    assert calls == [("Den", A, T), ("Den", B, T + HOUR_MS + 120_000)]
    (note,) = report.notes
    assert "'Den' has calls of 3 senders, and all go to one caller" in note and "--caller-from sender" in note


def test_senders_of_one_name_are_told(tmp_path: Path) -> None:
    messages = [said(1, A), said(2, B, 1, from_id="user2")]
    report, calls = ingest(write(tmp_path / "result.json", chat(*messages)), caller_from="sender")
    assert {caller for caller, *_ in calls} == {"Ann"}
    assert any("2 senders are called 'Ann'" in note for note in report.notes)


@pytest.mark.parametrize(
    ("hours", "kept"),
    [(None, [0, 25, 50]), (0, [0, 5, 23, 25, 48.9, 50]), (1, [0, 5, 23, 25, 48.9, 50]), (24, [0, 25, 50]), (1000, [0])],
)
def test_the_first_mention_stands_for_its_time(tmp_path: Path, hours: float | None, kept: list[float]) -> None:
    times = [0, 5, 23, 25, 48.9, 50]
    path = write(tmp_path / "result.json", chat(*(said(n, A, 60 * hour) for n, hour in enumerate(times, 1))))
    report, calls = ingest(path, first_mention=hours)
    assert [(ts - T) / HOUR_MS for _, _, ts in calls] == pytest.approx(kept)
    assert report.left_out == ({"repeated": len(times) - len(kept)} if len(kept) < len(times) else {})
    again, same = ingest(path, first_mention=hours)
    assert (again.inserted, again.unchanged, same) == (0, len(kept), calls), "the same export again changes nothing"


def test_a_later_export_does_not_make_a_repetition_a_first_mention(tmp_path: Path) -> None:
    whole = [said(1, A), said(2, A, 60), said(3, A, 120), said(4, A, 60 * 30)]
    ingest(write(tmp_path / "result.json", chat(*whole[:2])))
    report, calls = ingest(write(tmp_path / "result.json", chat(*whole[1:])))
    assert [ts - T for *_, ts in calls] == [0, 30 * HOUR_MS]
    assert report.left_out == {"repeated": 2}


def test_every_chat_of_an_account_is_a_caller(tmp_path: Path) -> None:
    many = [{"user_id": n, "first_name": "x" * 50} for n in range(80_000)]  # more than one value may take
    account = {
        "about": "Here is the data you requested.", "personal_information": {"user_id": 1}, "contacts": {"list": many},
        "chats": {"about": "", "list": [chat(said(1, A), name="One", id=1), chat(said(1, B, 1), name="Two", id=2), chat(said(1, "hi"), name=None, id=3), 5]},
        "left_chats": {"list": [chat(said(7, A, 2), name="Left", id=4)]},
    }  # fmt: skip  # a table: what belongs together stands on one line
    report, calls = ingest(write(tmp_path / "result.json", account))
    assert calls == [("One", A, T), ("Two", B, T + 60_000), ("Left", A, T + 120_000)]
    assert report.rejected == {}


def test_an_account_without_chats_and_nesting_without_end_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"result\.json: no list of messages"):
        ingest(write(tmp_path / "result.json", {"about": "x", "personal_information": {}}))
    with pytest.raises(InputError, match=r"result\.json: not valid JSON: .*nested more than 100 deep"):
        ingest(write(tmp_path / "result.json", '{"about": "x", "y": ' + "[" * 5_000 + "]" * 5_000 + "}"))


def test_edited_and_forwarded_messages_are_told_apart(tmp_path: Path) -> None:
    messages = [
        said(1, A), said(2, A, 1, edited_unixtime=str(T // 1000 + 90), edited="2025-02-06T14:01:30"),
        said(3, A, 2, forwarded_from=None), said(4, A, 3, edited="1970-01-01T03:00:00", edited_unixtime="0"),
    ]  # fmt: skip  # a table: what belongs together stands on one line
    ingest(path := write(tmp_path / "result.json", chat(*messages)), first_mention=0)
    with duckdb.connect(str(path.parent / "store" / "alerts.duckdb"), read_only=True) as con:
        found = con.execute("SELECT source_kind, edited_at FROM alerts ORDER BY alert_ts_ms").fetchall()
    assert found == [("message", None), ("edited", "2025-02-06T11:01:30.000Z"), ("forwarded", None), ("message", None)]


def test_local_times_need_their_zone(tmp_path: Path) -> None:
    old = said(13, A, date="2019-06-04T00:01:59", edited="2019-06-04T00:03:14")
    del old["date_unixtime"]
    path = write(tmp_path / "result.json", chat(old))
    with pytest.raises(InputError, match=r"message 13 has a local time without its zone .*--timezone Europe/Moscow"):
        ingest(path)
    with pytest.raises(InputError, match="--timezone 'Moscow' is unknown"):
        ingest(path, timezone="Moscow")
    assert ingest(path, timezone="Europe/Moscow")[1] == [("Chan", A, ms("2019-06-03T21:01:59"))]


def test_messages_without_an_id_get_one(tmp_path: Path) -> None:
    path = write(tmp_path / "result.json", chat(said(None, A), said(None, B), id=None))
    assert ingest(path)[0].inserted == 2
    assert ingest(path)[0].unchanged == 2


def test_where_nothing_is_called_the_refusal_says_what_was_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"result\.json: no token address in 2 messages; is it the right chat"):
        ingest(write(tmp_path / "result.json", chat(said(1, "gm"), said(2, "gn"))))
    links = [f"https://solscan.io/account/{WALLET}", f"https://dexscreener.com/solana/{POOL}"]
    with pytest.raises(InputError, match=r"no token address in 1 message but what is no call: pool 1, wallet 1"):
        ingest(write(tmp_path / "result.json", chat(said(1, " ".join(links)))))


def test_a_folder_and_the_inbox_need_no_format(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "ChatExport_2025-02-06"
    write(folder / "result.json", chat(said(1, A)))
    write(folder / "messages.html", "<html><p>the same</p></html>")
    write(tmp_path / "in" / "other" / "lists.html", "<html><p>no messages</p></html>")
    for fmt in ("auto", "telegram"):
        report = ingest_calls([tmp_path / "in"], CallStore(tmp_path / f"{fmt}.duckdb"), fmt=fmt)
        assert (report.files, report.inserted) == (1, 1)
        assert any("result.json is read" in note for note in report.notes)
    lab = Home(Settings(home=tmp_path / "home"))
    write(lab.settings.inbox_dir / "result.json", chat(said(1, A)))
    write(lab.settings.inbox_dir / "calls.json", [{"mint": B, "caller": "x", "alert_ts_ms": T}])
    assert take_in(lab, ["calls.json", "result.json"]).ingested == {"calls.json": 1, "result.json": 1}


def test_a_chat_export_under_another_format_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", {"guild": {}, "channel": {"id": "1"}, "messages": []})
    with pytest.raises(
        InputError, match=r"x\.json: this is a Discord export; leave --format out, or say --format discord"
    ):
        ingest(path, fmt="telegram")
    path = write(tmp_path / "result.csv", chat(said(1, A)))
    with pytest.raises(InputError, match=r"result\.csv: this is a Telegram export \(JSON\); leave --format out"):
        ingest(path, fmt="csv")
    assert ingest(path)[1] == [("Chan", A, T)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"caller": "x", "caller_from": "chat"}, "--caller names one caller .* give one of them"),
        ({"caller_from": "bot"}, "--caller-from 'bot' is unknown; choose chat or sender"),
        ({"first_mention": -1}, "--first-mention -1 is no number of hours"),
        ({"first_mention": float("nan")}, "--first-mention nan is no number of hours"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ingest(write(tmp_path / "result.json", chat(said(1, A))), **options)


# --- Telegram Desktop, HTML -------------------------------------------------------------------------------------------


def page(*messages: str) -> str:
    head = '<!DOCTYPE html><html><head><title>Exported Data</title></head><body onload="CheckLocation();"><div class="page_wrap">'
    top = '<div class="page_header"><div class="content"><div class="text bold">\nDen\n</div></div></div><div class="page_body"><div class="history">'
    return head + top + "".join(messages) + "</div></div></div></body></html>"


def bubble(number: int, title: str, name: str | None, body: str, joined: bool = False) -> str:
    who = "" if name is None else f'<div class="from_name">\n{name}\n</div>'
    return (
        f'<div class="message default clearfix{" joined" if joined else ""}" id="message{number}"><div class="body">'
        f'<div class="pull_right date details" title="{title}">\n11:35\n</div>{who}{body}</div></div>'
    )


PAGE = page(
    '<div class="message service" id="message-1"><div class="body details">6 February 2025</div></div>',
    bubble(1, "06.02.2025 11:35:32 UTC+10:00", "Ann &amp; Co", f'<div class="text">\n{A}<br>now\n</div>'),
    bubble(2, "06.02.2025 11:40:00 UTC+10:00", None, f'<div class="text">and <a href="https://pump.fun/{B}">this</a></div>', joined=True),
    bubble(3, "06.02.2025 11:41:00 UTC+10:00", "Rick", '<div class="reply_to details">In reply to <a href="#go_to_message1">this message</a></div>'
           f'<div class="text">{A} 2x <a href="https://solscan.io/account/{WALLET}">{WALLET}</a></div>'),
    bubble(4, "06.02.2025 11:42:00 UTC+10:00", "Bob", '<div class="forwarded body"><div class="from_name">Else <span class="date details" '
           f'title="01.01.2020 00:00:00 UTC+10:00"> 01.01.2020</span></div><div class="text">{A}</div></div>'),
)  # fmt: skip  # a table: what belongs together stands on one line


def test_pages_of_an_export_are_read(tmp_path: Path) -> None:
    report, calls = ingest(write(tmp_path / "messages.html", PAGE), caller_from="sender")
    first = ms("2025-02-06T01:35:32")
    assert calls == [
        ("Ann & Co", A, first), ("Ann & Co", B, first + 268_000), ("Bob", A, first + 388_000),
    ]  # fmt: skip  # a table: what belongs together stands on one line
    assert report.left_out == {"reply": 1, "wallet": 1}
    report, calls = ingest(write(tmp_path / "chat" / "messages.html", PAGE), fmt="telegram")
    assert calls == [("Den", A, first), ("Den", B, first + 268_000)]


def test_a_page_with_local_times_needs_their_zone(tmp_path: Path) -> None:
    path = write(
        tmp_path / "messages.html", page(bubble(1, "04.06.2019 00:01:59", "Ann", f'<div class="text">{A}</div>'))
    )
    with pytest.raises(InputError, match="message 1 has a local time without its zone"):
        ingest(path)
    assert ingest(path, timezone="Europe/Moscow")[1] == [("Den", A, ms("2019-06-03T21:01:59"))]


HOSTILE_PAGES = {
    "no end of a tag": ("<a " + "x" * 2 * MAX_TAG, "a tag is longer than 64 KiB"),
    "tags in tags": ("<a" * MAX_TAG, "a tag is longer than 64 KiB"),
    "no end of a comment": ("<!--" + "-" * 2 * MAX_TAG, "a tag is longer than 64 KiB"),
    "no end of a script": ("<script>" + "x" * 2 * MAX_TAG, "a tag is longer than 64 KiB"),
    "no end of a message": (
        bubble(1, "", None, '<div class="text">' + "x " * MAX_MESSAGE),
        "a message is longer than 1 MiB",
    ),
    "no message": ("< " * MAX_MESSAGE, "a message is longer than 1 MiB"),
    "deep": ("<b>" * 2_000, "nested more than 1,000 deep"),
    "no chat": ("", "an HTML page that is no export of Telegram Desktop"),
    "not UTF-8": ("\udce9", "not UTF-8"),
}


@pytest.mark.parametrize(("body", "message"), HOSTILE_PAGES.values(), ids=HOSTILE_PAGES)
def test_a_page_made_to_hurt_is_refused(tmp_path: Path, body: str, message: str) -> None:
    path = tmp_path / "messages.html"
    path.write_bytes(page(body).encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=rf"messages\.html: .*{message}"):
        ingest(path)


# --- Discord ----------------------------------------------------------------------------------------------------------


def posted(number: int, text: str, minute: int = 0, **more: Any) -> dict[str, Any]:
    author = {"id": "3", "name": "alice", "nickname": "Alice", "isBot": False}
    return {"id": str(number), "type": "Default", "timestamp": f"2025-07-18T14:{minute:02}:51.588+00:00", "timestampEdited": None,
            "content": text, "author": author, "embeds": []} | more  # fmt: skip  # a table: what belongs together stands on one line


def test_discord_exports_are_read(tmp_path: Path) -> None:
    bot = {"id": "9", "name": "rick", "isBot": True}
    card = {"title": "x", "url": f"https://pump.fun/coin/{B}", "description": None, "fields": [{"value": "1"}]}
    messages = [
        posted(1, f"ape {A}"), posted(2, f"{A} stats {B}", 1, author=bot), posted(3, f"nice {A}", 2, reference={"messageId": "1"}),
        posted(4, "look", 3, embeds=[card], author={"id": "4", "name": "bob", "nickname": None, "isBot": False}),
        posted(5, f"!x {A}", 4), posted(6, "", 5, forwardedMessage={"content": solana_address(9)}),
    ]  # fmt: skip  # a table: what belongs together stands on one line
    export = {
        "guild": {"id": "1"},
        "channel": {"id": "2", "name": "calls"},
        "exportedAt": "x",
        "messages": messages,
        "messageCount": 6,
    }
    report, calls = ingest(write(tmp_path / "calls.json", export))
    first = ms("2025-07-18T14:00:51") + 588
    assert calls == [("Alice", A, first), ("bob", B, first + 180_000), ("Alice", solana_address(9), first + 300_000)]
    assert report.left_out == {"bot": 2, "command": 1, "reply": 1}
    chatted, calls = ingest(write(tmp_path / "chat" / "calls.json", export), caller_from="chat", fmt="discord")
    assert {caller for caller, *_ in calls} == {"calls"} and len(chatted.notes) == 1


# --- dumps and tables -------------------------------------------------------------------------------------------------

TELETHON = [
    {"_": "Message", "id": 5, "peer_id": {"_": "PeerChannel", "channel_id": 77}, "date": "2025-02-06T11:00:00+00:00", "message": f"ape {A}",
     "from_id": {"_": "PeerUser", "user_id": 4}, "fwd_from": None, "reply_markup": None},
    {"_": "Message", "id": 6, "peer_id": {"_": "PeerChannel", "channel_id": 77}, "date": "2025-02-06 11:01:00", "message": "chart",
     "entities": [{"_": "MessageEntityTextUrl", "url": f"https://pump.fun/{B}"}], "from_id": None, "fwd_from": {"date": "x"}},
    {"_": "Message", "id": 7, "peer_id": {"_": "PeerChannel", "channel_id": 77}, "date": "2025-02-06T11:02:00+00:00", "message": f"{A} 2x",
     "reply_to": {"reply_to_msg_id": 5}},
    {"_": "MessageService", "id": 8, "date": "2025-02-06T11:02:00+00:00", "action": {}},
]  # fmt: skip  # a table: what belongs together stands on one line


@pytest.mark.parametrize("lines", [False, True], ids=["array", "lines"])
def test_telethon_dumps_are_read(tmp_path: Path, lines: bool) -> None:
    text = "\n".join(map(json.dumps, TELETHON)) if lines else json.dumps(TELETHON)
    report, calls = ingest(write(tmp_path / f"dump.json{'l' if lines else ''}", text))
    assert calls == [("telegram:77", A, T), ("telegram:77", B, T + 60_000)]
    assert report.left_out == {"reply": 1}
    assert any("does not name its chat" in note for note in report.notes)
    (tmp_path / "store" / "alerts.duckdb").unlink()
    assert ingest(tmp_path / f"dump.json{'l' if lines else ''}", caller="me")[1] == [
        ("me", A, T),
        ("me", B, T + 60_000),
    ]


def test_pyrogram_dumps_are_read(tmp_path: Path) -> None:
    user = {"_": "User", "id": 4, "first_name": "Ann", "username": "ann", "is_bot": False}
    one = {
        "_": "Message",
        "id": 5,
        "from_user": user,
        "date": "2025-02-06 14:00:00",
        "chat": {"id": -100, "title": "Den"},
        "text": f"ape {A}",
    }
    keyboard = {"inline_keyboard": [[{"text": "Buy", "url": f"https://pump.fun/{B}"}]]}
    two = one | {"id": 6, "from_user": user | {"is_bot": True}, "text": "x", "reply_markup": keyboard}
    path = write(tmp_path / "dump.json", [one, two])
    with pytest.raises(InputError, match="message 5 has a local time without its zone"):
        ingest(path)
    report, calls = ingest(path, timezone="Europe/Moscow", caller_from="sender")
    assert (calls, report.left_out) == ([("ann", A, T)], {"bot": 1})


MESSAGES = [
    {"id": 1, "date": "2025-02-06T11:00:00Z", "sender": "Ann", "text": f"ape {A}", "reply_to": None},
    {"id": 2, "date": "2025-02-06T11:01:00Z", "sender": "Rick", "text": f"{A} stats", "reply_to": 1},
    {"id": 3, "date": "2025-02-06T11:02:00Z", "sender": "Bob", "text": "gm", "reply_to": None},
    {
        "id": 4,
        "date": "2025-02-06T11:03:00Z",
        "sender": "Bob",
        "text": f"{B} https://solscan.io/account/{WALLET}",
        "reply_to": None,
    },
    {"id": 5, "date": "2025-02-06T11:04:00Z", "sender": "Bob", "text": f"again {B}", "reply_to": None},
]


@pytest.mark.parametrize(
    ("write_table", "suffix"), [(write_csv, "csv"), (write_jsonl, "jsonl"), (write_parquet, "parquet")]
)
def test_tables_of_messages_are_read(tmp_path: Path, write_table: Any, suffix: str) -> None:
    report, calls = ingest(write_table(tmp_path / f"messages.{suffix}", MESSAGES))
    assert calls == [("Ann", A, T), ("Bob", B, T + 180_000)]
    assert report.left_out == {"repeated": 1, "reply": 1, "wallet": 1}


def test_a_table_of_messages_with_a_chat_belongs_to_the_chat(tmp_path: Path) -> None:
    rows = [row | {"channel": "Den"} for row in MESSAGES]
    assert {c for c, *_ in ingest(write_csv(tmp_path / "m.csv", rows))[1]} == {"Den"}
    assert {c for c, *_ in ingest(write_csv(tmp_path / "n" / "m.csv", rows), caller_from="sender")[1]} == {"Ann", "Bob"}
    nameless = [{k: v for k, v in row.items() if k != "sender"} for row in MESSAGES]
    with pytest.raises(InputError, match=r"m\.csv: row 1: the caller is empty"):
        ingest(write_csv(tmp_path / "o" / "m.csv", nameless))
    assert {c for c, *_ in ingest(write_csv(tmp_path / "p" / "m.csv", nameless), caller="me")[1]} == {"me"}


def test_messages_of_the_bot_api_are_known_by_their_chat(tmp_path: Path) -> None:
    entry = {
        "message_id": 1,
        "date": 1738805732,
        "chat": {"id": -100, "type": "channel", "title": "Gems"},
        "text": A,
    }
    assert ingest(write(tmp_path / "dump.json", [entry]))[0].inserted == 1
