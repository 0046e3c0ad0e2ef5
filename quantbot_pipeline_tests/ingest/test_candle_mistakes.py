"""Mistakes in files of candles: refused or counted before a wrong price or a wrong token is in the store."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.home import Home
from quantbot_pipeline.ingest.candles import ingest_candles
from quantbot_pipeline.ingest.inbox import candle_interval, scan, take_in
from quantbot_pipeline.ingest.report import IngestReport
from quantbot_pipeline.market.candle_files import CandleStore, rejected_file, rejected_hash, wicks_file
from quantbot_pipeline.settings import Settings
from quantbot_pipeline.vocabulary import INTERVALS_MS
from quantbot_pipeline_tests.support.builders import (
    Row,
    candle,
    candles,
    ms,
    solana_address,
    write_csv,
    write_jsonl,
    write_parquet,
)

JAN_1 = ms("2025-01-01")
STEP = INTERVALS_MS["5m"]
FIELDS = ("ts_ms", "open", "high", "low", "close", "volume")


def ingest(tmp_path: Path, *sources: Path, interval: str = "5m", **asked: Any) -> IngestReport:
    return ingest_candles(list(sources), CandleStore(tmp_path / "store", memory_limit="256MB"), interval, **asked)


def refused(tmp_path: Path, message: str, *sources: Path, **asked: Any) -> None:
    """The ingest is refused in one line, and nothing is written."""
    with pytest.raises(InputError, match=message) as caught:
        ingest(tmp_path, *sources, **asked)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "store").rglob("*.parquet"))


def apart(k: int, n: int, start: int = JAN_1, interval: str = "5m", mint: str = "m") -> list[Row]:
    """Candles that are `k` intervals apart."""
    return [candle(mint, start + i * k * INTERVALS_MS[interval]) for i in range(n)]


# --- spacing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("coarse", "fine"), [("3m", "1m"), ("30m", "15m"), ("4h", "1h"), ("8h", "1h"), ("1d", "1h"), ("1d", "4h")]
)
def test_coarser_candles_are_refused(tmp_path: Path, coarse: str, fine: str) -> None:
    path = write_csv(tmp_path / "a.csv", candles("m", JAN_1, 80, interval=coarse))
    refused(tmp_path, rf"a\.csv.*{coarse}.*not {fine}.*row 1, token m.* apart", path, interval=fine)
    assert ingest(tmp_path, path, interval=coarse).inserted == 80


def test_a_stretch_of_coarser_candles_is_named(tmp_path: Path) -> None:
    rows = [*apart(1, 73), *apart(12, 60, JAN_1 + 73 * STEP - STEP + 12 * STEP)]
    path = write_csv(tmp_path / "a.csv", rows)
    refused(
        tmp_path,
        r"a\.csv: row 73: from 2025-01-01T06:00:00.* candles of m are 1 hour apart, 12 times in a row or more, not 5m; pass --interval 1h",
        path,
    )
    # Beside a sound token, and with the rows in any order.
    both = write_parquet(tmp_path / "b.parquet", [*candles("sound", JAN_1, 300), *rows[::-1]])
    refused(tmp_path, "candles of m are 1 hour apart, 12 times", both)
    uneven = write_csv(tmp_path / "c.csv", [*apart(1, 30), *apart(7, 13, JAN_1 + 40 * STEP)])
    refused(tmp_path, r"35 minutes apart, 12 times in a row or more, not 5m; take these rows out", uneven)


def test_thin_tokens_pass(tmp_path: Path) -> None:
    gaps = [1, 3, 2, 2, 2, 7, 1, 1, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 1, 13, 4, 4, 9] * 4
    times = [sum(gaps[:i]) for i in range(len(gaps))]
    rows = [candle("thin", JAN_1 + t * STEP) for t in times]
    assert ingest(tmp_path, write_csv(tmp_path / "a.csv", rows)).inserted == len(rows)
    # Twelve candles of a token an hour apart prove nothing yet; the thirteenth does.
    sound = candles("sound", JAN_1, 40)
    assert ingest(tmp_path, write_csv(tmp_path / "b.csv", [*sound, *apart(12, 12, mint="n")])).inserted == 52
    with pytest.raises(InputError, match="candles of n are 1 hour apart, 12 times"):
        ingest(tmp_path, write_csv(tmp_path / "c.csv", [*sound, *apart(12, 13, mint="n")]))


def test_stretches_are_found_wherever_a_batch_ends(tmp_path: Path) -> None:
    from quantbot_pipeline.duck import workspace
    from quantbot_pipeline.ingest.spacing import walk_along

    rows = [*apart(1, 40), *apart(3, 13, JAN_1 + 100 * STEP), candle("n", JAN_1), candle("n", JAN_1, close=1.05)]
    rows[20] = candle("m", JAN_1 + 20 * STEP, high=99.0)
    table = [
        (i, r["mint"], float(r["ts_ms"]), *(r[c] for c in ("open", "high", "low", "close"))) for i, r in enumerate(rows)
    ]
    for size in (1, 2, 3, 7, 13, 14, 40, 1000):
        with workspace() as con:
            con.execute(
                "CREATE TABLE o (seq BIGINT, mint VARCHAR, t DOUBLE, open DOUBLE, high DOUBLE, low DOUBLE, close DOUBLE)"
            )
            con.executemany("INSERT INTO o VALUES (?, ?, ?, ?, ?, ?, ?)", table)
            walk = walk_along(con, "o", STEP, size)
        assert walk.coarse is not None and walk.coarse.place in range(40, 53) and walk.coarse.step_ms == 3 * STEP, size
        assert [t["ts_ms"].to_pylist() for t in walk.wicks] == [[JAN_1 + 20 * STEP]], size
        assert (walk.superseded().tolist(), walk.contradictions, walk.rows) == ([53], 1, 55), size


# --- contradictions ---------------------------------------------------------------------------------------------------


def test_rows_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    one, other = candles("m", JAN_1, 30), candles("m", JAN_1, 30, price=3.0)
    a, b = write_csv(tmp_path / "in" / "a.csv", one), write_csv(tmp_path / "in" / "b.csv", other)
    refused(
        tmp_path,
        r"a\.csv: 30 rows of 60 contradict another row .*: row 1 and row 1 of .*b\.csv, m at 2025-.*both of this token",
        a,
        b,
    )
    refused(tmp_path, r"30 rows of 60 contradict.*rows of two tokens", write_csv(tmp_path / "c.csv", [*one, *other]))
    # Equal rows, rows that differ in the last digit only, and one candle that was not closed yet are no contradiction.
    nearly = [
        r | {"open": r["open"] * (1 + 1e-9), "close": r["close"] * (1 + 1e-9), "high": r["high"] * (1 + 2e-9)}
        for r in one
    ]
    nearly[-1] |= {"close": nearly[-1]["low"]}
    report = ingest(tmp_path, a, write_csv(tmp_path / "d.csv", nearly))
    assert (report.inserted, report.superseded) == (30, 30)


def test_one_token_of_two_sources_is_found_among_many(tmp_path: Path) -> None:
    """Of all rows few contradict each other, of this token all; overlapping exports that differ here and there pass."""
    many = [row for i in range(40) for row in candles(f"token{i}", JAN_1, 30)]
    other = candles("token7", JAN_1, 30, price=3.0)
    refused(
        tmp_path,
        r"30 rows of token7 contradict another row of the same time, of which it has 30 \(more than 25%\)",
        write_csv(tmp_path / "a.csv", [*many, *other]),
    )
    report = ingest(tmp_path, write_csv(tmp_path / "b.csv", [*many, *other[:6]]))
    assert (report.inserted, report.superseded) == (1200, 6)


def test_two_symbols_below_one_token_are_refused(tmp_path: Path) -> None:
    rows = [{"symbol": s} | candle("", JAN_1 + i * STEP) for i in range(9) for s in ("A", "B")]
    path = write_csv(tmp_path / "mint=M" / "a.csv", rows, ["symbol", *FIELDS])
    refused(tmp_path, r"a\.csv: row 2: column symbol holds 'B' beside 'A', but one token is named", path)


# --- times ------------------------------------------------------------------------------------------------------------


def test_a_candle_that_is_not_closed_is_left_out_and_counted(tmp_path: Path) -> None:
    now = JAN_1 + 10 * STEP + 1
    rows = [*candles("m", JAN_1, 12), candle("m", JAN_1 + 86_400_000 + 11 * STEP), candle("m", ms("2100-01-01"))]
    report = ingest(tmp_path, write_csv(tmp_path / "a.csv", rows), now_ms=now)
    assert (report.inserted, report.rejected) == (10, {"not_closed": 2, "timestamp": 2})
    # It is nobody's mistake: nothing is kept of it, and the same file brings it later.
    kept = [
        row
        for f in (tmp_path / "store").rglob("rejected.parquet")
        for row in pq.read_table(f, partitioning=None).to_pylist()
    ]
    assert {row["reason"] for row in kept} == {"timestamp"}
    assert ingest(tmp_path, tmp_path / "a.csv", now_ms=now + 2 * STEP).inserted == 2


def test_digits_that_are_no_date_are_rejected(tmp_path: Path) -> None:
    rows = [candle("m", 0) | {"date": f"202513{day:02}0000"} for day in range(1, 4)]
    report = ingest(tmp_path, write_csv(tmp_path / "a.csv", rows, ["mint", "date", *FIELDS[1:]]))
    assert report.rejected == {"timestamp": 3} and "row 1: timestamp: 'm,202513010000,1.0" in report.refusal


# --- volume and wicks -------------------------------------------------------------------------------------------------


def test_words_for_no_volume_leave_the_candle(tmp_path: Path) -> None:
    words = ["null", "NULL", "None", "N/A", "\\N", "-", "", "nan", "NA", "none", " null "]
    rows = [candle("m", JAN_1 + i * STEP, volume=word) for i, word in enumerate(words)]
    report = ingest(
        tmp_path,
        write_csv(tmp_path / "a.csv", rows),
        write_jsonl(tmp_path / "b.jsonl", [r | {"mint": "n"} for r in rows]),
    )
    assert (report.inserted, report.rejected) == (2 * len(words), {})


def test_freak_wicks_are_kept_counted_and_flagged(tmp_path: Path) -> None:
    rows = candles("m", JAN_1, 30)
    rows[10]["high"] = 480.0
    rows[20] |= {"high": 50.0, "close": 50.0}
    rows[21] |= {"open": 50.0, "high": 50.0}  # it stays up there: no wick
    path = write_csv(tmp_path / "a.csv", rows)
    report = ingest(tmp_path, path)
    assert (report.inserted, report.freak_wicks) == (30, 1)
    flagged = pq.read_table(wicks_file(tmp_path / "store", "5m", "2025-01"), partitioning=None).to_pylist()
    assert [(row["mint"], row["ts_ms"], row["high"]) for row in flagged] == [("m", rows[10]["ts_ms"], 480.0)]
    before = wicks_file(tmp_path / "store", "5m", "2025-01").stat().st_mtime_ns
    assert ingest(tmp_path, path).months == []
    assert wicks_file(tmp_path / "store", "5m", "2025-01").stat().st_mtime_ns == before


# --- what is kept of a bad row ----------------------------------------------------------------------------------------


def test_rejected_rows_keep_file_row_and_text(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [candle("m", JAN_1), candle("m", JAN_1 + STEP, close="abc")])  # type: ignore[arg-type]
    report = ingest(tmp_path, path)
    assert (report.rejected, report.refusal) == ({"price": 1}, "")
    (row,) = pq.read_table(rejected_file(tmp_path / "store", "5m", "2025-01"), partitioning=None).to_pylist()
    assert (row["file"], row["row"], row["text"]) == (str(path), 2, f"m,{JAN_1 + STEP},1.0,1.1,0.9,abc,5.0")


def test_rejected_rows_of_an_earlier_version_stay(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [candle("m", JAN_1), candle("m", JAN_1, high=0.1)])
    ingest(tmp_path, path)
    kept = rejected_file(tmp_path / "store", "5m", "2025-01")
    old = pq.read_table(kept, partitioning=None).drop_columns(["file", "row", "text"])
    pq.write_table(old, kept)
    assert ingest(tmp_path, path).months == []
    ingest(tmp_path, write_csv(tmp_path / "b.csv", [candle("n", JAN_1, high=0.1), candle("n", JAN_1)]))
    assert [row["file"] for row in pq.read_table(kept, partitioning=None).to_pylist()] == [
        None,
        str(tmp_path / "b.csv"),
    ]


def test_whence_a_rejected_row_came_changes_no_input_of_a_run(tmp_path: Path) -> None:
    rows = [*candles("m", JAN_1, 3), candle("m", JAN_1, high=0.1), candle("m", JAN_1 + STEP, volume=-1.0)]
    hashes = set()
    for i, order in enumerate((rows, rows[::-1])):
        store = tmp_path / f"store{i}"
        ingest_candles([write_csv(tmp_path / f"{i}.csv", order)], CandleStore(store), "5m")
        kept = rejected_file(store, "5m", "2025-01")
        hashes.add(rejected_hash(kept))
        # An earlier version wrote the values alone, and had the hash of that file.
        values = pq.read_table(kept, partitioning=None).drop_columns(["file", "row", "text"])
        pq.write_table(values.replace_schema_metadata(None), kept, compression="zstd", write_page_checksum=True)
        hashes.add(rejected_hash(kept))
    assert len(hashes) == 1


# --- files that are something else ------------------------------------------------------------------------------------

OTHERS: dict[str, tuple[str, bytes, str]] = {
    "HTML": ("a.csv", b"<!DOCTYPE html><html><body>Too many requests</body></html>", "this is HTML, not a table"),
    "JSON": ("a.csv", b'[{"ts_ms": 1}]', "this is JSON, not CSV; name it .json"),
    "gzip": ("a.csv", b"\x1f\x8b\x08\x00broken", "not readable as gzip"),
    "Parquet": ("a.csv", b"PAR1xxxx", "this is Parquet, not CSV"),
    "empty JSON": ("a.json", b"", "the file is empty"),
    "JSON without rows": ("a.json", b'{"success": false, "message": "x"}', r"no list of rows .*columns found: success, message|no list of rows .*message"),
    "arrays too long": ("mint=M/a.json", b"[[1,2,3,4,5,6,7,8]]", r"arrays of 8 values at the top; say which is which.*--map ts_ms=1"),
    "uneven columns": ("mint=M/a.json", b'{"t":[1735689600],"o":[1,2],"h":[1],"l":[1],"c":[1]}', r"different lengths \(t 1, o 2"),
    "cut JSON": ("mint=M/a.json", b"[[1735689600000,1,1,1,1,1],[173", "not valid JSON"),
    "deep JSON": ("mint=M/a.json", b"[" * 100_000, "not valid JSON"),
    "nested price": ("mint=M/a.json", b'[{"ts_ms":1,"open":[1],"high":1,"low":1,"close":1}]', "row 1: 'open' holds an array or an object"),
    "no token": ("a.csv", b"ts_ms,open,high,low,close\n1735689600000,1,1,1,1\n", r"missing column mint \(columns found: ts_ms"),
    "no token in JSON": ("a.json", b"[[1735689600000,1,1,1,1,1]]", "missing column mint, and neither folder nor name names a token; pass --mint"),
    "odd width": ("mint=M/a.csv", b"1735689600000,1,1,1,1,1,1,1,1\n", "no header line, and 9 columns; say which is which"),
    "mark prices": ("BTC_USDT-5m-mark.json", b"[]", r"no file of 5m candles is left \(left out: mark 1\)"),
}  # fmt: skip  # a table: what belongs together stands on one line


@pytest.mark.parametrize(("name", "content", "message"), OTHERS.values(), ids=OTHERS)
def test_a_file_of_another_kind_is_called_what_it_is(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    refused(tmp_path, message, path)


# --- the inbox --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "sep"), [("1,015", ";"), ("1,001.00", ";"), ("0,5", "\t")])
def test_a_price_with_a_comma_is_named(tmp_path: Path, text: str, sep: str) -> None:
    path = tmp_path / "mint=M" / "a.csv"
    path.parent.mkdir()
    rows = [f"{JAN_1 + i * STEP}{sep}{sep.join(['1' if i else text] * 4)}" for i in range(3)]
    path.write_text("\n".join([sep.join(("ts_ms", "open", "high", "low", "close")), *rows]) + "\n")
    refused(
        tmp_path, rf"row 1: column open holds '{text}'; a number with a comma is not read: write a decimal point", path
    )


def test_a_row_of_words_is_no_minute_without_a_trade(tmp_path: Path) -> None:
    path = tmp_path / "mint=M" / "a.csv"
    path.parent.mkdir()
    rows = [f"{JAN_1 + i * STEP},{','.join([text] * 4)}" for i, text in enumerate(["1", "soon", "", "N/A", "nan"])]
    path.write_text("\n".join(["ts_ms,open,high,low,close", *rows]) + "\n")
    report = ingest(tmp_path, path)
    assert (report.inserted, report.rejected) == (1, {"no_trade": 3, "price": 1})


@pytest.mark.parametrize("column", ["address", "tokenAddress"])
def test_rows_of_another_address_than_the_name_says_are_refused(tmp_path: Path, column: str) -> None:
    one, other = solana_address(1), solana_address(2)
    rows = [row | {column: other} for row in candles("m", JAN_1, 3)]
    path = write_csv(tmp_path / f"{one}.csv", rows, (column, *FIELDS))
    refused(
        tmp_path, f"row 1: column {column} says {other}, but the name says {one}; rename the file, or pass --mint", path
    )
    assert ingest(tmp_path, path, mint=one).inserted == 3
    named = write_csv(tmp_path / f"{other}.csv", rows, (column, *FIELDS))
    assert ingest(tmp_path, named).inserted == 3


def test_a_name_with_an_interval_that_is_none_offers_none(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "BTC_USDT-1M.csv", candles("m", JAN_1, 3), FIELDS)
    refused(tmp_path, "the name says 1M, not 1d; 1M is not supported; take the file out", path, interval="1d")


def test_a_chat_among_candles_is_named(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(
        '{"name": "C", "type": "public_channel", "id": 1, "messages": [{"id": 1, "date": "x", "text": "gem"}]}'
    )
    refused(tmp_path, r"this is a Telegram export \(JSON\); read it with quantbot ingest calls", path)


def test_a_file_without_a_token_names_the_option(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", candles("m", JAN_1, 3), FIELDS)
    refused(tmp_path, "missing column mint.*; --mint TOKEN or a folder mint=TOKEN names the token of all rows", path)


@pytest.mark.parametrize("kind", ["trades", "aggTrades", "fundingRate", "metrics", "bookDepth"])
def test_other_files_of_binance_vision_are_no_candles(tmp_path: Path, kind: str) -> None:
    write_csv(tmp_path / "in" / "BTCUSDT-5m-2025-01.csv", candles("m", JAN_1, 3), FIELDS)
    (tmp_path / "in" / f"BTCUSDT-{kind}-2025-01.csv").write_text("0,1.0,1.0,0,0,1735689600000,True,True\n")
    report = ingest(tmp_path, tmp_path / "in")
    assert (report.inserted, len(report.left_out), sum(report.left_out.values())) == (3, 1, 1)


@pytest.mark.parametrize(
    "name", ["BTCUSDT-7m-2025-01.csv", "btc_45s.csv", "BTC-1M.csv", "x_weekly.csv", "interval=7m/a.csv"]
)
def test_the_inbox_refuses_a_stated_interval_that_is_none(tmp_path: Path, name: str) -> None:
    path = write_csv(tmp_path / name, candles("m", JAN_1, 80))
    with pytest.raises(InputError, match=r"is not supported; candles are of 1m, "):
        candle_interval(path)


def test_the_inbox_infers_no_interval_from_a_few_times(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="interval unclear; put the file into a folder interval=5m"):
        candle_interval(write_csv(tmp_path / "a.csv", candles("m", JAN_1, 12)))
    assert candle_interval(write_csv(tmp_path / "b.csv", candles("m", JAN_1, 13))) == "5m"
    assert candle_interval(write_csv(tmp_path / "c.csv", candles("m", JAN_1, 80, interval="4h"))) == "4h"
    assert candle_interval(write_csv(tmp_path / "BTC_30m.csv", candles("m", JAN_1, 2, interval="30m"))) == "30m"


def test_the_inbox_joins_a_day_and_its_time_before_it_infers(tmp_path: Path) -> None:
    path = tmp_path / "mint=M" / "a.csv"
    path.parent.mkdir()
    rows = [f"2025-01-{1 + i // 24:02},{i % 24:02}:00,1,1,1,1" for i in range(24 * 20)]
    path.write_text("\n".join(["Date,Time,Open,High,Low,Close", *rows]) + "\n")
    assert candle_interval(path) == "1h"


def test_the_inbox_sets_aside_what_an_ingest_refuses(tmp_path: Path) -> None:
    lab = Home(Settings(home=tmp_path))
    inbox = lab.settings.inbox_dir
    write_csv(inbox / "m_5m.csv", [*apart(1, 30), *apart(12, 40, JAN_1 + 50 * STEP)])
    write_csv(inbox / "bad_5m.csv", [candle("m", JAN_1, high=0.1)])
    write_csv(inbox / "mint=M" / "good_5m.csv", candles("m", JAN_1, 3), FIELDS)
    intake = take_in(lab, sorted(scan(inbox)))
    assert intake.ingested == {"mint=M/good_5m.csv": 3}
    assert (
        "1 hour apart" in intake.rejected["m_5m.csv"] and "no row of 1 row is a candle" in intake.rejected["bad_5m.csv"]
    )
