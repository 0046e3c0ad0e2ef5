"""QUANTBOT_QUALITY_BLOCKS: nothing is concluded from a month whose inputs are bad; the others and its truth are made."""

from collections import Counter
from pathlib import Path

import dagster as dg
import pytest

from quantbot_pipeline.home import Home
from quantbot_pipeline.orchestration.launch import open_instance
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.conftest import Quantbot
from quantbot_pipeline_tests.support.builders import call, candles, make_home

FIGURE = "58.3% of the calls excluded (limit 25.0%)"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """January has 12 calls, 7 of them of tokens without candles; February is sound."""
    calls = [call("alive" if i < 5 else "gone", f"2024-01-01T{i:02}:00", "A") for i in range(12)]
    calls += [call("alive", f"2024-02-01T{i:02}:00", "A") for i in range(12)]
    made = candles("alive", "2024-01-01", 900) + candles("alive", "2024-02-01", 900)
    home = tmp_path / "blocked"
    make_home(home, calls, made)
    for name in ("QUANTBOT_HOME", "DAGSTER_HOME"):
        monkeypatch.setenv(name, str(home))
    return home


def completed(quantbot: Quantbot, home: Path) -> Counter[tuple[str, str]]:
    """How many completed runs of each kind each month has."""
    quantbot("backtest", "catalog-sync", "--home", home)
    done = quantbot("backtest", "catalog-query", "--limit", 99, "--format", "json", "--home", home)
    return Counter((row["month"], row["run_type"]) for row in done.json() if row["status"] == "completed")


def test_nothing_is_concluded_from_a_bad_month(lab: Path, quantbot: Quantbot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTBOT_QUALITY_BLOCKS", "true")
    done = quantbot("backfill", "--from", "2024-01", "--to", "2024-02", "--home", lab)
    assert done.status == 1
    assert f"2024-01: {FIGURE}" in done.err
    assert "DagsterAssetCheckFailedError" not in done.err
    runs = completed(quantbot, lab)
    assert {kind for month, kind in runs if month == "2024-01"} == {"path-only", "anomalies"}
    assert runs["2024-02", "full"] == 1
    assert runs["2024-02", "optimization"] == 4, "V1, walk-forward, tuning and evidence"
    with open_instance(Home(Settings(home=lab))) as instance:
        paths = instance.fetch_materializations(dg.AssetKey(["truth", "paths"]), limit=9).records
        frontier = instance.fetch_materializations(dg.AssetKey(["results", "frontier"]), limit=9).records
    assert {record.partition_key for record in paths} == {"2024-01", "2024-02"}, "its truth can be looked at"
    assert {record.partition_key for record in frontier} == {"2024-02"}


def test_an_anomaly_that_makes_numbers_wrong_blocks_too(
    lab: Path, quantbot: Quantbot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """January's only called token has a copy in another unit; February's has none."""
    made = [row for row in candles("alive", "2024-01-01", 900) if row["ts_ms"] < 1_706_745_600_000]
    prices = ("open", "high", "low", "close")
    copied = [row | {"mint": "twin"} | {name: row[name] * 7 for name in prices} for row in made]
    make_home(lab, [], copied)
    make_home(lab, [], candles("gone", "2024-01-01", 900))  # now its calls have windows
    monkeypatch.setenv("QUANTBOT_QUALITY_BLOCKS", "true")
    done = quantbot("backtest", "baseline", "--from", "2024-01", "--to", "2024-02", "--home", lab)
    assert done.status == 1
    assert "2024-01: duplicate_series of alive and twin: Both tokens have the same price steps on 3 days" in done.err
    assert completed(quantbot, lab)["2024-02", "optimization"] == 1
    again = quantbot("backtest", "anomalies", "--from", "2024-01", "--to", "2024-02", "--home", lab)
    assert (again.status, "anomalies of anomalies/anomalies: 2024-01: duplicate_series" in again.err) == (1, True)
    monkeypatch.delenv("QUANTBOT_QUALITY_BLOCKS")
    assert quantbot("backtest", "anomalies", "--from", "2024-01", "--to", "2024-02", "--home", lab).status == 0


def test_a_search_that_was_made_before_is_not_kept_for_a_month_that_blocks(
    lab: Path, quantbot: Quantbot, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert quantbot("backtest", "baseline", "--from", "2024-01", "--to", "2024-01", "--home", lab).status == 0
    monkeypatch.setenv("QUANTBOT_QUALITY_BLOCKS", "true")
    again = quantbot("backtest", "baseline", "--from", "2024-01", "--to", "2024-01", "--only-changed", "--home", lab)
    assert (again.status, FIGURE in again.err) == (1, True)


def test_the_sentence_of_a_blocking_check_has_the_figure(
    lab: Path, quantbot: Quantbot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTBOT_QUALITY_BLOCKS", "true")
    done = quantbot("backtest", "path-only", "--from", "2024-01", "--to", "2024-02", "--home", lab)
    assert done.status == 1
    assert f"input_quality of truth/paths: 2024-01: {FIGURE}" in done.err
    assert "Dagster" not in done.err
    assert sum(completed(quantbot, lab).values()) == 2


def test_by_default_it_is_a_warning(lab: Path, quantbot: Quantbot) -> None:
    assert quantbot("backtest", "baseline", "--from", "2024-01", "--to", "2024-01", "--home", lab).status == 0
    assert completed(quantbot, lab) == {("2024-01", "optimization"): 1}
