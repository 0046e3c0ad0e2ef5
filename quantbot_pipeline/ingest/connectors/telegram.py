"""Calls of a Telegram chat, read with Telethon: batches of messages kept raw, then the whole chat ingested like a dump.

Belongs here: which messages are asked for, and in what form they are kept. Does not: which of them are calls.
"""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from quantbot_pipeline.durable import scratch_folder
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.home import Home
from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.ingest.connectors.common import Answer, SourceError, Span, require_extra
from quantbot_pipeline.ingest.connectors.http import HIDDEN, LONGEST_WAIT_S
from quantbot_pipeline.ingest.connectors.raw import RawStore, unpacked_bytes
from quantbot_pipeline.ingest.report import IngestReport
from quantbot_pipeline.interrupts import stop_if_asked

API_ID, API_HASH, SESSION = (f"QUANTBOT_TELEGRAM_{name}" for name in ("API_ID", "API_HASH", "SESSION"))
BATCH = 200  # messages of one raw file
MESSAGES = "messages"  # the folder of all chats
OF_SENDERS = ("id", "username", "first_name", "title", "bot")

Connect = Callable[[], AbstractAsyncContextManager[Any]]


@dataclass(frozen=True)
class Chat:
    """A chat as its messages are kept: its number, and what people call it."""

    number: str
    title: str


def fetch_calls(
    home: Home,
    chat: str,
    *,
    from_ms: int = 0,
    to_ms: int = 1 << 62,
    caller_from: str | None = None,
    first_mention: float | None = None,
    connect: Connect | None = None,
) -> tuple[int, IngestReport | None]:
    """Read the messages of a chat that were not read before, and ingest the chat; return how many are new, and the report.

    No message is asked for again after it was kept. There is no report where there is nothing new. Raises InputError for a
    chat or a key that is wrong, SourceError where Telegram does not answer.
    """
    raw = RawStore(home.settings.raw_dir, "telegram", home.settings.lock_timeout_s, key="chat")
    stopped: SourceError | None = None
    seen: list[Chat] = []
    new, report = 0, None
    with raw.writing():
        try:
            new = asyncio.run(_read(connect or telegram_client, raw, chat, from_ms, to_ms, seen))
        except SourceError as e:
            stopped = e
        places = {answer.parent for answer in raw.pending(MESSAGES)}
        # What is pending of other chats waits for a fetch of theirs, which says whose the calls are.
        for place in places & {raw.place(MESSAGES, found.number) for found in seen}:
            report = _ingest(home, raw, place, caller_from, first_mention)
    if stopped is not None:
        raise stopped
    return new, report


async def _read(connect: Connect, raw: RawStore, name: str, from_ms: int, to_ms: int, seen: list[Chat]) -> int:
    """Keep the messages of the stretches of ids that no kept batch has; return how many. The chat goes to `seen`."""
    async with connect() as client:
        try:
            entity = await client.get_entity(int(name) if re.fullmatch(r"-?\d+", name) else name)
        except ValueError:
            raise InputError(
                f"--chat {name!r}: this account knows no such chat; give its @name, link or number"
            ) from None
        title = (
            getattr(entity, "title", None) or getattr(entity, "username", None) or getattr(entity, "first_name", None)
        )
        chat = Chat(str(entity.id), title or f"telegram:{entity.id}")
        seen.append(chat)
        cursor = await _first_id(client, entity, from_ms) - 1 if from_ms > 0 else 0
        new = 0
        while True:
            kept = raw.kept(MESSAGES, chat.number)
            inside = [span.end for span in kept if span.start <= cursor < span.end]
            if inside:
                cursor = max(inside)
                continue
            until = min((span.start for span in kept if span.start > cursor), default=0)
            read, whole = await _stretch(client, entity, chat, raw, cursor, until, to_ms)
            new += read
            if not until or not whole:
                return new
            cursor = until


async def _first_id(client: Any, entity: Any, from_ms: int) -> int:
    start = datetime.fromtimestamp(from_ms / 1000, UTC)
    async for message in client.iter_messages(entity, offset_date=start, reverse=True, limit=1):
        return int(message.id)
    return 1 << 31  # nobody has posted since


