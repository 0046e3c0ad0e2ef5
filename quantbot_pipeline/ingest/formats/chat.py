"""What every chat export shares: messages become calls in the table `incoming`, one per message and token that it calls.

Belongs here: replies that repeat an address, commands, bots, whose call it is, and the counts of what is no call. Does not:
the layout of any export, and which address is a token.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import duckdb
import pyarrow as pa

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.formats.common import Found
from quantbot_pipeline.ingest.mentions import called_in, is_command

CallerFrom = Literal["chat", "sender"]
BATCH = 10_000
SCHEMA = pa.schema(
    [
        ("row_no", pa.int64()),
        ("chat", pa.int32()),
        ("message", pa.string()),
        ("mint", pa.string()),
        ("chain", pa.string()),
        ("alert_ts_ms", pa.int64()),
        ("time_text", pa.string()),
        ("sender", pa.string()),
        ("sender_id", pa.string()),
        ("reply_to", pa.string()),
        ("source_kind", pa.string()),
        ("edited_at", pa.string()),
        ("against", pa.string()),
    ]
)
COLUMNS = ("call_id", "mint", "caller_name", "chain", "alert_ts_ms", "time_text", "source", "source_kind", "edited_at")
MAX_NAMES = 3  # of a sentence


class Message(NamedTuple):
    """A message that may hold an address: who said what when, and what it answers."""

    text: str
    links: list[str]
    chat: int
    number: str | None
    time_ms: int | None
    time_text: str | None
    sender: str | None
    sender_id: str | None
    reply_to: str | None = None
    kind: str = "message"
    edited_at: str | None = None
    is_bot: bool = False


@dataclass
class Chat:
    """A chat of an export, as far as it was read."""

    name: str | None = None
    number: str | None = None


@dataclass
class Export:
    """What a chat format fills while it reads: its chats, how many messages there were, what is left out, by reason."""

    path: Path
    source: str
    timezone: tzinfo | None = None
    chats: list[Chat] = field(default_factory=list)
    messages: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def local_ms(self, text: str, what: str) -> int | None:
        """Return the UTC ms of an ISO time; None for what is none. Raises InputError for a local time without a zone."""
        try:
            moment = datetime.fromisoformat(text)
            if moment.tzinfo is None:
                if self.timezone is None:
                    raise InputError(
                        f"{self.path}: {what} has a local time without its zone ({text}), as Telegram Desktop wrote before "
                        "3.7.6; say the zone of the computer that exported it, e.g. --timezone Europe/Moscow"
                    )
                moment = moment.replace(tzinfo=self.timezone)
            return round(moment.timestamp() * 1000)
        except (ValueError, OverflowError, OSError):
            return None


def iso(ms: int | None) -> str | None:
    """Return a time as ISO-8601 text of UTC, as `created_at` has it."""
    if ms is None:
        return None
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return None


def text_or_none(value: object) -> str | None:
    """Return a number or a text as text; None for anything else, and for what is empty."""
    if value.__class__ is str:
        return value or None
    return str(value) if isinstance(value, (int, float)) else None


def collect(
    con: duckdb.DuckDBPyConnection, export: Export, messages: Iterable[Message], caller: str | None, by: CallerFrom
) -> dict[str, Found]:
    """Turn messages into the table `incoming`; return its columns, as `registry.load` does.

    Memory holds a batch of messages. Raises UnicodeEncodeError for half of a surrogate pair.
    """
    con.execute("DROP TABLE IF EXISTS incoming; DROP TABLE IF EXISTS mentions")
    con.register("mentions_read", SCHEMA.empty_table())
    con.execute("CREATE TEMP TABLE mentions AS FROM mentions_read")
    con.unregister("mentions_read")
    rows = (row for message in messages for row in _rows(export, message))
    at = 1
    while batch := list(islice(rows, BATCH)):
        columns = [range(at, at + len(batch)), *zip(*batch, strict=True)]
        table = pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)
        con.register("mentions_read", table)
        con.execute("INSERT INTO mentions FROM mentions_read")
        con.unregister("mentions_read")
        at += len(batch)
    _count_left_out(con, export)
    _settle_callers(con, export, caller, by)
    con.execute("DROP TABLE mentions")
    return {name: Found(name, "BIGINT" if name == "alert_ts_ms" else "VARCHAR") for name in COLUMNS}


def _rows(export: Export, message: Message) -> list[tuple[Any, ...]]:
    tokens, left_out = called_in(message.text, message.links)
    if left_out:
        export.left_out.update(left_out)
    if not tokens:
        return []
    against = "bot" if message.is_bot else "command" if is_command(message.text) else None
    if against is not None:
        export.left_out[against] += len(tokens)
    m = message
    return [
        (
            m.chat,
            m.number,
            mint,
            chain,
            m.time_ms,
            m.time_text if m.time_ms is None else None,
            m.sender,
            m.sender_id,
            m.reply_to,
            m.kind,
            m.edited_at,
            against,
        )
        for mint, chain in tokens.items()
    ]


def _count_left_out(con: duckdb.DuckDBPyConnection, export: Export) -> None:
    """Mark the replies that repeat an address of the message that they answer; count them."""
    if con.execute("SELECT 1 FROM mentions WHERE reply_to IS NOT NULL LIMIT 1").fetchall() == []:
        return
    con.execute(
        """UPDATE mentions SET against = 'reply' FROM (SELECT DISTINCT chat, message, mint FROM mentions) answered
           WHERE mentions.against IS NULL AND mentions.reply_to = answered.message AND mentions.chat = answered.chat
             AND mentions.mint = answered.mint"""
    )
    ((replies,),) = con.execute("SELECT count(*) FROM mentions WHERE against = 'reply'").fetchall()
    if replies:
        export.left_out["reply"] += replies


def _settle_callers(con: duckdb.DuckDBPyConnection, export: Export, caller: str | None, by: CallerFrom) -> None:
    names = [(n, chat.name, chat.number) for n, chat in enumerate(export.chats)]
    "".join(f"{name}{number}" for _, name, number in names).encode()  # raises, where DuckDB would say something else
    schema = pa.schema([("chat", pa.int32()), ("name", pa.string()), ("number", pa.string())])
    con.register("chats_read", pa.Table.from_pylist([dict(zip(schema.names, n, strict=True)) for n in names], schema))
    who = "$caller::VARCHAR" if caller else "coalesce(sender, sender_id, name)" if by == "sender" else "name"
    con.execute(
        f"""CREATE TEMP TABLE incoming AS
            SELECT row_no, CASE WHEN message IS NOT NULL AND number IS NOT NULL
                                THEN concat('{export.source}:', number, ':', message, ':', mint) END AS call_id,
                   mint, {who} AS caller_name, chain, alert_ts_ms, time_text, '{export.source}' AS source, source_kind, edited_at
            FROM mentions LEFT JOIN chats_read USING (chat) WHERE against IS NULL ORDER BY row_no""",
        {"caller": caller} if caller else {},
    )
    if by == "chat":
        _say_groups(con, export, caller)
    elif not caller:
        _say_namesakes(con, export)
    con.unregister("chats_read")


def _say_groups(con: duckdb.DuckDBPyConnection, export: Export, caller: str | None) -> None:
    groups = con.execute(
        """SELECT coalesce(any_value(name), '?') AS chat, count(DISTINCT coalesce(sender_id, sender)) AS senders
           FROM mentions JOIN chats_read USING (chat) WHERE against IS NULL
           GROUP BY mentions.chat HAVING senders > 1 ORDER BY senders DESC, chat"""
    ).fetchall()
    for name, senders in groups[:MAX_NAMES]:
        export.notes.append(
            f"{export.path}: the chat {name!r} has calls of {senders:,} senders, and all go to one caller, {caller or name!r}; "
            "with --caller-from sender each sender is a caller"
        )
    if len(groups) > MAX_NAMES:
        export.notes.append(f"{export.path}: {len(groups) - MAX_NAMES:,} more chats have calls of several senders")


def _say_namesakes(con: duckdb.DuckDBPyConnection, export: Export) -> None:
    alike = con.execute(
        """SELECT sender, count(DISTINCT sender_id) AS n FROM mentions WHERE against IS NULL AND sender IS NOT NULL
           GROUP BY 1 HAVING n > 1 ORDER BY n DESC, sender"""
    ).fetchall()
    for sender, n in alike[:MAX_NAMES]:
        export.notes.append(f"{export.path}: {n:,} senders are called {sender!r}; their calls go to one caller")
