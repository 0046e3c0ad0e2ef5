"""Files made to hurt: each is refused in one line that names it and says why, before anything is written.

The same at full size, with the memory of the process measured, is in `torture/test_bombs.py`.
"""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.ingest.candles import ingest_candles
from quantbot_pipeline.market.calls import CallStore, month_statistics, read_calls
from quantbot_pipeline.market.candle_files import CandleStore
from quantbot_pipeline.market.features.calls import call_features
from quantbot_pipeline_tests.support.builders import call, ms, solana_address, write_csv

T = ms("2024-01-01")
HEAD = b"call_id,mint,caller_name,alert_ts_ms\n"
LONG = b"x" * (9 << 20)


def numbered(name: str, count: int) -> dict[str, Any]:
    """So many columns of one row."""
    return {f"{name}{i}": [1] for i in range(count)}


def parquet(path: Path, rows: int = 1, **columns: Any) -> None:
    """Calls in as few bytes as there can be: every row is the same, unless `columns` says otherwise."""
    same = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int8), ["x"])
    table = pa.table({"mint": same, "caller_name": same, "alert_ts_ms": np.full(rows, T)} | columns)
    pq.write_table(table, path, compression="zstd", use_dictionary=["caller_name"], write_statistics=False)


def spelled_out(path: Path, rows: int, text: str) -> None:
    """Calls that all name the same long token, which is in the file once."""
    mint = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int8), [text])
    table = pa.table({"mint": mint, "caller_name": ["a"] * rows, "alert_ts_ms": np.full(rows, T)})
    pq.write_table(table, path, compression="zstd", dictionary_pagesize_limit=1 << 24, write_statistics=False)


def jsonl(path: Path, text: str) -> None:
    path.write_text('{"caller_name": "a", "alert_ts_ms": 1704067200000, ' + text + "}\n")


BOMBS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "one line": ("x.csv", lambda p: p.write_bytes(LONG), "the first line is longer than 1 MiB"),
    "one row": ("x.csv", lambda p: p.write_bytes(HEAD + LONG * 2), "a row is longer than 8 MiB; is a quote left open"),
    "open quote": ("x.csv", lambda p: p.write_bytes(HEAD + b'1,"' + b"x\n" * (9 << 20)), "a row is longer than 8 MiB"),
    "many columns": (
        "x.csv",
        lambda p: p.write_text("mint,caller_name,alert_ts_ms," + ",".join(map(str, range(100_000))) + "\n"),
        "more than 10,000 columns",
    ),
    "long object": ("x.jsonl", lambda p: p.write_bytes(b'{"mint":"' + LONG * 4 + b'"}\n'), "a row is longer than 8 MiB"),
    "many keys": (
        "x.jsonl",
        lambda p: p.write_text(json.dumps(dict.fromkeys(map(str, range(100_000)), 1)) + "\n"),
        "more than 10,000 columns",
    ),
    "nested name": ("x.jsonl", lambda p: jsonl(p, '"mint": ' + "[" * 9_000 + "]" * 9_000), "row 1: 'mint' holds an arr"),
    "object for a name": ("x.jsonl", lambda p: jsonl(p, '"mint": {"a": 1}'), "row 1: 'mint' holds an array or an obj"),
    "deep JSON": ("x.jsonl", lambda p: p.write_text("[" * 1_000_000), "x.jsonl: "),
    "huge cell": ("x.parquet", lambda p: parquet(p, mint=pa.array(["x" * (64 << 20)])), "values of many MiB"),
    "many rows": ("x.parquet", lambda p: parquet(p, 12_000_000), "claims 12,000,000 rows in .* bytes"),
    "long dictionary in Parquet": (
        "x.parquet", lambda p: spelled_out(p, 60_000, "x" * (1 << 20)), "claims more than 64 MiB of text in .* bytes",
    ),
    "wide Parquet": (
        "x.parquet",
        lambda p: parquet(p, 1, **numbered("c", 10_001)),
        "more than 10,000 columns",
    ),
    "UTF-16": ("x.csv", lambda p: write_csv(p, [call("m", T)], encoding="utf-16"), "x.csv: "),
    "Latin-1 in the middle": (
        "x.csv",
        lambda p: p.write_bytes(HEAD + b"1,m,caf\xc3\xa9,1704067200000\n2,m,caf\xe9,1704067200000\n"),
        "x.csv: not readable as csv: .*UTF8",
    ),
    "Latin-1 in JSON": (
        "x.jsonl",
        lambda p: p.write_bytes(b'{"mint":"caf\xe9","caller_name":"a","alert_ts_ms":1704067200000}\n'),
        "x.jsonl: not readable as jsonl",
    ),
    "Latin-1 in Parquet": (
        "x.parquet",
        lambda p: parquet(p, mint=pa.array([b"caf\xe9"]).view(pa.string())),
        "x.parquet: not readable as parquet: .*[Ii]nvalid",
    ),
}  # fmt: skip  # a table: what belongs together stands on one line


