"""Tables of messages: CSV, JSON lines or Parquet with a column of text and none of tokens.

Belongs here: how the rows of such a table become calls. Does not: how the table is read, and which addresses are tokens.
"""

from collections import Counter

import duckdb
import pyarrow as pa

from quantbot_pipeline.ingest.formats.common import Column, Found
from quantbot_pipeline.ingest.mentions import called_in, is_command

BATCH = 10_000
# Read only when a table has no column of tokens.
COLUMNS = (
    Column(
        "text",
        ("message", "content", "message_text", "raw_text", "caption", "body"),
        required=False,
        only_without="mint",
    ),
    Column(
        "chat",
        ("chat_name", "chat_title", "channel", "channel_name", "channel_title", "group", "group_name", "peer"),
        required=False,
        only_without="mint",
    ),
    Column(
        "sender",
        ("from", "author", "username", "user", "from_name", "sender_id", "from_id", "user_id"),
        required=False,
        only_without="mint",
    ),
    Column("message_id", ("id", "msg_id"), required=False, only_without="mint"),
    Column("reply_to", ("reply_to_msg_id", "reply_to_message_id"), required=False, only_without="mint"),
)
SCHEMA = pa.schema([("said_no", pa.int64()), ("mint", pa.string()), ("chain", pa.string()), ("against", pa.string())])

WITH_ADDRESS = """SELECT row_no, text::VARCHAR FROM said
                  WHERE row_no > ? AND regexp_matches(text::VARCHAR, '[0-9A-Za-z]{32}') ORDER BY row_no LIMIT ?"""


def call_messages(
    con: duckdb.DuckDBPyConnection, found: dict[str, Found], caller: str | None, by: str, left_out: Counter[str]
) -> tuple[dict[str, Found], int]:
    """Replace the messages in `incoming` by the calls in them; return the columns, and how many messages there were."""
    con.execute("DROP TABLE IF EXISTS said; ALTER TABLE incoming RENAME TO said")
    con.register("mentions_read", SCHEMA.empty_table())
    con.execute("CREATE OR REPLACE TEMP TABLE mentions AS FROM mentions_read")
    con.unregister("mentions_read")
    last = 0
    while some := con.execute(WITH_ADDRESS, [last, BATCH]).fetchall():
        mentions = [mention for row_no, text in some for mention in _mentions(row_no, text, left_out)]
        table = pa.Table.from_pylist([dict(zip(SCHEMA.names, mention, strict=True)) for mention in mentions], SCHEMA)
        con.register("mentions_read", table)
        con.execute("INSERT INTO mentions FROM mentions_read")
        con.unregister("mentions_read")
        last = some[-1][0]
    if {"message_id", "reply_to"} <= found.keys():
        _leave_out_replies(con, "chat" in found, left_out)
    ((messages,),) = con.execute("SELECT count(*) FROM said WHERE text IS NOT NULL").fetchall()
    # A time keeps the type that it came with: its unit is judged later.
    kept = [
        name
        for name in found
        if name not in ("text", "chat", "sender", "message_id", "reply_to", "caller_name", "chain")
    ]
    who = "$caller::VARCHAR" if caller else f"{_caller_column(found, by)}::VARCHAR"
    con.execute(
        f"""CREATE TEMP TABLE incoming AS
            SELECT row_number() OVER (ORDER BY said_no) AS row_no, mint, chain, {who} AS caller_name
                   {"".join(f", said.{name}" for name in kept)}
            FROM mentions JOIN said ON said.row_no = said_no WHERE against IS NULL""",
        {"caller": caller} if caller else {},
    )
    con.execute("DROP TABLE said; DROP TABLE mentions")
    made = {name: Found(name, "VARCHAR") for name in ("mint", "chain", "caller_name")}
    return made | {name: found[name] for name in kept}, messages


def _caller_column(found: dict[str, Found], by: str) -> str:
    """The column whose text is the caller: one that is called so, else the chat or the sender, as the user wants it."""
    has_sender_only = "caller_name" in found and found["caller_name"].source.strip().lower().startswith("sender")
    sender = "caller_name" if has_sender_only else "sender"
    chosen = ("chat", sender) if by == "chat" else (sender, "chat")
    order = chosen if has_sender_only else ("caller_name", *chosen)
    return next((name for name in order if name in found), "NULL")


def _mentions(row_no: int, text: str, left_out: Counter[str]) -> list[tuple[int, str, str, str | None]]:
    tokens, reasons = called_in(text)
    left_out.update(reasons)
    against = "command" if is_command(text) else None
    if tokens and against is not None:
        left_out[against] += len(tokens)
    return [(row_no, mint, chain, against) for mint, chain in tokens.items()]


def _leave_out_replies(con: duckdb.DuckDBPyConnection, has_chat: bool, left_out: Counter[str]) -> None:
    same_chat = "AND reply.chat IS NOT DISTINCT FROM first.chat" if has_chat else ""
    con.execute(
        f"""UPDATE mentions SET against = 'reply' FROM (
                SELECT DISTINCT m.said_no, m.mint FROM mentions m JOIN said reply ON reply.row_no = m.said_no
                JOIN said first ON first.message_id::VARCHAR = reply.reply_to::VARCHAR {same_chat}
                JOIN mentions f ON f.said_no = first.row_no AND f.mint = m.mint WHERE m.against IS NULL) repeated
            WHERE mentions.said_no = repeated.said_no AND mentions.mint = repeated.mint"""
    )
    ((replies,),) = con.execute("SELECT count(*) FROM mentions WHERE against = 'reply'").fetchall()
    if replies:
        left_out["reply"] += replies