async def _stretch(
    client: Any, entity: Any, chat: Chat, raw: RawStore, after: int, until: int, to_ms: int
) -> tuple[int, bool]:
    """Keep the messages with `after < id <= until` (0: up to the newest); return how many, and whether these are all."""
    batch: list[dict[str, Any]] = []
    new = 0

    def keep(last: int) -> None:
        nonlocal after, new
        body = json.dumps(batch, ensure_ascii=False).encode()
        raw.keep(MESSAGES, chat.number, Answer(body, len(batch), Span(after, last)))
        after, new = last, new + len(batch)
        batch.clear()

    limits = {"min_id": after, "reverse": True} | ({"max_id": until + 1} if until else {})
    async for message in client.iter_messages(entity, **limits):
        stop_if_asked()
        if message.date.timestamp() * 1000 >= to_ms:
            if batch:
                keep(batch[-1]["id"])
            return new, False
        batch.append(_kept_form(message, chat))
        if len(batch) == BATCH:
            keep(message.id)
    last = until or (batch[-1]["id"] if batch else after)
    if last > after:
        keep(last)
    return new, True


def _kept_form(message: Any, chat: Chat) -> dict[str, Any]:
    """Return a message as Telethon dumps it, with the names of chat and sender, which a dump lacks."""
    made: dict[str, Any] = json.loads(message.to_json())
    made["chat"] = {"id": chat.number, "title": chat.title}
    sender = getattr(message, "sender", None)
    if sender is not None:
        made["sender"] = {name: getattr(sender, name) for name in OF_SENDERS if getattr(sender, name, None)}
    return made


def _ingest(
    home: Home, raw: RawStore, place: Path, caller_from: str | None, first_mention: float | None
) -> IngestReport:
    """Ingest all kept messages of a chat as one file: an answer is known by the message before it, in whatever batch."""
    batches = sorted(place.glob("*.json.zst"), key=lambda path: int(path.name.partition("-")[0]))
    with scratch_folder(raw.root, ".whole-") as scratch:
        whole = Path(scratch) / f"{place.name}.json"
        with whole.open("w", encoding="utf-8") as file:
            for path in batches:
                file.write(unpacked_bytes(path).decode() + "\n")
        try:
            report = ingest_calls(
                [whole], home.calls, fmt="telegram-dump", caller_from=caller_from, first_mention=first_mention
            )
        except InputError as e:
            raise InputError(str(e).replace(str(whole), str(place))) from None
    for answer, marker in raw.pending(MESSAGES).items():
        if answer.parent == place:
            raw.taken(marker)
    return report.model_copy(update={"notes": [note.replace(str(whole), str(place)) for note in report.notes]})


def telegram_keys(environment: Mapping[str, str] = os.environ) -> tuple[int, str, str]:
    """Return api id, api hash and session of the environment. Raises InputError naming the first that is missing or none."""
    for name in (API_ID, API_HASH, SESSION):
        if not environment.get(name, "").strip():
            raise InputError(f"{name} is not set; telegram takes its keys from the environment only: see docs/fetch.md")
    if not environment[API_ID].strip().isdigit():
        raise InputError(f"{API_ID} is no number; my.telegram.org shows it as App api_id")
    return int(environment[API_ID]), environment[API_HASH].strip(), environment[SESSION].strip()


@asynccontextmanager
async def telegram_client() -> AsyncIterator[Any]:
    """Connect to Telegram as the account of the environment; errors of Telegram become a SourceError without a key."""
    require_extra("telethon")
    number, digest, session = telegram_keys()
    from telethon import TelegramClient, errors
    from telethon.sessions import StringSession

    try:
        saved = StringSession(session)
    except Exception:
        raise InputError(f"{SESSION} is no session of Telethon; make a new one: see docs/fetch.md") from None
    # Telethon itself waits as long as Telegram says, up to this many seconds.
    client = TelegramClient(saved, number, digest, flood_sleep_threshold=int(LONGEST_WAIT_S), receive_updates=False)
    try:
        await client.connect()
        if not await client.is_user_authorized():
            raise InputError(f"{SESSION} is of no account that is logged in; make a new one: see docs/fetch.md")
        yield client
    except errors.FloodWaitError as e:
        raise SourceError(f"telegram asks to wait {e.seconds:,} s; run the same again after that") from None
    except (errors.RPCError, ConnectionError, TimeoutError) as e:
        text = str(e)[:200].replace(digest, HIDDEN).replace(session, HIDDEN)
        raise SourceError(f"telegram: {type(e).__name__}: {text}; run the same again later") from None
    finally:
        await client.disconnect()
