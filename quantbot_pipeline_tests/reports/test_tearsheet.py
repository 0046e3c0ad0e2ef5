"""The tear sheet: its formulas against QuantStats and naive replays, its numbers against queries, its page in Chromium."""

import json
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from quantbot_pipeline import Home as PublicHome
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.cli.tearsheet import file_name
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.evidence.wording import judgement
from quantbot_pipeline.home import Home
from quantbot_pipeline.reports.searches import walk_forward
from quantbot_pipeline.reports.tearsheet import luck, numbers
from quantbot_pipeline.reports.tearsheet.gather import gather
from quantbot_pipeline.reports.tearsheet.meaning import FIGURES
from quantbot_pipeline.reports.tearsheet.sheet import TearSheet, calls_of, sheet_of
from quantbot_pipeline.runs.manifest import Dataset
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.reports.conftest import OpenWindow
from quantbot_pipeline_tests.reports.test_dashboard_data import ask
from quantbot_pipeline_tests.support.builders import artifact_rows, commit_evidence, commit_run
from quantbot_pipeline_tests.support.labs import Done
from quantbot_pipeline_tests.support.markets import CLOSING, FORMULA, MARKUP, MONTHS
from quantbot_pipeline_tests.support.windows import Window

DAY, HOUR = 86_400_000, 3_600_000
ALL = "__all__"


def fields(made: tuple[object, ...]) -> dict[str, float]:
    return made._asdict()  # type: ignore[attr-defined]


def test_what_quantstats_knows_too_is_what_it_says() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own
        from quantstats import stats
    rng = np.random.default_rng(7)
    for n in (2, 11, 12, 60):
        returns = rng.normal(0.01, 0.09, n)
        returns[-1] = -0.05  # without a loss there is no Sortino ratio
        series = pd.Series(returns, index=pd.date_range("2020-01-31", periods=n, freq="ME"))
        made = numbers.of_months(returns)
        assert made.months == n
        assert made.sharpe == pytest.approx(stats.sharpe(series, periods=12), rel=1e-9)
        assert made.sortino == pytest.approx(stats.sortino(series, periods=12), rel=1e-9)
        assert made.volatility == pytest.approx(stats.volatility(series, periods=12), rel=1e-9)
        assert made.total_return == pytest.approx(stats.comp(series), rel=1e-9)
        assert (made.cagr is None) == (n < 12)
        if n >= 12:
            assert made.cagr == pytest.approx(stats.cagr(series, periods=12), rel=1e-9)
        equity = np.cumprod(1 + returns).astype(np.float64)
        assert numbers.drawdowns(equity).min() == pytest.approx(stats.max_drawdown(series), rel=1e-9)
    trades = pd.Series(rng.lognormal(-0.2, 0.6, 200) - 1, index=pd.date_range("2020-01-01", periods=200))
    of = fields(numbers.of_trades(trades.to_numpy().astype(np.float64)))
    for name in ("win_rate", "avg_win", "avg_loss", "payoff_ratio", "profit_factor", "tail_ratio", "skew"):
        assert of[name] == pytest.approx(getattr(stats, name)(trades), rel=1e-9), name


def test_one_month_and_no_loss_have_no_ratio() -> None:
    assert numbers.of_months(np.array([0.2])) == pytest.approx((1, 0.2, None, None, None, None))
    made = numbers.of_months(np.array([0.2, 0.1]))
    assert made.sortino is None
    assert made.sharpe is not None
    nothing = numbers.of_trades(np.empty(0))
    assert set(nothing) == {None}


def test_an_account_is_its_cash_and_what_open_trades_cost() -> None:
    """Two trades are open together: the second stakes a share of the cash that the first left."""
    made = numbers.account(np.array([0, 10, 30]), np.array([30, 20, 40]), np.array([1.0, -0.5, 0.1]), 0.1)
    after_second = 1 - 0.09 * 0.5
    after_first = after_second + 0.1
    assert made.closed.tolist() == [20, 30, 40]
    assert made.equity.tolist() == pytest.approx([after_second, after_first, after_first * 1.01])
    assert numbers.before(made, np.array([20, 21, 99])).tolist() == [1.0, *made.equity[[0, 2]]]
    assert numbers.longest_below(numbers.drawdowns(made.equity)) == 1


def test_exposure_counts_time_once_and_trades_together() -> None:
    made = numbers.exposure(np.array([0, 5, 20]), np.array([10, 20, 30]), 0, 40)
    assert made == (30 / 40, 35 / 40, 2)  # at 20 one closes, then one opens
    assert numbers.exposure(np.empty(0, int), np.empty(0, int), 0, 1) is None


