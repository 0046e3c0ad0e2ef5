"""A month's run from real stores: who is left out and why, what is counted, what is reused, and what a failure leaves."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quantbot_pipeline.backtest.month import MonthResult, RunFailedError, run_month
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.config import BacktestConfig
from quantbot_pipeline.home import Home
from quantbot_pipeline.ingest.candles import ingest_candles
from quantbot_pipeline.market.candle_files import month_file
from quantbot_pipeline.runs.verify import check_run, read_artifact
from quantbot_pipeline_tests.support.builders import (
    HOUR_MS,
    Row,
    call,
    candle,
    candles,
    make_home,
    ms,
    small_market,
    write_parquet,
)

JAN = "2024-01"
T = ms("2024-01-10T12:00")  # on the grid; an alert one minute earlier enters here
STEP = 300_000
FEW: dict[str, Any] = {"stops": [0.1, 0.2], "take_profits": [None], "holds_ms": [], "activations": [], "ladders": []}
HORIZON_MS = 48 * HOUR_MS


def run(lab: Home, month: str = JAN, **config: Any) -> MonthResult:
    result = run_month(lab, "path-only", month, BacktestConfig(**config))
    assert result is not None
    return result


def rows(result: MonthResult, artifact: str) -> list[Row]:
    return read_artifact(result.run_dir, result.manifest, artifact).to_pylist()


def reported(result: MonthResult, phase: str = "coverage") -> list[tuple[str | None, dict[str, Any]]]:
    """(call_id, details) of every row of a phase in errors.parquet."""
    found = [row for row in rows(result, "errors") if row["phase"] == phase]
    assert all(row["level"] == "warning" and row["run_id"] == result.manifest.run_id for row in found)
    return [(row["call_id"], json.loads(row["details"])) for row in found]


def contents(result: MonthResult) -> dict[str, str | None]:
    """Hashes of values of what a run found out; errors hold the time of the run."""
    return {name: entry.content_sha256 for name, entry in result.manifest.artifacts.items() if name != "errors"}


# --- exclusions -------------------------------------------------------------------------------------------------------


def test_every_call_is_included_or_left_out_with_its_reason(tmp_path: Path) -> None:
    one_hour = T - 60_000 + HOUR_MS  # the last moment at which the entry candle may open, for this alert
    market = [
        *candles("full", T, 576),
        candle("last moment", one_hour - one_hour % STEP + STEP),
        candle("too late", one_hour - one_hour % STEP + STEP),
        *candles("before", T - 50 * STEP, 50),
        *candles("another month", "2023-06-01", 30),
        *candles("next year", "2025-06-01", 30),
        candle("invalid only", T, low=-1.0),
        candle("thin", T), candle("thin", T + STEP),
    ]  # fmt: skip  # a table: what belongs together stands on one line
    calls = [call(mint, T - 60_000, call_id=mint) for mint in dict.fromkeys(row["mint"] for row in market)]
    calls.append(call("no such mint", T - 60_000, call_id="no such mint"))
    on_time = next(c for c in calls if c["mint"] == "last moment")
    on_time["alert_ts_ms"] = market[576]["ts_ms"] - HOUR_MS
    lab = make_home(tmp_path, calls, market)
    expected = {
        "too late": "no_entry", "before": "no_entry", "another month": "no_entry", "next year": "no_entry",
        "invalid only": "no_candles", "no such mint": "no_candles",
    }  # fmt: skip  # a table: what belongs together stands on one line
    result = run(lab)
    assert {i: d["reason"] for i, d in reported(result) if i} == expected
    assert all(d["mint"] == i for i, d in reported(result) if i)
    assert sorted(row["call_id"] for row in rows(result, "paths")) == ["full", "last moment", "thin"]
    dataset = result.manifest.dataset
    assert (dataset.calls_count, dataset.calls_excluded) == (len(calls), len(expected))
    assert len(rows(result, "alerts")) == len(calls), "all of them are the run's input"
    assert any(
        r["message"] == "no_entry: no valid 5m candle within 60 min after the alert" for r in rows(result, "errors")
    )
    # A window that starts after the entry candle can be empty, and one that is too thin can be refused.
    close = run(lab, entry="close")
    assert {i: d["reason"] for i, d in reported(close) if i} == expected | {"last moment": "no_window"}
    covered = run(lab, min_coverage=0.5)
    assert {i: d["reason"] for i, d in reported(covered) if i} == expected | {
        "last moment": "low_coverage",
        "thin": "low_coverage",
    }
    assert [row["coverage"] for row in rows(covered, "paths")] == [1.0]


def test_rejected_candles_are_counted_where_a_window_would_have_used_them(tmp_path: Path) -> None:
    def bad(mint: str, ts_ms: int, **change: Any) -> Row:
        return candle(mint, ts_ms, **{"low": -1.0} | change)

    last = T + HORIZON_MS - STEP
    good = [row for row in candles("m", T, 576) if row["ts_ms"] not in (T + STEP, T + 2 * STEP, last)]
    market = [
        *good, candle("other", T), *candles("feb", "2024-01-31T23:00", 40),
        bad("m", T - STEP), bad("m", T - 30_000),  # before the earliest entry
        bad("m", T + STEP), bad("m", T + STEP), bad("m", last), bad("m", T + 1),  # used, twice the same
        bad("m", T + 2 * STEP, low=1.0, high=0.5), bad("m", T + 3, low=0.9),  # other reasons
        bad("m", T + HORIZON_MS), bad("m", T + 3 * STEP + HORIZON_MS),  # in the second call's window; behind it
        bad("stranger", T), bad("other", T + STEP),  # no call on that token; no window in this month
        bad("dead", T), bad("dead", T + HOUR_MS),  # no window: what an entry could have used
        bad("feb", ms("2024-02-01T00:30")),
    ]  # fmt: skip  # a table: what belongs together stands on one line
    calls = [
        call("m", T - 60_000, call_id="1"), call("m", T + 60_000, call_id="2"), call("dead", T - 60_000, call_id="3"),
        call("feb", "2024-01-31T23:00", call_id="4"), call("other", "2024-02-10", call_id="5"),
    ]  # fmt: skip  # a table: what belongs together stands on one line
    lab = make_home(tmp_path, calls, market)
    result = run(lab)
    counts = {
        (d["mint"], d["reason"]): (d["rows"], d["first_ts_ms"], d["last_ts_ms"])
        for i, d in reported(result)
        if i is None
    }
    # The second call enters with the next valid candle, three later, and so its window ends three candles later.
    assert counts == {
        ("m", "price"): (5, T + 1, T + HORIZON_MS),
        ("m", "ohlc_order"): (1, T + 2 * STEP, T + 2 * STEP),
        ("m", "off_grid"): (1, T + 3, T + 3),
        ("dead", "price"): (1, T, T),
        ("feb", "price"): (1, ms("2024-02-01T00:30"), ms("2024-02-01T00:30")),
    }
    assert any(row["message"] == "5 candles rejected: price" for row in rows(result, "errors"))


# --- months -----------------------------------------------------------------------------------------------------------


def test_without_any_policy_the_calls_left_out_are_still_counted(tmp_path: Path) -> None:
    lab = make_home(tmp_path, [call("nobody's", T, call_id="i")], candles("another", T, 10))
    made = run_month(lab, "policy", JAN, BacktestConfig(policies=[]))
    assert made is not None
    assert (made.manifest.dataset.calls_count, made.manifest.dataset.calls_excluded) == (1, 1)
    rows = {name: entry.rows for name, entry in made.manifest.artifacts.items()}
    assert rows == {"alerts": 1, "trades": 0, "summary": 0, "errors": 1}


def test_a_month_without_calls_is_no_run(tmp_path: Path) -> None:
    lab = make_home(tmp_path, *small_market())
    assert run_month(lab, "path-only", "2024-03", BacktestConfig()) is None
    assert run_month(lab, "path-only", JAN, BacktestConfig(from_ms=ms("2024-01-20"), to_ms=ms("2024-01-21"))) is None
    assert not lab.runs.folder.exists()


def test_part_of_a_month_is_another_configuration(tmp_path: Path) -> None:
    lab = make_home(tmp_path, *small_market())
    whole = run(lab)
    assert [row["call_id"] for row in rows(whole, "alerts")] == ["a1", "b1", "a2"]
    part = run(lab, from_ms=ms("2024-01-10T02:00"), to_ms=ms("2024-01-31T23:00"))
    assert [row["call_id"] for row in rows(part, "alerts")] == ["b1"]
    dataset = part.manifest.dataset
    assert (dataset.from_, dataset.to) == ("2024-01-10T02:00:00.000Z", "2024-01-31T22:59:59.999Z")
    hashes = [
        r.manifest.parameters["config_hash"]
        for r in (whole, part, run(lab, from_ms=ms("2023-12-01"), to_ms=ms("2024-02-15")))
    ]
    assert hashes[0] == hashes[2] != hashes[1], "bounds that hold the whole month are none"
    # The window of the last call reaches into February.
    assert rows(whole, "paths")[2]["observed_ms"] == HORIZON_MS


def test_the_same_on_one_thread_and_on_four(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantbot_pipeline.market.candle_files.ROW_GROUP", 300)
    market = [row for i in range(24) for row in candles(f"m{i:02}", T - i * STEP, 400)]
    calls = [call(f"m{i % 24:02}", T + i * HOUR_MS // 2, f"c{i % 3}", call_id=f"{i:03}") for i in range(60)]
    lab = make_home(tmp_path, calls, market)
    one = run(lab)
    four = run(lab.changed(threads=4))
    assert pq.read_metadata(month_file(lab.candles.folder, "5m", JAN)).num_row_groups > 10
    assert contents(one) == contents(four) and one.manifest.dataset.fingerprint == four.manifest.dataset.fingerprint
    for name in ("alerts", "paths"):
        drop = ["run_id"] if name == "paths" else []
        tables = [read_artifact(r.run_dir, r.manifest, name).drop_columns(drop) for r in (one, four)]
        assert tables[0].equals(tables[1]) and tables[0].num_rows > 50


@pytest.mark.parametrize(("limit", "piece", "threads"), [("0.000001MB", 5, 1), ("0.002MB", 1, 3), ("2GB", 7, 2)])
def test_a_month_made_in_parts_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, piece: int, threads: int
) -> None:
    """Policies replayed one by one, tables made of a few calls at a time, several slices to a file: the same content."""
    monkeypatch.setattr("quantbot_pipeline.runs.content.SLICE_ROWS", 8)
    market = [row for i in range(6) for row in candles(f"m{i}", "2024-01-10", 700, seed=i)]
    mints = [f"m{i % 7}" for i in range(23)]  # m6 has no candles
    calls = [call(mint, T - 60_000 * (7 * i % 50), f"caller{i % 3}", call_id=f"c{i}") for i, mint in enumerate(mints)]
    lab = make_home(tmp_path, calls, market)
    small = lab.changed(memory_limit=limit, threads=threads)
    for recipe, both in itertools.product(("path-only", "policy", "full"), (False, True)):
        config = BacktestConfig(both_orders=both, grid=FEW if recipe == "full" else {})
        whole = run_month(lab, recipe, JAN, config)
        with monkeypatch.context() as patch:
            patch.setattr("quantbot_pipeline.backtest.writing.PIECE", piece)
            patch.setattr("quantbot_pipeline.backtest.exclusions.PIECE", piece)
            parts = run_month(small, recipe, JAN, config)
        assert whole is not None and parts is not None
        assert contents(parts) == contents(whole) and len(contents(whole)) > 2
        for name, entry in whole.manifest.artifacts.items():
            assert parts.manifest.artifacts[name].rows == entry.rows
            assert pq.read_metadata(parts.run_dir / entry.path).num_row_groups == max(1, -(-entry.rows // 8))
            if name in contents(whole):
                made, again = ([row | {"run_id": ""} for row in rows(r, name)] for r in (whole, parts))
                assert made == again
        assert reported(parts) == reported(whole) and parts.manifest.dataset == whole.manifest.dataset


def test_order_and_repetition_of_the_input_do_not_matter(tmp_path: Path) -> None:
    calls, market = small_market()
    rng = np.random.default_rng(3)

    def shuffled(items: Sequence[Row]) -> list[Row]:
        return [items[i] for i in rng.permutation(len(items))]

    straight = make_home(tmp_path / "straight", calls, market)
    crooked = make_home(tmp_path / "crooked", shuffled([*calls, *calls]), shuffled(market)[: len(market) // 2])
    ingest_candles([write_parquet(tmp_path / "all.parquet", shuffled([*market, *market]))], crooked.candles, "5m")
    one, two = run(straight), run(crooked)
    assert contents(one) == contents(two)
    assert one.manifest.dataset == two.manifest.dataset
    assert one.manifest.parameters == two.manifest.parameters


# --- reuse ------------------------------------------------------------------------------------------------------------


def test_only_what_changed_is_made_again(tmp_path: Path) -> None:
    calls, market = small_market()
    lab = make_home(tmp_path, calls, market)

    def again(**config: Any) -> MonthResult:
        result = run_month(lab, "path-only", JAN, BacktestConfig(**config), only_changed=True)
        assert result is not None
        return result

    first = again()
    assert not first.reused and again() == first._replace(reused=True)
    assert not again(latency_ms=0).reused, "another configuration"
    assert again(taker_fee_bps=99).reused, "a cost is no part of what the price did"
    make_home(tmp_path, [], [candle("new", ms("2024-05-05"))])
    assert again().reused, "candles of a month that no window reaches"
    make_home(tmp_path, [call("early", "2024-02-03", call_id="other month")])
    assert again().reused, "a call of another month"
    changes: tuple[tuple[list[Row], list[Row]], ...] = (
        ([call("early", "2024-01-12", call_id="new")], []),
        ([], [market[5] | {"close": market[5]["close"] * (1 + 1e-15), "volume": 0.5}]),
        ([], [candle("early", ms("2024-02-01"))]),
        ([], [candle("early", ms("2024-01-12"), low=-1.0)]),  # counted among the rejected
    )
    for change in changes:
        make_home(tmp_path, *change)
        made = again()
        assert not made.reused and again().run_dir == made.run_dir
    # A run that does not keep its promises is not reused, and neither is a failed one.
    (made.run_dir / "truth/paths.parquet").write_bytes(b"")
    assert not again().reused


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["page", "footer"])
def test_a_failure_is_committed_and_reported(tmp_path: Path, damage: str) -> None:
    lab = make_home(tmp_path, *small_market())
    path = month_file(lab.candles.folder, "5m", JAN)
    whole = path.read_bytes()
    offset = 3000 if damage == "page" else len(whole) - 6
    path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 0x40]) + whole[offset + 1 :])
    with pytest.raises(
        RunFailedError, match=r"2024-01: .*candles\.parquet: the candle store is not readable"
    ) as caught:
        run(lab)
    run_dir = caught.value.run_dir
    assert not (run_dir / "_SUCCESS").exists() and (run_dir / "run.json").exists()
    manifest = check_run(run_dir)
    assert (manifest.status, manifest.month) == ("failed", JAN)
    assert manifest.error is not None and "not readable" in manifest.error
    assert read_artifact(run_dir, manifest, "alerts").num_rows == 3
    (error,) = [r for r in read_artifact(run_dir, manifest, "errors").to_pylist() if r["level"] == "error"]
    assert error["message"] == manifest.error and error["phase"] == "execution"
    assert "error execution - " in (run_dir / manifest.logs["stderr"]).read_text()
    report = sync(lab.catalog)
    assert (report.registered, report.quarantined) == (1, 0)
    # The other month goes on; with the file mended the same command succeeds and does not take the failure for a result.
    assert run(lab, "2024-02").manifest.status == "completed"
    path.write_bytes(whole)
    result = run_month(lab, "path-only", JAN, BacktestConfig(), only_changed=True)
    assert result is not None and not result.reused and result.manifest.status == "completed"


# --- provenance -------------------------------------------------------------------------------------------------------

PROVENANCE = """
import json, os, subprocess, sys
from quantbot_pipeline.backtest import provenance
assert provenance.__file__.startswith(sys.argv[1]), provenance.__file__
def git(*words):
    subprocess.run(["git", "-C", sys.argv[1], "-c", "user.name=t", "-c", "user.email=t@t", *words], check=True, capture_output=True)
