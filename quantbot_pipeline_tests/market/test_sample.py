"""The sample market: reproducible, labelled, with the promised shape, and accepted by the real ingest."""

import hashlib
import re
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.ingest.candles import ingest_candles
from quantbot_pipeline.market.calls import CallStore, read_calls
from quantbot_pipeline.market.candle_files import CandleStore
from quantbot_pipeline.market.sample import CALLERS, INVALID_ROWS, MINT_PREFIX, SOURCE, generate, write_sample
from quantbot_pipeline.vocabulary import INTERVALS_MS

MONTHS = [f"2026-{month:02}" for month in range(1, 7)]
PRICES = ("open", "high", "low", "close")
# Of all values of the default seed: the same on every machine, changed only when the market is meant to change.
CONTENT_SHA256 = "98ba66f3cb087bcd15d50cfe2a61f0e0cae4b8e948c0f4ec480a64165541a89b"

Sample = tuple[pa.Table, pa.Table]


@pytest.fixture(scope="module")
def sample() -> Sample:
    return generate()


def content_sha256(sample: Sample) -> str:
    digest = hashlib.sha256()
    for table in sample:
        for name in table.column_names:
            column = table[name].combine_chunks()
            text = pa.types.is_string(column.type)
            digest.update("\n".join(column.to_pylist()).encode() if text else column.to_numpy().tobytes())
    return digest.hexdigest()


def is_valid(candles: pa.Table) -> npt.NDArray[np.bool_]:
    o, h, low, c = (candles[name].to_numpy() for name in PRICES)
    positive = (o > 0) & (h > 0) & (low > 0) & (c > 0)
    ordered = (low <= o) & (o <= h) & (low <= c) & (c <= h)
    return positive & ordered & (candles["ts_ms"].to_numpy() % INTERVALS_MS["5m"] == 0)


def peaks(sample: Sample) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.str_]]:
    """(highest multiple within 48 h, caller) of every call with an entry, by a plain loop."""
    calls, candles = sample
    candles = candles.filter(pa.array(is_valid(candles)))
    names = np.array(candles["mint"].to_pylist())
    ts, opens, highs = (candles[name].to_numpy() for name in ("ts_ms", "open", "high"))
    rows_of = {mint: np.flatnonzero(names == mint) for mint in set(calls["mint"].to_pylist())}
    found = []
    for call in calls.to_pylist():
        rows = rows_of[call["mint"]]
        rows = rows[ts[rows] >= call["alert_ts_ms"] + 60_000]
        if len(rows) and ts[rows[0]] <= call["alert_ts_ms"] + 3_600_000:
            window = rows[ts[rows] < ts[rows[0]] + 48 * 3_600_000]
            found.append((highs[window].max() / opens[rows[0]], call["caller_name"]))
    return np.array([p for p, _ in found]), np.array([name for _, name in found])


def test_equal_seeds_give_equal_tables_and_other_seeds_do_not(sample: Sample) -> None:
    again = generate(7)
    assert content_sha256(again) == content_sha256(sample) == CONTENT_SHA256
    other = generate(8)
    assert not other[0].equals(again[0])
    assert not other[1].equals(again[1])


def test_files_are_identical_byte_by_byte(tmp_path: Path) -> None:
    first, second = write_sample(tmp_path / "a"), write_sample(tmp_path / "b")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_the_sample_has_the_size_and_the_callers_that_it_promises(sample: Sample) -> None:
    calls, candles = sample
    assert calls.num_rows == 600
    assert calls.column_names == ["caller_name", "mint", "chain", "alert_ts_ms", "created_at", "source"]
    assert Counter(calls["caller_name"].to_pylist()) == {caller.name: caller.calls for caller in CALLERS}
    assert len(CALLERS) == 8
    assert 180 <= len(set(calls["mint"].to_pylist())) <= 300
    assert candles.column_names == ["mint", "ts_ms", *PRICES, "volume"]
    assert 200_000 <= candles.num_rows <= 300_000
    keys = set(zip(candles["mint"].to_pylist(), candles["ts_ms"].to_pylist(), strict=True))
    assert len(keys) == candles.num_rows


def test_shares_of_a_caller_are_percentages() -> None:
    for caller in CALLERS:
        assert caller.pump + caller.trend + caller.rug + caller.dead <= 100
        assert caller.from_h < caller.to_h