def test_luck_is_the_same_each_time_and_knows_a_rug() -> None:
    entry = np.arange(40) * DAY
    returns = np.full(40, 0.5)
    moments = (np.arange(40) + 2) * DAY
    low, high = luck.band(entry, returns, 0.04, moments, "a")
    assert high[0] == pytest.approx(1.02**2)  # of the first two days
    assert low[-1] < 1.02**40  # though no trade lost
    assert np.array_equal(low, luck.band(entry, returns, 0.04, moments, "a")[0])
    control = luck.random_control([2, 0, 1], [np.array([0.1]), np.array([9.0]), np.empty(0)], 0.2, "a")
    assert control is not None
    assert control.middle.tolist() == pytest.approx([0.2, 0.2, 0.2])  # nothing to draw in the last month
    assert luck.random_control([0], [np.array([0.1])], 0.0, "a") is None


# --- the sheet of the market's callers --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sheet(market: Home) -> TearSheet:
    return sheet_of(gather(market.catalog, MARKUP))


@pytest.mark.parametrize("caller", [MARKUP, FORMULA, ALL])
def test_trades_and_beside_them_are_those_of_the_walk_forward(market: Home, caller: str) -> None:
    made = sheet_of(gather(market.catalog, caller))
    (row,) = (r for r in walk_forward(market.catalog) if (r["caller_name"], r["scheme"]) == (caller, "anchored"))
    for name, column in {
        "trades": "trades", "expectancy_bps": "out_of_sample_avg_bps", "median_return_bps": "out_of_sample_median_bps",
        "es95_bps": "out_of_sample_es95_bps", "data_end_share": "data_end_share", "hold_avg_bps": "hold_avg_bps",
        "stressed_avg_return_bps": "stressed_avg_bps", "pooled_avg_bps": "pooled_avg_bps",
    }.items():  # fmt: skip  # a table: what belongs together stands on one line
        assert made.figures[name] == row[column], name
    found = ask(
        market,
        f"""SELECT count(*) AS n, avg(realized_return_bps) AS mean FROM trades
            WHERE scheme = 'anchored' AND caller_name = '{caller.replace("'", "''")}'""",
    )[0]
    assert (
        made.figures["trades"]
        == found["n"]
        == sum(m["trades"] for m in made.months)
        == sum(b["trades"] for b in made.bins)
    )
    assert made.figures["expectancy_bps"] == pytest.approx(found["mean"], rel=1e-9)
    assert [m["month"] for m in made.months] == list(MONTHS)
    grown = np.prod([1 + m["account_return"] for m in made.months])
    assert made.figures["total_return"] == pytest.approx(grown - 1)
    assert made.days["equity"][-1].as_py() == pytest.approx(grown)


def test_every_call_stands_in_it_once(market: Home, sheet: TearSheet) -> None:
    calls = calls_of(sheet).to_pylist()
    known = ask(market, "SELECT DISTINCT call_id FROM paths WHERE caller_name LIKE '%onerror%'")
    assert sorted(c["call_id"] for c in calls) == sorted(row["call_id"] for row in known)
    assert sum(c["traded"] for c in calls) == sheet.figures["trades"]


def test_the_verdict_is_the_first_sentence(market: Home, sheet: TearSheet) -> None:
    (row,) = ask(market, f"SELECT * FROM evidence WHERE caller_name = '{MARKUP}' ORDER BY choice_units DESC LIMIT 1")
    assert sheet.verdict.lower().startswith(row["verdict"])
    assert (
        f"{row['choice_mean_bps']:,.0f} bps a call, 95 % interval {row['choice_low_bps']:,.0f} to {row['choice_high_bps']:,.0f}"
        in sheet.verdict
    )


def test_a_policy_named_by_hand_has_no_verdict_and_its_own_trades(market: Home) -> None:
    (policy,) = ask(market, "SELECT policy_id FROM summary WHERE policy_id IS NOT NULL ORDER BY 1 LIMIT 1")
    made = sheet_of(gather(market.catalog, MARKUP, policy["policy_id"]))
    trades = PublicHome(market.path).trades(policy_id=policy["policy_id"], caller=MARKUP)
    assert made.figures["trades"] == len(trades) > 0
    assert made.figures["expectancy_bps"] == pytest.approx(trades["realized_return_bps"].mean())
    assert "named by hand" in made.verdict
    assert made.figures["random_avg_bps"] is not None


