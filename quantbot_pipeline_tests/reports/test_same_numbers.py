"""A number that means the same is the same on the dashboard, on the tear sheet and on the command line, to the last bit."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from quantbot_pipeline.catalog.catalog import reading
from quantbot_pipeline.home import Home
from quantbot_pipeline.reports.changes import changes
from quantbot_pipeline.reports.dashboard.data import collect
from quantbot_pipeline.reports.leaderboard import COLUMNS
from quantbot_pipeline.reports.searches import WALK_FORWARD_COLUMNS
from quantbot_pipeline.reports.tearsheet.gather import gather
from quantbot_pipeline.reports.tearsheet.sheet import sheet_of
from quantbot_pipeline_tests.reports.test_dashboard_data import rows_of
from quantbot_pipeline_tests.support.labs import Done

# Figures of a tear sheet, and the columns of `quantbot walk-forward` that mean the same.
SAME = {
    "trades": "trades", "expectancy_bps": "out_of_sample_avg_bps", "median_return_bps": "out_of_sample_median_bps",
    "es95_bps": "out_of_sample_es95_bps", "data_end_share": "data_end_share", "stressed_avg_return_bps": "stressed_avg_bps",
    "hold_avg_bps": "hold_avg_bps", "pooled_avg_bps": "pooled_avg_bps",
}  # fmt: skip  # a table: what belongs together stands on one line
BEST = (
    "avg_return_bps",
    "median_return_bps",
    "stop_out_rate",
    "p95_drawdown_bps",
    "objective_score",
    "trades",
    "is_pareto",
)

Pair = tuple[str, Any, Any]


def walk(home: Home, printed: Callable[..., list[dict[str, Any]]]) -> Iterator[Pair]:
    """Yield every pair of numbers that must be equal: what it is, and how two places have it."""
    data = collect(home)
    yield from _callers(data, printed("leaderboard"))
    walked = printed("walk-forward")
    yield from _table(
        "walk-forward", rows_of(data["callers"]["walk_forward"]), walked, data["names"], WALK_FORWARD_COLUMNS
    )
    for strategy, rows, score in (
        ("grid-search", data["frontier"]["best"], "objective_score"), ("v1-baseline", data["v1"]["best"], "final_capital"),
    ):  # fmt: skip  # a pair a line
        shown = {(row["month"], data["names"][row["caller"]]): row for row in rows_of(rows)}
        for row in printed("frontier", "--limit", "1", "--strategy", strategy):
            mine = shown[row["month"], row["caller_name"]]
            for name in BEST:
                key = score if name == "objective_score" else name
                if key in mine:
                    yield f"{strategy} {row['month']} {row['caller_name']} {name}", mine[key], row[name]
    verdicts = {row["caller_name"]: row for row in printed("leaderboard")}
    for caller in sorted({row["caller_name"] for row in walked if row["scheme"] == "anchored"}):
        yield from _sheet(home, caller, walked, verdicts.get(caller))
    with reading(home.catalog) as con:
        (runs,) = con.execute("SELECT count(*) FROM backtest_runs_catalog").fetchall()
    yield "runs", sum(data["overview"]["runs"]["runs"]), runs[0]
    yield (
        "changes",
        [row["change"] for row in data["changes"]["rows"]],
        [row["change"] for row in changes(home.catalog).rows],
    )


def _callers(data: dict[str, Any], rows: list[dict[str, Any]]) -> Iterator[Pair]:
    yield from _table("leaderboard", rows_of(data["callers"]["leaderboard"]), rows, data["names"], COLUMNS)


def _table(
    what: str, shown: list[dict[str, Any]], rows: list[dict[str, Any]], names: list[str], columns: tuple[str, ...]
) -> Iterator[Pair]:
    yield f"rows of {what}", len(shown), len(rows)
    for mine, row in zip(shown, rows, strict=True):
        yield what, names[mine["caller"]], row["caller_name"]
        for name in columns[1:]:
            yield f"{what} {row['caller_name']} {name}", mine[name], row[name]


def _sheet(home: Home, caller: str, walked: list[dict[str, Any]], judged: dict[str, Any] | None) -> Iterator[Pair]:
    sheet = sheet_of(gather(home.catalog, caller))
    (row,) = (r for r in walked if (r["caller_name"], r["scheme"]) == (caller, "anchored"))
    for figure, column in SAME.items():
        if sheet.figures[figure] or row[column]:  # no trade is 0 trades and no mean
            yield f"tear sheet {caller} {figure}", sheet.figures[figure], row[column]
    if judged and judged["choice_mean_bps"] is not None:
        found = re.search(r"earned (\S+) bps a call, 95 % interval (\S+) to (\S+), over", sheet.verdict)
        assert found is not None
        yield (
            f"verdict {caller}",
            list(found.groups()),
            [f"{judged[f'choice_{name}_bps']:,.0f}" for name in ("mean", "low", "high")],
        )


def test_a_number_that_means_the_same_is_the_same_everywhere(market: Home, quantbot: Callable[..., Done]) -> None:
    def printed(*arguments: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = quantbot(*arguments, "--format", "json", "--home", market.path).json()
        return rows

    pairs = list(walk(market, printed))
    assert len(pairs) > 500
    assert [pair for pair in pairs if pair[1] != pair[2]] == []


def test_the_runs_behind_the_page_count_once(market: Home) -> None:
    """A full run holds two artifacts: it stands in two rows of the list, and is one run."""
    sources = rows_of(collect(market)["overview"]["sources"])
    assert len({row["run_id"] for row in sources}) == 4 * 3 < len(sources)
