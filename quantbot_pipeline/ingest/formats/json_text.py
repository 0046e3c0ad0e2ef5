"""A JSON text of any length, read value by value: memory holds a few values, never the document.

Belongs here: the way through a JSON text. Does not: what a value means.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

BLANKS = re.compile(r"[ \t\n\r]*")
COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")
OF_A_NUMBER = re.compile(r"[-+0-9.eE]*")
END_IS_OPEN = frozenset(("", *"-+0123456789.eE"))  # what follows a value that may be a part of a longer number
CHUNK = 1 << 16  # characters read at once
MAX_VALUE = 4 << 20  # characters of one value; the longest message of Telegram has a few thousand
MAX_DEPTH = 100  # of values within values that nobody reads
BATCH = 10_000


class Scanner:
    """A JSON text read piece by piece, one value of at most MAX_VALUE characters at a time. Wrong text is a ValueError."""

    def __init__(self, file: TextIO, decoder: json.JSONDecoder | None = None) -> None:
        self._file, self._text, self._at, self._ended = file, "", 0, False
        self._dropped = 0  # characters before the text that is held
        self._decode = (decoder or json.JSONDecoder()).raw_decode

    def peek(self) -> str:
        """The next character that is no blank; empty at the end."""
        while True:
            self._at = BLANKS.match(self._text, self._at).end()  # type: ignore[union-attr]  # it matches nothing, too
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._read()

    def value(self) -> Any:
        """The next value."""
        self.peek()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
                # A number may go on: 1, 1. and 1e are the beginning of 1.5 and 1e5, and each decodes as 1.
                if self._ended or not OF_A_NUMBER.fullmatch(self._text, end):
                    self._at = end
                    return value
            except json.JSONDecodeError as e:
                if self._ended:
                    raise ValueError(f"{e.msg} at character {self.where() + e.pos - self._at}") from None
            if len(self._text) - self._at > MAX_VALUE:
                raise ValueError(f"at character {self.where()} no value ends within {MAX_VALUE >> 20} MiB")
            self._read()

    def members(self) -> Iterator[str]:
        """The keys of the object that comes next; whoever asks for the next one must have taken the value."""
        for _ in self._separated("{", "}"):
            key = self.value()
            if not isinstance(key, str):
                raise ValueError(f"a key that is no text before character {self.where()}")
            self._take(":")
            yield key

    def skip(self, depth: int = 0) -> None:
        """Pass over the next value, however long it is."""
        start = self.peek()
        if depth > MAX_DEPTH:
            raise ValueError(f"at character {self.where()} values are nested more than {MAX_DEPTH} deep")
        if start == "{":
            for _ in self.members():
                self.skip(depth + 1)
        elif start == "[":
            for _ in self._separated("[", "]"):
                self.skip(depth + 1)
        else:
            self.value()

    def elements(self) -> Iterator[None]:
        """Stop before each value of the array that comes next; whoever asks for the next one must have taken the value."""
        yield from self._separated("[", "]")

    def items(self) -> Iterator[list[Any]]:
        """The values of the array that comes next, some at a time."""
        for _ in self._separated("[", "]"):
            yield [self.value(), *self._further_items()]

    def _further_items(self) -> Iterator[Any]:
        """The items that follow and whose end is certain in the text held: a short way for millions of short ones."""
        text, match, decode = self._text, COMMA.match, self._decode
        for _ in range(BATCH):
            comma = match(text, self._at)
            if comma is None:
                return
            try:
                value, end = decode(text, comma.end())
            except json.JSONDecodeError:
                return
            if text[end : end + 1] in END_IS_OPEN:
                return
            self._at = end
            yield value

    def _separated(self, start: str, end: str) -> Iterator[None]:
        self._take(start)
        if self.peek() != end:
            yield
            while self.peek() == ",":
                self._take(",")
                yield
        self._take(end)

    def _take(self, expected: str) -> None:
        if self.peek() != expected:
            raise ValueError(f"expected {expected!r} at character {self.where()}")
        self._at += 1

    def where(self) -> int:
        """The position in the file, in characters."""
        return self._dropped + self._at

    def _read(self) -> None:
        rest = self._text[self._at :]
        more = self._file.read(max(CHUNK, len(rest)))
        self._dropped += self._at
        self._text, self._at, self._ended = rest + more, 0, not more
