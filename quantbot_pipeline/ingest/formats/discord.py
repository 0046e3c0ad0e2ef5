"""DiscordChatExporter's JSON exports: one channel with its messages.

Belongs here: where that export keeps a message's text, embeds, author and times. Does not: which messages are calls.
"""

from collections.abc import Iterator
from typing import Any

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.formats.chat import Chat, Export, Message, iso, text_or_none
from quantbot_pipeline.ingest.formats.json_text import Scanner
from quantbot_pipeline.ingest.links import CANDIDATE


def read_discord(export: Export) -> Iterator[Message]:
    """Yield the messages of an export that may hold an address; its channel and counts go to `export`."""
    export.chats.append(chat := Chat())
    found = False
    with export.path.open(encoding="utf-8-sig") as file:
        scanner = Scanner(file)
        for key in scanner.members():
            start = scanner.peek()
            if key == "messages" and start == "[":
                found = True
                for some in scanner.items():
                    for entry in some:
                        if isinstance(entry, dict):
                            yield from _messages(export, entry)
            elif key == "channel" and start == "{":
                channel = scanner.value()
                chat.name, chat.number = text_or_none(channel.get("name")), text_or_none(channel.get("id"))
            else:
                scanner.skip()
        if scanner.peek():
            raise ValueError(f"something follows the end at character {scanner.where()}")
    if not found:
        raise InputError(f"{export.path}: no list of messages; export the channel with DiscordChatExporter as JSON")


def _messages(export: Export, entry: dict[str, Any]) -> Iterator[Message]:
    """Yield a message if it may hold an address."""
    forwarded = entry.get("forwardedMessage")
    texts = list(_texts(entry)) + (list(_texts(forwarded)) if isinstance(forwarded, dict) else [])
    if not texts:
        return
    export.messages += 1
    text = "\n".join(texts)
    if not CANDIDATE.search(text):
        return
    author, reference = entry.get("author"), entry.get("reference")
    author = author if isinstance(author, dict) else {}
    number = text_or_none(entry.get("id"))
    what = f"message {number}" if number else "a message"
    when, edited = text_or_none(entry.get("timestamp")), text_or_none(entry.get("timestampEdited"))
    yield Message(
        text,
        [],
        len(export.chats) - 1,
        number,
        export.local_ms(when, what) if when else None,
        when,
        text_or_none(author.get("nickname")) or text_or_none(author.get("name")),
        text_or_none(author.get("id")),
        text_or_none(reference.get("messageId")) if isinstance(reference, dict) else None,
        "forwarded" if isinstance(forwarded, dict) else "edited" if edited else "message",
        iso(export.local_ms(edited, what)) if edited else None,
        author.get("isBot") is True,
    )


def _texts(entry: dict[str, Any]) -> Iterator[str]:
    """What a message says, and what the cards below it say."""
    embeds = entry.get("embeds")
    said = [entry.get("content")]
    for embed in embeds if isinstance(embeds, list) else []:
        if isinstance(embed, dict):
            fields = embed.get("fields")
            said += [embed.get("url"), embed.get("title"), embed.get("description")]
            said += [f.get("value") for f in fields if isinstance(f, dict)] if isinstance(fields, list) else []
    yield from (text for text in said if isinstance(text, str) and text)
