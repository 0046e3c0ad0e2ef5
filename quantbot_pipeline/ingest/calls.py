"""Calls from files: their columns, times and validity. What becomes of valid rows is in `calls_merge`.

A call is rejected when its caller, mint or alert time is empty, or its time is later than tomorrow. A caller named `__all__`
is rejected, too: that is the name of all callers pooled. Of several valid rows with one call_id the first ever ingested stays.
"""

import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import duckdb

from quantbot_pipeline.duck import workspace
from quantbot_pipeline.durable import scratch_folder
from quantbot_pipeline.errors import InputError, StoreError, counted
from quantbot_pipeline.ingest.calls_merge import Merged, merge_calls
from quantbot_pipeline.ingest.chains import folded_chain_sql
from quantbot_pipeline.ingest.files import expand_paths, known_suffix
from quantbot_pipeline.ingest.formats.chat import CallerFrom, Export
from quantbot_pipeline.ingest.formats.chats import CHATS, chat_format_of, load_chat
from quantbot_pipeline.ingest.formats.common import Column, Found
from quantbot_pipeline.ingest.formats.message_table import COLUMNS as MESSAGE_COLUMNS
from quantbot_pipeline.ingest.formats.message_table import call_messages
from quantbot_pipeline.ingest.formats.registry import format_of, load
from quantbot_pipeline.ingest.liquidity import LIQUIDITY, amount_sql, emptied
from quantbot_pipeline.ingest.packed import plain_files
from quantbot_pipeline.ingest.report import IngestReport
from quantbot_pipeline.ingest.times import (
    DAY_MS,
    DIGITS,
    UNIT_RANGES,
    infer_unit,
    local_time,
    raw_time_sql,
    require_ms,
    to_ms_sql,
)
from quantbot_pipeline.ingest.tokens import folded_mint_sql
from quantbot_pipeline.market.calls import CallStore, note_first_month
from quantbot_pipeline.vocabulary import ALL_CALLERS

BINARY = ("parquet", "duckdb", "feather")
FORMATS = ("csv", "jsonl", "json", "parquet", "duckdb", *CHATS)
COLUMNS = (
    Column("call_id", required=False),
    Column(
        "mint",
        (
            "mint_b58",
            "tokenaddress",
            "token_address",
            "contract",
            "contract_address",
            "contractaddress",
            "ca",
            "mint_address",
            "mintaddress",
            "token_mint",
            "tokenmint",
        ),
        spares=("text",),
    ),
    Column("caller_name", ("caller", "sender", "sender_name", "callername"), spares=("text",)),
    Column("chain", ("blockchain", "network"), required=False),
    Column("alert_ts_ms", required=False),
    Column(
        "alert_ts",
        ("created_at", "call_time", "called_at", "alert_time", "timestamp", "datetime", "date", "time"),
        spares=("alert_ts_ms",),
        told=("alert_ts_ms", "alert_ts", "created_at", "call_time"),
    ),
    Column("source", required=False),
    LIQUIDITY,
)
CHAT_WINDOW_H = 24.0  # of the first mention, for chats: people and bots repeat a token that runs
# The first test that fails names the reason.
REASON = f"""CASE WHEN caller_name IS NULL OR caller_name = '' THEN 'caller_name'
                 WHEN mint IS NULL OR mint = '' THEN 'mint'
                 WHEN alert_ts_ms IS NULL OR alert_ts_ms <= 0 OR alert_ts_ms >= 100000000000000 THEN 'alert_ts_ms'
                 WHEN alert_ts_ms > $latest THEN 'in_future'
                 WHEN caller_name = '{ALL_CALLERS}' THEN 'reserved_caller' END"""
STAGED = """CREATE TEMP TABLE staged (file_no INTEGER, row_no BIGINT, call_id VARCHAR, mint VARCHAR, caller_name VARCHAR,
                chain VARCHAR, alert_ts_ms BIGINT, source VARCHAR, source_kind VARCHAR, edited_at VARCHAR, time_text VARCHAR,
                window_ms BIGINT, liquidity_text VARCHAR, liquidity_usd DOUBLE)"""
PAGE_OF_MESSAGES = re.compile(r"messages\d*\.html?", re.IGNORECASE)
KEPT = "rejected rows are in the table rejected_alerts"
MAX_SHOWN = 3  # files of one sentence


