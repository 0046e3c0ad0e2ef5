"""The store of calls: every format, times, validity, identity, idempotence, and messages that a newcomer can act on."""

import hashlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from quantbot_pipeline.durable import locked
from quantbot_pipeline.errors import InputError, IntegrityError, StoreError
from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.ingest.report import IngestReport
from quantbot_pipeline.market.calls import CallStore, month_statistics, read_calls, reading_calls
from quantbot_pipeline.market.features.calls import call_features
from quantbot_pipeline_tests.support.builders import (
    HOSTILE,
    HOSTILE_WITH_NUL,
    Row,
    call,
    ms,
    write_csv,
    write_feather,
    write_jsonl,
    write_parquet,
)

JAN_1 = ms("2024-01-01")
FOREVER = (0, 10**14)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "data" / "alerts.duckdb"


def stored(store: Path, *columns: str) -> list[tuple[Any, ...]]:
    """All rows of the store, by call_id, with plain DuckDB."""
    with duckdb.connect(str(store), read_only=True) as con:
        return con.execute(f"SELECT {', '.join(columns)} FROM alerts ORDER BY call_id").fetchall()


def write_duckdb(path: Path, rows: list[Row], table: str = "alerts") -> Path:
    source = pa.Table.from_pylist(rows)
    with duckdb.connect(str(path)) as con:
        con.register("source", source)
        con.execute(f'CREATE TABLE "{table}" AS FROM source')
    return path


def added_up(report: IngestReport) -> bool:
    parts = (report.inserted, report.updated, report.unchanged, report.superseded, *report.rejected.values())
    return report.rows == sum(parts)


# --- formats ----------------------------------------------------------------------------------------------------------


def test_every_format_fills_the_store_alike(tmp_path: Path) -> None:
    rows = [
        call("mintA", JAN_1, call_id="c1"),
        call("mintB", JAN_1 + 1, "bob", call_id="c2", chain="base"),
        call("mintC", JAN_1 + 999, "ça", call_id="c3"),
    ]
    paths = [
        write_csv(tmp_path / "c.csv", rows),
        write_jsonl(tmp_path / "c.NDJSON", rows),
        write_parquet(tmp_path / "c.parquet", rows),
        write_duckdb(tmp_path / "c.duckdb", rows),
    ]
    found = []
    for path in paths:
        filled = path.with_name(path.name + ".store")
        report = ingest_calls([path], CallStore(filled))
        assert (report.inserted, report.rows, report.months) == (3, 3, ["2024-01"])
        columns = ("call_id", "mint", "caller_name", "chain", "alert_ts_ms", "created_at", "source")
        found.append(stored(filled, *columns))
        assert [row[-1] for row in found[-1]] == [path.name] * 3, "the source defaults to the file's name"
    assert [row[:-1] for row in found[0]] == [
        ("c1", "mintA", "alice", "solana", JAN_1, "2024-01-01T00:00:00.000Z"),
        ("c2", "mintB", "bob", "base", JAN_1 + 1, "2024-01-01T00:00:00.001Z"),
        ("c3", "mintC", "ça", "solana", JAN_1 + 999, "2024-01-01T00:00:00.999Z"),
    ]
    assert all([row[:-1] for row in other] == [row[:-1] for row in found[0]] for other in found)


def test_dialects_of_text_files_are_one_and_the_same(tmp_path: Path, store: Path) -> None:
    names = ["Mint", " CALLER ", "Alert_TS", "note"]
    bom, crlf, _semicolon = (
        [dict(zip(names, (f"{kind}{i}", "a,b;c", "2024-01-01", "multi\nline"), strict=True)) for i in range(2)]
        for kind in ("bom", "crlf", "semicolon")
    )
    write_csv(tmp_path / "in" / "bom.csv", bom, encoding="utf-8-sig")
    write_csv(tmp_path / "in" / "crlf.csv", crlf, eol="\r\n")
    text = "\r\n\r\n" + ";".join(names) + '\r\n\r\nsemicolon0;"a,b;c";2024-01-01;x\r\nsemicolon1;"a,b;c";2024-01-01;'
    (tmp_path / "in" / "semicolon.csv").write_bytes(text.encode())
    line = json.dumps({"Mint": "bomjson", "caller": "a,b;c", "alert_ts": "2024-01-01"})
    (tmp_path / "in" / "bom.jsonl").write_bytes(("\n" + line + "\r\n\n").encode("utf-8-sig"))
    report = ingest_calls([tmp_path / "in"], CallStore(store))
    assert (report.files, report.inserted, report.rejected) == (4, 7, {})
    expected = {f"{kind}{i}" for kind in ("bom", "crlf", "semicolon") for i in range(2)} | {"bomjson"}
    assert {mint for mint, caller in stored(store, "mint", "caller_name") if caller == "a,b;c"} == expected


