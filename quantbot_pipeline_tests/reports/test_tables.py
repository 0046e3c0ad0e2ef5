"""The tables for people over committed runs: frontier, walk-forward and leaderboard against a direct computation.

Belongs here: `reports.search` and `reports.leaderboard` on a real catalog. The direct computation reads the run directories
itself, in plain Python, and knows neither the catalog nor DuckDB.
"""

import json
import random
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.home import Home
from quantbot_pipeline.months import iso_ms
from quantbot_pipeline.reports.leaderboard import COLUMNS, JUDGED, leaderboard
from quantbot_pipeline.reports.searches import FRONTIER_COLUMNS, WALK_FORWARD_COLUMNS, frontier, walk_forward
from quantbot_pipeline_tests.support import homes
from quantbot_pipeline_tests.support.homes import DAY, FEBRUARY, HOUR, JANUARY, MARCH, MINUTE, Call, Market

MONTHS = {"2024-01": JANUARY, "2024-02": FEBRUARY, "2024-03": MARCH}
GRID: dict[str, Any] = {
    "stops": [0.05, 0.2], "take_profits": [0.5, None], "holds_ms": [30 * MINUTE], "hold_take_profits": [None], "activations": [0.1],
    "trails": [0.05], "hard_stops": [None], "ladders": [], "ladder_stops": [], "combo_holds_ms": [],
}  # fmt: skip  # a table: what belongs together stands on one line
CONFIG = {"horizon_ms": 3 * HOUR, "grid": GRID}
UP, CHOP = (1.08, 1.02, 1.0, 0.97), (0.94, 1.06, 1.0)


class Lab(NamedTuple):
    """A home with runs of every kind, some of them made again, and its catalog."""

    home: Home
    runs: list[tuple[dict[str, Any], Path]]


def three_months() -> Market:
    """Three callers; one is absent in March, one calls some tokens twice and some that never trade."""
    rng = random.Random(41)
    calls, candles = [], {}
    for number, (caller, moves, counts) in enumerate(
        (("b", UP, (11, 11, 12)), ("A", CHOP, (12, 10, 0)), ("ç", UP, (3, 4, 5)))
    ):
        for (month, start), n in zip(MONTHS.items(), counts, strict=True):
            for i in range(n):
                begin, mint = start + (1 + 2 * i) * DAY + number * HOUR, f"{caller}{month}{i}"
                candles[mint] = homes.token(rng, begin, 40, "5m", moves)
                calls.append(Call(mint, caller, mint, begin + 1_000))
                if i % 4 == 0:
                    calls.append(Call(f"{mint}!", caller, mint, begin + HOUR))
    calls.append(Call("none", "ç", "nothing", FEBRUARY + DAY))
    return Market("5m", calls, candles)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Older runs under other costs first, so that only the newest of a month may count; the catalog is synced once."""
    home = homes.make_home(tmp_path_factory.mktemp("tables") / "home", three_months())
    for month in MONTHS:
        homes.run(home, "optimization", month, CONFIG | {"taker_fee_bps": 500.0})
        homes.run(home, "path-only", month, {"horizon_ms": HOUR})
        homes.run(home, "walk-forward", month, CONFIG | {"slippage_bps": 700.0})
    for month in MONTHS:
        homes.run(home, "walk-forward", month, CONFIG)
        homes.run(home, "full" if month == "2024-02" else "optimization", month, CONFIG)
        homes.run(home, "path-only", month, {"horizon_ms": 3 * HOUR})
        homes.run(home, "v1-baseline", month, {})
    sync(home.catalog)
    runs = [(json.loads(path.read_text()), path.parent) for path in home.runs.folder.glob("*/run_id=*/run.json")]
    return Lab(home, runs)


def newest(lab: Lab, artifact: str, strategy: str | None = None) -> list[dict[str, Any]]:
    """Rows of the newest run of each month that holds the artifact, with their month."""
    found: list[dict[str, Any]] = []
    for month in MONTHS:
        own = [
            (manifest["created_at"], path, manifest)
            for manifest, path in lab.runs
            if manifest["month"] == month
            and artifact in manifest["artifacts"]
            and strategy in (None, manifest["parameters"].get("strategy_id", "grid-search"))
        ]
        _, path, manifest = max(own, key=lambda one: one[0])
        rows = homes.read(path / manifest["artifacts"][artifact]["path"])
        found += [{"month": month, **row} for row in rows]
    return found


def by_caller(rows: list[dict[str, Any]], *keys: str) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Rows grouped by some of their columns."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return found


# --- frontier ---------------------------------------------------------------------------------------------------------

UNPROVEN = {"sample": "in sample", "verdict": None}  # in a home without evidence


@pytest.mark.parametrize("caller", ["b", "A", "ç", "__all__", None])
@pytest.mark.parametrize("month", ["2024-02", None])
def test_frontier_is_the_top_of_the_newest_runs(lab: Lab, caller: str | None, month: str | None) -> None:
    """By month, caller in byte order and rank; a full run counts like a search."""
    got = frontier(lab.home.catalog, caller=caller, month=month, limit=3)
    want = [
        row
        for row in newest(lab, "frontier", "grid-search")
        if row["rank"] <= 3 and month in (None, row["month"]) and caller in (None, row["caller_name"])
    ]
    want.sort(key=lambda row: (row["month"], row["caller_name"].encode(), row["rank"]))
    assert got == [row | UNPROVEN for row in want]
    assert set(FRONTIER_COLUMNS) <= set(got[0])
    assert len(got) == 3 * len({(row["month"], row["caller_name"]) for row in got})


def test_frontier_without_a_limit_that_cuts_is_complete(lab: Lab) -> None:
    got = frontier(lab.home.catalog, caller="b", limit=1_000)
    assert (
        len(got) == len([row for row in newest(lab, "frontier", "grid-search") if row["caller_name"] == "b"]) == 8 * 3
    )


def test_frontier_of_the_baseline(lab: Lab) -> None:
    """Another strategy's rows are asked for by its name."""
    got = frontier(lab.home.catalog, caller="b", strategy_id="v1-baseline", limit=1)
    want = [row for row in newest(lab, "frontier", "v1-baseline") if row["caller_name"] == "b" and row["rank"] == 1]
    assert got == [row | UNPROVEN for row in want]
    assert all(row["policy_id"].startswith("v1_") for row in got)


