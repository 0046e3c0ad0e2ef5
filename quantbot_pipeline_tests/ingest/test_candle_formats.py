"""Candles in the files of each source: read as they are, with the right times, prices and token."""

import gzip
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quantbot_pipeline.api import Home
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.candles import ingest_candles
from quantbot_pipeline.ingest.report import IngestReport
from quantbot_pipeline.market.candle_files import CandleStore
from quantbot_pipeline.vocabulary import INTERVALS_MS
from quantbot_pipeline_tests.support.builders import Row, candles, ms, write_csv, write_feather

JAN_1 = ms("2025-01-01")
N = 30
MINT = "FqUwnBMN1shpeqKVm7W5fN73tvrjVr19TQFFgkoFFzhq"
EVM = "0xAb5801a7D398351b8bE11C439e05C5B3259aeC9B"


def market(interval: str = "5m", n: int = N) -> list[Row]:
    return candles("m", JAN_1, n, interval=interval)


def ohlcv(row: Row) -> list[Any]:
    return [row[name] for name in ("open", "high", "low", "close", "volume")]


def stored(folder: Path, interval: str = "5m") -> list[Row]:
    files = sorted((folder / f"interval={interval}").glob("month=*/candles.parquet"))
    return [row for file in files for row in pq.read_table(file, partitioning=None).to_pylist()]


def ingest(tmp_path: Path, *sources: Path, interval: str = "5m", **asked: Any) -> IngestReport:
    return ingest_candles(list(sources), CandleStore(tmp_path / "store", memory_limit="256MB"), interval, **asked)