def ask():
    provenance.git_provenance.cache_clear()
    return provenance.git_provenance()
found = {"outside": ask()}
git("init", "-b", "trunk")
found["untracked"] = ask()
git("add", "quantbot_pipeline")
git("commit", "-m", "x")
found["clean"] = ask()
os.environ["GIT_TEST_ASSUME_DIFFERENT_OWNER"] = "1"
found["of another user"] = ask()
del os.environ["GIT_TEST_ASSUME_DIFFERENT_OWNER"]
with open(provenance.__file__, "a") as f:
    f.write("# changed")
found["dirty"] = ask()
git("checkout", "--force", "--detach")
found["detached"] = ask()
print(json.dumps(found))
"""


def test_a_run_knows_the_commit_it_was_made_from(tmp_path: Path) -> None:
    package = Path(__file__).parents[2] / "quantbot_pipeline"
    shutil.copytree(package, tmp_path / "quantbot_pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environment |= {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1", "GIT_CEILING_DIRECTORIES": "/"}
    done = subprocess.run(
        [sys.executable, "-c", PROVENANCE, str(tmp_path)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip  # a table: what belongs together stands on one line
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["outside"] == found["untracked"] == [None, None, None]
    commit, *rest = found["clean"]
    assert len(commit) == 40 and rest == ["trunk", False]
    assert found["of another user"] == found["clean"], "a service runs from a checkout that is not its own"
    assert found["dirty"] == [commit, "trunk", True]
    assert found["detached"] == [commit, None, False]


def apart(home: Path, low: float, high: float) -> Home:
    """Two months with twelve calls each; every token goes from one price to the other within its second candle."""
    calls: list[Row] = []
    rows: list[Row] = []
    for month in (JAN, "2024-02"):
        for i in range(12):
            mint = f"{month}-{i}"
            start = ms(f"{month}-02T12:00")
            calls.append(call(mint, start - 60_000, "a", call_id=mint))
            rows += [candle(mint, start, low, low, low, low), candle(mint, start + STEP, low, high, low, high)]
    return make_home(home, calls, rows)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("recipe", ["path-only", "policy", "optimization", "full", "walk-forward"])
def test_prices_too_far_apart_for_a_number_fail_the_run_and_say_so(tmp_path: Path, recipe: Any) -> None:
    lab = apart(tmp_path, 1e-300, 1e10)
    config = BacktestConfig(policies=[{"kind": "time_stop", "max_hold_ms": 3_600_000}], constraints={"min_trades": 1})
    with pytest.raises(RunFailedError, match=r"is not a finite number in .* more than 1e304 times apart") as failed:
        run_month(lab, recipe, "2024-02", config)
    manifest = check_run(failed.value.run_dir)
    assert manifest.status == "failed"
    assert not (failed.value.run_dir / "_SUCCESS").exists()
    for name in manifest.artifacts:
        for column in read_artifact(failed.value.run_dir, manifest, name).itercolumns():
            if pa.types.is_floating(column.type):
                assert np.isfinite(column.drop_null().to_numpy()).all()


@pytest.mark.parametrize(
    ("recipe", "low", "high"),
    [
        ("full", 1e-18, 1e18),
        ("walk-forward", 1e-18, 1e18),
        ("v1-baseline", 1e-18, 1e18),
        ("v1-baseline", 1e-300, 1e10),  # it takes its profit at five times the price at most
    ],
)
def test_prices_far_apart_are_numbers_as_long_as_they_can_be(
    tmp_path: Path, recipe: Any, low: float, high: float
) -> None:
    result = run_month(apart(tmp_path, low, high), recipe, "2024-02", BacktestConfig())
    assert result is not None
    assert check_run(result.run_dir).status == "completed"