def test_an_unknown_caller_is_told_who_there_is(lab: Lab) -> None:
    with pytest.raises(InputError, match="no frontier of caller 'zed' in 2024-03; callers there: __all__, b, ç"):
        frontier(lab.home.catalog, caller="zed", month="2024-03")
    with pytest.raises(InputError, match="backtest optimize"):
        frontier(lab.home.catalog, caller="b", month="2023-01")


# --- walk-forward -----------------------------------------------------------------------------------------------------


def weighted(rows: list[dict[str, Any]], value: str, weight: str) -> float | None:
    """The mean of all trades behind some monthly means."""
    counted = [(row[value], row[weight]) for row in rows if row[weight]]
    total = sum(n for _, n in counted)
    return sum(mean * n for mean, n in counted) / total if total else None


def test_reports_of_one_candle_interval(lab: Lab) -> None:
    catalog = lab.home.catalog
    assert frontier(catalog, interval="5m") == frontier(catalog) != []
    assert walk_forward(catalog, "5m") == walk_forward(catalog) != []
    assert frontier(catalog, interval="1h") == walk_forward(catalog, "1h") == []
    caller = frontier(catalog, limit=1)[0]["caller_name"]
    with pytest.raises(InputError, match="in any month on 1h candles"):
        frontier(catalog, caller=caller, interval="1h")


