"""Telegram Desktop's HTML exports (`messages.html`, `messages2.html`, …), read tag by tag.

Belongs here: the classes and titles of that page. Does not: which messages are calls.
"""

import re
from collections.abc import Iterator
from html.parser import HTMLParser

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.formats.chat import Chat, Export, Message

CHUNK = 1 << 14  # characters read at once
# Telegram Desktop writes a thousand messages a page, which take one or two megabytes.
MAX_PAGE = 64 << 20
MAX_TAG = 1 << 16  # characters; the parser looks at an unfinished tag again and again
MAX_MESSAGE = 1 << 20  # characters, and between two messages
MAX_OPEN = 1_000  # elements within elements; the export has fewer than twenty
TITLE = re.compile(r"(\d\d)\.(\d\d)\.(\d{4}) (\d\d:\d\d:\d\d)(?: UTC([+-]\d\d:\d\d))?")
VOID = frozenset(("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"))
REPLY = re.compile(r"go_to_message(-?\d+)")


def read_telegram_html(export: Export) -> Iterator[Message]:
    """Yield the messages of a page; its chat and counts go to `export`. Raises InputError for another page."""
    if (size := export.path.stat().st_size) > MAX_PAGE:
        raise InputError(
            f"{export.path}: a page of {size >> 20:,} MiB, more than {MAX_PAGE >> 20}; export the chat as JSON (result.json)"
        )
    page = _Page(export)
    with export.path.open(encoding="utf-8-sig") as file:
        while chunk := file.read(CHUNK):
            page.feed(chunk)
            page.since_message += len(chunk)
            if len(page.rawdata) > MAX_TAG:
                raise InputError(f"{export.path}: a tag is longer than {MAX_TAG >> 10} KiB; is this an export?")
            if page.since_message > MAX_MESSAGE:
                raise InputError(f"{export.path}: a message is longer than {MAX_MESSAGE >> 20} MiB; is this an export?")
            yield from page.taken()
        page.close()
        page.end_message()
        yield from page.taken()
    if not page.is_export:
        raise InputError(f"{export.path}: an HTML page that is no export of Telegram Desktop; export the chat as JSON")


class _Page(HTMLParser):
    """The state of the reading: the open elements with their classes, and the message that is being read."""

    def __init__(self, export: Export) -> None:
        super().__init__(convert_charrefs=True)
        self.export = export
        self.is_export = False
        self.since_message = 0  # characters
        self._chat = Chat()
        export.chats.append(self._chat)
        self._open: list[tuple[str, str]] = []
        self._done: list[Message] = []
        self._sender: str | None = None
        self._begin(None)
        self._inside = 0  # depth of the element of the message that is being read; 0: none

    def _begin(self, number: str | None) -> None:
        self._number, self._title, self._name, self._kind = number, "", "", "message"
        self._reply: str | None = None
        self._text: list[str] = []
        self._links: list[str] = []

    def taken(self) -> list[Message]:
        """Return the messages that are complete, once."""
        done, self._done = self._done, []
        return done

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        classes = f" {given.get('class', '')} "
        if tag == "div" and " message " in classes:
            self.end_message()
            self.is_export, self.since_message = True, 0
            self._begin(given.get("id", "").removeprefix("message") or None)
            self._inside = len(self._open) + 1
            if " joined " not in classes:
                self._sender = None
        elif self._inside:
            self._in_message(tag, classes, given)
        if tag not in VOID:
            self._open.append((tag, classes))
            if len(self._open) > MAX_OPEN:
                raise InputError(
                    f"{self.export.path}: elements are nested more than {MAX_OPEN:,} deep; is this an export?"
                )
        elif tag == "br" and self._inside:
            self._hear("\n")

    def _in_message(self, tag: str, classes: str, given: dict[str, str]) -> None:
        if " forwarded " in classes:
            self._kind = "forwarded"
        if " date " in classes and "title" in given and not self._title and not self._is_in("forwarded"):
            self._title = given["title"]
        if tag == "a" and "href" in given:
            if self._is_in("reply_to"):
                found = REPLY.search(given["href"])
                self._reply = found[1] if found else self._reply
            else:
                self._links.append(given["href"])

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        at = next((n for n in range(len(self._open) - 1, -1, -1) if self._open[n][0] == tag), None)
        if at is None:
            return
        del self._open[at:]
        if self._inside and at < self._inside:
            self.end_message()

    def handle_data(self, data: str) -> None:
        if self._inside:
            self._hear(data)
        elif self._chat.name is None and self._is_in("page_header"):
            self._chat.name = data.strip() or None

    def _hear(self, data: str) -> None:
        if self._is_in("reply_to") or self._is_in("date"):
            return
        if self._is_in("from_name"):
            if not self._is_in("forwarded"):
                self._name += data
        elif self._is_in("text"):
            # The words of a link to their own address are part of the link.
            of_link = any(tag == "a" for tag, _ in self._open[self._inside :]) and self._links
            self._text.append(" " if of_link and data.strip() and data.strip() in self._links[-1] else data)

    def _is_in(self, name: str) -> bool:
        return any(f" {name} " in classes for _, classes in self._open)

    def end_message(self) -> None:
        """Hand on the message that is being read, if there is one."""
        if not self._inside:
            return
        self._inside = 0
        if self._name.strip():
            self._sender = self._name.strip()
        text = "".join(self._text)
        if not text.strip() and not self._links:
            return
        self.export.messages += 1
        what = f"message {self._number}" if self._number else "a message"
        title = TITLE.search(self._title)
        moment = f"{title[3]}-{title[2]}-{title[1]}T{title[4]}{title[5] or ''}" if title else ""
        time_ms = self.export.local_ms(moment, what) if moment else None
        self._done.append(
            Message(
                text,
                self._links,
                len(self.export.chats) - 1,
                self._number,
                time_ms,
                self._title or None,
                self._sender,
                None,
                self._reply,
                self._kind,
            )
        )
