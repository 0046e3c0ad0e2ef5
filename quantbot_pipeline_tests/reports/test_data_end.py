"""Tokens whose prices stop: what the reports, the run and the search say of trades that nobody could have closed."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.home import Home
from quantbot_pipeline.reports.leaderboard import leaderboard
from quantbot_pipeline.reports.remarks import ended_remarks, remarks
from quantbot_pipeline.reports.searches import frontier, walk_forward
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.support.labs import Done

START = 1_704_110_400_000  # 2024-01-01T12:00Z
MINUTE, DAY = 60_000, 86_400_000


def market(drained: int, alive: int) -> tuple[str, str]:
    """Calls and candles as CSV: tokens that rise a tenth and are then drained, and tokens that stay at that price."""
    calls = ["call_id,mint,caller_name,chain,alert_ts_ms"]
    candles = ["mint,ts_ms,open,high,low,close,volume"]
    for i in range(drained + alive):
        start = START + i * DAY
        calls.append(f"c{i},TOKEN{i},caller,,{start + 30_000}")
        for n in range(600):
            ts = start + n * 5 * MINUTE
            if n < 3:
                candles.append(f"TOKEN{i},{ts},1.0,1.1,1.0,1.1,5")
            elif i >= drained:
                candles.append(f"TOKEN{i},{ts},1.1,1.1,1.1,1.1,5")
            elif n < 30:
                candles.append(f"TOKEN{i},{ts},{1.1 if n == 3 else 0},{1.1 if n == 3 else 0},0,0,0")
    return "\n".join(calls) + "\n", "\n".join(candles) + "\n"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantbot: Callable[..., Done]) -> Iterator[Callable[..., Any]]:
    """Makes a home with so many drained and living tokens, backtested in full."""

    def make(drained: int, alive: int, *options: str) -> Home:
        folder = tmp_path / f"{drained}-{alive}"
        folder.mkdir()
        for name, text in zip(("calls", "candles"), market(drained, alive), strict=True):
            (folder / f"{name}.csv").write_text(text)
        given = ("--home", folder)
        assert quantbot("ingest", "calls", folder / "calls.csv", *given).status == 0
        assert quantbot("ingest", "candles", folder / "candles.csv", "--interval", "5m", *given).status == 0
        done = quantbot("backtest", "full", "--from", "2024-01", "--to", "2024-01", *options, *given)
        assert done.status == 0, done.err
        home = Home(Settings(home=folder))
        sync(home.catalog)
        return home

    yield make


def test_a_drained_token_is_named_and_remarked(lab: Callable[..., Home], quantbot: Callable[..., Done]) -> None:
    home = lab(12, 0)
    (best,) = frontier(home.catalog, caller="caller", limit=1)
    assert best["meets_constraints"], "by the contract: the last close counts"
    assert (best["data_end_share"], best["stressed_avg_return_bps"]) == (1.0, -10_000.0)
    (row,) = leaderboard(home.catalog)
    assert (row["data_end_share"], row["stressed_avg_return_bps"]) == (1.0, -10_000.0)
    assert "more than 20% of the trades of '__all__' 100%, 'caller' 100%" in ended_remarks(frontier(home.catalog))[0]
    assert "more than 20% of the calls of 'caller' 100%" in ended_remarks([row])[0]
    done = quantbot("frontier", "--home", home.path)
    assert "data end share" in done.out
    assert "distinct mints" in done.out
    assert "stopped trading" in done.err
    done = quantbot(
        "query", "SELECT message, details FROM errors ORDER BY details", "--format", "json", "--home", home.path
    )
    drained = [row for row in json.loads(done.out) if "looks drained" in row["message"]]
    assert len(drained) == 12
    assert json.loads(drained[0]["details"])["zero_candles"] == 27
    assert "TOKEN0 looks drained: 27 rejected candles with the price zero" in drained[0]["message"]


def test_a_fifth_is_not_yet_much(lab: Callable[..., Home]) -> None:
    home = lab(2, 8)
    assert leaderboard(home.catalog)[0]["data_end_share"] == 0.2
    assert ended_remarks(leaderboard(home.catalog)) == []
    assert ended_remarks(frontier(home.catalog, caller="caller")) == []


def test_limits_of_tokens_and_ends_of_data_make_policies_infeasible(lab: Callable[..., Home]) -> None:
    limits = {"min_distinct_mints": 13, "max_data_end_share": 0.5, "min_stressed_avg_return_bps": 0}
    home = lab(12, 0, "--constraints", json.dumps(limits))
    for row in frontier(home.catalog):
        assert row["violations"].endswith("distinct_mints,data_end_share,stressed_avg_return_bps")
        assert not row["meets_constraints"]


def test_walk_forward_of_a_run_without_test_trades_says_so(
    lab: Callable[..., Home], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of 0.1.0 have no `trades`: what needs them is empty, and the reader is told how to get it."""
    from quantbot_pipeline.backtest.recipes import walk_forward as recipe

    home = lab(0, 12)
    monkeypatch.setattr(recipe, "_write_test_trades", lambda *_: None)  # as 0.1.0 did
    from quantbot_pipeline.backtest.month import run_month
    from quantbot_pipeline.config import BacktestConfig

    run_month(home, "walk-forward", "2024-01", BacktestConfig())
    sync(home.catalog)
    assert all(row["out_of_sample_median_bps"] is None for row in walk_forward(home.catalog))
    assert any("hold no test trades" in text for text in remarks(home.catalog, "walk_forward"))
