"""Reading candles for a month of calls: every needed row once, across month ends and row groups, and nothing damaged."""

import hashlib
import json
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.candles import ingest_candles
from quantbot_pipeline.market import candle_files
from quantbot_pipeline.market.candle_files import (
    CandleStore,
    month_file,
    month_rows,
    read_rejected,
    rejected_file,
    rejected_hash,
)
from quantbot_pipeline.market.candle_footer import FOOTER_KEY, describe, to_footer
from quantbot_pipeline.market.candle_reader import CandlePlan, known_mints, plan_slices
from quantbot_pipeline.months import month_of, month_range, month_start_ms, next_month
from quantbot_pipeline_tests.support.builders import Row, candle, candles, ms, stored_hash, write_parquet

MONTHS = ["2023-12", "2024-01", "2024-02", "2024-03"]
FIRST, LAST = month_start_ms(MONTHS[0]), month_start_ms("2024-04")
STEP = 300_000
# One name is the beginning of another, one sorts behind every ASCII name, one is too long for statistics.
MINTS = [*(f"m{i}" for i in range(15)), "m", "é", "zz" * 3000]
Rows = dict[str, list[tuple[float, ...]]]


def build_rows() -> list[Row]:
    """Tokens that live at different times, with gaps: a few rows in each of their months, some at the very edges."""
    rng = np.random.default_rng(5)
    rows = []
    for i, mint in enumerate(MINTS):
        lo, hi = sorted(rng.integers(FIRST // STEP, LAST // STEP, 2))
        times = set(rng.integers(lo, hi + 1, 40).tolist())
        if i % 3 == 0:  # around the month ends
            times |= {month_start_ms(m) // STEP + d for m in MONTHS[1:] for d in (-1, 0, 1)}
        rows += [candle(mint, t * STEP, p, p * 1.1, p * 0.9, p) for t in times for p in (float(rng.uniform(1, 2)),)]
    return [*rows, *candles("edge", ms("2024-02-01") - STEP, 2)]


ROWS = build_rows()


def make_store(folder: Path, row_group: int = 16) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("quantbot_pipeline.market.candle_files.ROW_GROUP", row_group)
        bad = [
            candle("m1", ms("2024-01-05"), high=0.1),
            candle("m1", ms("2024-02-05"), volume=-1.0),
            candle("m2", ms("2024-01-05"), low=-1.0),
        ]
        ingest_candles([write_parquet(folder / "c.parquet", [*ROWS, *bad])], CandleStore(folder / "store"), "5m")
    return folder / "store"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("slices"))


def read(plan: CandlePlan, until: dict[str, int]) -> Rows:
    """All rows of the wanted tokens; no token may come twice."""
    found: Rows = {}
    mints = list(until)
    for load in plan.loads():
        for piece in load():
            for token, lo, hi in zip(piece.tokens, piece.lo, piece.hi, strict=True):
                assert mints[token] not in found
                found[mints[token]] = list(zip(*(array[lo:hi].tolist() for array in piece.arrays()), strict=True))
    return found


def naive(month: str, until: dict[str, int]) -> Rows:
    """The same by a plain filter: the run's month whole, later months up to each token's time."""
    start, end = month_start_ms(month), month_start_ms(next_month(month))
    found: Rows = {}
    for row in sorted(ROWS, key=lambda r: r["ts_ms"]):
        if row["mint"] in until and start <= row["ts_ms"] < max(end, until[row["mint"]]):
            found.setdefault(row["mint"], []).append(tuple(row[c] for c in ("ts_ms", "open", "high", "low", "close")))
    return found


needs = st.dictionaries(
    st.sampled_from([*MINTS, "edge", "absent", "a", "zzz"]),
    st.integers(FIRST // STEP, LAST // STEP).map(lambda t: t * STEP) | st.sampled_from([month_start_ms(m) + d for m in MONTHS for d in (-1, 0, 1)]),
    min_size=1,
)  # fmt: skip  # a table: what belongs together stands on one line


@settings(max_examples=80, deadline=None, derandomize=True)
@given(month=st.sampled_from(MONTHS), until=needs)
def test_pieces_hold_what_a_plain_filter_finds(store: Path, month: str, until: dict[str, int]) -> None:
    months = list(month_range(month, max(month, month_of(max(until.values())))))
    plan = plan_slices(store, "5m", months, until, month_start_ms(next_month(month)))
    assert read(plan, until) == naive(month, until)
    refused = [rejected_hash(rejected_file(store, "5m", m)) for m in months if m in ("2024-01", "2024-02")]
    assert plan.fingerprint == [*(stored_hash(month_file(store, "5m", m)) for m in months), *refused]


def test_a_token_is_stitched_over_three_months(store: Path) -> None:
    until = dict.fromkeys(MINTS, LAST)
    plan = plan_slices(store, "5m", MONTHS, until, month_start_ms("2024-01"))
    spans = {mint: {month_of(int(row[0])) for row in rows} for mint, rows in read(plan, until).items()}
    assert any(len(months) == 4 for months in spans.values())
    # A token that trades in later months only is found there, too.
    assert any(months and "2023-12" not in months for months in spans.values())


def test_the_rest_of_a_long_file_is_not_decoded(store: Path) -> None:
    groups = pq.read_metadata(month_file(store, "5m", "2024-01")).num_row_groups
    assert groups > 5
    plan = plan_slices(store, "5m", ["2024-01"], {"edge": 0}, month_start_ms("2024-02"))
    assert len(plan.loads()) == 1
    nothing = plan_slices(store, "5m", ["2024-09"], {"edge": 0}, month_start_ms("2024-10"))
    assert (nothing.loads(), nothing.fingerprint) == ([], [""])


def test_known_mints_are_those_of_any_month(store: Path) -> None:
    assert known_mints(store, "5m", [*MINTS, "absent", "m99", ""]) == set(MINTS)
    assert known_mints(store, "5m", []) == set()
    assert known_mints(store, "1h", MINTS) == set()


def test_rejected_candles_are_found_by_token_and_month(store: Path) -> None:
    def found(months: list[str], mints: list[str]) -> list[tuple[str, str]]:
        return [(r["mint"], r["reason"]) for r in read_rejected(store, "5m", months, mints).to_pylist()]

    assert found(MONTHS, ["m1"]) == [("m1", "ohlc_order"), ("m1", "volume")]
    assert found(["2024-02"], ["m1", "m2"]) == [("m1", "volume")]
    assert found(["2023-12", "2025-01"], ["m1"]) == found(MONTHS, []) == found(MONTHS, ["m3"]) == []


def test_the_size_of_a_month(store: Path) -> None:
    valid = sum(month_of(r["ts_ms"]) == "2024-01" for r in ROWS)
    folder = month_file(store, "5m", "2024-01").parent
    assert month_rows(store, "5m", "2024-01") == (valid, 2, sum(p.stat().st_size for p in folder.iterdir()))
    assert month_rows(store, "5m", "2030-01") == (0, 0, 0)


@pytest.mark.parametrize("order", [["b", "a", "b"], ["a", "b", "a", "c"], ["a", "b", "a", "b"]])
def test_a_file_that_is_not_sorted_is_an_error(tmp_path: Path, order: list[str]) -> None:
    """Somebody wrote it with another program: a token's rows are not all together."""
    path = month_file(tmp_path, "5m", "2024-01")
    path.parent.mkdir(parents=True)
    rows = [candle(mint, FIRST + i * STEP) for i, mint in enumerate(order)]
    pq.write_table(pa.Table.from_pylist(rows, schema=candle_files.SCHEMA), path)
    with pytest.raises(InputError, match=r"candles\.parquet: not sorted by mint"):
        plan_slices(tmp_path, "5m", ["2024-01"], dict.fromkeys(order, 0), LAST)


def rewritten(store: Path, target: Path, *, metadata: bool) -> Path:
    """January's file written anew by another program, with the footer entries of the first or without."""
    whole = pq.ParquetFile(month_file(store, "5m", "2024-01"))
    path = month_file(target, "5m", "2024-01")
    path.parent.mkdir(parents=True)
    schema = whole.schema_arrow if metadata else whole.schema_arrow.remove_metadata()
    with pq.ParquetWriter(path, schema, write_page_checksum=True) as writer:
        for group in range(whole.num_row_groups):
            writer.write_table(whole.read_row_group(group).cast(schema))
        if metadata:
            writer.add_key_value_metadata(whole.metadata.metadata)
    return path


def test_a_file_of_another_program_is_read_by_its_column_of_mints(store: Path, tmp_path: Path) -> None:
    path = rewritten(store, tmp_path, metadata=False)
    assert FOOTER_KEY not in (pq.read_metadata(path).metadata or {})
    until = dict.fromkeys([*MINTS, "edge"], 0)
    assert read(plan_slices(tmp_path, "5m", ["2024-01"], until, LAST), until) == naive("2024-01", until)
    assert known_mints(tmp_path, "5m", MINTS) == known_mints(store, "5m", MINTS) & {
        r["mint"] for r in ROWS if month_of(r["ts_ms"]) == "2024-01"
    }
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with pytest.raises(InputError, match="the candle store is not readable"):
        read(plan_slices(tmp_path, "5m", ["2024-01"], until, LAST), until)


def test_the_fingerprint_follows_a_file_of_another_program(store: Path, tmp_path: Path) -> None:
    """It has no hash in its footer: a run of its first prices passed for one of its second."""
    path = rewritten(store, tmp_path, metadata=False)
    until = dict.fromkeys([*MINTS, "edge"], 0)
    seen = [plan_slices(tmp_path, "5m", ["2024-01"], until, LAST).fingerprint]
    table = pq.read_table(path)
    doubled = table.set_column(5, "close", pa.compute.multiply(table["close"], 1.0 + 1e-9))
    for content in (doubled, table):
        pq.write_table(content, path)
        seen.append(plan_slices(tmp_path, "5m", ["2024-01"], until, LAST).fingerprint)
    assert len(set(map(tuple, seen))) == 3


@pytest.mark.parametrize("fault", ["unsorted", "twice", "nan", "infinite", "zero", "order"])
def test_a_file_of_another_program_with_what_no_ingest_lets_in_is_an_error(tmp_path: Path, fault: str) -> None:
    """Windows are found by binary search and prices are trusted: such rows were replayed to some number."""
    path = month_file(tmp_path, "5m", "2024-01")
    path.parent.mkdir(parents=True)
    start = ms("2024-01-01")
    rows = [candle(mint, start + i * STEP) for mint in ("a", "b") for i in range(5)]
    until = {"a": 0, "b": 0}
    pq.write_table(pa.Table.from_pylist(rows, schema=candle_files.SCHEMA), path)
    assert len(read(plan_slices(tmp_path, "5m", ["2024-01"], until, LAST), until)["b"]) == 5
    match fault:
        case "unsorted":
            rows[6], rows[7] = rows[7], rows[6]
        case "twice":
            rows[7] = rows[6]
        case "order":
            rows[7] |= {"low": rows[7]["high"] * 2}
        case _:
            rows[7] |= {"nan": {"high": np.nan}, "infinite": {"high": np.inf}, "zero": {"low": 0.0}}[fault]
    pq.write_table(pa.Table.from_pylist(rows, schema=candle_files.SCHEMA), path)
    plan = plan_slices(tmp_path, "5m", ["2024-01"], until, LAST)
    with pytest.raises(InputError, match="invalid candles, or a token's times do not ascend"):
        read(plan, until)


@pytest.mark.parametrize("column", ["ts_ms", "open", "high", "low", "close"])
def test_rows_that_the_footer_does_not_describe_are_an_error(store: Path, tmp_path: Path, column: str) -> None:
    """Another program changed one value and kept what the footer says."""
    path = rewritten(store, tmp_path, metadata=True)
    until = dict.fromkeys([*MINTS, "edge"], 0)
    assert read(plan_slices(tmp_path, "5m", ["2024-01"], until, LAST), until) == naive("2024-01", until)
    groups = [pq.ParquetFile(path).read_row_group(i) for i in range(pq.read_metadata(path).num_row_groups)]
    entries = pq.read_metadata(path).metadata
    rows = groups[-1].to_pylist()
    rows[-1][column] += 1
    with pq.ParquetWriter(path, groups[0].schema) as writer:
        for group in [*groups[:-1], pa.Table.from_pylist(rows, schema=groups[0].schema)]:
            writer.write_table(group)
        writer.add_key_value_metadata(entries)
    with pytest.raises(InputError, match=r"checksum of row group \d+ differs"):
        read(plan_slices(tmp_path, "5m", ["2024-01"], until, LAST), until)


def with_footer(path: Path, table: pa.Table, value: bytes) -> None:
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table)  # one row group
        writer.add_key_value_metadata({FOOTER_KEY: value})


def test_a_footer_that_does_not_fit_is_an_error(store: Path, tmp_path: Path) -> None:
    path = rewritten(store, tmp_path, metadata=True)
    entries = pq.read_metadata(path).metadata[FOOTER_KEY]
    table = pq.read_table(path).combine_chunks()
    until = dict.fromkeys([*MINTS, "edge"], 0)
    plan = partial(plan_slices, tmp_path, "5m", ["2024-01"], until, LAST)
    with_footer(path, table, entries)
    with pytest.raises(InputError, match=r"quantbot\.row_groups in its footer describes \d+ row groups of 1\b"):
        plan()
    right = describe(table)
    with_footer(path, table, to_footer([right]))
    assert read(plan(), until) == naive("2024-01", until)
    # The engine would read whatever memory such offsets point to.
    for wrong in (right.offsets + 1, right.offsets[::-1].copy(), right.offsets * 2, right.offsets[:-1], -right.offsets):
        with_footer(path, table, to_footer([right._replace(offsets=wrong)]))
        with pytest.raises(InputError, match="does not describe row group 0"):
            plan()
    assert right.checksums is not None
    with_footer(path, table, to_footer([right._replace(checksums=right.checksums[1:])]))
    with pytest.raises(InputError, match="does not describe row group 0"):
        plan()
    with_footer(path, table, to_footer([right._replace(checksums=None)]))
    with pytest.raises(InputError, match="of another version: TypeError"):
        plan()
    text = json.dumps([{"tokens": []}]).encode()
    with_footer(path, table, hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
    with pytest.raises(InputError, match="of another version: KeyError"):
        plan()
