"""The store of candles: formats, validity and its order, merging, idempotence, layout and determinism of the files."""

import itertools
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quantbot_pipeline.duck import workspace
from quantbot_pipeline.errors import InputError, StoreError
from quantbot_pipeline.ingest.candles import ingest_candles
from quantbot_pipeline.ingest.report import IngestReport
from quantbot_pipeline.market import candle_files
from quantbot_pipeline.market.candle_files import CandleStore, month_file, rejected_file
from quantbot_pipeline.vocabulary import INTERVALS_MS
from quantbot_pipeline_tests.support.builders import (
    CANDLE_COLUMNS,
    HOSTILE,
    Row,
    candle,
    candles,
    ms,
    stored_hash,
    write_csv,
    write_feather,
    write_jsonl,
    write_parquet,
)

JAN_1 = ms("2024-01-01")
STEP = INTERVALS_MS["5m"]
NAN, INF = float("nan"), float("inf")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def ingest(store: Path, *batches: list[Row], interval: str = "5m") -> IngestReport:
    """Ingest batches of rows in one go, each as a file of its own, in this order."""
    inbox = store.with_name("inbox")
    inbox.mkdir(parents=True, exist_ok=True)
    number = len(list(inbox.iterdir()))
    folder = inbox / f"{number:03}"
    schema = pa.schema([("mint", pa.string()), ("ts_ms", pa.int64()), *((c, pa.float64()) for c in CANDLE_COLUMNS[2:])])
    for i, rows in enumerate(batches):
        write_parquet(folder / f"{i:03}.parquet", pa.Table.from_pylist(rows, schema=schema))
    return ingest_candles([folder], CandleStore(store, memory_limit="256MB"), interval)


def stored(store: Path, month: str = "2024-01", interval: str = "5m") -> list[Row]:
    return pq.read_table(month_file(store, interval, month)).to_pylist()


def rejected(store: Path, month: str = "2024-01") -> list[Row]:
    return pq.read_table(rejected_file(store, "5m", month)).to_pylist()


def snapshot(store: Path) -> dict[str, tuple[int, int, bytes]]:
    """{file: inode, modification time, bytes} of everything below the store."""
    return {
        p.relative_to(store).as_posix(): (p.stat().st_ino, p.stat().st_mtime_ns, p.read_bytes())
        for p in store.rglob("*")
        if p.is_file()
    }


def added_up(report: IngestReport) -> bool:
    parts = (report.inserted, report.updated, report.unchanged, report.superseded, *report.rejected.values())
    return report.rows == sum(parts)


# --- formats ----------------------------------------------------------------------------------------------------------


def test_every_format_gives_the_same_files(tmp_path: Path) -> None:
    rows = [*candles("So1", JAN_1, 20), *candles("0xB", JAN_1, 25)]
    rows[3]["volume"] = None
    expected = sorted(rows, key=lambda r: (r["mint"], r["ts_ms"]))
    bare = [{k: v for k, v in r.items() if k != "mint"} for r in rows]
    hive = tmp_path / "hive" / "interval=5m"
    for mint in ("So1", "0xB"):
        write_parquet(
            hive / f"mint={mint}" / "p.parquet", [b for b, r in zip(bare, rows, strict=True) if r["mint"] == mint]
        )
    text = [{k: "" if v is None else v for k, v in r.items()} | {"extra": "x"} for r in rows]
    sources = [
        write_parquet(tmp_path / "c.parquet", rows),
        hive,
        write_csv(tmp_path / "c.csv", text),
        write_jsonl(tmp_path / "c.jsonl", rows),
        write_feather(tmp_path / "c.feather", rows),
    ]
    contents = []
    for i, source in enumerate(sources):
        report = ingest_candles([source], CandleStore(tmp_path / f"store{i}"), "5m")
        assert (report.inserted, report.rejected, report.months) == (45, {}, ["2024-01"]), source
        assert stored(tmp_path / f"store{i}") == expected, source
        contents.append(month_file(tmp_path / f"store{i}", "5m", "2024-01").read_bytes())
    assert len(set(contents)) == 1