@dataclass(frozen=True)
class Reading:
    """What the user says of the files of one ingest."""

    fmt: str = "auto"
    table: str | None = None
    caller: str | None = None
    caller_from: CallerFrom | None = None
    first_mention_h: float | None = None
    timezone: ZoneInfo | None = None
    mapping: Mapping[str, str] = field(default_factory=dict)

    def window_ms(self, is_chat: bool) -> int:
        """Return within how many ms a caller's further mentions of a token are none."""
        hours = self.first_mention_h
        return round((hours if hours is not None else CHAT_WINDOW_H if is_chat else 0.0) * 3_600_000)


@dataclass
class _Taken:
    """What was read beside the staged rows: files, the name of each one's time column, counts, sentences for the user."""

    files: list[str] = field(default_factory=list)
    time_columns: list[str] = field(default_factory=list)
    messages: int = 0
    unpriced: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def ingest_calls(
    paths: Sequence[Path],
    store: CallStore,
    *,
    fmt: str = "auto",
    table: str | None = None,
    caller: str | None = None,
    caller_from: str | None = None,
    first_mention: float | None = None,
    timezone: str | None = None,
    mapping: Mapping[str, str] | None = None,
) -> IngestReport:
    """Merge the calls of `paths` into `store`; ingesting the same again changes nothing.

    `caller` names the caller of files without a caller's column. `caller_from` says whose the calls of a chat are: `chat` or
    `sender`. `first_mention` keeps a caller's first call of a token in so many hours (None: 24 for chats, else all).
    `timezone` is the zone of times without one, `mapping` {our name: column of a table}. Memory is bounded by the limit of the store, once for reading and once for
    merging; what does not fit spills beside the store. Raises InputError (file, row, column and how to mend it) before
    anything is written. Where every row is rejected, the rejected ones are kept and the report has a refusal.
    """
    reading = replace(
        _reading(caller, caller_from, first_mention, timezone), fmt=fmt, table=table, mapping=_known(mapping or {})
    )
    taken = _Taken()
    files = _pages_of_interest(expand_paths(paths, _searched(fmt)), set(paths), taken.notes)
    path = store.path
    path.parent.mkdir(parents=True, exist_ok=True)
    # Each of the two DuckDBs, and each process, has a folder of its own for what does not fit into memory.
    with (
        scratch_folder(path.parent, f".{path.name}.spill-") as spill,
        workspace(memory_limit=store.memory_limit, temp_directory=f"{spill}/reading") as con,
    ):
        con.execute(STAGED)
        local_time(con, timezone)
        for file in files:
            with plain_files(file, Path(spill)) as places:
                for plain, _ in places:
                    _stage(con, taken, plain, reading)
        latest = round(time.time() * 1000) + DAY_MS
        con.execute(f"CREATE TEMP TABLE judged AS SELECT *, {REASON} AS reason FROM staged", {"latest": latest})
        con.execute("DROP TABLE staged")
        rows = con.execute("SELECT count(*) FROM judged").fetchall()[0][0]
        if not rows:
            raise _nothing(files, taken)
        faults = _first_faults(con, taken)
        taken.unpriced, notes = emptied(con, taken.files)
        taken.notes += notes
        try:
            merged = merge_calls(con, store, taken.files, f"{spill}/merging")
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error as e:
            raise StoreError(
                f"{store.place}: not usable as the store of calls: {str(e).splitlines()[0][:200]}"
            ) from None
    note_first_month(store, merged.earliest)
    return _report(store, len(files), rows, merged, taken, faults)


def _known(mapping: Mapping[str, str]) -> Mapping[str, str]:
    names = [column.name for column in COLUMNS]
    for name in mapping:
        if name not in names:
            raise InputError(f"--map {name}: calls have no such column; choose one of {', '.join(names)}")
    return mapping


def _reading(caller: str | None, caller_from: str | None, hours: float | None, zone: str | None) -> Reading:
    if caller_from not in (None, *get_args(CallerFrom)):
        raise InputError(f"--caller-from {caller_from!r} is unknown; choose chat or sender")
    if caller and caller_from:
        raise InputError(
            "--caller names one caller for all, --caller-from takes it from the messages; give one of them"
        )
    if hours is not None and not 0 <= hours <= 1e6:
        raise InputError(f"--first-mention {hours:g} is no number of hours; give 0 to keep every call")
    try:
        where = ZoneInfo(zone) if zone else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InputError(f"--timezone {zone!r} is unknown; give a name such as Europe/Moscow or UTC") from None
    by: CallerFrom | None = "chat" if caller_from == "chat" else "sender" if caller_from == "sender" else None
    return Reading(caller=caller, caller_from=by, first_mention_h=hours, timezone=where)


