"""The list of chat formats, how each is known by its content, and the one way to read a file of any of them.

A new chat format is a file in this folder and a line of `CHATS`.
"""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.formats.chat import CallerFrom, Export, Message, collect
from quantbot_pipeline.ingest.formats.common import Found
from quantbot_pipeline.ingest.formats.discord import read_discord
from quantbot_pipeline.ingest.formats.json_text import Scanner
from quantbot_pipeline.ingest.formats.message_dump import read_message_dump
from quantbot_pipeline.ingest.formats.telegram import read_telegram
from quantbot_pipeline.ingest.formats.telegram_html import read_telegram_html


class ChatFormat(NamedTuple):
    """A chat format: its reader, the word that begins its call ids, who is the caller unless told, what a person calls it."""

    read: Callable[[Export], Iterator[Message]]
    source: str
    caller_from: CallerFrom
    is_called: str


CHATS = {
    "telegram": ChatFormat(read_telegram, "telegram", "chat", "a Telegram export (JSON)"),
    "telegram-html": ChatFormat(read_telegram_html, "telegram", "chat", "a Telegram export (HTML)"),
    "telegram-dump": ChatFormat(read_message_dump, "telegram", "chat", "a dump of Telegram messages"),
    "discord": ChatFormat(read_discord, "discord", "sender", "a Discord export"),
}
HEAD = 1 << 16  # bytes in which a page must show what it is
JSON_HEAD = 1 << 20  # characters in which a JSON text must: its first message is within
OF_ACCOUNTS = ("personal_information", "chats", "left_chats", "about")
OF_DUMPS = ("peer_id", "from_user", "fwd_from", "sender_chat", "_")
MAX_KEYS = 200


TEXT_SUFFIXES = frozenset((".json", ".jsonl", ".ndjson", ".html", ".htm"))


def is_chat(path: Path) -> bool:
    """Whether a file holds messages, by its suffix and its content."""
    return path.suffix.lower() in TEXT_SUFFIXES and chat_format_of(path) is not None


def chat_format_of(path: Path) -> str | None:
    """Return the chat format that a file's content shows: a key of CHATS, `html` for other pages; None for no chat."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:64].lower()
    if start.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head")):
        is_export = b'class="page_wrap' in head or b"tgme" in head or b'class="history"' in head
        return "telegram-html" if is_export else "html"
    if not start.startswith((b"{", b"[")):
        return None
    try:
        with path.open(encoding="utf-8-sig") as text:
            return _json_kind(Scanner(io.StringIO(text.read(JSON_HEAD))))
    except (ValueError, RecursionError):
        return None


def _json_kind(scanner: Scanner) -> str | None:
    if scanner.peek() == "[":
        return _kind_of_first(scanner)
    seen: dict[str, Any] = {}
    for _, key in zip(range(MAX_KEYS), scanner.members(), strict=False):
        start = scanner.peek()
        if (key == "guild" and start == "{") or (key == "channel" and start == "{"):
            return "discord"
        if key in OF_ACCOUNTS and (start == "{" or key == "about"):
            return "telegram"
        if key == "messages" and start == "[":
            return _kind_of_first(scanner) or "telegram"
        seen[key] = scanner.value()
    return "telegram-dump" if _is_dumped(seen) else None


def _kind_of_first(scanner: Scanner) -> str | None:
    """Judge the array that comes next by its first object."""
    for some in scanner.items():
        first = next((entry for entry in some if isinstance(entry, dict)), None)
        if first is not None:
            if "author" in first and "content" in first:
                return "discord"
            return "telegram-dump" if _is_dumped(first) else None
    return None


def _is_dumped(message: dict[str, Any]) -> bool:
    """Whether an object is a message of Telegram's interface, and no call."""
    if "date_unixtime" in message or any(name in message for name in ("mint", "caller_name", "open")):
        return False
    has_chat = isinstance(message.get("chat"), dict)  # as the Bot API and Pyrogram write it
    return "date" in message and (has_chat or any(name in message for name in OF_DUMPS))


def load_chat(
    con: duckdb.DuckDBPyConnection, export: Export, fmt: str, caller: str | None, by: CallerFrom | None
) -> dict[str, Found]:
    """Read a chat export into the temporary table `incoming`; return its columns. Raises InputError naming what is wrong."""
    path, kind = export.path, CHATS[fmt]
    try:
        found = collect(con, export, kind.read(export), caller, by or kind.caller_from)
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair
        raise InputError(f"{path}: a name or an id is not valid Unicode; export the chat again") from None
    except UnicodeDecodeError as e:
        raise InputError(
            f"{path}: not UTF-8 ({e.reason} at byte {e.start} of a piece); export the chat again"
        ) from None
    except (ValueError, RecursionError) as e:
        what = "HTML" if fmt == "telegram-html" else "JSON"
        raise InputError(f"{path}: not valid {what}: {str(e)[:200]}") from None
    if len(export.chats) == 1 and not caller:
        ((nameless,),) = con.execute("SELECT count(*) FROM incoming WHERE caller_name IS NULL").fetchall()
        if nameless:
            raise InputError(f"{path}: the export has no chat name; name the caller with --caller")
    return found
