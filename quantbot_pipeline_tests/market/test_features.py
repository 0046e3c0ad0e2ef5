"""Feature set 1 against its definition in plain Python, and that no feature knows what was not known at the alert."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbot_pipeline.market.calls import TABLES, CallStore
from quantbot_pipeline.market.candle_files import SCHEMA, month_file, write_sorted
from quantbot_pipeline.market.features.calls import call_features, features_of_new
from quantbot_pipeline.market.features.candles import candle_features
from quantbot_pipeline.market.features.names import FROM_CANDLES, MARKET, PRICES, RECENT_CALLS
from quantbot_pipeline.market.features.outcomes import OUTCOME_HISTORY, Outcomes, outcome_history
from quantbot_pipeline.months import month_of
from quantbot_pipeline.vocabulary import INTERVALS_MS
from quantbot_pipeline_tests.support import naive_features as naive
from quantbot_pipeline_tests.support.builders import ms
from quantbot_pipeline_tests.support.homes import FEBRUARY
from quantbot_pipeline_tests.support.naive_features import DAY, HOUR, Bar, Made

Candles = dict[str, list[Bar]]
FROM, TO = (
    FEBRUARY - 30 * HOUR,
    FEBRUARY + 40 * HOUR,
)  # windows of a day that reach into the month before, and some that do not
MINTS = ("a", "b", "c", "d")


def prices() -> st.SearchStrategy[float]:
    return st.sampled_from([1.0, 1.02, 0.97, 1.5, 3e-6, 2.5])


@st.composite
def tokens(draw: st.DrawFn, interval: str) -> Candles:
    """Tokens with holes, long pauses, unknown volumes; some without a candle."""
    step = INTERVALS_MS[interval]
    made: Candles = {}
    for mint in MINTS[: draw(st.integers(0, 4))]:
        first = draw(st.integers(FROM // step, TO // step))
        gaps = draw(
            st.lists(st.sampled_from([1, 1, 1, 2, 3, max(1, 5 * HOUR // step), max(1, DAY // step)]), max_size=30)
        )
        at = np.cumsum([first, *gaps]).tolist()
        bars = []
        for slot in at:
            opened, closed = draw(prices()), draw(prices())
            volume = draw(st.sampled_from([0.0, 0.0, 1.0, 2.5, 1e9, None] if draw(st.booleans()) else [0.0, 3.0]))
            wick = draw(st.sampled_from([1.0, 1.1]))
            bars.append(
                Bar(slot * step, opened, max(opened, closed) * wick, min(opened, closed) / wick, closed, volume)
            )
        made[mint] = bars
    return made


def stored(folder: Path, interval: str, candles: Mapping[str, Sequence[Bar]]) -> Path:
    """A store of these candles."""
    months: dict[str, list[dict[str, Any]]] = {}
    for mint in sorted(candles, key=str.encode):
        for bar in candles[mint]:
            months.setdefault(month_of(bar.ts), []).append(
                {"mint": mint, "ts_ms": bar.ts} | {k: v for k, v in bar._asdict().items() if k != "ts"}
            )
    for month, rows in months.items():
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        write_sorted(month_file(folder, interval, month), table.to_reader())
    return folder


def made_of(store: Path, interval: str, calls: Sequence[Made], **options: Any) -> list[dict[str, float | None]]:
    """What the package says of these calls, null as None."""
    found = candle_features(store, interval, [c.mint for c in calls], np.array([c.alert for c in calls]), **options)
    return [
        {name: None if math.isnan(values[i]) else float(values[i]) for name, values in found.items()}
        for i in range(len(calls))
    ]


def assert_equal(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Nulls exactly, numbers to 1e-9; a difference of two of them as the two are."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] is None) == (value is None), (name, found[name], value)
        if value is not None:
            size = abs(expected["ret_24h"]) if name == "excess_ret_24h" else 0.0
            assert math.isclose(found[name], value, rel_tol=1e-9, abs_tol=1e-9 * size), (name, found[name], value)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data(), interval=st.sampled_from(["5m", "15m", "1h", "4h", "1d"]))
def test_what_candles_say_is_what_the_definition_says(data: st.DataObject, interval: str) -> None:
    candles = data.draw(tokens(interval))
    edges = st.sampled_from(
        [FEBRUARY - 1, FEBRUARY, FEBRUARY + HOUR, FEBRUARY + DAY - 1, FEBRUARY + DAY, FEBRUARY + DAY + 1]
    )
    alerts = data.draw(st.lists(st.integers(FROM, TO + DAY) | edges, max_size=6))
    calls = [Made(str(i), "x", data.draw(st.sampled_from([*MINTS, "unknown"])), t) for i, t in enumerate(alerts)]
    with tempfile.TemporaryDirectory() as folder:
        found = made_of(stored(Path(folder), interval, candles), interval, calls, threads=2)
    for made, values in zip(calls, found, strict=True):
        assert_equal(values, naive.from_candles(made, candles, INTERVALS_MS[interval]))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_no_candle_feature_knows_a_candle_that_had_not_closed(data: st.DataObject) -> None:
    """Candles that had not closed may be anything; the newest one that had closed is seen."""
    interval, step = "5m", 300_000
    candles = data.draw(tokens(interval))
    made = Made("0", "x", "a", data.draw(st.integers(FROM, TO)))
    closed = {mint: [bar for bar in bars if bar.ts + step <= made.alert] for mint, bars in candles.items()}
    open_at = {bar.ts for bars in candles.values() for bar in bars} | {
        made.alert // step * step + k * step for k in range(3)
    }
    later = {
        mint: [
            *closed.get(mint, []),
            *(Bar(ts, 7.0, 9.0, 5.0, 8.0, 4.0) for ts in sorted(open_at) if ts + step > made.alert),
        ]
        for mint in MINTS
    }
    with tempfile.TemporaryDirectory() as folder:
        full = made_of(stored(Path(folder) / "full", interval, candles), interval, [made])
        bent = made_of(stored(Path(folder) / "bent", interval, later), interval, [made])
        cut = made_of(stored(Path(folder) / "cut", interval, closed), interval, [made])
        assert full == bent == cut
        if own := [bar for bar in closed.get("a", []) if bar.ts >= made.alert - DAY]:
            newest = own[-1]
            other = newest._replace(open=newest.open * 2, high=newest.high * 3, close=newest.close * 2)
            seen = {**closed, "a": [*closed["a"][:-1], other]}
            assert made_of(stored(Path(folder) / "seen", interval, seen), interval, [made]) != full


def test_prices_alone_are_the_same_prices(tmp_path: Path) -> None:
    """What scores new calls need not decode the market."""
    rng = np.random.default_rng(1)
    candles = {
        mint: [Bar(FROM + i * 300_000, *sorted_bar(rng), float(rng.integers(0, 3))) for i in range(400)]
        for mint in MINTS
    }
    store = stored(tmp_path, "5m", candles)
    calls = [Made(str(i), "x", MINTS[i % 3], FROM + i * 5 * HOUR) for i in range(12)]
    whole, alone = made_of(store, "5m", calls), made_of(store, "5m", calls, market=False)
    assert [{n: row[n] for n in PRICES} for row in whole] == [{n: row[n] for n in PRICES} for row in alone]
    assert all(row[name] is None for row in alone for name in MARKET)
    assert any(row[name] is not None for row in whole for name in MARKET)
    assert set(whole[0]) == set(FROM_CANDLES)


def sorted_bar(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Open, high, low, close."""
    low, opened, closed, high = sorted(rng.uniform(0.5, 2.0, 4).tolist())
    return opened, high, low, closed