@pytest.mark.parametrize(("name", "make", "message"), BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused(tmp_path: Path, name: str, make: Callable[[Path], object], message: str) -> None:
    make(tmp_path / name)
    store = tmp_path / "data" / "alerts.duckdb"
    with pytest.raises(InputError, match=message) as caught:
        ingest_calls([tmp_path / name], CallStore(store))
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(caught.value)
    assert list(store.parent.iterdir()) == []


def test_one_page_larger_than_the_memory_is_the_files_fault(tmp_path: Path) -> None:
    # A thousand small values and a large one: on average no bomb, but one page needs more than there is.
    values = [*["x" * (1 << 18)] * 600, "y"]
    path = tmp_path / "x.parquet"
    columns = {"mint": values, "caller_name": values, "alert_ts_ms": [T] * len(values)}
    pq.write_table(pa.table(columns), path, compression="zstd", use_dictionary=False, data_page_size=1 << 30)
    with pytest.raises(InputError, match=r"x\.parquet: one value or page of it needs more memory than the ingest may"):
        ingest_calls([path], CallStore(tmp_path / "alerts.duckdb", memory_limit="64MB"))


def test_a_megabyte_is_no_bomb(tmp_path: Path) -> None:
    rows = [call("m" * (1 << 20), T, "c" * (1 << 20), call_id="1")]
    store = tmp_path / "alerts.duckdb"
    ingest_calls([write_csv(tmp_path / "x.csv", rows)], CallStore(store))
    ((mint, caller),) = zip(
        *(read_calls(CallStore(store), 0, 10**14).calls[n].to_pylist() for n in ("mint", "caller_name")), strict=True
    )
    assert (len(mint), len(caller)) == (1 << 20, 1 << 20)


def test_a_long_export_is_read_message_by_message(tmp_path: Path) -> None:
    mint = solana_address(1)
    messages = [{"id": i, "date_unixtime": "1704067200", "text": f"{mint} {'x' * 5000}"} for i in range(2_000)]
    path = tmp_path / "result.json"
    # The chat's name may come last, and keys may be there twice: as everywhere, the last one counts.
    path.write_text(json.dumps({"messages": messages, "id": 7, "name": "x"}).replace('"name"', '"name": "y", "name"'))
    report = ingest_calls([path], CallStore(tmp_path / "alerts.duckdb"), fmt="telegram", first_mention=0)
    assert (report.inserted, report.months) == (2_000, ["2024-01"])
    calls = read_calls(CallStore(tmp_path / "alerts.duckdb"), 0, 10**14).calls
    assert set(calls["caller_name"].to_pylist()) == {"x"}
    assert set(calls["call_id"].to_pylist()) == {f"telegram:7:{i}:{mint}" for i in range(2_000)}


@pytest.mark.parametrize("end", ["", "]", "]}}", ', {"id": 1', "x]}", ",]}"], ids=repr)
def test_an_export_that_is_cut_or_goes_on_is_refused(tmp_path: Path, end: str) -> None:
    path = tmp_path / "result.json"
    path.write_text('{"name": "x", "messages": [{"id": 1, "date_unixtime": "1704067200", "text": "x"}' + end)
    with pytest.raises(InputError, match=r"result\.json: not valid JSON: "):
        ingest_calls([path], CallStore(tmp_path / "alerts.duckdb"), fmt="telegram", first_mention=0)


def test_a_message_of_a_gigabyte_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text('{"name": "x", "messages": ["' + "x" * (9 << 20))
    with pytest.raises(InputError, match=r"not valid JSON: at character 27 no value ends within 4 MiB"):
        ingest_calls([path], CallStore(tmp_path / "alerts.duckdb"), fmt="telegram", first_mention=0)


def test_millions_of_messages_that_are_none_are_not_read_to_their_end(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text('{"name": "x", "messages": [' + "{}," * 1_100_000 + "oops")
    with pytest.raises(
        InputError, match=r"result\.json: 1,00\d,\d+ messages have no id; is this an export of Telegram"
    ):
        ingest_calls([path], CallStore(tmp_path / "alerts.duckdb"), fmt="telegram", first_mention=0)


def test_a_duckdb_file_is_data_and_no_program(tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("mint,caller_name,alert_ts_ms\ns3cret,a,1704067200000\n")
    path = tmp_path / "x.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute(f"CREATE VIEW alerts AS SELECT *, 'i' AS call_id, 's' AS chain, 't' AS created_at FROM '{secret}'")
    with pytest.raises(InputError, match=r"x\.duckdb: no table 'alerts' \(tables: none\)"):
        ingest_calls([path], CallStore(tmp_path / "alerts.duckdb"))
    with pytest.raises(InputError, match=r"x\.duckdb: no table alerts; make the store with"):
        read_calls(CallStore(path), 0, 10**14)


HOSTILE_STORES = {
    "macros named like functions": """CREATE MACRO strftime(a, b) AS '1999-01'; CREATE MACRO make_timestamp_ms(a) AS 'x';
        CREATE MACRO count(a) AS 7; CREATE MACRO duckdb_tables() AS TABLE SELECT 'alerts' AS table_name""",
    "a view of rejected rows": "CREATE VIEW rejected_alerts AS SELECT 'x' AS reason, 1704067200000 AS alert_ts_ms",
    "a schema like the file": "CREATE SCHEMA {c}.{c}; CREATE TABLE {c}.{c}.alerts AS FROM {c}.main.alerts LIMIT 0",
    "a schema like ours": "CREATE SCHEMA {c}.untrusted; CREATE TABLE {c}.untrusted.alerts AS FROM {c}.main.alerts LIMIT 0",
    "tables of another schema": "CREATE SCHEMA s; CREATE TABLE s.rejected_alerts AS SELECT 'x' AS reason, 1704067200000 AS alert_ts_ms",
}


@pytest.mark.parametrize("name", ["x.duckdb", "main.duckdb", "temp.duckdb", "it's.duckdb"])
@pytest.mark.parametrize("disguise", HOSTILE_STORES)
def test_nothing_in_a_foreign_store_stands_in_for_its_tables_or_our_functions(
    tmp_path: Path, name: str, disguise: str
) -> None:
    path = tmp_path / name
    with duckdb.connect(str(path)) as con:
        ((catalog,),) = con.execute("SELECT current_database()").fetchall()
        con.execute(
            f"""CREATE TABLE alerts AS SELECT 'i' AS call_id, 'm' AS mint, 'a' AS caller_name, 's' AS chain,
                {T} AS alert_ts_ms, 't' AS created_at"""
        )
        con.execute(HOSTILE_STORES[disguise].format(c=f'"{catalog}"'))
    found = read_calls(CallStore(path), 0, 10**14)
    assert (found.calls["mint"].to_pylist(), found.rejected) == (["m"], {})
    assert month_statistics(CallStore(path)) == {"2024-01": {"calls": 1, "callers": 1, "mints": 1}}
    with call_features(CallStore(path), 0, 10**14) as read:
        assert [piece["caller_prior_calls"].to_pylist() for piece in read()] == [[0]]


LIST_OF_ITS_OWN = """CREATE MACRO duckdb_tables() AS TABLE
    SELECT 'alerts' AS table_name, 'main' AS schema_name, 'x' AS database_name, false AS internal, false AS temporary"""


@pytest.mark.parametrize(
    "disguise",
    ["CREATE SCHEMA {catalog}.s; CREATE TABLE {catalog}.s.alerts (x INT)", LIST_OF_ITS_OWN],
    ids=["a table of another schema", "a macro"],
)
@pytest.mark.parametrize("name", ["x.duckdb", "main.duckdb", "s.duckdb", "system.duckdb"])
def test_a_view_is_not_read_as_the_table_it_is_named_after(tmp_path: Path, name: str, disguise: str) -> None:
    path, store = tmp_path / name, tmp_path / "alerts.duckdb"
    row = f"SELECT 'm' AS mint, 'a' AS caller_name, {T} AS alert_ts_ms"
    with duckdb.connect(str(path)) as con:
        ((catalog,),) = con.execute("SELECT current_database()").fetchall()
        con.execute(f"CREATE TABLE t AS {row}; CREATE VIEW alerts AS FROM t; {disguise.format(catalog=catalog)}")
    with pytest.raises(InputError, match=r"\.duckdb: no table 'alerts' \(tables: t\)"):
        ingest_calls([path], CallStore(store))
    assert ingest_calls([path], CallStore(store), table="t").inserted == 1


def feather(path: Path, rows: int, mint: pa.Array | None = None, compression: str = "zstd", **more: object) -> bytes:
    """Candles of one token in one batch; returns the bytes of the file."""
    one = np.ones(rows)
    table = {"mint": ["x"] * rows if mint is None else mint, "ts_ms": T + 300_000 * np.arange(rows)}
    table |= dict.fromkeys(("open", "high", "low", "close", "volume"), one)
    pyarrow.feather.write_feather(pa.table(table | more), path, compression=compression, chunksize=rows)
    return path.read_bytes()


def repeated(rows: int, text: str) -> pa.Array:
    return pa.DictionaryArray.from_arrays(np.zeros(rows, np.int8), [text])


def views(rows: int, size: int) -> pa.Array:
    """The same text many times over, all of them one."""
    every = struct.pack("<i4sii", size, b"xxxx", 0, 0) * rows
    return pa.Array.from_buffers(pa.string_view(), rows, [None, pa.py_buffer(every), pa.py_buffer(b"x" * size)])


def nothing(rows: int) -> pa.Table:
    """Rows that take no byte at all."""
    return pa.table(dict.fromkeys(("mint", "ts_ms", "open", "high", "low", "close", "volume"), pa.nulls(rows)))


def spoil(path: Path, old: bytes, new: bytes, **how: str) -> None:
    content = feather(path, 2_000, **how)
    assert old in content
    path.write_bytes(content.replace(old, new))


FEATHER_BOMBS: dict[str, tuple[Callable[[Path], object], str]] = {
    "huge cell": (lambda p: feather(p, 1, pa.array(["x" * (130 << 20)])), "a batch of it needs 130 MiB, more than 128"),
    "huge column that nobody reads": (lambda p: feather(p, 1, z=["x" * (130 << 20)]), "a batch of it needs 130 MiB"),
    "huge dictionary": (lambda p: feather(p, 9, repeated(9, "x" * (130 << 20))), "a batch of it needs 130 MiB"),
    "a terabyte": (
        lambda p: spoil(p, struct.pack("<q", 16_000), struct.pack("<q", 1 << 40)), r"a batch of it needs [\d,]{9} MiB",
    ),
    "less than nothing": (
        lambda p: spoil(p, struct.pack("<q", 16_000), struct.pack("<q", -5)), "not readable as feather: its metadata is",
    ),
    "long dictionary": (lambda p: feather(p, 60_000, repeated(60_000, "x" * (1 << 20))), "more than 64 MiB of text"),
    "long views": (lambda p: feather(p, 60_000, views(60_000, 1 << 20)), "claims more than 64 MiB of text in .* bytes"),
    "many rows": (
        lambda p: pyarrow.feather.write_feather(nothing(11_000_000), p, compression="zstd", chunksize=11_000_000),
        "claims 11,000,000 rows in .* bytes",
    ),
    "long metadata": (
        lambda p: feather(p, 1, **numbered("c" * 1_000, 5_000)), "metadata of .* MiB",
    ),
    "wide": (lambda p: feather(p, 1, **numbered("c", 10_001)), "more than 10,000 columns"),
    "cut": (lambda p: p.write_bytes(feather(p, 9)[:-1]), "not readable as feather: it is cut off"),
    "texts outside": (
        lambda p: spoil(p, struct.pack("<2i", 7, 8), struct.pack("<2i", 7, 1 << 30), compression="uncompressed"),
        "not readable as feather: .*[Oo]ffset",
    ),
}  # fmt: skip  # a table: what belongs together stands on one line


@pytest.mark.parametrize(("make", "message"), FEATHER_BOMBS.values(), ids=FEATHER_BOMBS)
def test_a_feather_bomb_is_refused(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    path = tmp_path / "x.feather"
    make(path)
    with pytest.raises(InputError, match=message) as caught:
        ingest_candles([path], CandleStore(tmp_path / "store"), "5m")
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "store").glob("interval=*"))


@pytest.mark.parametrize("compression", ["uncompressed", "lz4", "zstd"])
@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_every_kind_of_feather_is_read(tmp_path: Path, kind: pa.DataType, compression: str) -> None:
    rows = 70_000  # more than are handed on at once
    mint = pa.array(["é", "m"] * (rows // 2)).dictionary_encode().cast(kind) if pa.types.is_dictionary(kind) else (
        pa.array(["é", "m"] * (rows // 2), kind))  # fmt: skip  # a table: what belongs together stands on one line
    feather(tmp_path / "x.feather", rows, mint, compression=compression, ts_ms=T + 300_000 * (np.arange(rows) // 2))
    report = ingest_candles([tmp_path / "x.feather"], CandleStore(tmp_path / "store"), "5m")
    assert (report.inserted, report.rejected) == (rows, {})
    files = sorted((tmp_path / "store").glob("*/*/candles.parquet"))
    assert sum(pq.read_table(f, filters=[("mint", "=", "é")]).num_rows for f in files) == rows // 2


def test_a_large_batch_that_is_not_compressed_is_read_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quantbot_pipeline.ingest.formats.arrow_ipc.MAX_DECODED", 1 << 20)
    feather(tmp_path / "x.feather", 70_000, compression="uncompressed")
    assert ingest_candles([tmp_path / "x.feather"], CandleStore(tmp_path / "store"), "5m").inserted == 70_000


def test_feather_of_version_1_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.feather").write_bytes(b"FEA1" + bytes(100) + b"FEA1")
    with pytest.raises(
        InputError, match=r"x\.feather: a Feather file of version 1, which is not read any more; write it"
    ):
        ingest_candles([tmp_path / "x.feather"], CandleStore(tmp_path / "store"), "5m")


@pytest.mark.parametrize("eol", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_marks_and_line_ends_change_nothing(tmp_path: Path, eol: str, encoding: str) -> None:
    names = ("mint", "ts_ms", "open", "high", "low", "close", "volume")
    rows = [dict(zip(names, ("é", T + 300_000 * i, 1.0, 2.0, 0.5, 1.5, 9.0), strict=True)) for i in range(3)]
    path = write_csv(tmp_path / "x.csv", rows, encoding=encoding, eol=eol)
    report = ingest_candles([path], CandleStore(tmp_path / "store"), "5m")
    assert (report.inserted, report.rejected) == (3, {})
    table = pq.read_table(tmp_path / "store/interval=5m/month=2024-01/candles.parquet")
    assert table.to_pylist() == rows
