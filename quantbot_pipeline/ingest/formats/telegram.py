"""Calls from a Telegram Desktop export (`result.json`): one call per message and token address in its text.

The chat is the caller unless `--caller` names one. Messages without an address are no calls. Addresses: Solana (base58,
32 to 44 characters) and EVM (0x and 40 hex digits), kept as written.
"""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.formats.common import Found
from quantbot_pipeline.ingest.formats.json_text import BATCH, Scanner

ADDRESS = re.compile(r"(?<![0-9A-Za-z])(?:(0x[0-9a-fA-F]{40})|([1-9A-HJ-NP-Za-km-z]{32,44}))(?![0-9A-Za-z])")
MAX_OTHERS = 1_000_000  # entries of the list of messages that are none: Telegram numbers every message
SCHEMA = pa.schema(
    [("row_no", pa.int64())] + [(name, pa.string()) for name in ("message", "mint", "chain", "alert_ts")]
)


def load_telegram(con: duckdb.DuckDBPyConnection, path: Path, caller: str | None) -> dict[str, Found]:
    """Read an export into the temporary table `incoming`, like `readers.load`. Raises InputError naming what is wrong.

    The export is read message by message: however long the chat, memory holds a few of them.
    """
    con.execute("CREATE OR REPLACE TEMP TABLE mentions (row_no BIGINT, message VARCHAR, mint VARCHAR, chain VARCHAR, "
                "alert_ts VARCHAR)")  # fmt: skip
    chat: dict[str, Any] = {}
    try:
        with path.open(encoding="utf-8-sig") as file:
            mentions = (mention for message in _texts(path, Scanner(file), chat) for mention in _mentions(message))
            numbered = ({"row_no": n} | mention for n, mention in enumerate(mentions, start=1))
            while rows := list(islice(numbered, BATCH)):
                con.register("mentions_read", pa.Table.from_pylist(rows, schema=SCHEMA))
                con.execute("INSERT INTO mentions FROM mentions_read")
                con.unregister("mentions_read")
        if "messages" not in chat:
            raise InputError(
                f"{path}: no list of messages; export the chat from Telegram Desktop as JSON (result.json)"
            )
        name = caller or chat.get("name")
        if not isinstance(name, str) or not name:
            raise InputError(f"{path}: the export has no chat name; name the caller with --caller")
        f"{name}{chat.get('id')}".encode()  # raises, where DuckDB would say something else
        con.execute(
            """CREATE OR REPLACE TEMP TABLE incoming AS
               SELECT row_no, concat('telegram:', $chat::VARCHAR, ':', message, ':', mint) AS call_id, mint,
                      $name::VARCHAR AS caller_name, chain, alert_ts, 'telegram' AS source FROM mentions""",
            {"chat": str(chat.get("id")), "name": name},
        )
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair
        raise InputError(f"{path}: the chat's name or an id is not valid Unicode; export the chat again") from None
    except (ValueError, RecursionError) as e:
        raise InputError(f"{path}: not valid JSON: {str(e)[:200]}") from None
    con.execute("DROP TABLE mentions")
    names = ("call_id", "mint", "caller_name", "chain", "alert_ts", "source")
    return {column: Found(column, "VARCHAR") for column in names}


def _texts(path: Path, scanner: "Scanner", chat: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The messages of an export that have a text, one by one; its other members go to `chat`, which has a key messages if
    there is a list. Raises InputError for a list of other things."""
    others = 0
    if scanner.peek() != "{":
        scanner.value()
        return
    for key in scanner.members():
        if key == "messages" and scanner.peek() == "[":
            chat[key] = True
            for some in scanner.items():
                messages = [entry for entry in some if isinstance(entry, dict)]
                others += len(some) - sum("id" in message for message in messages)
                if others > MAX_OTHERS:
                    raise InputError(f"{path}: {others:,} messages have no id; is this an export of Telegram Desktop?")
                yield from (message for message in messages if message.get("text"))
        elif (value := scanner.value()) is not None and key != "messages":
            chat[key] = value
    if scanner.peek():
        raise ValueError(f"something follows the end at character {scanner.where()}")


def _mentions(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One row per token address in a message."""
    when = message.get("date_unixtime") or message.get("date")
    found: dict[str, str] = {}
    for match in ADDRESS.finditer(_text(message.get("text"))):
        found.setdefault(match.group(0), "evm" if match.group(1) else "solana")
    for mint, chain in found.items():
        alert_ts = None if when is None else str(when)
        yield {"message": str(message.get("id")), "mint": mint, "chain": chain, "alert_ts": alert_ts}


def _text(text: object) -> str:
    """The plain text of a message: a string, or a list of strings and formatted pieces."""
    if isinstance(text, str):
        return text
    pieces = text if isinstance(text, list) else []
    return "".join(p if isinstance(p, str) else str(p.get("text", "")) for p in pieces if isinstance(p, str | dict))
