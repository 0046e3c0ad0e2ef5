"""Candles with defects: each is counted with its reason, and the order and repetition of the input change no byte of the truth."""

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.config import BacktestConfig
from quantbot_pipeline.home import Home
from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.ingest.candles import ingest_candles
from quantbot_pipeline.market.candle_files import CandleStore, month_file
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.support.builders import Row, call, candles, ms, write_jsonl, write_parquet
from quantbot_pipeline_tests.support.sizes import sizes
from quantbot_pipeline_tests.torture.conftest import Tally

T = ms("2024-01-30T22:00")  # the windows reach over the month's end
PRICES = ("open", "high", "low", "close")
NAN, INF = float("nan"), float("inf")


def high_below_low(row: Row) -> None:
    row["high"], row["low"] = row["low"] * 0.5, row["low"]


def open_above(row: Row) -> None:
    row["open"] = row["high"] * 1.0000001


def close_below(row: Row) -> None:
    row["close"] = row["low"] * 0.9999999


def tiny(row: Row) -> None:
    row.update(dict.fromkeys(PRICES, 1e-18))


def huge(row: Row) -> None:
    row.update(dict.fromkeys(PRICES, 1e18))


def put(value: float | None, column: str = "") -> Callable[[Row, random.Random], None]:
    return lambda row, chance: row.update({column or chance.choice(PRICES): value})


def alike(change: Callable[[Row], None]) -> Callable[[Row, random.Random], None]:
    return lambda row, chance: change(row)


# What is done to a row, and the reason for which it must be rejected (None: it is valid).
DEFECTS: list[tuple[Callable[[Row, random.Random], None], str | None]] = [
    *((put(value), "price") for value in (NAN, INF, -INF, 0.0, -0.0, -1.0, None)),
    *((alike(change), "ohlc_order") for change in (high_below_low, open_above, close_below)),
    *((put(value, "volume"), "volume") for value in (-1.0, INF, -INF)),
    *((alike(change), None) for change in (tiny, huge)),
    (put(NAN, "volume"), None),
    (put(None, "volume"), None),
    (lambda row, chance: row.update(ts_ms=row["ts_ms"] + chance.randrange(1, 300_000)), "off_grid"),
    (lambda row, chance: row.update(ts_ms=-row["ts_ms"]), "timestamp"),
    (lambda row, chance: row.update(ts_ms=None), "timestamp"),
    (lambda row, chance: row.update(ts_ms=row["ts_ms"] * 1_000_000), "timestamp"),  # ns in a column of ms
    (lambda row, chance: row.update(mint=chance.choice(("", None))), "mint"),
]


def damaged(chance: random.Random) -> tuple[list[Row], Counter[str]]:
    """A market in which one row in four has a defect, and how many must be rejected for which reason."""
    rows = [row for mint in ("a", "b", "c") for row in candles(mint, T, 700, seed=chance.randrange(10**6))]
    expected: Counter[str] = Counter()
    for row in rows:
        if chance.random() < 0.25:
            change, reason = chance.choice(DEFECTS)
            change(row, chance)
            if reason is not None:
                expected[reason] += 1
    return rows, expected


def truth(home: Path, calls: list[Row], parts: list[list[Row]]) -> tuple[list[bytes], dict[str, str | None]]:
    """The bytes of the store and the hashes of the truth, of candles that came in these parts, overlapping or not."""
    lab = Home(Settings(home=home, threads=1))
    ingest_calls([write_jsonl(home / "calls.jsonl", calls)], lab.calls)
    for i, part in enumerate(parts):
        ingest_candles([write_parquet(home / f"{i}.parquet", part)], lab.candles, "5m")
    made = run_month(lab, "path-only", "2024-01", BacktestConfig())
    assert made is not None
    stored = [month_file(lab.candles.folder, "5m", month).read_bytes() for month in ("2024-01", "2024-02")]
    hashes = {name: made.manifest.artifacts[name].content_sha256 for name in ("alerts", "paths", "features")}
    return stored, hashes | {"inputs": made.manifest.dataset.fingerprint}


@pytest.mark.parametrize("rounds", sizes(3, 100))
def test_every_defect_is_counted_with_its_reason(tmp_path: Path, rounds: int, tally: Tally) -> None:
    tried = lost = 0
    for i in range(rounds):
        rows, expected = damaged(random.Random(i))
        report = ingest_candles(
            [write_parquet(tmp_path / f"{i}.parquet", rows)], CandleStore(tmp_path / f"{i}.store"), "5m"
        )
        assert report.rows == len(rows) == report.inserted + report.superseded + sum(report.rejected.values())
        tried += sum(expected.values())
        lost += sum((expected - Counter(report.rejected)).values())
        assert report.rejected == dict(expected), i
    tally("candles with defects", tried=tried, detected=tried - lost, lost=lost)


@pytest.mark.parametrize("rounds", sizes(1, 25))
def test_order_and_repetition_change_no_byte_of_the_truth(tmp_path: Path, rounds: int, tally: Tally) -> None:
    different = 0
    for i in range(rounds):
        chance = random.Random(1_000 + i)
        rows, _ = damaged(chance)
        rows = list({(row["mint"], row["ts_ms"]): row for row in rows}.values())
        calls = [
            call(mint, T - 60_000 * n, f"caller {n % 3}", call_id=f"{mint}{n}") for mint in "abc" for n in range(9)
        ]
        straight = truth(tmp_path / f"{i}-straight", calls, [rows])
        backwards, twice = rows[::-1], [*rows, *rows]
        chance.shuffle(twice)
        half = len(rows) // 2
        overlapping = [rows[: half + 200], rows[half - 200 :]]
        for name, parts in {"backwards": [backwards], "twice": [twice], "overlapping": overlapping}.items():
            shuffled = chance.sample(calls * 2, len(calls) * 2)
            # Of the inputs' fingerprint the rejected rows are a part, and their number is another one.
            stored, hashes = truth(tmp_path / f"{i}-{name}", shuffled, parts)
            hashes["inputs"] = straight[1]["inputs"] if name == "twice" else hashes["inputs"]
            different += (stored, hashes) != straight
    tally(
        "the same input backwards, twice and shuffled, in overlapping files",
        tried=3 * rounds,
        detected=0,
        lost=different,
    )
    assert not different