def text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def document(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def utc(t: int, form: str) -> str:
    return pd.Timestamp(t, unit="ms").strftime(form)


def rows_of(times: Callable[[int], object], *more: object, sep: str = ",", interval: str = "5m") -> list[str]:
    return [sep.join(map(str, (times(r["ts_ms"]), *ohlcv(r), *more))) for r in market(interval)]


Make = Callable[[Path], tuple[Path, str]]


def freqtrade_json(folder: Path) -> tuple[Path, str]:
    return document(folder / "BTC_USDT-5m.json", [[r["ts_ms"], *ohlcv(r)] for r in market()]), "BTC_USDT"


def freqtrade_json_gz(folder: Path) -> tuple[Path, str]:
    path, token = freqtrade_json(folder)
    packed = path.with_name("BTC_USDT-5m.json.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return packed, token


def freqtrade_feather(folder: Path) -> tuple[Path, str]:
    rows = [{"date": pd.Timestamp(r["ts_ms"], unit="ms", tz="UTC")} | r for r in market()]
    bare = [{k: v for k, v in row.items() if k not in ("mint", "ts_ms")} for row in rows]
    return write_feather(folder / "ADA_USDT_USDT-5m-futures.feather", bare), "ADA_USDT_USDT"


def binance(folder: Path) -> tuple[Path, str]:
    lines = rows_of(lambda t: t * 1000, 1735689899999999, 8.5, 1, 0.0, 0.0, 0)
    return text(folder / "DOGEUSDT-5m-2025-01.csv", *lines), "DOGEUSDT"


def binance_zip(folder: Path) -> tuple[Path, str]:
    path, token = binance(folder)
    packed = path.with_suffix(".zip")
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(path, path.name)
        archive.writestr(f"{path.name}.CHECKSUM", "x")
    path.unlink()
    return packed, token


def binance_header(folder: Path) -> tuple[Path, str]:
    header = "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
    lines = rows_of(lambda t: t, 1735689899999, 8.5, 1, 0.0, 0.0, 0)
    return text(folder / "DOGEUSDT-5m-2025-01-02.csv", header, *lines), "DOGEUSDT"


def gecko_terminal(folder: Path) -> tuple[Path, str]:
    rows = [[r["ts_ms"] // 1000, *ohlcv(r)] for r in reversed(market())]
    answer = {
        "data": {"id": "x", "type": "ohlcv_request_response", "attributes": {"ohlcv_list": rows}},
        "meta": {"base": {"address": MINT, "symbol": "A"}, "quote": {"address": "So1", "symbol": "SOL"}},
    }
    return document(folder / "answer.json", answer), MINT


def birdeye(folder: Path) -> tuple[Path, str]:
    items = [
        dict(zip("ohlcv", ohlcv(r), strict=True)) | {"unixTime": r["ts_ms"] // 1000, "type": "5m", "address": MINT}
        for r in market()
    ]
    return document(folder / "answer.json", {"success": True, "data": {"items": items}}), MINT


def tradingview(folder: Path) -> tuple[Path, str]:
    columns = {key: [ohlcv(r)[i] for r in market()] for i, key in enumerate("ohlcv")}
    answer = {"s": "ok", "t": [r["ts_ms"] // 1000 for r in market()]} | columns
    return document(folder / f"{MINT}.json", answer), MINT


def codex(folder: Path) -> tuple[Path, str]:
    bars: dict[str, Any] = {key: [ohlcv(r)[i] for r in market()] for i, key in enumerate("ohlc")}
    bars |= {"t": [r["ts_ms"] // 1000 for r in market()], "volume": [str(r["volume"]) for r in market()]}
    return document(folder / f"{MINT}_bars.json", {"data": {"getBars": bars}}), MINT


def cryptodatadownload(folder: Path) -> tuple[Path, str]:
    lines = [f"{r['ts_ms']},x,BTC/USDT,{','.join(map(str, ohlcv(r)))},20,5" for r in reversed(market())]
    header = "unix,date,symbol,open,high,low,close,Volume BTC,Volume USDT,tradecount"
    return text(folder / "cdd.csv", "https://www.CryptoDataDownload.com", header, *lines), "BTC/USDT"


def kraken(folder: Path) -> tuple[Path, str]:
    return text(folder / "XBTUSD_5.csv", *rows_of(lambda t: t // 1000, 7)), "XBTUSD"


def polygon(folder: Path) -> tuple[Path, str]:
    lines = [
        f"X:BTCUSD,{r['volume']},{r['open']},{r['close']},{r['high']},{r['low']},{r['ts_ms']}000000,9" for r in market()
    ]
    path = folder / "2025-01-01.csv.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    header = "ticker,volume,open,close,high,low,window_start,transactions"
    path.write_bytes(gzip.compress("\n".join([header, *lines, ""]).encode()))
    return path, "X:BTCUSD"


def kaggle(folder: Path) -> tuple[Path, str]:
    header = "Timestamp,Open,High,Low,Close,Volume_(BTC),Volume_(Currency),Weighted_Price"
    lines = rows_of(lambda t: t // 1000, 1.0, 1.0)
    lines.insert(5, f"{JAN_1 // 1000 - 300},NaN,NaN,NaN,NaN,NaN,NaN,NaN")
    return text(folder / "mint=BTC" / "bitstampUSD_1-min_data.csv", header, *lines), "BTC"


def unnamed_index(folder: Path) -> tuple[Path, str]:
    def iso(t: int) -> str:
        return pd.Timestamp(t, unit="ms").isoformat(sep=" ")

    return text(folder / "mint=M" / "a.csv", ",Open,High,Low,Close,Volume", *rows_of(iso)), "M"


def date_and_time(folder: Path) -> tuple[Path, str]:
    def two(t: int) -> str:
        return pd.Timestamp(t, unit="ms").strftime("%Y-%m-%d,%H:%M:%S")

    return text(folder / "mint=M" / "a.csv", "Date,Time,Open,High,Low,Close,Volume", *rows_of(two)), "M"


def metatrader(folder: Path) -> tuple[Path, str]:
    def two(t: int) -> str:
        return pd.Timestamp(t, unit="ms").strftime("%Y.%m.%d\t%H:%M:%S")

    header = "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<VOL>"
    return text(folder / "mint=M" / "a.csv", header, *rows_of(two, sep="\t")), "M"


def digits(folder: Path) -> tuple[Path, str]:
    def spelled(t: int) -> str:
        return pd.Timestamp(t, unit="ms").strftime("%Y%m%d,%H%M%S")

    return text(folder / "mint=M" / "a.csv", "date,time,open,high,low,close,volume", *rows_of(spelled)), "M"


def pandas_parquet(folder: Path) -> tuple[Path, str]:
    index = pd.to_datetime([r["ts_ms"] for r in market()], unit="ms")
    frame = pd.DataFrame([ohlcv(r) for r in market()], columns=["Open", "High", "Low", "Close", "Volume"], index=index)
    path = folder / "mint=M" / "a.parquet"
    path.parent.mkdir(parents=True)
    frame.to_parquet(path)
    return path, "M"


def json_records(folder: Path) -> tuple[Path, str]:
    return document(folder / "a.json", [r | {"mint": EVM} for r in market()]), EVM.lower()


def json_lines_called_json(folder: Path) -> tuple[Path, str]:
    return text(folder / "a.json", *(json.dumps(r) for r in market())), "m"


def excel_separator(folder: Path) -> tuple[Path, str]:
    return text(
        folder / "mint=M" / "a.csv", "sep=;", "timestamp;open;high;low;close;volume", *rows_of(str, sep=";")
    ), "M"


def commented(folder: Path) -> tuple[Path, str]:
    return text(folder / "mint=M" / "a.csv", "# of x", "", "#timestamp,open,high,low,close,volume", *rows_of(str)), "M"


def metatrader_without_header(folder: Path) -> tuple[Path, str]:
    rows = rows_of(lambda t: f"{utc(t, '%Y.%m.%d')},{utc(t, '%H:%M')}")
    return text(folder / "mint=M" / "a.csv", *rows), "M"


def histdata(folder: Path) -> tuple[Path, str]:
    return text(folder / "mint=M" / "a.csv", *rows_of(lambda t: utc(t, "%Y%m%d %H%M%S"), sep=";")), "M"


FORMATS: list[Make] = [
    freqtrade_json, freqtrade_json_gz, freqtrade_feather, binance, binance_zip, binance_header, gecko_terminal, birdeye,
    tradingview, codex, cryptodatadownload, kraken, polygon, kaggle, unnamed_index, date_and_time, metatrader, digits,
    pandas_parquet, json_records, json_lines_called_json, excel_separator, commented,
    metatrader_without_header, histdata,
]  # fmt: skip  # a table: what belongs together stands on one line


@pytest.mark.parametrize("make", FORMATS, ids=lambda make: make.__name__)
def test_a_file_of_each_source_gives_its_candles(tmp_path: Path, make: Make) -> None:
    path, token = make(tmp_path / "in")
    report = ingest(tmp_path, path)
    no_trade = {"no_trade": 1} if make is kaggle else {}
    assert (report.inserted, report.rejected) == (N, no_trade)
    assert stored(tmp_path / "store") == [row | {"mint": token} for row in market()]
    # A folder is read like the file in it.
    again = ingest(tmp_path, tmp_path / "in")
    assert (again.inserted, again.updated, again.unchanged) == (0, 0, N)


def test_a_column_of_hours_is_joined_with_its_day(tmp_path: Path) -> None:
    rows = rows_of(lambda t: f"{utc(t, '%Y-%m-%d')},{int(utc(t, '%H'))}", interval="1h")
    path = text(tmp_path / "mint=M" / "a.csv", "Date,Hour,Open,High,Low,Close,Volume", *rows)
    assert ingest(tmp_path, path, interval="1h").inserted == N
    assert stored(tmp_path / "store", "1h") == [row | {"mint": "M"} for row in market("1h")]


# --- stamps -----------------------------------------------------------------------------------------------------------


def test_coingecko_stamps_the_close_and_has_no_volume(tmp_path: Path) -> None:
    rows = [[r["ts_ms"] + INTERVALS_MS["30m"], *ohlcv(r)[:4]] for r in market("30m")]
    report = ingest(tmp_path, document(tmp_path / "a.json", rows), interval="30m", mint="M")
    assert stored(tmp_path / "store", "30m") == [r | {"mint": "M", "volume": None} for r in market("30m")]
    assert "close" in report.notes[0]
    opened = ingest_candles([tmp_path / "a.json"], CandleStore(tmp_path / "b"), "30m", mint="M", stamp="open")
    assert opened.inserted == N and stored(tmp_path / "b", "30m")[0]["ts_ms"] == JAN_1 + INTERVALS_MS["30m"]


@pytest.mark.parametrize("late", [0, 1, 1000], ids=["exact", "x.999", "x:59"])
def test_close_stamps_are_stored_by_their_open(tmp_path: Path, late: int) -> None:
    rows = [r | {"ts_ms": r["ts_ms"] + INTERVALS_MS["5m"] - late} for r in market()]
    report = ingest(tmp_path, write_csv(tmp_path / "a.csv", rows), stamp="close" if not late else None)
    assert (report.inserted, report.rejected) == (N, {})
    assert stored(tmp_path / "store") == market()


def test_coinmarketcap_is_read_by_its_open_or_its_close(tmp_path: Path) -> None:
    def day(t: int, clock: str) -> str:
        return f'"{pd.Timestamp(t, unit="ms").date()}T{clock}Z"'

    rows = market("1d")
    lines = [
        ";".join(map(str, (day(r["ts_ms"], "00:00:00.000"), "x", '"2781"', *ohlcv(r), day(r["ts_ms"], "23:59:59.999"))))
        for r in rows
    ]
    header = "timeOpen;timeHigh;name;open;high;low;close;volume;timestamp"
    path = text(tmp_path / "mint=BTC" / "a.csv", "\ufeff" + header, *lines)
    assert ingest(tmp_path, path, interval="1d").inserted == N
    text(path, "\ufeff" + header.replace("timeOpen", "whatever"), *lines)
    assert ingest(tmp_path, path, interval="1d").unchanged == N
    assert stored(tmp_path / "store", "1d") == [r | {"mint": "BTC"} for r in rows]


# --- what the user may say --------------------------------------------------------------------------------------------


def test_columns_are_mapped_by_name_or_place(tmp_path: Path) -> None:
    named = text(tmp_path / "a.csv", "when,first,top,bottom,last,amount", *rows_of(str))
    mapping = {"ts_ms": "when", "open": "first", "high": "TOP", "low": "bottom", "close": "last", "volume": "amount"}
    assert ingest(tmp_path, named, mint="m", mapping=mapping).inserted == N
    places = text(
        tmp_path / "b.csv",
        *[",".join(map(str, (r["ts_ms"], r["open"], r["close"], r["high"], r["low"]))) for r in market()],
    )
    order = {"ts_ms": "1", "open": "2", "close": "3", "high": "4", "low": "5"}
    with pytest.raises(
        InputError, match=r"b\.csv: row 1: \d+ of 30 rows without column names do not fit the order open"
    ):
        ingest(tmp_path, places, mint="m")
    report = ingest(tmp_path, places, mint="m", mapping=order)
    assert (report.rejected, report.updated) == ({}, N), "only the volume is another: unknown"
    with pytest.raises(InputError, match=r"a\.csv: missing columns nope.* \(columns found: when, first.*--map"):
        ingest(tmp_path, named, mint="m", mapping=mapping | {"open": "nope", "high": "nope"})
    with pytest.raises(InputError, match="--map price=…: no such column; choose mint, ts_ms"):
        ingest(tmp_path, named, mint="m", mapping={"price": "x"})


def test_local_times_are_read_in_their_time_zone(tmp_path: Path) -> None:
    def berlin(t: int) -> str:
        return pd.Timestamp(t, unit="ms", tz="UTC").tz_convert("Europe/Berlin").strftime("%Y-%m-%d %H:%M")

    path = text(tmp_path / "mint=m" / "a.csv", "date,open,high,low,close,volume", *rows_of(berlin))
    assert ingest(tmp_path, path, timezone="Europe/Berlin").inserted == N
    assert stored(tmp_path / "store") == market()
    with pytest.raises(InputError, match="--timezone 'Berlin' is unknown"):
        ingest(tmp_path, path, timezone="Berlin")


@pytest.mark.parametrize("form", ["%Y%m%d%H%M", "%Y%m%d%H%M%S", "%Y%m%d%H%M%S000"])
def test_dates_of_digits_are_dates(tmp_path: Path, form: str) -> None:
    def spelled(t: int) -> str:
        return pd.Timestamp(t, unit="ms").strftime(form)

    path = text(tmp_path / "mint=m" / "a.csv", "timestamp,open,high,low,close,volume", *rows_of(spelled))
    assert ingest(tmp_path, path).inserted == N and stored(tmp_path / "store") == market()


def test_a_frame_with_a_time_index_is_an_input(tmp_path: Path) -> None:
    index = pd.to_datetime([r["ts_ms"] for r in market()], unit="ms", utc=True)
    frame = pd.DataFrame([ohlcv(r) for r in market()], columns=["Open", "High", "Low", "Close", "Volume"], index=index)
    assert Home(tmp_path).ingest_candles(frame, interval="5m", mint="m").inserted == N
    assert stored(tmp_path / "data/candles") == market()


# --- tokens and folders -----------------------------------------------------------------------------------------------


def test_an_evm_token_has_one_spelling(tmp_path: Path) -> None:
    spellings = [EVM, EVM.lower(), "0x" + EVM[2:].upper()]
    for i, mint in enumerate(spellings):
        rows = [r | {"mint": mint} for r in candles("m", JAN_1 + i * 3_600_000, 12)]
        write_csv(tmp_path / "in" / f"{i}.csv", rows)
    bare = [{k: v for k, v in r.items() if k != "mint"} for r in candles("m", JAN_1 + 3 * 3_600_000, 12)]
    write_csv(tmp_path / "in" / f"mint={EVM}" / "c.csv", bare)
    write_csv(tmp_path / "in" / f"{EVM}.csv", bare)
    assert ingest(tmp_path, tmp_path / "in").inserted == 48
    assert {row["mint"] for row in stored(tmp_path / "store")} == {EVM.lower()}


def test_a_freqtrade_folder_is_read_as_it_is(tmp_path: Path) -> None:
    def write(name: str, interval: str, factor: float = 1.0) -> None:
        rows = [[r["ts_ms"], *(factor * v for v in ohlcv(r)[:4]), 1.0] for r in market(interval)]
        document(tmp_path / "data" / name, rows)

    write("BTC_USDT-5m.json", "5m")
    write("BTC_USDT-1h.json", "1h")
    write("futures/BTC_USDT_USDT-5m-futures.json", "5m", 2.0)
    write("futures/BTC_USDT_USDT-5m-mark.json", "5m", 3.0)
    write("futures/BTC_USDT_USDT-8h-funding_rate.json", "8h", 4.0)
    write("BTC_USDT-trades.json", "1m")
    (tmp_path / "data" / "README.md").write_text("x")
    report = ingest(tmp_path, tmp_path / "data")
    assert report.left_out == {"other interval": 1, "mark": 1, "funding_rate": 1, "trades": 1, "other format": 1}
    assert {row["mint"] for row in stored(tmp_path / "store")} == {"BTC_USDT", "BTC_USDT_USDT"}
    assert (report.files, report.inserted, report.superseded) == (2, 2 * N, 0)
    with pytest.raises(InputError, match=r"BTC_USDT-1h\.json: the name says 1h, not 5m; pass --interval 1h"):
        ingest(tmp_path, tmp_path / "data" / "BTC_USDT-1h.json")


def test_a_folder_obeys_format_and_interval_level(tmp_path: Path) -> None:
    write_csv(tmp_path / "in" / "interval=5m" / "a.csv", market())
    write_csv(tmp_path / "in" / "interval=1h" / "a.csv", market("1h"))
    write_feather(tmp_path / "in" / "interval=5m" / "b.feather", candles("n", JAN_1, 3))
    report = ingest(tmp_path, tmp_path / "in", fmt="csv")
    assert (report.inserted, report.left_out) == (N, {"other format": 1, "other interval": 1})
    assert ingest(tmp_path, tmp_path / "in").inserted == 3
    write_csv(tmp_path / "named" / "x.txt", candles("x", JAN_1, 2))
    assert ingest(tmp_path, tmp_path / "named", fmt="csv").inserted == 2


def test_a_table_of_many_tokens_is_told_apart_by_its_symbols(tmp_path: Path) -> None:
    rows = [r | {"symbol": r["mint"]} for m in ("A", "B") for r in candles(m, JAN_1, 15)]
    for row in rows:
        del row["mint"]
    assert ingest(tmp_path, write_csv(tmp_path / "a.csv", rows)).inserted == 30
    assert {row["mint"] for row in stored(tmp_path / "store")} == {"A", "B"}


@pytest.mark.parametrize("rows", [60_000, 250_000])
def test_memory_does_not_grow_with_a_long_json(tmp_path: Path, rows: int) -> None:
    path = tmp_path / "BTC-1m.json"
    with path.open("w") as f:
        f.write("[" + ",".join(f"[{JAN_1 - i * 60_000},1,1,1,1,{i}]" for i in range(rows)) + "]")
    before = pa.total_allocated_bytes()
    store = CandleStore(tmp_path / "store", memory_limit="128MB")
    assert ingest_candles([path], store, "1m").inserted == rows
    assert pa.total_allocated_bytes() - before < 64 << 20
