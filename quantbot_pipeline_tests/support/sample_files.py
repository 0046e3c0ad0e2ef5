"""Files of calls and candles from a seed, in every format: three months with gaps, repetitions and rows to reject.

What is written here is what `compare_checkouts` feeds to two checkouts; it imports nothing of the package.
"""

import csv
import json
import random
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq

Row = dict[str, Any]

MINUTE_MS, HOUR_MS = 60_000, 3_600_000
MONTHS = ("2025-01", "2025-02", "2025-03")
CALLERS = ("early bird", "Krypto Käse", "=late", "steady")
TOKENS_PER_MONTH = 30
CALLS_PER_TOKEN = 2
CANDLES_PER_TOKEN = 12 * 60  # 60 hours: longer than a window, so that some windows are whole


class Inputs(NamedTuple):
    """Files that both checkouts ingest."""

    calls: list[Path]
    telegram: Path
    candles: list[Path]
    newer: Path
    hourly: Path


def write_inputs(folder: Path) -> Inputs:
    """Write calls and candles of three months, from a seed: gaps, rows to reject, repetitions, tokens without candles."""
    folder.mkdir(parents=True)
    dice = random.Random(14)
    calls: list[Row] = []
    candles: list[Row] = []
    for month in MONTHS:
        begin = _ms(f"{month}-01")
        for nth in range(TOKENS_PER_MONTH):
            mint = f"Mint{month}x{nth:02}"
            born = begin + int(dice.random() * 26 * 288) * 5 * MINUTE_MS
            if nth % 10 != 7:  # a tenth of the tokens have no candle at all
                candles += _walk(dice, mint, born)
            calls += [_call(dice, mint, born, len(calls) + n) for n in range(CALLS_PER_TOKEN)]
    return Inputs(
        _write_calls(folder, calls),
        _write_telegram(folder / "result.json"),
        _write_candles(folder, candles),
        _write_newer(folder / "newer.jsonl", candles),
        _write_table(folder / "hourly.parquet", _hourly(candles)),
    )


def _ms(day: str) -> int:
    return round(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() * 1000)


def _call(dice: random.Random, mint: str, born: int, nth: int) -> Row:
    return {
        "call_id": f"call-{nth:03}",
        "mint": mint,
        "caller_name": CALLERS[int(dice.random() * len(CALLERS))],
        "chain": "solana" if dice.random() < 0.8 else "",
        "alert_ts_ms": born + int(dice.random() * 10 * HOUR_MS),
    }


def _walk(dice: random.Random, mint: str, born: int) -> list[Row]:
    """A random walk of the price with single bad candles and one gap; it rises or falls on the whole."""
    price, drift, rows = 10 ** (-6 * dice.random()), (dice.random() - 0.45) * 0.008, []
    gap = range(300, 300 + int(dice.random() * 60))
    for nth in range(CANDLES_PER_TOKEN):
        close = price * (1 + drift + (dice.random() - 0.5) * 0.09)
        high, low = max(price, close) * (1 + 0.03 * dice.random()), min(price, close) * (1 - 0.03 * dice.random())
        row: Row = {
            "mint": mint, "timestamp": born + nth * 5 * MINUTE_MS, "open": price, "high": high, "low": low, "close": close,
            "volume": None if dice.random() < 0.05 else round(dice.random() * 1e4, 2),
        }  # fmt: skip  # a table: what belongs together stands on one line
        price = close
        if nth in gap:
            continue
        chance = dice.random()
        if chance < 0.002:  # a row to reject, for each reason
            row |= ({"open": -1.0}, {"low": high * 2}, {"volume": -5.0}, {"timestamp": row["timestamp"] + 1})[
                int(chance / 0.0005)
            ]
        rows.append(row)
    return rows


def _hourly(candles: Iterable[Row]) -> list[Row]:
    hours: dict[tuple[str, int], Row] = {}
    for row in candles:
        if row["timestamp"] % (5 * MINUTE_MS) or not 0 < row["low"] <= row["high"]:
            continue
        hour = row["timestamp"] // HOUR_MS * HOUR_MS
        known = hours.setdefault((row["mint"], hour), row | {"timestamp": hour, "volume": 1.0})
        known |= {
            "high": max(known["high"], row["high"]), "low": min(known["low"], row["low"]), "close": row["close"]
        }  # fmt: skip  # a table: what belongs together stands on one line
    return list(hours.values())


def _write_calls(folder: Path, calls: list[Row]) -> list[Path]:
    """A file of each format, and bad rows: without mint, caller or time, with a reserved name, twice, and without an id."""
    first = calls[0]
    odd = [
        first | {"call_id": "bad-mint", "mint": ""},
        first | {"call_id": "bad-caller", "caller_name": ""},
        first | {"call_id": "bad-name", "caller_name": "__all__"},
        first | {"call_id": "bad-time", "alert_ts_ms": 0},
        first | {"chain": "another"},  # superseded: its id is known
        first,
        first | {"call_id": "", "alert_ts_ms": first["alert_ts_ms"] + 7},
    ]
    quarter = len(calls) // 4
    parts = [calls[:quarter] + odd, *(calls[n * quarter : (n + 1) * quarter] for n in (1, 2)), calls[3 * quarter :]]
    paths = [folder / f"calls.{suffix}" for suffix in ("csv", "jsonl", "parquet", "duckdb")]
    with paths[0].open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(first))
        writer.writeheader()
        writer.writerows(parts[0])
    _write_lines(paths[1], parts[1])
    pq.write_table(pa.Table.from_pylist(parts[2]), paths[2])
    with duckdb.connect(str(paths[3])) as con:
        con.register("given", pa.Table.from_pylist(parts[3]))
        con.execute("CREATE TABLE alerts AS FROM given")
    return paths


def _write_telegram(path: Path) -> Path:
    texts = (
        "look: 8EjkXVSTxMFjCvNNsTo8RBMDEVQmk7gYkW4SCDuvdsBG",
        "nothing here",
        ["0x" + "ab" * 20, " and ", {"type": "bold", "text": "FJKTv1un7qsnyKdwKez7B67JJp3oCU5ntCVXcRsWEjtg"}],
    )
    messages = [
        {"id": n, "type": "message", "date": f"2025-02-0{n + 1}T10:00:00", "date_unixtime": str(_ms(f"2025-02-0{n + 1}") // 1000),
         "from": "someone", "text": text}
        for n, text in enumerate(texts)
    ]  # fmt: skip  # a table: what belongs together stands on one line
    path.write_text(json.dumps({"name": "a chat", "type": "public_channel", "id": 1, "messages": messages}), "utf-8")
    return path


def _write_candles(folder: Path, candles: list[Row]) -> list[Path]:
    third = len(candles) // 3
    paths = [folder / f"candles.{suffix}" for suffix in ("csv", "parquet", "feather")]
    with paths[0].open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(candles[0]))
        writer.writeheader()
        writer.writerows(candles[:third])
    _write_table(paths[1], candles[third : 2 * third])
    feather.write_feather(pa.Table.from_pylist(candles[2 * third :]), str(paths[2]))
    return paths


def _write_newer(path: Path, candles: list[Row]) -> Path:
    """Every ninetieth candle again: half of them with another close, so that a merge updates and keeps."""
    again = candles[::90]
    return _write_lines(path, [row | {"close": row["low"]} if nth % 2 else row for nth, row in enumerate(again)])


def _write_table(path: Path, rows: list[Row]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def _write_lines(path: Path, rows: Iterable[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path
