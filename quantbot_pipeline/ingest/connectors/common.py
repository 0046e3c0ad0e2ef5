"""What a source of candles is to the fetch: a token, a stretch of time, an answer, and what the source can be asked.

Belongs here: the words that all sources share. Does not: how one source is asked.
"""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from quantbot_pipeline.errors import InputError, QuantbotError
from quantbot_pipeline.ingest.tokens import is_evm_address, is_solana_address
from quantbot_pipeline.vocabulary import INTERVALS_MS


class SourceError(QuantbotError):
    """A source did not answer, or answered what nobody can read; what was kept before stays."""


class UnknownThere(QuantbotError):
    """The source has nothing at this address: an answer like any other."""


class Token(NamedTuple):
    """A token as the calls name it; `chain` is empty where no call says it."""

    mint: str
    chain: str


class Span(NamedTuple):
    """A stretch of time in UTC ms; `end` is no part of it."""

    start: int
    end: int


class Answer(NamedTuple):
    """What a source answered: the bytes, how many candles, which stretch needs no further question, what kind of file."""

    body: bytes
    rows: int
    covered: Span
    suffix: str = ".json"


class Source(ABC):
    """A source of candles. `steps` has the source's word of each interval, `page` the most candles of one answer."""

    steps: ClassVar[dict[str, str]]
    page: int = 1000
    settle_ms: int = 900_000  # the age at which a source shows a closed candle for certain

    def __init__(self, name: str, interval: str) -> None:
        self.name, self.interval = name, interval
        self.step_ms = INTERVALS_MS.get(interval, 0)

    def begin(self) -> None:  # noqa: B027 (most sources need nothing)
        """Ask what must be known before the first page."""

    @property
    @abstractmethod
    def sent(self) -> int:
        """The requests of this process, those that were repeated included."""

    @abstractmethod
    def left_out(self, token: Token) -> str | None:
        """Return why the source cannot be asked for a token; None if it can be."""

    @abstractmethod
    def ask(self, token: Token, span: Span) -> Answer:
        """Return the answer to one page. Raises SourceError, and UnknownThere where there is none and never will be."""

    def pages(self, missing: Sequence[int], step: int) -> list[Span]:
        """Return the fewest requests that cover the missing candles of one window."""
        pages: list[Span] = []
        for slot in missing:
            if pages and slot < pages[-1].start + self.page * step:
                pages[-1] = Span(pages[-1].start, slot + step)
            else:
                pages.append(Span(slot, slot + step))
        return pages

    def lookups(self, token: Token) -> int:
        """Return how many requests beside the pages a token still needs."""
        return 0


def require_step(source: str, steps: dict[str, str], interval: str) -> str:
    """Return a source's word for an interval. Raises InputError where it has none."""
    if interval not in steps:
        raise InputError(f"--interval {interval}: {source} has no such candles; choose one of {', '.join(steps)}")
    return steps[interval]


def chain_of(token: Token) -> str | None:
    """Return the chain of a token by its address, else by its calls; None where neither says it."""
    if is_solana_address(token.mint):
        return "solana"
    return token.chain if token.chain and token.chain != "evm" else None


def is_address(mint: str) -> bool:
    """Whether a mint is the address of a token, and not the name of a pair."""
    return is_solana_address(mint) or is_evm_address(mint)


def require_extra(*modules: str) -> None:
    """Raise InputError where a library of the extra `sources` is missing."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise InputError(f"{module} is not installed; install the extra: pip install 'quantbot-pipeline[sources]'")