def test_a_caller_calls_a_token_once_and_tokens_are_shared(sample: Sample) -> None:
    pairs = list(zip(sample[0]["caller_name"].to_pylist(), sample[0]["mint"].to_pylist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    callers_per_token = Counter(mint for _, mint in pairs)
    assert max(callers_per_token.values()) >= 5


def test_everything_is_labelled_as_generated(sample: Sample, tmp_path: Path) -> None:
    calls, candles = sample
    assert set(calls["source"].to_pylist()) == {SOURCE} == {"generated"}
    assert all(name.startswith("sample:") for name in set(calls["caller_name"].to_pylist()))
    mints = set(calls["mint"].to_pylist()) | set(candles["mint"].to_pylist())
    assert all(re.fullmatch(MINT_PREFIX + "[1-9A-HJ-NP-Za-km-z]{38}", mint) for mint in mints)
    paths = write_sample(tmp_path)
    assert all(path.name.startswith("generated") for path in paths)
    assert pq.read_schema(paths[1]).metadata[b"quantbot.source"] == b"generated"


def test_every_month_has_calls_and_windows_cross_months(sample: Sample) -> None:
    months = Counter(text[:7] for text in sample[0]["created_at"].to_pylist())
    assert sorted(months) == MONTHS
    assert min(months.values()) >= 60
    alerts = sample[0]["alert_ts_ms"].to_numpy()
    ends = (alerts + 48 * 3_600_000).astype("datetime64[ms]").astype("datetime64[M]")
    assert (ends != alerts.astype("datetime64[ms]").astype("datetime64[M]")).sum() >= 20


def test_the_rare_caller_is_a_small_sample_in_every_month(sample: Sample) -> None:
    rows = zip(sample[0]["caller_name"].to_pylist(), sample[0]["created_at"].to_pylist(), strict=True)
    per_month = Counter(text[:7] for name, text in rows if name == "sample:rare_gem")
    assert max(per_month.values()) < 10


def test_written_times_agree(sample: Sample) -> None:
    parsed = np.array([text.removesuffix("Z") for text in sample[0]["created_at"].to_pylist()], dtype="datetime64[ms]")
    assert (parsed.astype(np.int64) == sample[0]["alert_ts_ms"].to_numpy()).all()


def test_all_but_a_few_candles_are_valid(sample: Sample) -> None:
    assert 8 <= (~is_valid(sample[1])).sum() <= INVALID_ROWS


def test_prices_have_seven_digits(sample: Sample) -> None:
    closes = sample[1]["close"].to_numpy()[::997]
    assert all(float(f"{x:.6e}") == x for x in closes[np.isfinite(closes)])


def test_gaps_rugs_and_dead_tokens_exist(sample: Sample) -> None:
    candles = sample[1].filter(pa.array(is_valid(sample[1])))
    mints = np.array(candles["mint"].to_pylist())
    ts, opens, closes = (candles[name].to_numpy() for name in ("ts_ms", "open", "close"))
    same = mints[1:] == mints[:-1]
    assert (np.diff(ts)[same] > INTERVALS_MS["5m"]).mean() > 0.03
    assert ((closes[1:] / closes[:-1])[same] < 0.12).sum() >= 30
    assert (closes / opens < 0.12).sum() >= 20
    last_candle = {mint: int(t) for mint, t in zip(mints, ts, strict=True)}
    calls = zip(sample[0]["mint"].to_pylist(), sample[0]["alert_ts_ms"].to_pylist(), strict=True)
    died = [mint for mint, alert in calls if alert < last_candle.get(mint, 0) < alert + 40 * 3_600_000]
    assert len(died) >= 60


def test_hit_rates_are_plausible_and_show_the_skill(sample: Sample) -> None:
    peak, caller = peaks(sample)
    assert 560 <= len(peak) < 600  # a few calls find no candles, or none in time
    assert 0.13 <= (peak >= 2).mean() <= 0.20
    assert 0.05 <= (peak >= 3).mean() <= 0.09
    assert 0.02 <= (peak >= 4).mean() <= 0.05
    assert peak.max() < 20
    rate = {c.name: (peak[caller == c.name] >= 2).mean() for c in CALLERS}
    assert rate["sample:rare_gem"] > rate["sample:alpha_hunter"] > 2 * rate["sample:coin_flip"]
    assert rate["sample:late_larry"] < rate["sample:coin_flip"]


def test_ingest_takes_the_sample_and_a_second_time_changes_nothing(sample: Sample, tmp_path: Path) -> None:
    calls_path, candles_path = write_sample(tmp_path / "in")
    store, folder = tmp_path / "alerts.duckdb", tmp_path / "candles"
    calls, candles = (
        ingest_calls([calls_path], CallStore(store)),
        ingest_candles([candles_path], CandleStore(folder), "5m"),
    )
    invalid = int((~is_valid(sample[1])).sum())
    assert (calls.rows, calls.inserted, calls.rejected) == (600, 600, {})
    assert candles.inserted == candles.rows - invalid == sample[1].num_rows - invalid
    assert set(candles.rejected) == {"price", "ohlc_order", "off_grid"}
    assert sum(candles.rejected.values()) == invalid
    assert candles.months == calls.months == MONTHS
    assert read_calls(CallStore(store), 0, 1 << 60).calls.num_rows == 600

    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    calls, candles = (
        ingest_calls([calls_path], CallStore(store)),
        ingest_candles([candles_path], CandleStore(folder), "5m"),
    )
    assert (calls.inserted, calls.unchanged, calls.months) == (0, 600, [])
    assert (candles.inserted, candles.updated, candles.months) == (0, 0, [])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")} == before