def test_a_table_of_another_duckdb_file(tmp_path: Path, store: Path) -> None:
    path = tmp_path / "x.duckdb"
    with duckdb.connect(str(path)) as con:  # a quote in the name is data, not SQL
        con.execute("""CREATE TABLE "a""b" AS SELECT 'q' AS mint, 'c'::ENUM('c') AS caller, uuid() AS call_id,
                              TIMESTAMP '2024-01-01' AS created_at, [1] AS ignored""")
    with pytest.raises(InputError, match=r"x\.duckdb: no table 'alerts' \(tables: a\"b\); choose one with --table"):
        ingest_calls([path], CallStore(store))
    assert ingest_calls([path], CallStore(store), table='a"b').inserted == 1
    assert stored(store, "mint", "caller_name", "alert_ts_ms") == [("q", "c", JAN_1)]


def test_the_callers_name_can_come_from_the_command_line(tmp_path: Path, store: Path) -> None:
    path = write_csv(tmp_path / "c.csv", [{"mint": "m", "alert_ts_ms": JAN_1}])
    with pytest.raises(InputError, match="missing column caller_name or caller"):
        ingest_calls([path], CallStore(store))
    named = write_csv(tmp_path / "d.csv", [{"mint": "n", "alert_ts_ms": JAN_1, "caller": "own"}])
    ingest_calls([path, named], CallStore(store), caller="given")
    assert set(stored(store, "mint", "caller_name")) == {("m", "given"), ("n", "own")}


# --- times ------------------------------------------------------------------------------------------------------------


def test_units_are_inferred_per_column_by_magnitude(tmp_path: Path, store: Path) -> None:
    # Every file has its own unit; a cell that is no time does not vote and costs one row.
    seconds = ["1704067200", "1704067200.123", "0", "-5", "word"]
    micros = ["1704067200123999", "1704067200000001", ""]
    millis = ["1704067200456", "1704067200456.9", "1e40", "inf", "nan"]
    for unit, cells in {"s": seconds, "us": micros, "ms": millis}.items():
        rows = [{"mint": f"{unit}{i}", "caller": "a", "created_at": cell} for i, cell in enumerate(cells)]
        write_csv(tmp_path / "in" / f"{unit}.csv", rows)
    report = ingest_calls([tmp_path / "in"], CallStore(store))
    assert report.rejected == {"alert_ts_ms": 7} and added_up(report)
    assert dict(stored(store, "mint", "alert_ts_ms")) == {
        "s0": JAN_1, "s1": JAN_1 + 123, "us0": JAN_1 + 123, "us1": JAN_1, "ms0": JAN_1 + 456, "ms1": JAN_1 + 456,
    }  # fmt: skip  # a table: what belongs together stands on one line


@pytest.mark.parametrize(
    ("column", "cells", "message"),
    [
        ("alert_ts", ["1704067200000", "1704067200"], r"mixes time units: ms \(1 row, first in row 1\), s \(1 row, first in row 2\)"),
        ("alert_ts", ["2024-01-01", "2024-01-02", "1704067200"], r"mixes time units: ms \(2 rows, first in row 1\), s \(1 row,"),
        ("created_at", ["1704067200000", "1704067200000000"], r"column created_at mixes time units: ms .*, us "),
        ("alert_ts_ms", ["1704067200"], "column alert_ts_ms holds s by magnitude, not milliseconds"),
        ("alert_ts", ["20240101", "20240102"], "column alert_ts holds 20240101, which is no time in s, ms or µs"),
    ],
)  # fmt: skip  # a table: what belongs together stands on one line
def test_times_of_unclear_unit_are_refused(
    tmp_path: Path, store: Path, column: str, cells: list[str], message: str
) -> None:
    path = write_csv(tmp_path / "mixed.csv", [{"mint": "m", "caller": "a", column: cell} for cell in cells])
    with pytest.raises(InputError, match=message) as caught:
        ingest_calls([path], CallStore(store))
    assert str(caught.value).startswith(f"{path}: ")
    assert not store.exists()


