"""Telegram Desktop's JSON exports (`result.json`): of one chat, or of a whole account with its chats.

Belongs here: where an export keeps a message's text, links, sender and times. Does not: which messages are calls.
"""

from collections.abc import Iterator
from typing import Any

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.formats.chat import Chat, Export, Message, iso, text_or_none
from quantbot_pipeline.ingest.formats.json_text import Scanner
from quantbot_pipeline.ingest.links import CANDIDATE

MAX_OTHERS = 1_000_000  # entries of the list of messages that are none: Telegram numbers every message
NEVER_MS = 10 * 86_400_000  # an early day of 1970 is how some versions write that a message was never edited
ACCOUNT = ("chats", "left_chats")


def read_telegram(export: Export) -> Iterator[Message]:
    """Yield the messages of an export that may hold an address; its chats and counts go to `export`.

    The export is read message by message: however long the chat, memory holds a few of them. Raises InputError for what is no
    export, ValueError for what is no JSON.
    """
    with export.path.open(encoding="utf-8-sig") as file:
        scanner = Scanner(file)
        found = [False]
        if scanner.peek() == "{":
            yield from _chat(scanner, export, found)
        else:
            scanner.skip()
        if scanner.peek():
            raise ValueError(f"something follows the end at character {scanner.where()}")
    if not found[0]:
        raise InputError(
            f"{export.path}: no list of messages; export the chat from Telegram Desktop as JSON (result.json)"
        )


def _chat(scanner: Scanner, export: Export, found: list[bool]) -> Iterator[Message]:
    """Read an object as a chat, and as an account if it has chats within."""
    at = len(export.chats)
    export.chats.append(chat := Chat())
    for key in scanner.members():
        start = scanner.peek()
        if key == "messages" and start == "[":
            found[0] = True
            yield from _messages(scanner, export, at)
        elif key in ACCOUNT and start == "{":
            yield from _account(scanner, export, found)
        elif key in ("name", "id") and start not in ("{", "["):
            value = text_or_none(scanner.value())
            if value is not None and key == "name":
                chat.name = value
            elif value is not None:
                chat.number = value
        else:
            scanner.skip()


def _account(scanner: Scanner, export: Export, found: list[bool]) -> Iterator[Message]:
    for key in scanner.members():
        if key != "list" or scanner.peek() != "[":
            scanner.skip()
            continue
        found[0] = True
        for _ in scanner.elements():
            if scanner.peek() == "{":
                yield from _chat(scanner, export, found)
            else:
                scanner.skip()


def _messages(scanner: Scanner, export: Export, chat: int) -> Iterator[Message]:
    others = 0
    for some in scanner.items():
        for entry in some:
            if entry.__class__ is not dict:
                continue
            text = entry.get("text")
            if not text and "inline_bot_buttons" not in entry:
                others += "id" not in entry
                continue
            export.messages += 1
            if text.__class__ is str:
                if CANDIDATE.search(text) or "inline_bot_buttons" in entry:
                    yield _message(export, chat, entry, text, _buttons(entry))
                continue
            plain, links = _pieces(text)
            if "inline_bot_buttons" in entry:
                links += _buttons(entry)
            if CANDIDATE.search(plain) or (links and any(map(CANDIDATE.search, links))):
                yield _message(export, chat, entry, plain, links)
        if others > MAX_OTHERS:
            raise InputError(f"{export.path}: {others:,} messages have no id; is this an export of Telegram Desktop?")


def _pieces(text: object) -> tuple[str, list[str]]:
    """The plain text and the links of a formatted text; the words of a link to their own address are part of the link."""
    if isinstance(text, str):
        return text, []
    plain: list[str] = []
    links: list[str] = []
    for piece in text if isinstance(text, list) else []:
        if piece.__class__ is str:
            plain.append(piece)
        elif isinstance(piece, dict):
            words, href = piece.get("text"), piece.get("href")
            words = words if isinstance(words, str) else ""
            if isinstance(href, str) and href:
                links.append(href)
                if any(address in href for address in CANDIDATE.findall(words)):
                    words = " "
            plain.append(words)
    return "".join(plain), links


def _buttons(entry: dict[str, Any]) -> list[str]:
    """What the buttons below a message open or copy."""
    rows = entry.get("inline_bot_buttons")
    buttons = [b for row in rows if isinstance(row, list) for b in row] if isinstance(rows, list) else []
    return [b["data"] for b in buttons if isinstance(b, dict) and isinstance(b.get("data"), str)]


def _message(export: Export, chat: int, entry: dict[str, Any], text: str, links: list[str]) -> Message:
    number = text_or_none(entry.get("id"))
    when = entry.get("date_unixtime") or entry.get("date")
    edited = entry.get("edited_unixtime") or entry.get("edited")
    is_forwarded = "forwarded_from" in entry or "forwarded_from_id" in entry  # null: from a deleted account
    what = f"message {number}" if number else "a message"
    sent_ms = time_of(export, when, what)
    edited_ms = time_of(export, edited, what) if edited else None
    if edited_ms is not None and edited_ms < NEVER_MS:
        edited_ms = None
    return Message(
        text,
        links,
        chat,
        number,
        sent_ms,
        text_or_none(when),
        text_or_none(entry.get("from")),
        text_or_none(entry.get("from_id")),
        text_or_none(entry.get("reply_to_message_id")),
        "forwarded" if is_forwarded else "edited" if edited_ms is not None else "message",
        iso(edited_ms),
    )


def time_of(export: Export, value: object, what: str) -> int | None:
    """Return the UTC ms of Unix seconds or ISO text; None for neither."""
    if value is None or not isinstance(value, (str, int, float)):
        return None
    try:
        return int(value) * 1000
    except (ValueError, OverflowError):
        pass
    try:
        return round(float(value) * 1000)
    except (ValueError, OverflowError):
        return export.local_ms(str(value), what)
