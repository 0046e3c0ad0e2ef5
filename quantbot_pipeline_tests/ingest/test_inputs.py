"""What every place for calls and candles promises: a folder on this machine and an object store pass the same tests."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.config import make_config
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.home import Home
from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.ingest.candles import ingest_candles
from quantbot_pipeline.market.calls import liquidity_statistics, month_statistics, read_calls, version_of
from quantbot_pipeline.market.candle_files import month_file, month_rows, read_rejected, store_signature
from quantbot_pipeline.market.candle_reader import known_mints, month_content, month_groups
from quantbot_pipeline.market.opening import opened
from quantbot_pipeline.market.sightings import read_sightings
from quantbot_pipeline.settings import Settings
from quantbot_pipeline.specs import KINDS
from quantbot_pipeline.upkeep.migrate import migrate
from quantbot_pipeline.upkeep.validate import validate_stores
from quantbot_pipeline_tests.support.builders import (
    Row,
    call,
    candle,
    ms,
    small_market,
    write_jsonl,
    write_parquet,
)
from quantbot_pipeline_tests.support.markets import SEARCH
from quantbot_pipeline_tests.support.object_store import Store, options

ALL = (0, 1 << 62)
JAN_1 = ms("2024-01-01")
Machine = Callable[[str], Home]


def machine_at(folder: Path, **settings: Any) -> Home:
    """The home of a machine, which looks at the store whenever it is asked something."""
    return Home(Settings(home=folder, threads=1, memory_limit="256MB", lock_timeout_s=20.0, **settings))


@pytest.fixture(params=["folder", "objects"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    """Make a machine of a name; all of them have the same inputs."""
    if request.param == "folder":
        yield lambda name: machine_at(tmp_path / name, inputs=f"file://{tmp_path}/inputs")
        return
    request.getfixturevalue("credentials")
    store: Store = request.getfixturevalue("object_store")
    url = f"s3://{store.make_bucket(f'b{uuid.uuid4().hex}')}/lab"
    yield lambda name: machine_at(tmp_path / name, inputs=url, store_options=options(store.endpoint))


def take(home: Home, calls: list[Row] | None = None, rows: list[Row] | None = None) -> list[Any]:
    """Ingest calls and candles, each as a file of its own; return the reports."""
    inbox = home.path / "inbox" / uuid.uuid4().hex
    reports = []
    if calls:
        reports.append(ingest_calls([write_jsonl(inbox / "calls.jsonl", calls)], home.calls))
    if rows:
        reports.append(ingest_candles([write_parquet(inbox / "candles.parquet", rows)], home.candles, "5m"))
    return reports


def stored(home: Home, month: str = "2024-01") -> list[Row]:
    """The candles of a month, read by another reader than ours."""
    rows: list[Row] = pq.read_table(opened(month_file(home.candles.folder, "5m", month))).to_pylist()
    return rows


def test_what_one_machine_ingests_another_reads(machine: Machine) -> None:
    here, there = machine("here"), machine("there")
    assert (month_statistics(here.calls), known_mints(here.candles.folder, "5m", ["early"])) == ({}, set())
    calls, rows = small_market()
    taken = take(here, calls, rows)
    assert [report.inserted for report in taken] == [4, len(rows)]
    assert taken[1].months == ["2024-01", "2024-02"]
    assert month_statistics(there.calls) == {
        "2024-01": {"calls": 3, "callers": 2, "mints": 2},
        "2024-02": {"calls": 1, "callers": 1, "mints": 1},
    }
    assert read_calls(there.calls, *ALL).calls["call_id"].to_pylist() == ["a1", "b1", "a2", "b2"]
    folder = there.candles.folder
    assert known_mints(folder, "5m", ["early", "feb", "nobody"]) == {"early", "feb"}
    valid, rejected, size = month_rows(folder, "5m", "2024-01")
    assert (valid + month_rows(folder, "5m", "2024-02")[0], rejected) == (len(rows), 0) and size > 0
    assert [row["mint"] for row in stored(there)] == sorted(row["mint"] for row in stored(there))
    found = month_groups(folder, "5m", "2024-02")
    assert found is not None and {mint for load in found[1] for mint in load().mints} == {"feb", "late"}


def test_the_same_again_changes_nothing(machine: Machine) -> None:
    here = machine("here")
    calls, rows = small_market()
    take(here, calls, rows)
    before = (store_signature(here.candles.folder), month_content(here.candles.folder, "5m", "2024-01"))
    again = take(machine("there"), calls, rows)
    assert [(r.inserted, r.updated, r.months) for r in again] == [(0, 0, [])] * 2
    later = machine("later")
    assert (store_signature(later.candles.folder), month_content(later.candles.folder, "5m", "2024-01")) == before


def test_the_last_candle_wins_and_the_first_call_stays(machine: Machine) -> None:
    here, there = machine("here"), machine("there")
    take(here, [call("t", "2024-01-03", "alice", call_id="x")], [candle("t", JAN_1), candle("t", JAN_1 + 300_000)])
    before = store_signature(here.candles.folder)
    reports = take(
        there,
        [call("t", "2024-02-03", "bob", call_id="x")],
        [candle("t", JAN_1, close=1.05), candle("u", JAN_1, close=0.95)],
    )
    assert [(r.inserted, r.updated, r.superseded) for r in reports] == [(0, 0, 1), (1, 1, 0)]
    later = machine("later")
    assert store_signature(later.candles.folder) != before
    assert [(row["mint"], row["close"]) for row in stored(later)] == [("t", 1.05), ("t", 1.0), ("u", 0.95)]
    assert read_calls(later.calls, *ALL).calls["caller_name"].to_pylist() == ["alice"]


def test_rejected_rows_and_wicks_are_kept_beside(machine: Machine) -> None:
    here, there = machine("here"), machine("there")
    bad = [candle("t", JAN_1 + 300_000 * i) for i in range(3)] + [candle("t", JAN_1 + 900_000, -1.0)]
    calls = [call("t", "2024-01-03", "alice", call_id="x"), call("", "2024-01-04", "bob"), call("t", "2024-01-05", "")]
    take(here, calls, bad)
    take(there, calls, bad)
    folder = there.candles.folder
    assert month_rows(folder, "5m", "2024-01")[:2] == (3, 1)
    assert read_rejected(folder, "5m", ["2024-01"], ["t"]).num_rows == 1
    assert read_calls(there.calls, *ALL).rejected == {"caller_name": 1, "mint": 1}


def test_sightings_and_liquidity_are_those_of_all_ingests(machine: Machine) -> None:
    here, there = machine("here"), machine("there")
    first = [call("t", f"2024-01-0{day}", "alice", call_id=f"c{day}") for day in (3, 4, 5)]
    take(here, first)
    known = {**first[1], "liquidity_usd": 7.0}
    again = take(there, [first[0], known, first[2]])
    assert (again[0].updated, liquidity_statistics(here.calls)) in ((1, {"2024-01": (3, 1)}), (1, {"2024-01": (3, 0)}))
    take(there, [first[0], first[2]])  # an export from which a call was deleted
    later = machine("later")
    assert liquidity_statistics(later.calls) == {"2024-01": (3, 1)}
    assert dict(zip(*read_sightings(later.calls, ALL[1])[::2], strict=True)) == {"c3": False, "c4": True, "c5": False}


def test_upkeep_finds_everything_in_order(machine: Machine) -> None:
    here = machine("here")
    take(here, *small_market())
    there = machine("there")
    there.path.mkdir(exist_ok=True)
    found = [(row["what"], row["ok"]) for row in validate_stores(there)]
    assert found[:3] == [("calls", True), ("candles", True), ("candles", True)]
    assert migrate(there, dry_run=True) == []
    assert str(version_of(there.calls)) == "1.2.0"


def test_files_that_an_ingest_refuses_change_nothing(machine: Machine) -> None:
    here = machine("here")
    take(here, *small_market())
    before = store_signature(here.candles.folder), month_statistics(here.calls)
    with pytest.raises(InputError):
        take(here, [{"mint": "t"}])
    with pytest.raises(InputError):
        take(here, None, [{"mint": "t", "ts_ms": JAN_1}])
    later = machine("later")
    assert (store_signature(later.candles.folder), month_statistics(later.calls)) == before


def numbers(home: Home) -> dict[str, object]:
    """What every kind of run says of two months: the hash of every artifact, and errors without their times."""
    found: dict[str, object] = {}
    for month in ("2024-01", "2024-02"):
        for kind in KINDS.values():
            made = run_month(home, kind.name, month, make_config(SEARCH if "grid" in kind.depends_on else {}))
            assert made is not None
            for name, entry in made.manifest.artifacts.items():
                assert entry.content_sha256
                found[f"{month} {kind.name} {name}"] = entry.content_sha256
            errors = pq.read_table(made.run_dir / "errors" / "errors.parquet")
            found[f"{month} {kind.name} errors"] = errors.drop_columns(["run_id", "timestamp"]).to_pylist()
    return found


def test_every_kind_of_run_has_the_same_numbers_wherever_its_inputs_are(
    object_store: Store, credentials: None, tmp_path: Path
) -> None:
    url = f"s3://{object_store.make_bucket(f'b{uuid.uuid4().hex}')}/lab"
    here, away = (
        machine_at(tmp_path / name, inputs=url, store_options=options(object_store.endpoint))
        for name in ("here", "away")
    )
    local = machine_at(tmp_path / "local")
    calls, rows = small_market()
    for home in (local, here):
        take(home, calls[:3], rows[:900])
        take(home, calls[1:], [*rows[500:], candle("early", rows[7]["ts_ms"], -1.0)])
    expected = numbers(local)
    assert len({name.split()[1] for name in expected}) == len(KINDS)
    assert numbers(away) == expected