def _searched(fmt: str) -> tuple[str, ...]:
    """The formats whose files are searched for in a folder."""
    if fmt == "auto":
        return ("csv", "jsonl", "json", "parquet", "duckdb", "telegram-html")
    return (
        ("json", "telegram-html")
        if fmt == "telegram"
        else ("json",)
        if fmt in CHATS and fmt != "telegram-html"
        else (fmt,)
    )


def _pages_of_interest(files: list[Path], given: set[Path], notes: list[str]) -> list[Path]:
    """Leave out pages found in a folder that hold no messages, or the messages of a `result.json` beside them."""
    whole = {path.parent for path in files if path.name.lower() == "result.json"}
    pages = [path for path in files if known_suffix(path.name) == "telegram-html" and path not in given]
    twins = {path for path in pages if path.parent in whole}
    if twins:
        notes.append(
            f"{min(twins).parent}: result.json is read, and not the same messages in {counted(len(twins), 'page')}"
        )
    others = {path for path in pages if PAGE_OF_MESSAGES.fullmatch(path.name) is None}
    return [path for path in files if path not in twins | others]


def _format_of(path: Path, fmt: str) -> str:
    """The format of a file: as told, by what is in it, or by its suffix. Raises InputError where the first two contradict."""
    shown = (
        chat_format_of(path) if fmt not in BINARY and (fmt != "auto" or known_suffix(path.name) not in BINARY) else None
    )
    if shown == "html":
        raise InputError(
            f"{path}: an HTML page that is no export of Telegram Desktop; export the chat as JSON, or save a table as CSV"
        )
    if shown is not None and (fmt == "auto" or (fmt in CHATS and CHATS[fmt].source == CHATS[shown].source)):
        return shown
    if shown is not None:
        raise InputError(f"{path}: this is {CHATS[shown].is_called}; leave --format out, or say --format {shown}")
    return format_of(path, fmt, FORMATS)


def _stage(con: duckdb.DuckDBPyConnection, taken: _Taken, path: Path, reading: Reading) -> None:
    fmt = _format_of(path, reading.fmt)
    is_chat = fmt in CHATS
    if is_chat:
        export = Export(path, CHATS[fmt].source, reading.timezone)
        found = load_chat(con, export, fmt, reading.caller, reading.caller_from)
        taken.messages += export.messages
        taken.left_out.update(export.left_out)
        taken.notes += export.notes
    else:
        found = load(con, path, fmt, _wanted(reading), reading.table)
        if "mint" not in found:
            is_chat = True
            found, messages = call_messages(con, found, reading.caller, reading.caller_from or "chat", taken.left_out)
            taken.messages += messages
    time_ms, time_text = _time(con, path, found)
    source = "coalesce(source::VARCHAR, $file)" if "source" in found else "$file"
    mint = folded_mint_sql(_text(found, "mint", "NULL"))
    chain = folded_chain_sql(_text(found, "chain", "''"))
    liquidity = _text(found, LIQUIDITY.name, "NULL")
    con.execute(
        f"""INSERT INTO staged SELECT $n, row_no, {_text(found, "call_id", "NULL")}, {mint},
                   {_text(found, "caller_name", "$caller")}, coalesce({chain}, ''), {time_ms}, {source},
                   {_text(found, "source_kind", "NULL")}, {_text(found, "edited_at", "NULL")}, left({time_text}, 200), $window,
                   left({liquidity}, 60), {amount_sql(liquidity)}
            FROM incoming""",
        {"n": len(taken.files), "window": reading.window_ms(is_chat), "file": path.name}
        | ({} if "caller_name" in found else {"caller": reading.caller}),
    )
    taken.files.append(str(path))
    taken.time_columns.append(
        "date" if fmt in CHATS else next(found[n].source for n in ("alert_ts", "alert_ts_ms") if n in found)
    )


def _wanted(reading: Reading) -> list[Column]:
    """The columns to look for in a table of calls or of messages."""
    named = [replace(column, mapped=reading.mapping.get(column.name)) for column in COLUMNS]
    if reading.caller:
        named = [replace(column, required=False) if column.name == "caller_name" else column for column in named]
    return [*named, *MESSAGE_COLUMNS]