def test_the_folder_names_the_token_exactly(tmp_path: Path, store: Path) -> None:
    mints = [text for text in HOSTILE if len(text) < 60]
    for i, mint in enumerate(mints):
        folder = tmp_path / "in" / f"mint={quote(mint, safe='')}"
        write_csv(folder / "c.csv", [candle("", JAN_1 + i * STEP)], CANDLE_COLUMNS[1:])
    # A column of the file counts more than the folder.
    write_csv(tmp_path / "in" / "mint=folder" / "c.csv", [candle("column", JAN_1)])
    ingest_candles([tmp_path / "in"], CandleStore(store), "5m")
    assert {row["mint"] for row in stored(store)} == {*mints, "column"}


def test_times_come_in_every_unit(tmp_path: Path, store: Path) -> None:
    columns: dict[str, tuple[str, Any]] = {
        "s": ("timestamp", pa.array([JAN_1 // 1000])),
        "float_s": ("Timestamp", pa.array([JAN_1 / 1000])),
        "us": ("date", pa.array([JAN_1 * 1000])),
        "ms": ("ts_ms", pa.array([JAN_1], pa.uint64())),
        "text": ("timestamp", pa.array([str(JAN_1)]).dictionary_encode()),
        "iso": ("date", pa.array(["2023-12-31T19:00:00-05:00"], pa.large_string())),
        "ns": ("timestamp", pa.array([JAN_1], pa.timestamp("ms")).cast(pa.timestamp("ns"))),
        "day": ("date", pa.array([JAN_1 // 86_400_000], pa.int32()).cast(pa.date32())),
    }
    for mint, (name, times) in columns.items():
        prices = {c: pa.array(["1.5"]) if mint == "text" else pa.array([1.5]) for c in CANDLE_COLUMNS[2:]}
        write_parquet(tmp_path / "in" / f"{mint}.parquet", pa.table({"mint": [mint], name: times, **prices}))
    report = ingest_candles([tmp_path / "in"], CandleStore(store), "5m")
    assert report.rejected == {}
    assert {row["mint"]: (row["ts_ms"], row["open"]) for row in stored(store)} == dict.fromkeys(columns, (JAN_1, 1.5))


def test_units_are_not_guessed(tmp_path: Path, store: Path) -> None:
    path = tmp_path / "mixed.csv"
    write_csv(path, [candle("m", JAN_1), candle("m", JAN_1 // 1000 + 300)], CANDLE_COLUMNS)
    with pytest.raises(
        InputError,
        match=r"mixed\.csv: column ts_ms mixes time units: ms \(1 row, first in row 1\), s \(1 row, first in row 2\)",
    ):
        ingest_candles([path], CandleStore(store), "5m")
    write_csv(path, [candle("m", JAN_1 // 1000)])
    with pytest.raises(InputError, match=r"mixed\.csv: column ts_ms holds s by magnitude, not milliseconds"):
        ingest_candles([path], CandleStore(store), "5m")
    write_csv(path, [{"date": 20240101} | candle("m", 0)], ["mint", "date", *CANDLE_COLUMNS[2:]])
    with pytest.raises(InputError, match=r"mixed\.csv: column date holds 20240101, which is no time"):
        ingest_candles([path], CandleStore(store), "5m")
    assert list(store.rglob("*.parquet")) == []


def test_volume_is_unknown_a_number_or_bad(tmp_path: Path, store: Path) -> None:
    cells = ["", "  ", "NaN", "nan", "0", "1e3", "abc", "-1", "inf", "-0"]
    write_csv(tmp_path / "in" / "a.csv", [candle("csv", JAN_1 + i * STEP, volume=v) for i, v in enumerate(cells)])
    write_jsonl(
        tmp_path / "in" / "b.jsonl", [candle("json", JAN_1 + i * STEP, volume=v) for i, v in enumerate([None, NAN, 7])]
    )
    write_jsonl(tmp_path / "in" / "c.jsonl", [candle("nulls", JAN_1, volume=None)])
    texts = pa.table({k: [v] for k, v in candle("text", JAN_1).items()}).set_column(
        6, "volume", pa.array([None], pa.string())
    )
    write_parquet(tmp_path / "in" / "d.parquet", texts)
    report = ingest_candles([tmp_path / "in"], CandleStore(store), "5m")
    assert report.rejected == {"volume": 3}
    volumes: dict[str, list[float | None]] = {}
    for row in stored(store):
        volumes.setdefault(row["mint"], []).append(row["volume"])
    assert volumes == {
        "csv": [None, None, None, None, 0, 1000, 0],
        "json": [None, None, 7],
        "nulls": [None],
        "text": [None],
    }


REFUSED = {
    "empty": ("c.csv", b"", "the file is empty"),
    "header only": ("c.csv", b"mint,ts_ms,open,high,low,close,volume\n", "no rows; expected candles"),
    "missing column": ("c.csv", b"mint,ts_ms,open,high,low\n", r"missing column close \(columns found: mint, ts_ms, open"),
    "missing columns": ("c.csv", b"mint,ts,o\n", r"missing columns high, low, close \(columns found: mint, ts, o\); rename them, or .*--map high="),
    "missing time": ("c.csv", b"mint,open,high,low,close,volume\n", "missing column ts_ms or timestamp or date"),
    "missing mint": ("c.csv", b"ts_ms,open,high,low,close,volume\n", "missing column mint"),
    "not parquet": ("c.parquet", b"hello, world", "not readable as parquet"),
    "not feather": ("c.feather", b"hello, world", "not readable as feather"),
    "not for candles": ("c.duckdb", b"", r"unknown file type '\.duckdb'.*--format parquet\|csv\|feather\|jsonl"),
    "wrong suffix": ("c.txt", b"", r"unknown file type '\.txt'"),
}  # fmt: skip  # a table: what belongs together stands on one line


@pytest.mark.parametrize(("name", "content", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_refused(tmp_path: Path, store: Path, name: str, content: bytes, message: str) -> None:
    # A folder `open=…` is no price: only the token may come from a folder.
    path = tmp_path / "volume=1" / name
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        ingest_candles([path], CandleStore(store), "5m")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


# --- validity ---------------------------------------------------------------------------------------------------------

# (what is wrong with a valid candle, the reason that it is rejected for, or None).
CASES: list[tuple[dict[str, Any], str | None]] = [
    ({}, None),
    ({"open": 1.0, "high": 1.0, "low": 1.0, "close": 1.0}, None),
    ({"volume": None}, None),
    ({"volume": NAN}, None),
    ({"volume": 0.0}, None),
    ({"low": 5e-324, "volume": 1e308}, None),
    *(({c: v}, "price") for c in ("open", "high", "low", "close") for v in (None, NAN, INF, -INF, 0.0, -1.0, -0.0)),
    ({"high": 0.99}, "ohlc_order"),
    ({"low": 1.01}, "ohlc_order"),
    ({"open": 1.11}, "ohlc_order"),
    ({"open": 0.89}, "ohlc_order"),
    ({"close": 1.11}, "ohlc_order"),
    ({"close": 0.89}, "ohlc_order"),
    ({"high": 0.9, "low": 1.1}, "ohlc_order"),
    ({"volume": -1.0}, "volume"),
    ({"volume": INF}, "volume"),
    ({"volume": -INF}, "volume"),
    ({"ts_ms": 1}, "off_grid"),
    ({"ts_ms": 60_000}, "off_grid"),
    # The first test that fails names the reason.
    ({"mint": None, "open": NAN}, "mint"),
    ({"mint": "", "ts_ms": -JAN_1}, "mint"),
    ({"ts_ms": None, "open": NAN}, "timestamp"),
    ({"ts_ms": -JAN_1, "high": 0.5}, "timestamp"),
    ({"ts_ms": 2 * 10**17}, "timestamp"),
    ({"close": NAN, "high": 0.5, "volume": -1.0, "ts_ms": 1}, "price"),
    ({"high": 0.5, "volume": -1.0, "ts_ms": 1}, "ohlc_order"),
    ({"volume": -1.0, "ts_ms": 1}, "volume"),
]


def test_a_row_is_rejected_once_for_the_first_test_it_fails(store: Path) -> None:
    rows: list[Row] = []
    expected: list[Any] = []
    valid: list[Row] = []
    for i, (change, reason) in enumerate(CASES):
        row = candle(f"m{i:02}", JAN_1) | {k: v for k, v in change.items() if k != "ts_ms"}
        if "ts_ms" in change:  # a shift of the time, or none at all
            row["ts_ms"] = None if change["ts_ms"] is None else JAN_1 + change["ts_ms"]
        rows.append(row)
        (valid if reason is None else expected).append(row | {"reason": reason})
    report = ingest(store, rows)
    reasons = [row["reason"] for row in expected]
    assert report.rejected == {reason: reasons.count(reason) for reason in sorted(set(reasons))}
    assert report.inserted == len(valid) and added_up(report)
    assert [row["mint"] for row in stored(store)] == [row["mint"] for row in valid]
    assert all(row["volume"] is None or row["volume"] >= 0 for row in stored(store)), "NaN and null are one: unknown"
    # Kept beside the store as they came, in their month; where the time is unknown, under `none`.
    kept = [*rejected(store), *rejected(store, "none")]
    in_order = [repr({k: v for k, v in row.items() if k not in ("nth", "file", "row", "text")}) for row in kept]
    for row in expected:
        if row["reason"] == "timestamp":
            row["ts_ms"] = None
        if row["reason"] == "mint" and row["ts_ms"] <= 0:
            row["ts_ms"] = None
    assert sorted(in_order) == sorted(
        repr({**{k: row[k] for k in CANDLE_COLUMNS}, "reason": row["reason"]}) for row in expected
    )


def test_of_valid_duplicates_the_last_stays(store: Path) -> None:
    def at(price: float, i: int = 0, **change: Any) -> Row:
        return candle("m", JAN_1 + i * STEP, price, price * 1.1, price * 0.9, price) | change

    invalid = at(9.0) | {"high": 0.5}
    # Within a file by row, then by file; the invalid last row takes nobody's place.
    first = ingest(store, [at(1.0), at(2.0), at(1.5, 1)], [at(3.0), invalid, at(2.5, 2)])
    assert (first.inserted, first.superseded, first.rejected) == (3, 2, {"ohlc_order": 1}) and added_up(first)
    assert [row["open"] for row in stored(store)] == [3.0, 1.5, 2.5]
    # A later ingest wins over all earlier ones, even with an earlier value; a volume alone is a change, too.
    later = ingest(store, [at(1.0), invalid, at(1.5, 1), at(2.5, 2, volume=None)])
    assert (later.inserted, later.updated, later.unchanged) == (0, 2, 1) and added_up(later)
    assert [(row["open"], row["volume"]) for row in stored(store)] == [(1.0, 5.0), (1.5, 5.0), (2.5, None)]
    # Only invalid rows: nothing valid is displaced.
    assert ingest(store, [at(1.0, high=0.1), at(1.0, 1, close=NAN)]).updated == 0
    assert [row["open"] for row in stored(store)] == [1.0, 1.5, 2.5]


def test_files_are_merged_in_byte_order_of_their_path(tmp_path: Path, store: Path) -> None:
    # Capitals before small letters, and é last of all, whatever a locale thinks of it.
    names = {"Z.csv": "m", "a.csv": "m", "f.csv": "n", "é.csv": "n"}
    for price, (name, mint) in enumerate(names.items(), start=1):
        write_csv(tmp_path / "in" / name, [candle(mint, JAN_1, *[float(price)] * 4)])
    ingest_candles([tmp_path / "in" / "é.csv", tmp_path / "in"], CandleStore(store), "5m")
    assert [(row["mint"], row["open"]) for row in stored(store)] == [("m", 2.0), ("n", 4.0)]


def test_the_same_again_rewrites_nothing(store: Path) -> None:
    rows = [*candles("a", "2024-01-31T20:00", 100), *candles("b", JAN_1, 5), candle("b", JAN_1, volume=-1.0)]
    first = ingest(store, rows)
    assert (first.inserted, first.months) == (105, ["2024-01", "2024-02"])
    before = snapshot(store)
    again = ingest(store, rows[::-1])
    assert (again.inserted, again.updated, again.unchanged, again.months) == (0, 0, 105, [])
    assert again.rejected == {"volume": 1} and added_up(again)
    assert snapshot(store) == before
    # New rows in one month leave the other month's file alone.
    assert ingest(store, candles("c", JAN_1, 3)).months == ["2024-01"]
    february = "interval=5m/month=2024-02/candles.parquet"
    assert snapshot(store)[february] == before[february]
    leftovers = [name for name in snapshot(store) if not name.endswith(".parquet")]
    assert leftovers in ([], [".ingest.lock"])


def test_rejected_rows_keep_their_multiplicity(store: Path) -> None:
    bad, other = candle("m", JAN_1, high=0.1), candle("m", JAN_1 + STEP, volume=-1.0)
    assert ingest(store, [bad, bad, other], [bad]).months == ["2024-01"]
    assert [(r["reason"], r["nth"]) for r in rejected(store)] == [
        ("ohlc_order", 1),
        ("ohlc_order", 2),
        ("ohlc_order", 3),
        ("volume", 1),
    ]
    before = snapshot(store)
    assert ingest(store, [bad, bad]).months == []
    assert snapshot(store) == before, "an overlapping file brings nothing new"
    ingest(store, [bad] * 4)
    assert [r["nth"] for r in rejected(store) if r["reason"] == "ohlc_order"] == [1, 2, 3, 4]
    # A row mended later is a valid row; the record of the bad one stays.
    ingest(store, [candle("m", JAN_1)])
    assert len(stored(store)) == 1 and len(rejected(store)) == 5


# --- interval ---------------------------------------------------------------------------------------------------------


def test_a_wrong_interval_is_refused_both_ways(tmp_path: Path, store: Path) -> None:
    with pytest.raises(InputError, match="most candles do not open on the 5m grid; is --interval 5m right"):
        ingest(store, candles("m", JAN_1, 30, interval="1m"))
    with pytest.raises(InputError, match="every candle opens on the 1h grid; pass --interval 1h, not 5m"):
        ingest(store, candles("m", JAN_1, 30, interval="1h"))
    with pytest.raises(InputError, match="every candle opens on the 15m grid; pass --interval 15m, not 1m"):
        ingest(store, candles("m", JAN_1, 30, interval="15m"), interval="1m")
    hive = write_parquet(tmp_path / "interval=5m" / "c.parquet", candles("m", JAN_1, 3))
    with pytest.raises(InputError, match=r"c\.parquet: the folder says interval=5m, not 15m; pass --interval 5m"):
        ingest_candles([hive], CandleStore(store), "15m")
    with pytest.raises(InputError, match="interval '7m' is unknown; choose one of 1m, 2m, 3m, 5m"):
        ingest_candles([hive], CandleStore(store), "7m")
    assert list(store.rglob("*.parquet")) == []
    # Few times prove nothing, and some rows off the grid are bad rows, not another interval.
    noon = [candle(f"m{i}", JAN_1 + h * 3_600_000) for i in range(30) for h in (0, 12)]
    assert ingest(store, noon).inserted == 60
    mostly = [*candles("n", JAN_1, 30), *(candle("n", JAN_1 + i * STEP + 1) for i in range(20))]
    assert ingest(store, mostly).rejected == {"off_grid": 20}


def test_intervals_live_side_by_side(store: Path) -> None:
    for interval, price in (("1m", 1.0), ("15m", 2.0), ("1h", 3.0)):
        ingest(
            store,
            candles("m", JAN_1 + 60_000 * (interval == "1m"), 3, interval=interval, price=price),
            interval=interval,
        )
    assert sorted(p.name for p in store.iterdir() if p.is_dir()) == [
        "interval=15m", "interval=1h", "interval=1m",
    ]  # fmt: skip  # a table: what belongs together stands on one line
    assert [r["ts_ms"] - JAN_1 for r in stored(store, interval="15m")] == [0, 900_000, 1_800_000]


# --- layout -----------------------------------------------------------------------------------------------------------


def test_tokens_never_span_row_groups(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantbot_pipeline.market.candle_files.ROW_GROUP", 10)
    sizes = {"a": 10, "b": 3, "c": 3, "d": 4, "e": 1, "f": 37, "g": 9, "h": 1, "i": 1, "é" * 9: 2}
    ingest(store, [row for mint, n in sizes.items() for row in candles(mint, JAN_1, n)])
    file = pq.ParquetFile(month_file(store, "5m", "2024-01"), page_checksum_verification=True)
    groups = [
        [mint for mint, _ in itertools.groupby(file.read_row_group(i)["mint"].to_pylist())]
        for i in range(file.num_row_groups)
    ]
    assert groups == [["a"], ["b", "c", "d"], ["e", "f"], ["g", "h"], ["i", "é" * 9]]
    assert file.schema_arrow.equals(candle_files.SCHEMA)
    table = file.read().to_pylist()
    assert table == sorted(table, key=lambda r: (r["mint"].encode(), r["ts_ms"]))


def test_equal_content_gives_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantbot_pipeline.market.candle_files.ROW_GROUP", 50)
    rows = [row for i in range(12) for row in candles(f"m{i}", "2024-01-31", 200 + 17 * i)]
    rows += [candle("m3", JAN_1 + i * STEP, high=0.5, volume=v) for i in range(3) for v in (1.0, NAN, None)]
    shuffled = [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]
    one, many, parts = tmp_path / "one", tmp_path / "many", tmp_path / "parts"
    ingest(one, rows)
    with monkeypatch.context() as patch:
        patch.setattr("quantbot_pipeline.ingest.candles.workspace", lambda **config: workspace(**config, threads="4"))
        ingest(many, shuffled, shuffled[:300])
    for chunk in (shuffled[::3], shuffled[1::3], shuffled[2::3], shuffled):
        ingest(parts, chunk)
    contents = [
        {name: c for name, (_, _, c) in snapshot(s).items() if name.endswith("candles.parquet")}
        for s in (one, many, parts)
    ]
    assert len(contents[0]) == 2
    assert contents[1] == contents[0] and contents[2] == contents[0]
    assert pq.ParquetFile(month_file(one, "5m", "2024-01")).num_row_groups > 5


def test_the_content_hash_follows_every_value(tmp_path: Path) -> None:
    base = candles("m", JAN_1, 4)
    variants = [
        base,
        [*base, candle("n", JAN_1)],
        [dict(r, mint="m2") for r in base],
        [dict(r, ts_ms=r["ts_ms"] + STEP) for r in base],
    ]
    variants += [[dict(base[1], **{c: base[1][c] * (1 + 1e-12)}), *base[2:], base[0]] for c in ("open", "volume")]
    variants += [[dict(base[0], volume=None), *base[1:]]]
    hashes = []
    for i, rows in enumerate(variants):
        ingest(tmp_path / f"s{i}" / "store", rows)
        hashes.append(stored_hash(month_file(tmp_path / f"s{i}" / "store", "5m", "2024-01")))
    assert len(set(hashes)) == len(variants) and all(len(h) == 64 for h in hashes)


def test_an_ingest_larger_than_its_memory_spills(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n, tokens = 4_000, 50
    price = np.random.default_rng(0).uniform(1, 2, n * tokens)
    table = pa.table(
        {
            "mint": pa.array(np.tile([f"{i:044}" for i in range(tokens)], n)),
            "ts_ms": np.repeat(JAN_1 + np.arange(n) * STEP, tokens),
            "open": price, "high": price * 1.1, "low": price * 0.9, "close": price, "volume": price,
        }
    )  # fmt: skip  # a table: what belongs together stands on one line
    path = write_parquet(tmp_path / "big.parquet", table)
    # One thread: how much memory several need depends on the machine. Without room on the disk it is one clear line.
    monkeypatch.setattr(
        "quantbot_pipeline.ingest.candles.workspace",
        lambda **config: workspace(**config | {"threads": "1", "temp_directory": ""}),
    )
    with pytest.raises(StoreError, match=r"^the ingest stopped: Out of Memory Error.*QUANTBOT_MEMORY_LIMIT"):
        ingest_candles([path], CandleStore(tmp_path / "small", memory_limit="50MB"), "5m")
    assert [p.name for p in (tmp_path / "small").rglob("*") if p.is_file() and p.name != ".ingest.lock"] == []
    monkeypatch.setattr(
        "quantbot_pipeline.ingest.candles.workspace", lambda **config: workspace(**config | {"threads": "1"})
    )
    report = ingest_candles([path], CandleStore(store, memory_limit="50MB"), "5m")
    assert report.inserted == n * tokens and added_up(report)
    assert sum(pq.read_metadata(p).num_rows for p in store.rglob("candles.parquet")) == n * tokens
    assert sorted(p.name for p in store.iterdir()) == [".ingest.lock", "interval=5m"]


def test_what_a_killed_ingest_left_goes_with_the_next(store: Path) -> None:
    ingest(store, candles("m", JAN_1, 3))
    halves = [month_file(store, "5m", "2024-01"), rejected_file(store, "1h", "2023-12")]
    for half in (path.with_name(f".{path.name}.tmp") for path in halves):
        half.parent.mkdir(parents=True, exist_ok=True)
        half.write_bytes(b"PAR1 half of")
    before = stored(store)
    assert ingest(store, candles("m", "2024-03-01", 3)).months == ["2024-03"]
    assert not list(store.rglob("*.tmp")) and stored(store) == before


def test_a_damaged_month_stops_the_ingest_and_stays_as_it_is(store: Path) -> None:
    ingest(store, candles("m", JAN_1, 500))
    path = month_file(store, "5m", "2024-01")
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:]):
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match=r"candles\.parquet: not readable .*delete the file and ingest"):
            ingest(store, candles("n", JAN_1, 1))
        assert path.read_bytes() == damaged
    path.unlink()
    assert ingest(store, candles("m", JAN_1, 500)).inserted == 500
    assert path.read_bytes() == whole


def by_another_program(path: Path, columns: list[str], rows: list[Row]) -> bytes:
    pq.write_table(pa.Table.from_pylist(rows, schema=candle_files.SCHEMA).select(columns), path)
    return path.read_bytes()


def test_candles_of_another_program_are_merged_by_the_names_of_their_columns(store: Path) -> None:
    """By their places, opens became closes without a word; and texts, times: the process died."""
    rows = [candle("m", JAN_1 + i * STEP, 10.0, 20.0, 5.0, 11.0 + i / 10) for i in range(30)]
    late = candle("n", JAN_1)
    ingest(store, [*rows, late])
    path = month_file(store, "5m", "2024-01")
    expected = path.read_bytes()
    for columns in (["mint", "ts_ms", "close", "low", "high", "open", "volume"], candle_files.SCHEMA.names[::-1]):
        by_another_program(path, columns, rows)
        assert ingest(store, [late]).inserted == 1
        assert path.read_bytes() == expected


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (
            [candle("m", JAN_1), candle("m", JAN_1, 2.0, 2.0, 2.0, 2.0)],
            candle_files.SCHEMA.names,
            "two candles of one time",
        ),
        ([candle("m", JAN_1, high=0.5)], candle_files.SCHEMA.names, "invalid candles"),
        ([candle("m", JAN_1 + 1)], candle_files.SCHEMA.names, "invalid candles"),
        ([candle("m", JAN_1)], candle_files.SCHEMA.names[:-1], "no column volume of type double"),
    ],
)
def test_what_no_ingest_let_in_is_not_merged(store: Path, rows: list[Row], columns: list[str], message: str) -> None:
    path = month_file(store, "5m", "2024-01")
    path.parent.mkdir(parents=True)
    whole = by_another_program(path, columns, rows)
    with pytest.raises(StoreError, match=rf"candles\.parquet: not readable .*{message}"):
        ingest(store, [candle("n", JAN_1)])
    assert path.read_bytes() == whole