def test_trades_of_a_policy_are_of_the_interval_that_was_asked_for(tmp_path: Path) -> None:
    home = Home(Settings(home=tmp_path))
    days = Dataset(from_="2024-01-01", to="2024-02-01", interval="5m", calls_count=2, calls_excluded=0, fingerprint="f")
    for n, interval in enumerate(("5m", "1h")):
        tables = {
            "alerts": artifact_rows("alerts", 2),
            "trades": artifact_rows("trades", 2, policy_id=["hold"] * 2, caller_name=["ann"] * 2),
            "summary": artifact_rows("summary", 1, policy_id=["hold"]),
        }
        dataset = days.model_copy(update={"interval": interval})
        made = f"2024-06-0{n + 1}T00:00:00.000Z"
        of: dict[str, Any] = {"parameters": {"config_hash": interval}, "dataset": dataset, "created_at": made}
        commit_run(home.runs.folder, tables=tables, run_type="policy", **of)
    sync(home.catalog)
    for asked, found in ((None, "1h"), ("5m", "5m"), ("1h", "1h")):
        gathered = gather(home.catalog, "ann", "hold", asked)
        assert [run.dataset.interval for run in gathered.runs] == [found]
        assert gathered.trades.num_rows == 2
    with pytest.raises(InputError, match="no trades of policy 'hold': run `quantbot backtest policy`"):
        gather(home.catalog, "ann", "hold", "15m")


def test_the_command_prints_what_the_frame_holds_and_writes_the_page(
    market: Home, tmp_path: Path, quantbot: Callable[..., Done]
) -> None:
    out = tmp_path / "sheet.html"
    done = quantbot("tearsheet", "--caller", MARKUP, "--out", out, "--format", "json", "--home", market.path)
    made = PublicHome(market.path).tearsheet(MARKUP)
    printed = {row["figure"]: row["value"] for row in done.json()}
    frame = made.figures.set_index("figure")["value"]
    assert list(printed) == [figure.name for figure in FIGURES]
    for name, value in printed.items():
        assert (pd.isna(frame[name]) and value is None) or frame[name] == value, name
    assert done.err.splitlines()[0] == made.verdict
    data = re.search(r'id="data">(.*?)</script>', out.read_text(), re.DOTALL)
    assert data is not None
    assert {f["name"]: f["value"] for f in json.loads(data[1])["figures"]} == pytest.approx(printed)
    assert len(made.calls) == len(json.loads(data[1])["pictures"])
    assert list(made.equity.columns) == ["day_ts_ms", "equity", "drawdown", "low", "high"]
    assert set(made.trades["run_id"]) <= set(made.trades.attrs["runs"])
    assert made.months["trades"].sum() == len(made.trades)


def test_what_is_not_there_is_named(market: Home, tmp_path: Path, quantbot: Callable[..., Done]) -> None:
    with pytest.raises(InputError, match=r"no caller 'bob'; callers: .*alice"):
        gather(market.catalog, "bob")
    with pytest.raises(InputError, match="no trades of policy 'time_1h' on the calls of 'alone'"):
        gather(_with_a_lone_caller(market, tmp_path).catalog, "alone", "time_1h")
    wrong = quantbot("tearsheet", "--caller", "alice", "--policy", "moon", "--home", market.path)
    assert wrong.complaint.startswith("no trades of policy 'moon': replayed policies: ")


def _with_a_lone_caller(market: Home, folder: Path) -> Home:
    """The market, and one month more in which a caller has a verdict and nothing else."""
    home = Home(Settings(home=folder))
    shutil.copytree(market.runs.folder, home.runs.folder)
    commit_evidence(home, "2024-04", artifact_rows("evidence", 1, caller_name=["alone"], verdict=["none"], flags=[""]))
    sync(home.catalog)
    with pytest.raises(InputError, match="no walk-forward of caller 'alone': none of its calls"):
        gather(home.catalog, "alone")
    return home


def drawn(window: Window) -> int:
    charts = window.charts()
    assert all(chart["marks"] > 0 and chart["width"] > 100 and chart["height"] > 100 for chart in charts)
    return len(charts)


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_opens_without_a_network(open_window: OpenWindow, market: Home, tmp_path: Path, width: int) -> None:
    out = PublicHome(market.path).tearsheet(MARKUP).write(tmp_path / "sheet.html")
    assert out.stat().st_size < 2_000_000
    window = open_window(out, width=width, dark=width == 390)
    page = window.page
    page.goto(window.address)
    page.wait_for_function("document.body.dataset.ready")
    assert drawn(window) == 8
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("h1").inner_text() == MARKUP
    assert page.locator(".verdict-line").inner_text() == PublicHome(market.path).tearsheet(MARKUP).verdict
    assert len(window.rows("Every call with a window")) == page.locator("td svg.picture").count() > 0
    assert page.locator("main img, main script").count() == 0


def test_a_name_cannot_leave_its_folder_nor_move_the_cursor() -> None:
    assert judgement("a\x1b[2Jb\u202e", None, None).startswith(
        "No verdict on a\N{REPLACEMENT CHARACTER}[2Jb\N{REPLACEMENT CHARACTER}:"
    )
    assert file_name("../../etc/passwd", None) == "etc_passwd.html"
    assert file_name(CLOSING, "a/b") == "script_script_alert_2_script-a_b.html"
    assert file_name("...", None) == "_.html"