def test_walk_forward_weighs_months_by_trades(lab: Lab) -> None:
    """Pooled rows first, then callers in byte order, anchored before rolling."""
    groups = by_caller(newest(lab, "walk_forward"), "caller_name", "scheme")
    tested = {
        key: [one["realized_return_bps"] for one in own]
        for key, own in by_caller(newest(lab, "trades", "walk-forward"), "caller_name", "scheme").items()
    }
    got = walk_forward(lab.home.catalog)
    assert [(row["caller_name"], row["scheme"]) for row in got] == sorted(
        groups, key=lambda key: (key[0] != "__all__", key[0].encode(), key[1])
    )
    for row in got:
        assert tuple(row) == WALK_FORWARD_COLUMNS
        own = groups[row["caller_name"], row["scheme"]]
        traded = [one for one in own if one["out_of_sample_trades"]]
        returns = tested.get((row["caller_name"], row["scheme"]), [])
        promised = [one["in_sample_median_return_bps"] for one in traded for _ in range(one["out_of_sample_trades"])]
        worst = sorted(returns)[: max(1, len(returns) // 20)]
        want = {
            "months": len(own),
            "months_traded": sum(one["policy_id"] is not None for one in own),
            "trades": sum(one["out_of_sample_trades"] for one in own),
            "in_sample_avg_bps": weighted(own, "in_sample_avg_return_bps", "out_of_sample_trades"),
            "out_of_sample_avg_bps": weighted(own, "out_of_sample_avg_return_bps", "out_of_sample_trades"),
            "out_of_sample_median_bps": statistics.median(returns) if returns else None,
            "sample": "out of sample",
            "verdict": None,
            "in_sample_median_of_medians_bps": statistics.median(promised) if promised else None,
            "out_of_sample_es95_bps": statistics.mean(worst) if worst else None,
            "data_end_share": weighted(traded, "out_of_sample_data_end_share", "out_of_sample_trades"),
            "stressed_avg_bps": weighted(traded, "out_of_sample_stressed_avg_return_bps", "out_of_sample_trades"),
            "hold_avg_bps": weighted(traded, "hold_avg_return_bps", "hold_trades"),
            "pooled_avg_bps": weighted(traded, "pooled_avg_return_bps", "pooled_trades"),
        }
        for name, value in want.items():
            assert row[name] == (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value), (row, name)
    assert {row["months"] for row in got} == {2, 3}
    assert any(row["trades"] for row in got)
    assert any(row["months_traded"] == 0 or row["months_traded"] < row["months"] for row in got)


# --- leaderboard ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval", [None, "5m"])
def test_leaderboard_counts_every_included_call_once(lab: Lab, interval: str | None) -> None:
    """Over the newest run with paths of every month; without evidence by name, which is no rank."""
    groups = by_caller(newest(lab, "paths"), "caller_name")
    ranked = by_caller(newest(lab, "frontier", "grid-search"), "caller_name")
    first = {name: [one for one in own if one["rank"] == 1] for (name,), own in ranked.items()}
    got = leaderboard(lab.home.catalog, interval)
    assert {row["caller_name"] for row in got} == {name for (name,) in groups}
    for row in got:
        assert tuple(row) == COLUMNS
        own = groups[(row["caller_name"],)]
        minutes = [(one["t_2x_ms"] - one["alert_ts_ms"]) / 60_000 for one in own if one["hit_2x"]]
        want = {
            "calls": len(own),
            "mints": len({one["mint"] for one in own}),
            "last_call": iso_ms(max(one["alert_ts_ms"] for one in own)),
            **{f"hit_{k}x_rate": sum(one[f"hit_{k}x"] for one in own) / len(own) for k in (2, 3, 4)},
            "median_peak_multiple": statistics.median(one["peak_multiple"] for one in own),
            "median_dd_bps": statistics.median(one["dd_bps"] for one in own),
            "median_min_to_2x": statistics.median(minutes) if minutes else None,
            "data_end_share": sum(one["censored"] for one in own) / len(own),
            "stressed_avg_return_bps": weighted(first.get(row["caller_name"], []), "stressed_avg_return_bps", "trades"),
        }
        for name, value in want.items():
            assert row[name] == (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value), (row, name)
        assert all(row[name] is None for name in JUDGED)
    assert got == sorted(got, key=lambda row: row["caller_name"].encode())
    assert any(row["mints"] < row["calls"] for row in got)
    assert max(row["hit_2x_rate"] for row in got) > 0


def test_leaderboard_of_an_interval_without_runs_is_empty(lab: Lab) -> None:
    assert leaderboard(lab.home.catalog, "1h") == []
