"""One file of candles into the table `judged`: its token, its times, its numbers, and why a row is no candle."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import duckdb

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.candle_rules import (
    NAMES,
    PRICES,
    columns_of,
    number_sql,
    reason_of_input,
    volume_sql,
)
from quantbot_pipeline.ingest.candle_sources import FORMATS, refuse_stated
from quantbot_pipeline.ingest.files import hive_value
from quantbot_pipeline.ingest.formats.chats import CHATS, chat_format_of, is_chat
from quantbot_pipeline.ingest.formats.common import Column, Found, Incoming, folded
from quantbot_pipeline.ingest.formats.registry import format_of, load
from quantbot_pipeline.ingest.layouts.registry import CLOSE_TIMES
from quantbot_pipeline.ingest.names import interval_word, said_by_name
from quantbot_pipeline.ingest.packed import Plain
from quantbot_pipeline.ingest.times import infer_unit, raw_time_sql, require_ms, to_ms_sql
from quantbot_pipeline.ingest.tokens import folded_mint, folded_mint_sql, is_evm_address, is_solana_address
from quantbot_pipeline.vocabulary import INTERVALS_MS

TEXT_KEPT = 500  # characters of a rejected row
DAY_ALONE = r"\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{8}"


class Asked(NamedTuple):
    """What the user said of all files; `now` is the moment of the ingest in UTC ms."""

    interval: str
    now: int
    fmt: str = "auto"
    mint: str | None = None
    mapping: Mapping[str, str] = {}
    stamp: str | None = None


def stage(con: duckdb.DuckDBPyConnection, number: int, file: Plain, asked: Asked) -> list[str]:
    """Append the rows of a file to `judged`; return what must be said of it."""
    path = file.path
    refuse_stated(path, file.shown, asked.interval)
    fmt = format_of(path, asked.fmt, FORMATS)
    token = asked.mint or hive_value(path, "mint") or said_by_name(path).token
    columns = columns_of(asked.mapping, token_known=bool(token), token_required=not token and fmt != "json")
    found = _loaded(con, file, fmt, columns)
    token = _token(file, found, token)
    if token is not None and asked.mint is None:
        _refuse_other_token(con, file, found, token)
    _refuse_mixed(con, file, found, asked.interval)
    notes = list(found.remarks.notes)
    join_clock(con, found)
    time, label = raw_time_sql("ts_ms", found["ts_ms"].type), found["ts_ms"].source
    con.execute(f"CREATE OR REPLACE TEMP TABLE timed AS SELECT row_no, {time} AS t FROM incoming")
    unit = infer_unit(con, path, "timed", "t", label)
    require_ms(path, label, unit)
    ms = to_ms_sql(time, unit)
    if _is_close(con, found, asked, to_ms_sql("t", unit)):
        ms = _open_of_close(ms)
        if asked.stamp is None and found.remarks.close_stamped:
            notes.append(f"stamps are taken as the close ({found.remarks.close_stamped}); --stamp open says otherwise")
        elif asked.stamp is None and not notes:
            notes.append(f"{label or 'the time'} is the close; stored by the open, one {asked.interval} earlier")
    con.execute(
        _insert(found, ms),
        {"base": number << 40, "step": INTERVALS_MS[asked.interval], "now": asked.now}
        | ({} if "mint" in found else {"mint": token}),
    )
    _refuse_commas(con, file, number, found)
    con.execute("DROP TABLE incoming; DROP TABLE timed")
    if found.remarks.by_place:
        _refuse_wrong_places(con, file, number)
    return notes


def _loaded(con: duckdb.DuckDBPyConnection, file: Plain, fmt: str, columns: list[Column]) -> Incoming:
    """Read a file into `incoming`. Raises InputError, which says so where it is a chat."""
    try:
        return load(con, file.path, fmt, columns)
    except InputError:
        if is_chat(file.path) and (kind := chat_format_of(file.path)) in CHATS:
            raise InputError(
                f"{file.shown}: this is {CHATS[kind].is_called}; read it with quantbot ingest calls"
            ) from None
        raise


def _token(file: Plain, found: Incoming, said: str | None) -> str | None:
    """Return the token of a file without a column of tokens. Raises InputError where nothing names it, or two things do."""
    inside = found.remarks.token
    if "mint" in found:
        return None
    if said and inside and folded_mint(said) != folded_mint(inside) and _is_address(said):
        raise InputError(f"{file.shown}: the file is of {inside}, but the name or --mint says {said}; mend one of them")
    token = said or inside
    if not token:
        raise InputError(
            f"{file.shown}: missing column mint, and neither folder nor name names a token; pass --mint TOKEN, or put the file "
            "into a folder mint=TOKEN"
        )
    return folded_mint(token)


def _refuse_other_token(con: duckdb.DuckDBPyConnection, file: Plain, found: Incoming, token: str) -> None:
    """Refuse rows whose own address is another one than that of their folder or their file's name."""
    if "address" not in found or not _is_address(token):
        return
    others = con.execute(
        f"SELECT {folded_mint_sql('address::VARCHAR')} AS a, min(row_no) FROM incoming WHERE address IS NOT NULL AND a <> ? "
        "GROUP BY 1 ORDER BY 2 LIMIT 10",
        [token],
    ).fetchall()
    for other, row in others:
        if _is_address(other):
            raise InputError(
                f"{file.shown}: row {row}: column {found['address'].source} says {other}, but the name says {token}; rename the "
                f"file, or pass --mint {token} if the column is none of the token"
            )


