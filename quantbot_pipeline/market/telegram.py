"""Calls from a Telegram Desktop export (`result.json`): one call per message and token address in its text.

The chat is the caller unless `--caller` names one. Messages without an address are no calls. Addresses: Solana (base58,
32 to 44 characters) and EVM (0x and 40 hex digits), kept as written.
"""

import json
import re
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.market.readers import Found

ADDRESS = re.compile(r"(?<![0-9A-Za-z])(?:(0x[0-9a-fA-F]{40})|([1-9A-HJ-NP-Za-km-z]{32,44}))(?![0-9A-Za-z])")
MAX_BYTES = 1 << 30
SCHEMA = pa.schema(
    [("row_no", pa.int64())]
    + [(name, pa.string()) for name in ("call_id", "mint", "caller_name", "chain", "alert_ts", "source")]
)


def load_telegram(con: duckdb.DuckDBPyConnection, path: Path, caller: str | None) -> dict[str, Found]:
    """Read an export into the temporary table `incoming`, like `readers.load`. Raises InputError naming what is wrong."""
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path}: larger than 1 GiB; export the chat in parts")
    try:
        export = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as e:
        raise InputError(f"{path}: not valid JSON: {str(e)[:200]}") from None
    messages = export.get("messages") if isinstance(export, dict) else None
    if not isinstance(messages, list):
        raise InputError(f"{path}: no list of messages; export the chat from Telegram Desktop as JSON (result.json)")
    name = caller or export.get("name")
    if not isinstance(name, str) or not name:
        raise InputError(f"{path}: the export has no chat name; name the caller with --caller")
    rows = [row for message in messages if isinstance(message, dict) for row in _calls(message, export.get("id"), name)]
    for row_no, row in enumerate(rows, start=1):
        row["row_no"] = row_no
    try:
        con.register("arrow_source", pa.Table.from_pylist(rows, schema=SCHEMA))
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair
        raise InputError(f"{path}: the chat's name or an id is not valid Unicode; export the chat again") from None
    con.execute("CREATE OR REPLACE TEMP TABLE incoming AS SELECT * FROM arrow_source")
    con.unregister("arrow_source")
    return {name: Found(name, "VARCHAR") for name in SCHEMA.names[1:]}


def _calls(message: dict[str, Any], chat: object, caller: str) -> list[dict[str, Any]]:
    when = message.get("date_unixtime") or message.get("date")
    found: dict[str, str] = {}
    for match in ADDRESS.finditer(_text(message.get("text"))):
        found.setdefault(match.group(0), "evm" if match.group(1) else "solana")
    return [
        {
            "call_id": f"telegram:{chat}:{message.get('id')}:{mint}",
            "mint": mint,
            "caller_name": caller,
            "chain": chain,
            "alert_ts": None if when is None else str(when),
            "source": "telegram",
        }
        for mint, chain in found.items()
    ]


def _text(text: object) -> str:
    """The plain text of a message: a string, or a list of strings and formatted pieces."""
    if isinstance(text, str):
        return text
    pieces = text if isinstance(text, list) else []
    return "".join(p if isinstance(p, str) else str(p.get("text", "")) for p in pieces if isinstance(p, str | dict))