IN_NEW_YORK = """
import json, sys
from pathlib import Path
from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.market.calls import CallStore, read_calls
from quantbot_pipeline.ingest.candles import ingest_candles
from quantbot_pipeline.market.candle_files import CandleStore
here = Path(sys.argv[1])
store = CallStore(here / "alerts.duckdb")
ingest_calls([here / "calls"], store)
calls = read_calls(store, 0, 10**14).calls
report = ingest_candles([here / "candles"], CandleStore(here / "store"), "5m")
import pyarrow.parquet as pq
rows = [r for p in sorted((here / "store").rglob("candles.parquet")) for r in pq.read_table(p).to_pylist()]
print(json.dumps([{r["mint"]: [r["alert_ts_ms"], r["created_at"]] for r in calls.to_pylist()},
                  {r["mint"]: r["ts_ms"] for r in rows}]))
"""


def test_times_without_an_offset_are_utc_whatever_the_machines_zone(tmp_path: Path) -> None:
    # 02:30 on this day does not exist in New York.
    texts = {
        "naive": ("2024-03-10T02:30:00", "2024-03-10T02:30:00.000Z"),
        "blank": ("2024-03-10 02:30", "2024-03-10T02:30:00.000Z"),
        "day": ("2024-03-10", "2024-03-10T00:00:00.000Z"),
        "zulu": ("2024-03-10T02:30:00.250Z", "2024-03-10T02:30:00.250Z"),
        "east": ("2024-03-10T02:30:00+05:30", "2024-03-09T21:00:00.000Z"),
        "west": ("2024-02-29T23:30:00-08:00", "2024-03-01T07:30:00.000Z"),
        "nanos": ("2024-03-10T02:30:00.123456789", "2024-03-10T02:30:00.123Z"),
    }
    rows = [{"mint": mint, "caller": "a", "created_at": text} for mint, (text, _) in texts.items()]
    write_csv(tmp_path / "calls" / "c.csv", rows)
    columns = {
        "s": pa.timestamp("s"), "ms": pa.timestamp("ms"), "us": pa.timestamp("us"), "ns": pa.timestamp("ns"),
        "zoned": pa.timestamp("ms", "America/New_York"),
    }  # fmt: skip  # a table: what belongs together stands on one line
    instant = ms("2024-03-10T02:30")
    for name, kind in columns.items():
        times = pa.array([instant], pa.int64()).cast(pa.timestamp("ms")).cast(kind)
        prices = {c: [1.0] for c in ("open", "high", "low", "close", "volume")}
        write_parquet(
            tmp_path / "candles" / f"{name}.parquet", pa.table({"mint": [name], "timestamp": times, **prices})
        )
    done = subprocess.run(
        [sys.executable, "-c", IN_NEW_YORK, str(tmp_path)],
        env=os.environ | {"TZ": "America/New_York"}, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip  # a table: what belongs together stands on one line
    calls, candles = json.loads(done.stdout)
    assert calls == {mint: [ms(created.removesuffix("Z")), created] for mint, (_, created) in texts.items()}
    assert candles == dict.fromkeys(columns, instant)


# --- refusals ---------------------------------------------------------------------------------------------------------

HEADER = b"mint,caller_name,alert_ts_ms\n"
REFUSED = {
    "missing column": ("c.csv", b"mint,when,x\nm,1,2\n", r"c\.csv: missing columns caller_name or caller or sender, alert_ts_ms or .* \(columns found: mint, when, x\); rename them"),
    "no time column": ("c.csv", b"mint,caller\nm,a\n", r"c\.csv: missing column alert_ts_ms or alert_ts or .* \(columns found: mint, caller\); add it"),
    "column twice": ("c.csv", b"mint,Mint,caller,alert_ts\nm,n,a,1\n", r"c\.csv: column 'mint' appears twice"),
    "empty": ("c.csv", b"", r"c\.csv: the file is empty"),
    "blank": ("c.csv", b"\n\r\n", r"c\.csv: the file is empty"),
    "header only": ("c.csv", HEADER, r"c\.csv: no rows; expected calls below the header"),
    "header without a line break": ("c.csv", HEADER.strip(), r"c\.csv: no rows"),
    "short row": ("c.csv", HEADER + b"m,a\n", r"c\.csv: not readable as csv: .*Expected 3 columns, got 2"),
    "latin-1": ("c.csv", HEADER + b"m\xe9,a,1704067200000\n", r"c\.csv: not readable as csv: .*UTF8"),
    "utf-16": ("c.csv", "mint,caller\n".encode("utf-16"), r"c\.csv: not readable as csv: .*utf-8"),
    "endless line": ("c.csv", b"x" * (2 << 20), r"c\.csv: the first line is longer than 1 MiB"),
    "empty json": ("c.jsonl", b"", r"c\.jsonl: no JSON object found"),
    "json array": ("c.jsonl", b'[{"mint": 1}]\n', r"c\.jsonl: missing columns caller_name .*, alert_ts.*columns found: mint"),
    "broken json": ("c.jsonl", b'{"mint": "m"}\n{oops\n', r"c\.jsonl: not readable as jsonl: "),
    "half a character": ("c.jsonl", b'{"mint": "\\ud800", "caller": "a", "alert_ts": 1}\n', r"c\.jsonl: not readable"),
    "text as parquet": ("c.parquet", b"PAR1 no", r"c\.parquet: not readable as parquet: "),
    "text as duckdb": ("c.duckdb", b"hello", r"c\.duckdb: not readable as duckdb: "),
    "unknown suffix": ("c.xlsx", b"x", r"c\.xlsx: unknown file type '\.xlsx'; .*--format csv\|jsonl\|json\|parquet\|duckdb\|telegram"),
    "an object of other things": ("c.json", b'{"a": 1}', r"c\.json: no list of rows with mint or .*columns found: a\)"),
    "an empty object": ("c.json", b"{}", r"c\.json: no list of rows with mint or "),
    "another page": ("c.html", b"<html><p>x</p></html>", r"c\.html: an HTML page that is no export of Telegram Desktop"),
    "a page for a table": ("c.csv", b"\n<!DOCTYPE html><p>x</p>", r"c\.csv: an HTML page that is no export"),
    "not a format of calls": ("c.feather", b"x", r"unknown file type '\.feather'"),
}  # fmt: skip  # a table: what belongs together stands on one line


@pytest.mark.parametrize(("name", "content", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_named_in_one_line(
    tmp_path: Path, store: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        ingest_calls([tmp_path / name], CallStore(store))
    assert "\n" not in str(caught.value)
    assert not store.exists(), "nothing is written"


def test_what_does_not_exist_is_named(tmp_path: Path, store: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "folder.csv" / "_hidden.csv").touch()
    with pytest.raises(InputError, match=r"absent\.csv: no such file or folder"):
        ingest_calls([tmp_path / "absent.csv"], CallStore(store))
    with pytest.raises(InputError, match=r"folder\.csv: no file ending in \.csv, .* in this folder"):
        ingest_calls([tmp_path / "folder.csv"], CallStore(store))


@pytest.mark.parametrize("kind", [pa.time32("s"), pa.duration("ms"), pa.binary(), pa.list_(pa.int64())], ids=str)
def test_columns_that_hold_no_scalar_are_refused(tmp_path: Path, store: Path, kind: pa.DataType) -> None:
    value = {"list": [1], "bina": b"1"}.get(str(kind)[:4], 1)
    table = pa.table({"mint": ["m"], "caller": ["a"], "alert_ts": pa.array([value], kind)})
    with pytest.raises(InputError, match=r"column 'alert_ts' has type .*; expected numbers, text or timestamps"):
        ingest_calls([write_parquet(tmp_path / "c.parquet", table)], CallStore(store))


def test_one_unreadable_file_stops_the_whole_ingest(tmp_path: Path, store: Path) -> None:
    write_csv(tmp_path / "in" / "a.csv", [call("m", JAN_1)])
    (tmp_path / "in" / "b.csv").write_bytes(b"mint\nm\n")
    with pytest.raises(InputError, match=r"b\.csv: missing column"):
        ingest_calls([tmp_path / "in"], CallStore(store))
    assert not store.exists()


# --- validity ---------------------------------------------------------------------------------------------------------


def whole(store: Path, table: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(store), read_only=True) as con:
        return con.execute(f"FROM {table} ORDER BY ALL").fetchall()


def test_invalid_calls_are_left_out_and_counted_once(tmp_path: Path, store: Path) -> None:
    good = call("m", JAN_1)
    bad = [
        good | {"caller_name": None}, good | {"caller_name": ""}, good | {"mint": None}, good | {"mint": ""},
        good | {"alert_ts_ms": None}, good | {"caller_name": "__all__"}, good | {"caller_name": "__all__", "mint": ""},
    ]  # fmt: skip  # a table: what belongs together stands on one line
    rows = [good, *bad, good | {"caller_name": "__ALL__"}, good | {"caller_name": " "}]
    report = ingest_calls([write_jsonl(tmp_path / "c.jsonl", rows)], CallStore(store))
    counts = {"alert_ts_ms": 1, "caller_name": 2, "mint": 3, "reserved_caller": 1}
    assert (report.rejected, report.inserted) == (counts, 3) and added_up(report)
    # Again, as another file of another format: the same rows, so nothing is new but that this file had them too.
    before = [whole(store, table) for table in ("alerts", "rejected_alerts")]
    again = ingest_calls([write_parquet(tmp_path / "d.parquet", rows)], CallStore(store))
    assert (again.rejected, again.inserted, again.unchanged) == (counts, 0, 3)
    assert [whole(store, table) for table in ("alerts", "rejected_alerts")] == before
    month = read_calls(CallStore(store), JAN_1, JAN_1 + 1)
    assert month.rejected == {"caller_name": 2, "mint": 3, "reserved_caller": 1}, "a call without a time has no month"
    assert read_calls(CallStore(store), JAN_1 + 1, JAN_1 + 2).rejected == {}


def test_a_column_of_nulls_is_there(tmp_path: Path, store: Path) -> None:
    report = ingest_calls([write_jsonl(tmp_path / "c.jsonl", [call("m", JAN_1) | {"mint": None}])], CallStore(store))
    assert report.rejected == {"mint": 1}
    with pytest.raises(InputError, match=r"c\.jsonl: row 1: the mint is empty; no row was taken"):
        report.require_some()


@pytest.mark.parametrize("write", [write_csv, write_jsonl, write_parquet, write_feather], ids=lambda w: w.__name__)
def test_hostile_text_is_only_text(tmp_path: Path, store: Path, write: Any) -> None:
    texts = HOSTILE if write is write_csv else HOSTILE_WITH_NUL
    rows = [call(text, JAN_1, text, call_id=text, chain=text) for text in texts]
    if write is write_feather:
        with pytest.raises(InputError):
            ingest_calls([write(tmp_path / "c.feather", rows)], CallStore(store))
        return
    ingest_calls([write(tmp_path / f"c.{write.__name__.removeprefix('write_')}", rows)], CallStore(store))
    found = stored(store, "call_id", "mint", "caller_name", "chain")
    assert sorted(found) == sorted((text,) * 4 for text in texts)


# --- identity ---------------------------------------------------------------------------------------------------------


def test_derived_ids_are_stable_and_injective(tmp_path: Path, store: Path) -> None:
    texts = ["a", "aa", "1:a", "a1:a", "1", ":", "\x00", "a\x00", "é", "e\u0301"]
    rows = [
        call(mint, JAN_1 + later, caller, chain="") for caller, mint, later in itertools.product(texts, texts, [0, 10])
    ]
    report = ingest_calls([write_jsonl(tmp_path / "c.jsonl", [call("mintA", JAN_1), *rows])], CallStore(store))
    assert report.inserted == len(rows) + 1
    pinned = {mint: call_id for call_id, mint in stored(store, "call_id", "mint")}["mintA"]
    expected = hashlib.sha256(f"5:alice5:mintA0:{JAN_1}".encode()).hexdigest()[:16]
    assert pinned == expected, "ids derived by an older version of calls without a chain stay valid"
    # An empty id counts as none, and other columns do not matter.
    other = write_csv(tmp_path / "d.csv", [call("mintA", JAN_1, call_id="") | {"source": "elsewhere"}])
    assert ingest_calls([other], CallStore(store)).unchanged == 1


def test_the_first_row_of_an_id_stays(tmp_path: Path, store: Path) -> None:
    first = call("m", JAN_1, call_id="x")
    rows = [first, first | {"mint": "other"}, first, call("n", JAN_1 + 5, call_id="y")]
    report = ingest_calls([write_csv(tmp_path / "c.csv", rows)], CallStore(store))
    assert (report.inserted, report.unchanged, report.superseded) == (2, 1, 1) and added_up(report)
    later = [first | {"alert_ts_ms": JAN_1 + 86_400_000 * 40}, first, call("z", ms("2024-03-05"), call_id="z")]
    report = ingest_calls([write_csv(tmp_path / "d.csv", later)], CallStore(store))
    assert (report.inserted, report.unchanged, report.superseded, report.months) == (1, 1, 1, ["2024-03"])
    assert stored(store, "call_id", "mint", "alert_ts_ms")[0] == ("x", "m", JAN_1)
    # An invalid row with the id does not take its place.
    invalid_first = [call("", JAN_1, call_id="w"), call("late", JAN_1, call_id="w")]
    ingest_calls([write_csv(tmp_path / "e.csv", invalid_first)], CallStore(store))
    assert dict(stored(store, "call_id", "mint"))["w"] == "late"


def test_files_are_read_in_byte_order_of_their_path(tmp_path: Path, store: Path) -> None:
    for name in ("é.csv", "a.csv", "B.csv", "Z/a.csv", "_ignored.csv", ".hidden.csv"):
        write_csv(tmp_path / "in" / name, [call(name, JAN_1, call_id="x")])
    report = ingest_calls([tmp_path / "in" / "é.csv", tmp_path / "in", tmp_path / "in" / "a.csv"], CallStore(store))
    assert (report.files, report.superseded) == (4, 3)
    assert stored(store, "mint") == [("B.csv",)]


def test_the_same_file_again_changes_nothing(tmp_path: Path, store: Path) -> None:
    rows = [call(f"m{i}", JAN_1 + i * 10**9) for i in range(10)]
    path = write_csv(tmp_path / "c.csv", [*rows, call("", JAN_1)])
    ingest_calls([path], CallStore(store))
    before, content = store.stat(), store.read_bytes()
    report = ingest_calls([path], CallStore(store))
    assert (report.inserted, report.unchanged, report.months) == (0, 10, [])
    after = store.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert store.read_bytes() == content
    assert sorted(p.name for p in store.parent.iterdir()) == [".alerts.duckdb.lock", ".first-month", "alerts.duckdb"]


# --- the store --------------------------------------------------------------------------------------------------------


def test_reading_takes_a_half_open_range_in_order(tmp_path: Path, store: Path) -> None:
    assert read_calls(CallStore(store), *FOREVER).calls.num_rows == 0, "no store, no calls"
    assert month_statistics(CallStore(store)) == {}
    rows = [
        call("m", JAN_1, call_id="b"), call("m", JAN_1, "bob", call_id="a"), call("n", JAN_1 - 1, call_id="z"),
        call("o", ms("2024-02-01"), call_id="c"),
    ]  # fmt: skip  # a table: what belongs together stands on one line
    ingest_calls([write_csv(tmp_path / "c.csv", rows)], CallStore(store))
    assert read_calls(CallStore(store), JAN_1, ms("2024-02-01")).calls["call_id"].to_pylist() == ["a", "b"]
    assert read_calls(CallStore(store), *FOREVER).calls["call_id"].to_pylist() == ["z", "a", "b", "c"]
    assert month_statistics(CallStore(store)) == {
        "2023-12": {"calls": 1, "callers": 1, "mints": 1},
        "2024-01": {"calls": 2, "callers": 2, "mints": 1},
        "2024-02": {"calls": 1, "callers": 1, "mints": 1},
    }


def test_a_store_made_by_others_can_be_read(tmp_path: Path, store: Path) -> None:
    rows = [call("m", JAN_1, call_id="x") | {"created_at": "2024-01-01T00:00:00.000Z"}]
    foreign = write_duckdb(tmp_path / "foreign.duckdb", rows)
    assert read_calls(CallStore(foreign), *FOREVER).calls["mint"].to_pylist() == ["m"]
    with pytest.raises(InputError, match=r"other\.duckdb: no table alerts"):
        read_calls(CallStore(write_duckdb(tmp_path / "other.duckdb", rows, "x")), *FOREVER)
    store.parent.mkdir()
    store.write_bytes(b"no database")
    with pytest.raises(InputError, match=r"alerts\.duckdb: not readable as the store of calls"):
        read_calls(CallStore(store), *FOREVER)
    with pytest.raises(IntegrityError, match=r"alerts\.duckdb: not readable as a DuckDB file"):
        ingest_calls([write_csv(tmp_path / "c.csv", [call("m", JAN_1)])], CallStore(store))
    assert store.read_bytes() == b"no database"


def test_writers_wait_for_each_other(tmp_path: Path, store: Path) -> None:
    path = write_csv(tmp_path / "c.csv", [call("m", JAN_1)])
    with (
        locked(store.with_name(".alerts.duckdb.lock"), 1),
        pytest.raises(StoreError, match=r"another process has held this lock for 0\.05 s"),
    ):
        ingest_calls([path], CallStore(store, lock_timeout_s=0.05))
    assert ingest_calls([path], CallStore(store, lock_timeout_s=0.05)).inserted == 1


def test_readers_keep_their_snapshot_while_an_ingest_replaces_the_file(tmp_path: Path, store: Path) -> None:
    ingest_calls([write_csv(tmp_path / "c.csv", [call("m", JAN_1)])], CallStore(store))
    with duckdb.connect(str(store), read_only=True) as reader:
        ingest_calls([write_csv(tmp_path / "d.csv", [call("n", JAN_1)])], CallStore(store))
        assert reader.execute("SELECT mint FROM alerts").fetchall() == [("m",)]
    assert stored(store, "mint") != [("m",)]


KILLED_WRITER = """
import duckdb, os, sys
con = duckdb.connect(sys.argv[1])
con.execute("INSERT INTO alerts SELECT * REPLACE ('by hand' AS call_id) FROM alerts")
os._exit(9)
"""


def test_what_a_killed_duckdb_left_in_its_log_is_not_lost(tmp_path: Path, store: Path) -> None:
    ingest_calls([write_csv(tmp_path / "c.csv", [call("m", JAN_1, call_id="first")])], CallStore(store))
    subprocess.run([sys.executable, "-c", KILLED_WRITER, str(store)], check=False, timeout=60)
    assert store.with_name("alerts.duckdb.wal").exists()
    ingest_calls([write_csv(tmp_path / "d.csv", [call("n", JAN_1, call_id="second")])], CallStore(store))
    assert stored(store, "call_id") == [("by hand",), ("first",), ("second",)]
    assert not store.with_name("alerts.duckdb.wal").exists()


def test_more_calls_than_fit_into_memory_spill_and_leave_nothing_behind(tmp_path: Path, store: Path) -> None:
    n = 200_000
    rows = {
        "call_id": [f"{i:064}" for i in range(n)],
        "mint": [f"{i % 977:0128}" for i in range(n)],
        "caller_name": [f"caller {i % 1_000}" for i in range(n)],
        "alert_ts_ms": [JAN_1 + i for i in range(n)],
    }
    path = write_parquet(tmp_path / "c.parquet", pa.table(rows))
    # Left by a DuckDB that was killed while it spilled.
    store.with_name(".alerts.duckdb.0.tmp.tmp").mkdir(parents=True)
    report = ingest_calls([path], CallStore(store, memory_limit="96MB"))
    assert (report.rows, report.inserted) == (n, n)
    assert sorted(p.name for p in store.parent.iterdir()) == [".alerts.duckdb.lock", ".first-month", "alerts.duckdb"]
    calls = read_calls(CallStore(store), *FOREVER).calls
    assert calls["alert_ts_ms"].to_pylist() == rows["alert_ts_ms"]
    assert calls["call_id"].to_pylist() == rows["call_id"]


def test_who_adds_calls_need_not_wait_for_a_backtest_that_holds_features(tmp_path: Path) -> None:
    store = tmp_path / "alerts.duckdb"
    ingest_calls([write_jsonl(tmp_path / "calls.jsonl", [call("m", JAN_1, call_id="i")])], CallStore(store))
    add = "import duckdb, sys; duckdb.connect(sys.argv[1]).execute('DELETE FROM alerts')"
    with call_features(CallStore(store), *FOREVER) as read:
        subprocess.run([sys.executable, "-c", add, str(store)], check=True)
        assert [piece["call_id"].to_pylist() for piece in read()] == [["i"]]


READER = """
import sys, time
from pathlib import Path
from quantbot_pipeline.market.calls import CallStore, reading_calls
with reading_calls(CallStore(Path(sys.argv[1]))):
    print("reading", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_backtest_spilled_goes_when_the_calls_are_read_next(tmp_path: Path) -> None:
    store = tmp_path / "alerts.duckdb"
    ingest_calls([write_jsonl(tmp_path / "calls.jsonl", [call("m", JAN_1, call_id="i")])], CallStore(store))
    whole = sorted(p.name for p in tmp_path.iterdir())
    with subprocess.Popen([sys.executable, "-c", READER, str(store)], stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None and reader.stdout.readline() == "reading\n"
        assert read_calls(CallStore(store), *FOREVER).calls["call_id"].to_pylist() == ["i"]
        assert len(list(tmp_path.glob(".alerts.duckdb.spill-*"))) == 2, (
            "a living one is left alone: a folder and its lock"
        )
        reader.kill()
    with reading_calls(CallStore(store)):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == whole


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs a folder in which not even root can make a file")
def test_calls_are_read_where_nothing_can_be_written(tmp_path: Path) -> None:
    store = tmp_path / "alerts.duckdb"
    ingest_calls([write_jsonl(tmp_path / "calls.jsonl", [call("m", JAN_1, call_id="i")])], CallStore(store))
    with store.open("rb") as file:
        assert read_calls(CallStore(Path(f"/proc/self/fd/{file.fileno()}")), *FOREVER).calls["call_id"].to_pylist() == [
            "i"
        ]


def test_features_are_read_as_often_as_wanted_and_within_a_limit(tmp_path: Path) -> None:
    store = tmp_path / "alerts.duckdb"
    calls = [call(f"m{i % 50}", JAN_1 + i, f"c{i % 20}", call_id=f"{i:020}") for i in range(20_000)]
    ingest_calls([write_jsonl(tmp_path / "calls.jsonl", calls)], CallStore(store))
    with call_features(CallStore(store, memory_limit="30MB"), JAN_1, JAN_1 + 20_000) as read:
        once, again = pa.concat_tables(read()), pa.concat_tables(read())
        assert read_calls(CallStore(store), JAN_1, JAN_1 + 20_000).calls["call_id"].equals(once["call_id"]), (
            "side by side"
        )
    assert once.equals(again) and once["call_id"].to_pylist() == [row["call_id"] for row in calls]
    assert once["caller_prior_calls"].to_pylist() == [i // 20 for i in range(20_000)]
    for reading in (lambda: read_calls(CallStore(store, memory_limit="1MB"), *FOREVER),
                    lambda: call_features(CallStore(store, memory_limit="1MB"), *FOREVER).__enter__()):  # fmt: skip  # a table: what belongs together stands on one line
        with pytest.raises(
            StoreError, match=r"alerts\.duckdb: reading the calls stopped: Out of Memory .*QUANTBOT_MEMORY_LIMIT"
        ):
            reading()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        ".alerts.duckdb.lock",
        ".first-month",
        "alerts.duckdb",
        "calls.jsonl",
    ]