def _is_address(text: str) -> bool:
    return is_evm_address(text) or is_solana_address(text)


def _refuse_mixed(con: duckdb.DuckDBPyConnection, file: Plain, found: Incoming, interval: str) -> None:
    """Refuse a file whose rows say that they are of several symbols, or of another interval."""
    if "symbol" in found and "mint" not in found:
        names = con.execute(
            "SELECT symbol::VARCHAR, min(row_no) FROM incoming WHERE symbol IS NOT NULL GROUP BY 1 ORDER BY 2 LIMIT 2"
        ).fetchall()
        if len(names) > 1:
            (one, _), (two, row) = names
            raise InputError(
                f"{file.shown}: row {row}: column {found['symbol'].source} holds {two!r} beside {one!r}, but one token is named "
                "for all rows; make a file of each, or let the column name the token (--map mint="
                f"{found['symbol'].source}, without --mint and mint=)"
            )
    if "step" in found:
        words = con.execute(
            "SELECT step::VARCHAR, min(row_no) FROM incoming GROUP BY 1 ORDER BY 2 LIMIT 100"
        ).fetchall()
        for word, row in words:
            step = interval_word(word.strip()) if word else None
            if step is not None and step != interval:
                raise InputError(
                    f"{file.shown}: row {row}: column {found['step'].source} says {word}, not {interval}; pass --interval "
                    f"{step}, or take these rows out"
                )


def join_clock(con: duckdb.DuckDBPyConnection, found: Incoming) -> None:
    """Make one time of a column of days and one of clock times; a column that has both in it stays as it is."""
    if "clock" not in found:
        return
    day = "ts_ms::VARCHAR"
    days = con.execute(
        f"SELECT count(*) FROM incoming WHERE regexp_full_match(trim({day}), '{DAY_ALONE}') AND clock IS NOT NULL"
    ).fetchall()
    if days == [(0,)]:
        return
    clock = "trim(clock::VARCHAR)"
    digits = f"regexp_replace(lpad({clock}, CASE WHEN strlen({clock}) <= 4 THEN 4 ELSE 6 END, '0'), '^(..)(..)(..)?$', '\\1:\\2:\\3')"
    if folded(found["clock"].source) == "hour":  # 13 is 13:00, and not 13 minutes past midnight
        digits = f"CASE WHEN strlen({clock}) <= 2 THEN concat(lpad({clock}, 2, '0'), ':00') ELSE {digits} END"
    spelled = f"CASE WHEN regexp_full_match({clock}, '\\d{{1,6}}') THEN rtrim({digits}, ':') ELSE {clock} END"
    iso = f"regexp_replace(replace(replace(trim({day}), '.', '-'), '/', '-'), '^(\\d{{4}})(\\d\\d)(\\d\\d)$', '\\1-\\2-\\3')"
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE incoming AS SELECT * REPLACE (concat({iso}, ' ', {spelled}) AS ts_ms) FROM incoming"
    )
    found["ts_ms"] = Found(f"{found['ts_ms'].source} + {found['clock'].source}", "VARCHAR")


