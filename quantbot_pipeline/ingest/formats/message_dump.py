"""Messages as programs dump them from Telegram's interface: Telethon's and Pyrogram's JSON, as an array or object by object.

Belongs here: the names that the two libraries give to a message's parts. Does not: which messages are calls.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from quantbot_pipeline.ingest.formats.chat import MAX_NAMES, Chat, Export, Message, iso, text_or_none
from quantbot_pipeline.ingest.formats.json_text import Scanner
from quantbot_pipeline.ingest.formats.telegram import time_of
from quantbot_pipeline.ingest.links import CANDIDATE

MAX_CHATS = 100_000
TEXTS = ("message", "text", "raw_text", "caption", "content")


def read_message_dump(export: Export) -> Iterator[Message]:
    """Yield the messages of a dump that may hold an address; its chats and counts go to `export`."""
    chats: dict[str, int] = {}
    with export.path.open(encoding="utf-8-sig") as file:
        scanner = Scanner(file)
        while scanner.peek():
            for entry in _entries(scanner):
                if isinstance(entry, dict) and (message := _message(export, chats, entry)) is not None:
                    yield message


def _entries(scanner: Scanner) -> Iterator[Any]:
    """The messages of the value that comes next: of an array, of an object's list of messages, or the object itself."""
    if scanner.peek() == "[":
        for some in scanner.items():
            yield from some
        return
    if scanner.peek() != "{":
        scanner.skip()
        return
    around: dict[str, Any] = {}
    is_list = False
    for key in scanner.members():
        if key == "messages" and scanner.peek() == "[":
            is_list = True
            name = next((around[n] for n in ("title", "name", "channel", "chat", "username") if n in around), None)
            for some in scanner.items():
                yield from ({"chat": name} | e if name and isinstance(e, dict) else e for e in some)
        else:
            around[key] = scanner.value()
    if not is_list:
        yield around


def _message(export: Export, chats: dict[str, int], entry: dict[str, Any]) -> Message | None:
    text = next((entry[name] for name in TEXTS if isinstance(entry.get(name), str) and entry[name]), "")
    links = [*_entity_links(entry), *_button_links(entry)]
    if not text and not links:
        return None
    export.messages += 1
    if not CANDIDATE.search(text) and not any(map(CANDIDATE.search, links)):
        return None
    number = text_or_none(entry.get("id")) or text_or_none(entry.get("message_id"))
    what = f"message {number}" if number else "a message"
    # Telethon's times are UTC, with their offset or without; Pyrogram's are of the computer's zone.
    is_telethon = "from_user" not in entry
    when, edited = _instant(export, entry.get("date"), what, is_telethon), entry.get("edit_date")
    forwarded = entry.get("fwd_from") or entry.get("forward_date") or entry.get("forward_origin")
    sender, sender_id, is_bot = _sender(entry)
    return Message(
        text,
        links,
        _chat(export, chats, entry),
        number,
        when,
        text_or_none(entry.get("date")),
        sender,
        sender_id,
        _answered(entry),
        "forwarded" if forwarded else "edited" if edited else "message",
        iso(_instant(export, edited, what, is_telethon)) if edited else None,
        is_bot,
    )


def _instant(export: Export, value: object, what: str, is_utc: bool) -> int | None:
    if is_utc and isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
            return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
        except (ValueError, OverflowError):
            pass
    return time_of(export, value, what)


def _part(value: object, *names: str) -> str | None:
    """The first of some members of an object that is a number or a text; a bare number or text is itself."""
    if isinstance(value, dict):
        return next((found for name in names if (found := text_or_none(value.get(name))) is not None), None)
    return text_or_none(value)


def _chat(export: Export, chats: dict[str, int], entry: dict[str, Any]) -> int:
    """The position of a message's chat; a chat whose name the dump lacks is called after its number."""
    place = entry.get("chat") or entry.get("peer_id") or entry.get("to_id") or {}
    number = _part(place, "id", "channel_id", "chat_id", "user_id") or text_or_none(entry.get("chat_id"))
    name = (
        _part(place, "title", "username", "name") if isinstance(place, dict) else text_or_none(entry.get("chat_title"))
    )
    if name is None and isinstance(place, str) and not place.lstrip("-").isdigit():
        name, number = place, None
    key = f"{number}:{name}"
    if key not in chats and len(chats) < MAX_CHATS:
        chats[key] = len(export.chats)
        export.chats.append(Chat(name or (f"telegram:{number}" if number else None), number))
        if name is None and number is not None and len(export.notes) < MAX_NAMES:
            export.notes.append(
                f"{export.path}: the dump does not name its chat; the caller is 'telegram:{number}', unless --caller names it"
            )
    return chats.get(key, 0)


def _sender(entry: dict[str, Any]) -> tuple[str | None, str | None, bool]:
    who = entry.get("from_user") or entry.get("sender") or entry.get("sender_chat") or {}
    names = ("title", "first_name", "name") if isinstance(who, dict) else ()
    name = _part(who, "username", *names) or text_or_none(entry.get("post_author"))
    number = _part(entry.get("from_id"), "user_id", "channel_id") or text_or_none(entry.get("sender_id"))
    return name, number or _part(who, "id"), isinstance(who, dict) and (who.get("is_bot") or who.get("bot")) is True


def _answered(entry: dict[str, Any]) -> str | None:
    return (
        _part(entry.get("reply_to"), "reply_to_msg_id")
        or text_or_none(entry.get("reply_to_message_id"))
        or text_or_none(entry.get("reply_to_msg_id"))
    )


def _entity_links(entry: dict[str, Any]) -> Iterator[str]:
    for name in ("entities", "caption_entities"):
        entities = entry.get(name)
        for entity in entities if isinstance(entities, list) else []:
            if isinstance(entity, dict) and isinstance(entity.get("url"), str):
                yield entity["url"]


def _button_links(entry: dict[str, Any]) -> Iterator[str]:
    """What the buttons open: rows of objects in Telethon, an `inline_keyboard` of lists in Pyrogram."""
    markup = entry.get("reply_markup")
    rows = (markup.get("rows") or markup.get("inline_keyboard")) if isinstance(markup, dict) else None
    for row in rows if isinstance(rows, list) else []:
        buttons = row.get("buttons") if isinstance(row, dict) else row
        for button in buttons if isinstance(buttons, list) else []:
            if isinstance(button, dict) and isinstance(button.get("url"), str):
                yield button["url"]