# --- of the calls -----------------------------------------------------------------------------------------------------

NOW = ms("2024-02-03T12:00")
made_calls = st.lists(
    st.tuples(
        st.sampled_from("xyz"), st.sampled_from("ab"), st.sampled_from([0, 1, 30, 59, 60, 61, 1439, 1440, 1441, 4000])
    ),
    min_size=1,
    max_size=14,
).map(lambda rows: [Made(f"{i:03}", who, mint, NOW - age * 60_000) for i, (who, mint, age) in enumerate(rows)])


def of_store(folder: Path, calls: Sequence[Made]) -> dict[str, dict[str, Any]]:
    """What the package says of the calls of a store, by call."""
    store = CallStore(folder / "alerts.duckdb")
    with duckdb.connect(str(store.path)) as con:
        con.execute(TABLES)
        rows = [(c.call_id, c.mint, c.caller, c.alert) for c in calls]
        if rows:
            con.executemany("INSERT INTO alerts VALUES (?, ?, ?, 'solana', ?, '', '', now()::TIMESTAMP)", rows)
    with call_features(store, 0, 1 << 62) as read:
        return {row["call_id"]: row for row in pa.concat_tables(read()).to_pylist()}


@settings(max_examples=8, deadline=None, derandomize=True)
@given(calls=made_calls)
def test_what_calls_say_is_what_the_definition_says_whoever_calls_later(calls: list[Made]) -> None:
    cut = sorted(c.alert for c in calls)[len(calls) // 2]
    with tempfile.TemporaryDirectory() as folder:
        found = of_store(Path(folder), calls)
    for made in calls:
        assert {name: found[made.call_id][name] for name in RECENT_CALLS} == naive.recent_calls(made, calls)
    with tempfile.TemporaryDirectory() as folder:
        known = of_store(Path(folder), [c for c in calls if c.alert <= cut])
    assert known == {call_id: found[call_id] for call_id in known}


@settings(max_examples=6, deadline=None, derandomize=True)
@given(calls=made_calls, known=st.integers(0, 14))
def test_calls_that_nobody_ingested_are_known_as_if_they_were(calls: list[Made], known: int) -> None:
    new = pa.table(
        {
            "call_id": [c.call_id for c in calls],
            "mint": [c.mint for c in calls],
            "caller_name": [c.caller for c in calls],
            "alert_ts_ms": [c.alert for c in calls],
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        of_store(Path(folder), calls[:known])
        found = features_of_new(CallStore(Path(folder) / "alerts.duckdb"), new).to_pylist()
    with tempfile.TemporaryDirectory() as folder:
        ingested = of_store(Path(folder), calls)
    assert [row["call_id"] for row in found] == list(ingested)
    for row in found:
        assert row == {name: ingested[row["call_id"]][name] for name in row}


@pytest.mark.parametrize(("caller", "share"), [("first", None), ("copycat", 1.0), ("both", 0.5)])
def test_who_follows(tmp_path: Path, caller: str, share: float | None) -> None:
    """A call after another caller's on the same token follows it; one at the same moment does not."""
    calls = [
        Made("0", "first", "a", NOW),
        Made("1", "copycat", "a", NOW + 1),
        Made("2", "both", "a", NOW + 1),
        Made("3", "both", "b", NOW + 2),
        Made("4", "late", "b", NOW + 2),
        Made("5", caller if caller != "first" else "new", "c", NOW + 9),
    ]
    assert of_store(tmp_path, calls)["5"]["caller_follow_share"] == share


# --- of settled outcomes ----------------------------------------------------------------------------------------------


def history_of(made: Made, settled: Sequence[tuple[str, int, bool, float]], horizon: int) -> dict[str, float | None]:
    """The definition: settled are (caller, entry, hit 2x, peak) of calls with a window."""
    known = [row for row in settled if row[1] + horizon <= made.alert]
    if not known:
        return dict.fromkeys(OUTCOME_HISTORY) | {"caller_settled_calls": 0}
    own = [row for row in known if row[0] == made.caller]
    recent = [row for row in known if row[1] >= made.alert - 30 * DAY]
    q = (sum(row[2] for row in known) + 0.5) / (len(known) + 1)
    mean = math.fsum(math.log(row[3]) for row in known) / len(known)
    return {
        "caller_settled_calls": len(own),
        "caller_hit_2x_rate": (sum(row[2] for row in own) + 20 * q) / (len(own) + 20),
        "caller_log_peak": (math.fsum(math.log(row[3]) for row in own) + 20 * mean) / (len(own) + 20),
        "pooled_hit_2x_rate": (sum(row[2] for row in recent) + 20 * q) / (len(recent) + 20),
    }


rows_of_outcomes = st.lists(
    st.tuples(
        st.sampled_from("xyz"), st.integers(NOW - 50 * DAY, NOW), st.booleans(), st.floats(1.0, 50.0, allow_nan=False)
    ),
    max_size=20,
)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(rows=rows_of_outcomes, alerts=st.lists(st.integers(NOW - 20 * DAY, NOW + 5 * DAY), min_size=1, max_size=5))
def test_outcome_history_is_of_settled_calls_alone(rows: list[tuple[str, int, bool, float]], alerts: list[int]) -> None:
    horizon = 2 * DAY
    calls = [Made(str(i), "xy-"[i % 3], "a", t) for i, t in enumerate(alerts)]

    def history(given: Sequence[tuple[str, int, bool, float]]) -> dict[str, list[float | None]]:
        columns = [list(column) for column in zip(*given, strict=True)] or [[], [], [], []]
        outcomes = Outcomes(
            columns[0], np.array(columns[1], np.int64), np.array(columns[2], bool), np.array(columns[3], np.float64)
        )
        found = outcome_history([c.caller for c in calls], np.array(alerts, np.int64), outcomes, horizon)
        return {name: [None if math.isnan(v) else v for v in values.tolist()] for name, values in found.items()}

    found = history(rows)
    for i, made in enumerate(calls):
        for name, value in history_of(made, rows, horizon).items():
            assert found[name][i] == (None if value is None else pytest.approx(value, rel=1e-9, abs=1e-12))
    last = max(alerts)
    unsettled = [
        (who, at, not hit, peak + 1) if at + horizon > last else (who, at, hit, peak) for who, at, hit, peak in rows
    ]
    assert history(unsettled) == found, "an outcome that nobody could know changes nothing, to the last bit"
    known = [i for i, row in enumerate(rows) if row[1] + horizon <= min(alerts)]
    if known:
        other = list(rows)
        who, at, hit, peak = rows[known[0]]
        other[known[0]] = (who, at, not hit, peak)
        assert history(other) != found