def _is_close(con: duckdb.DuckDBPyConnection, found: Incoming, asked: Asked, ms: str) -> bool:
    """Whether the times of a file are those of the close: by the user's word, its source, its column, or 23:59:59.999."""
    if asked.stamp is not None:
        return asked.stamp == "close"
    if found.remarks.close_stamped or folded(found["ts_ms"].source) in {folded(name) for name in CLOSE_TIMES}:
        return True
    step = INTERVALS_MS[asked.interval]
    # One row is asked first: a scan of millions for what the first row denies is not worth it.
    for limit in ("LIMIT 1", ""):
        last = con.execute(
            f"SELECT bool_and(({ms}) % $step IN ($step - 1, $step - 1000)) FROM (FROM timed WHERE t IS NOT NULL {limit})",
            {"step": step},
        ).fetchall()
        if last != [(True,)]:
            return False
    return True


def _open_of_close(ms: str) -> str:
    """Return the SQL of the open: a close is the end of the interval, or the last millisecond or second before it."""
    late = f"CASE WHEN ({ms}) % $step = $step - 1 THEN 1 WHEN ({ms}) % $step = $step - 1000 THEN 1000 ELSE 0 END"
    return f"({ms}) + {late} - $step"


def _insert(found: Incoming, ms: str) -> str:
    mint = folded_mint_sql("mint::VARCHAR") if "mint" in found else "$mint"
    prices = ", ".join(f"{number_sql(name, found[name].type)} AS {name}" for name in PRICES)
    volume = volume_sql("volume", found["volume"].type) if "volume" in found else "NULL::DOUBLE"
    reason = reason_of_input(_texts(found))
    raw = [name for name in NAMES if name in found]
    cells = ", ',', ".join(f"coalesce(raw_{name}::VARCHAR, '')" for name in raw)
    kept = ", ".join(f"{name} AS raw_{name}" for name in raw)
    return f"""INSERT INTO judged
        SELECT seq, mint, t, open, high, low, close, volume, reason,
               CASE WHEN reason IS NOT NULL THEN left(concat({cells}), {TEXT_KEPT}) END
        FROM (SELECT *, {reason} AS reason
              FROM (SELECT $base::BIGINT + row_no AS seq, {mint} AS mint, {ms} AS t, {prices}, {volume} AS volume, {kept} FROM incoming))"""


def _texts(found: Incoming) -> list[str]:
    return [name for name in PRICES if found[name].type == "VARCHAR"]


def _refuse_commas(con: duckdb.DuckDBPyConnection, file: Plain, number: int, found: Incoming) -> None:
    """Refuse a file whose prices have commas: nobody can tell whether 1,015 is one or a thousand."""
    texts = _texts(found)
    first = con.execute(
        "SELECT min(seq) FROM judged WHERE reason = 'price' AND seq >= ? AND seq < ?",
        [number << 40, (number + 1) << 40],
    ).fetchall()[0][0]
    if first is None or not texts:
        return
    odd = " UNION ALL ".join(
        f"SELECT row_no, {place}, {name} FROM incoming WHERE regexp_full_match(trim({name}), '\\d+(,\\d+)+(\\.\\d+)?')"
        for place, name in enumerate(texts)
    )
    for row, place, text in con.execute(f"FROM ({odd}) ORDER BY 1, 2 LIMIT 1").fetchall():
        raise InputError(
            f"{file.shown}: row {row}: column {found[texts[place]].source} holds {text!r}; a number with a comma is not read: write a "
            "decimal point, and no mark between thousands"
        )


def _refuse_wrong_places(con: duckdb.DuckDBPyConnection, file: Plain, number: int) -> None:
    """Refuse rows without names whose prices do not fit their places: the columns are in another order."""
    counts: list[tuple[Any, ...]] = con.execute(
        "SELECT count(*), count(*) FILTER (reason = 'ohlc_order'), min(seq) FILTER (reason = 'ohlc_order') FROM judged "
        "WHERE seq >= ? AND seq < ?",
        [number << 40, (number + 1) << 40],
    ).fetchall()
    rows, odd, first = counts[0]
    if odd > rows / 10 and odd > 1:
        raise InputError(
            f"{file.shown}: row {first & ((1 << 40) - 1)}: {odd:,} of {rows:,} rows without column names do not fit the order open, "
            "high, low, close; say which column is which, the first being 1: --map ts_ms=1 --map open=2 and so on"
        )