def _time(con: duckdb.DuckDBPyConnection, path: Path, found: dict[str, Found]) -> tuple[str, str]:
    """SQL of a row's time as whole UTC ms, and of its text as it stands in the file."""
    if "time_text" in found:  # a chat's reader made it
        return "alert_ts_ms", "time_text"
    ms = []
    names = [name for name in ("alert_ts_ms", "alert_ts") if name in found]
    for name in names:
        raw = raw_time_sql(name, found[name].type)
        con.execute(f"CREATE OR REPLACE TEMP TABLE timed AS SELECT row_no, {raw} AS t FROM incoming")
        label = found[name].source
        unit = infer_unit(con, path, "timed", "t", label)
        _refuse_dates_of_digits(con, path, label, unit)
        require_ms(path, label, unit)
        exact = "round" if unit == "s" else "floor"
        ms.append(f"TRY_CAST({exact}({to_ms_sql(raw, unit)}) AS BIGINT)")
    return f"coalesce({', '.join(ms)})", f"coalesce({', '.join(f'{name}::VARCHAR' for name in names)})"


def _refuse_dates_of_digits(con: duckdb.DuckDBPyConnection, path: Path, label: str, unit: str) -> None:
    """Refuse 20250718, 202507181450 and 20250718145051: as counts they would be calls of 1970, 1976 and 2611."""
    least = min(low for name, (low, _) in UNIT_RANGES.items() if name in DIGITS) if unit in DIGITS else 19900101
    below = "" if unit in DIGITS else "AND t <= 21001231 AND try_strptime(t::BIGINT::VARCHAR, '%Y%m%d') IS NOT NULL"
    ((odd,),) = con.execute(f"SELECT min(t) FROM timed WHERE t >= ? {below}", [least]).fetchall()
    if odd is not None:
        raise InputError(
            f"{path}: column {label} holds {odd:.17g}, which is no time in s, ms or µs; convert it to one or to ISO-8601"
        )


def _text(found: dict[str, Found], name: str, default: str) -> str:
    return f"{name}::VARCHAR" if name in found else default


def _nothing(files: Sequence[Path], taken: _Taken) -> InputError:
    """The refusal of files in which there is no row."""
    names = ", ".join(map(str, files[:MAX_SHOWN])) + (" …" if len(files) > MAX_SHOWN else "")
    if not taken.messages:
        return InputError(f"{names}: no rows; expected calls below the header, or a chat's messages")
    said = f"{names}: no token address in {counted(taken.messages, 'message')}"
    if taken.left_out:
        said += f" but what is no call: {_listed(taken.left_out)}"
    return InputError(f"{said}; is it the right chat?")


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{reason} {n:,}" for reason, n in sorted(counts.items()))


def _first_faults(con: duckdb.DuckDBPyConnection, taken: _Taken) -> list[str]:
    """One sentence for each file with rejected rows: the first of them, and the text that failed."""
    found = con.execute(
        """SELECT file_no, min(row_no), count(*), arg_min(reason, row_no), arg_min(time_text, row_no)
           FROM judged WHERE reason IS NOT NULL GROUP BY 1 ORDER BY 1"""
    ).fetchall()
    return [
        f"{taken.files[n]}: row {row_no:,}: {_fault(reason, taken.time_columns[n], text)}"
        + (f" ({counted(count, 'row')} of the file rejected)" if count > 1 else "")
        for n, row_no, count, reason, text in found
    ]


def _fault(reason: str, column: str, text: str | None) -> str:
    return {
        "caller_name": "the caller is empty; give --caller NAME where the file names none",
        "mint": "the mint is empty",
        "alert_ts_ms": f"{column} {text!r} is no time; write ISO-8601 or a count of s, ms or µs"
        if text
        else f"{column} is empty",
        "in_future": f"{column} {text!r} is later than tomorrow",
        "reserved_caller": f"the caller is named {ALL_CALLERS!r}, which means all callers",
    }[reason]


def _report(store: CallStore, files: int, rows: int, merged: Merged, taken: _Taken, faults: list[str]) -> IngestReport:
    """The report, with the refusal of an ingest in which every row is rejected."""
    shown = "; ".join(faults[:MAX_SHOWN]) + ("; …" if len(faults) > MAX_SHOWN else "")
    nothing = sum(merged.reasons.values()) == rows
    left_out = taken.left_out + Counter({"repeated": merged.repeated} if merged.repeated else {})
    return IngestReport(
        kind="calls",
        files=files,
        rows=rows - merged.repeated,
        inserted=merged.inserted,
        updated=merged.updated,
        unchanged=merged.same,
        superseded=merged.other,
        rejected=merged.reasons,
        months=merged.months,
        left_out=dict(sorted(left_out.items())),
        no_liquidity=taken.unpriced,
        notes=[*taken.notes, *([f"{shown}; {KEPT}"] if faults and not nothing else [])],
        store=store.place,
        refusal=f"{shown}; no row was taken; {KEPT}" if nothing else "",
    )
