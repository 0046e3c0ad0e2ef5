"""The dashboard's numbers against queries on the catalog, and what it leaves out when there is too much."""

import json
import re
import shutil
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from quantbot_pipeline.catalog.catalog import reading
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.errors import InputError, IntegrityError
from quantbot_pipeline.home import Home
from quantbot_pipeline.reports.dashboard import frontiers, page
from quantbot_pipeline.reports.dashboard.data import collect
from quantbot_pipeline.reports.dashboard.runs import runs_section
from quantbot_pipeline.reports.leaderboard import JUDGED, leaderboard
from quantbot_pipeline.reports.page import html
from quantbot_pipeline.runs import notes
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.support.builders import artifact_rows, commit_evidence, commit_run
from quantbot_pipeline_tests.support.crowds import Crowd, commit_crowd
from quantbot_pipeline_tests.support.markets import CALLS_PER_MONTH, CLOSING, FORMULA, MARKUP, MONTHS

Rows = list[dict[str, Any]]

# The newest completed run of each month that holds an artifact, spelled out anew.
NEWEST = """SELECT run_id FROM backtest_runs_catalog r JOIN backtest_artifacts_catalog a USING (run_id)
            WHERE status = 'completed' AND artifact_type = '{artifact}' AND parameters_json {strategy}
            QUALIFY row_number() OVER (PARTITION BY month ORDER BY r.created_at DESC, run_id DESC) = 1"""
GRID = "NOT LIKE '%strategy_id%'"


def ask(lab: Home, sql: str) -> Rows:
    with reading(lab.catalog) as con:
        return con.sql(sql).to_arrow_table().to_pylist()


def rows_of(columns: dict[str, list[Any]]) -> Rows:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


@pytest.fixture(scope="module")
def data(market: Home) -> dict[str, Any]:
    return collect(market)


def test_leaderboard_equals_a_query_on_the_catalog(data: dict[str, Any], market: Home) -> None:
    expected = ask(
        market,
        f"""SELECT caller_name, count(*) AS calls, count(DISTINCT mint) AS mints, avg(hit_2x::INT) AS hit_2x_rate,
                   avg(hit_3x::INT) AS hit_3x_rate, avg(hit_4x::INT) AS hit_4x_rate,
                   median(peak_multiple) AS median_peak_multiple, median(dd_bps) AS median_dd_bps,
                   median((t_2x_ms - alert_ts_ms) / 60000.0) AS median_min_to_2x
            FROM paths WHERE run_id IN ({NEWEST.format(artifact="paths", strategy=GRID)}) GROUP BY 1""",
    )
    shown = {data["names"][row["caller"]]: row for row in rows_of(data["callers"]["leaderboard"])}
    assert len(shown) == len(expected) == 4
    for row in expected:
        name = row.pop("caller_name")
        assert {column: shown[name][column] for column in row} == row
        low, high = shown[name]["hit_2x_interval"]
        assert low <= row["hit_2x_rate"] <= high


def test_the_callers_stand_in_the_order_of_the_verdicts(data: dict[str, Any], market: Home) -> None:
    rows = rows_of(data["callers"]["leaderboard"])
    board = leaderboard(market.catalog)
    assert [data["names"][row["caller"]] for row in rows] == [row["caller_name"] for row in board]
    for shown, row in zip(rows, board, strict=True):
        assert {name: shown[name] for name in JUDGED} == {name: row[name] for name in JUDGED}
        assert shown["verdict"] is not None


def test_evidence_carries_every_month_and_the_newest_curves(data: dict[str, Any], market: Home) -> None:
    """Numbers of curves are rounded to what a picture can show; nothing else is changed."""
    evidence = data["evidence"]
    assert evidence["month"] == MONTHS[-1]
    months = ask(
        market,
        """SELECT caller_name, verdict, e_value, e_threshold, month
           FROM evidence JOIN latest_runs USING (run_id) ORDER BY month DESC, caller_name""",
    )
    shown = [{"caller_name": data["names"][row.pop("caller")], **row} for row in rows_of(evidence["months"])]
    assert shown == months and len({row["month"] for row in shown}) == len(MONTHS)
    for name, key, digits in (("times", "t_ms", 5), ("costs", "value", 4)):
        wanted = ask(
            market,
            f"""SELECT e.* EXCLUDE run_id FROM evidence_{name} AS e JOIN latest_runs USING (run_id)
                WHERE month = '{MONTHS[-1]}' ORDER BY caller_name, {"kind, " if name == "costs" else ""}{key}""",
        )
        rows = rows_of(evidence[name])
        found = sorted(
            ({"caller_name": data["names"][row.pop("caller")], **row} for row in rows),
            key=lambda row: (row["caller_name"].encode(), row.get("kind", ""), row[key]),
        )
        assert len(found) == len(wanted) > 0
        for row, want in zip(found, wanted, strict=True):
            for column, value in row.items():
                within = 0.05 if column.endswith("_bps") else 10**-digits
                assert value == (pytest.approx(want[column], abs=within) if isinstance(value, float) else want[column])


def test_a_caller_without_a_verdict_stands_below_and_one_without_a_price_has_no_rates(tmp_path: Path) -> None:
    home = Home(Settings(home=tmp_path))
    paths = artifact_rows("paths", 2, caller_name=["b", "a"], interval=["5m"] * 2)
    commit_run(home.runs.folder, tables={"alerts": artifact_rows("alerts", 2), "paths": paths})
    judged = artifact_rows("evidence", 1, caller_name=["priceless"], verdict=["none"])
    commit_evidence(home, "2024-01", judged)
    sync(home.catalog)
    shown = collect(home)
    rows = rows_of(shown["callers"]["leaderboard"])
    assert [(shown["names"][row["caller"]], row["verdict"]) for row in rows] == [
        ("priceless", "none"), ("a", None), ("b", None),
    ]  # fmt: skip  # a table: what belongs together stands on one line
    assert rows[0]["hit_2x_interval"] is None and rows[0]["calls"] is None


def test_distributions_count_every_call_once(data: dict[str, Any], market: Home) -> None:
    found = data["callers"]["distributions"]
    for row in rows_of(data["callers"]["leaderboard"]):
        caller = row["caller"]
        assert sum(found["peaks"][caller]) == sum(found["drawdowns"][caller]) == row["calls"]
        for k in (2, 3, 4):
            assert found[f"reached_{k}x"][caller][-1] == round(row[f"hit_{k}x_rate"] * row["calls"])
    over = ask(
        market,
        f"""SELECT count(*) AS n FROM paths WHERE peak_multiple >= {2.0**0.5} AND peak_multiple < 2
            AND run_id IN ({NEWEST.format(artifact="paths", strategy=GRID)})""",
    )
    edges = list(found["peak_edges"])
    assert [round(b / a, 9) for a, b in pairwise(edges)] == [round(2.0**0.5, 9)] * (len(edges) - 1), (
        "as wide as each other"
    )
    at = 1 + edges.index(2.0**0.5)
    assert sum(counts[at] for counts in found["peaks"]) == over[0]["n"] > 0


def test_best_policies_equal_a_query_on_the_catalog(data: dict[str, Any], market: Home) -> None:
    expected = ask(
        market,
        f"""SELECT caller_name, month, policy_id, violations, meets_constraints, objective_score, avg_return_bps,
                   median_return_bps, stop_out_rate, p95_drawdown_bps, trades, data_end_share,
                   stressed_avg_return_bps, is_pareto, 'in sample' AS sample,
                   (SELECT arg_max(e.verdict, r.month) FROM evidence e JOIN backtest_runs_catalog r USING (run_id)
                    WHERE e.caller_name = frontier.caller_name AND r.month <= backtest_runs_catalog.month) AS verdict
            FROM frontier JOIN backtest_runs_catalog USING (run_id)
            WHERE rank = 1 AND run_id IN ({NEWEST.format(artifact="frontier", strategy=GRID)})""",
    )
    shown = rows_of(data["frontier"]["best"])
    for row in shown:
        row["caller_name"] = data["names"][row.pop("caller")]
        row["policy_id"] = data["policy"]["policy_id"][row.pop("policy")]
        row["violations"] = data["violations"][row["violations"]]

    def key(row: dict[str, Any]) -> tuple[str, str]:
        return row["month"], row["caller_name"]

    assert sorted(shown, key=key) == sorted(expected, key=key)
    assert len(expected) == len(MONTHS) * 5  # four callers and all pooled


def test_scatter_holds_every_policy_when_there_are_few(data: dict[str, Any], market: Home) -> None:
    expected = ask(
        market,
        f"""SELECT caller_name, month, policy_id, rank, round(median_return_bps) AS median_return_bps,
                   round(stop_out_rate, 4) AS stop_out_rate, is_pareto
            FROM frontier JOIN backtest_runs_catalog USING (run_id)
            WHERE run_id IN ({NEWEST.format(artifact="frontier", strategy=GRID)})""",
    )
    shown = [
        {
            "caller_name": data["names"][group["caller"]],
            "month": group["month"],
            "policy_id": data["policy"]["policy_id"][group["policy"][i]],
            "rank": group["rank"][i],
            "median_return_bps": group["median_return_bps"][i],
            "stop_out_rate": group["stop_out_rate"][i],
            "is_pareto": bool(group["is_pareto"][i]),
        }
        for group in data["frontier"]["points"]
        for i in range(len(group["policy"]))
    ]

    def key(row: dict[str, Any]) -> tuple[str, str, int]:
        return row["month"], row["caller_name"], row["rank"]

    assert sorted(shown, key=key) == sorted(expected, key=key)


def test_v1_accounts_equal_a_query_on_the_catalog(data: dict[str, Any], market: Home) -> None:
    newest = NEWEST.format(artifact="frontier", strategy="LIKE '%v1-baseline%'")
    expected = ask(
        market,
        f"""SELECT caller_name, month, policy_id, meets_constraints, objective_score AS final_capital, trades, stop_out_rate,
                   avg_return_bps, median_return_bps, flags, skipped_max_positions, skipped_below_min_size
            FROM frontier JOIN backtest_runs_catalog USING (run_id) WHERE rank = 1 AND run_id IN ({newest})""",
    )
    shown = rows_of(data["v1"]["best"])
    for row in shown:
        row["caller_name"] = data["names"][row.pop("caller")]
        row["policy_id"] = data["policy"]["policy_id"][row.pop("policy")]

    def key(row: dict[str, Any]) -> tuple[str, str]:
        return row["month"], row["caller_name"]

    assert sorted(shown, key=key) == sorted(expected, key=key) != []
    newest = NEWEST.format(artifact="equity", strategy="LIKE '%v1-baseline%'")
    ends = ask(
        market,
        f"""SELECT caller_name, month, min(ts_ms) AS start_ts_ms, count(*) AS events,
                   round(arg_max(equity, file_row_number), 2) AS last
            FROM (SELECT *, row_number() OVER () AS file_row_number FROM equity WHERE run_id IN ({newest}))
            JOIN backtest_runs_catalog USING (run_id) GROUP BY ALL""",
    )
    curves = {(curve["month"], data["names"][curve["caller"]]): curve for curve in data["v1"]["equity"]}
    assert len(curves) == len(ends) > 0
    for end in ends:
        curve = curves[key(end)]
        assert (curve["start_ts_ms"], len(curve["equity"]), curve["equity"][-1]) == (
            end["start_ts_ms"], end["events"], end["last"],
        )  # fmt: skip  # a table: what belongs together stands on one line


def test_walk_forward_equals_a_query_on_the_catalog(data: dict[str, Any], market: Home) -> None:
    newest = NEWEST.format(artifact="walk_forward", strategy="LIKE '%walk-forward%'")
    expected = ask(
        market,
        f"""SELECT caller_name, policy_id, month, scheme, pooled, train_calls, test_calls, out_of_sample_trades,
                   in_sample_avg_return_bps, in_sample_median_return_bps, out_of_sample_avg_return_bps,
                   out_of_sample_median_return_bps, hold_avg_return_bps, pooled_avg_return_bps
            FROM walk_forward JOIN backtest_runs_catalog USING (run_id) WHERE run_id IN ({newest})""",
    )
    shown = rows_of(data["callers"]["choices"])
    for row in shown:
        policy = row.pop("policy")
        row["caller_name"] = data["names"][row.pop("caller")]
        row["policy_id"] = None if policy is None else data["policy"]["policy_id"][policy]

    def key(row: dict[str, Any]) -> tuple[str, ...]:
        return row["month"], row["caller_name"], row["scheme"]

    assert sorted(shown, key=key) == sorted(expected, key=key) != []
    judged = ask(
        market,
        f"""SELECT caller_name, scheme, count(*) AS months, count(policy_id) AS months_traded,
                   sum(out_of_sample_trades)::BIGINT AS trades
            FROM walk_forward WHERE run_id IN ({newest}) GROUP BY ALL""",
    )
    totals = {(data["names"][row["caller"]], row["scheme"]): row for row in rows_of(data["callers"]["walk_forward"])}
    assert len(totals) == len(judged)
    for row in judged:
        found = totals[row["caller_name"], row["scheme"]]
        assert {name: found[name] for name in ("months", "months_traded", "trades")} == {
            name: row[name] for name in ("months", "months_traded", "trades")
        }
        traded = [one for one in expected if key(one)[1:] == (row["caller_name"], row["scheme"])]
        weighted = sum(one["out_of_sample_avg_return_bps"] * one["out_of_sample_trades"] for one in traded)
        if row["trades"]:
            assert found["out_of_sample_avg_bps"] == pytest.approx(weighted / row["trades"])


def test_replayed_policies_add_up_as_the_contract_says(market: Home, tmp_path: Path) -> None:
    """Over a single month the page must say what that month's summary says."""
    home = Home(Settings(home=tmp_path))
    for run_dir in market.runs.folder.glob(f"{MONTHS[1]}/run_id=*"):
        shutil.copytree(run_dir, home.runs.folder / MONTHS[1] / run_dir.name)
    sync(home.catalog)
    data = collect(home)
    expected = {row["policy_id"]: row for row in ask(home, "FROM summary")}
    shown = rows_of(data["policies"]["overall"])
    assert len(shown) == len(expected) == 4
    for row in shown:
        summary = expected[data["policy"]["policy_id"][row.pop("policy")]]
        assert row.pop("configurations") == 1
        assert row == pytest.approx({name: summary[name] for name in row}, rel=1e-9, abs=1e-6)
    assert all(one["candles"] is None for one in data["calls"])  # this home has no candle store


def test_a_policy_counts_once_a_month_however_often_it_was_replayed(market: Home, tmp_path: Path) -> None:
    home = Home(Settings(home=tmp_path))
    shutil.copytree(market.runs.folder, home.runs.folder)
    params = '{"kind":"time_stop","max_hold_ms":3600000}'
    again = {
        "alerts": artifact_rows("alerts", 3),
        "summary": artifact_rows("summary", 1, policy_id=["time_1h"], policy_params=[params]),
        "trades": artifact_rows("trades", 3, policy_id=["time_1h"] * 3, realized_return_bps=[1.0, 2.0, 9.0]),
    }
    later = {"created_at": "2099-01-01T00:00:00.000Z", "run_type": "policy"}
    commit_run(home.runs.folder, MONTHS[0], tables=again, **later)
    sync(home.catalog)
    data = collect(home)
    at = data["policy"]["policy_id"].index("time_1h")
    months = {row["month"]: row for row in rows_of(data["policies"]["months"]) if row["policy"] == at}
    assert months[MONTHS[0]]["trades_count"] == 3
    assert months[MONTHS[0]]["median_return_bps"] == 2.0
    assert months[MONTHS[1]]["trades_count"] == CALLS_PER_MONTH - 1
    overall = {row["policy"]: row for row in rows_of(data["policies"]["overall"])}
    assert overall[at]["trades_count"] == 3 + 2 * (CALLS_PER_MONTH - 1)
    assert overall[at]["configurations"] == 2


def test_a_policy_of_a_later_version_goes_by_its_name(tmp_path: Path) -> None:
    home = Home(Settings(home=tmp_path))
    tables = {
        "alerts": artifact_rows("alerts", 1),
        "summary": artifact_rows("summary", 1, policy_id=["magic_1"], policy_params=['{"kind":"magic"}']),
        "trades": artifact_rows("trades", 1, policy_id=["magic_1"]),
        "paths": artifact_rows("paths", 1, interval=["5m"]),
    }
    tables["trades"] = tables["trades"].set_column(1, "call_id", tables["paths"]["call_id"])
    commit_run(home.runs.folder, tables=tables, run_type="full")
    sync(home.catalog)
    data = collect(home)
    assert rows_of(data["policy"]) == [{"policy_id": "magic_1", "params": None, "kind": "unknown", "words": "magic_1"}]
    assert data["calls"][0]["levels"] == {0: []}
    assert rows_of(data["policies"]["overall"])[0]["trades_count"] == 1


def test_quality_and_errors_are_what_the_runs_reported(data: dict[str, Any], market: Home) -> None:
    quality = data["overview"]["quality"]
    assert rows_of(quality["excluded"]) == [{"reason": "no_candles", "count": len(MONTHS)}]
    assert sum(quality["months"]["included"]) == len(MONTHS) * (CALLS_PER_MONTH - 1)
    assert rows_of(data["errors"]["excluded"]) == [
        {"caller": data["names"].index(FORMULA), "reason": "no_candles", "calls": len(MONTHS)}
    ]
    assert data["errors"]["failed"]["error"] == [f"ValueError: {MARKUP}"]
    assert [path.split("/")[0] for path in data["overview"]["quarantine"]["path"]] == ["2024-01"]
    runs = {(row["kind"], row["status"]): row["runs"] for row in rows_of(data["overview"]["runs"])}
    assert runs == {
        ("full", "completed"): 3, ("v1-baseline", "completed"): 3, ("walk-forward", "completed"): 3, ("evidence", "completed"): 3,
        ("path-only", "failed"): 1,
    }  # fmt: skip  # a table: what belongs together stands on one line
    assert {"warning", "info"} <= set(data["errors"]["messages"]["level"])
    assert sum(count for count in ask(market, "SELECT count(*) AS n FROM errors")[0].values()) == sum(
        data["errors"]["messages"]["rows"]
    )


def test_calls_shown_are_the_extremes_with_their_trades(data: dict[str, Any], market: Home) -> None:
    newest = NEWEST.format(artifact="paths", strategy=GRID)
    best = ask(
        market, f"SELECT call_id FROM paths WHERE run_id IN ({newest}) ORDER BY peak_multiple DESC, call_id LIMIT 8"
    )
    assert [one["call_id"] for one in data["calls"] if one["which"] == "best"] == [row["call_id"] for row in best]
    assert len(data["calls"]) == 16
    for one in data["calls"]:
        assert len(one["trades"]["policy"]) == 4
        assert set(one["levels"]) == set(one["trades"]["policy"])
        bars = one["candles"]
        assert 0 < len(bars["hours"]) <= 200
        inside = [i for i, hour in enumerate(bars["hours"]) if hour >= 0]
        assert max(bars["high"][i] for i in inside) == pytest.approx(one["peak_multiple"], rel=1e-4)
        assert (min(bars["low"][i] for i in inside) - 1) * 10_000 == pytest.approx(one["dd_bps"], abs=1)


def test_each_run_says_what_its_artifacts_say(data: dict[str, Any], market: Home) -> None:
    runs = {run["run_id"]: run for run in data["runs"]["runs"]}
    assert set(runs) == {
        row["run_id"] for row in ask(market, "SELECT run_id FROM backtest_runs_catalog WHERE status = 'completed'")
    }

    def measured(run_id: str, of: str | None) -> dict[str, float]:
        return {name: value for name, what, value in runs[run_id]["measures"] if what == of}

    truth = ask(
        market,
        """SELECT run_id, count(*) AS calls_with_a_window, avg(hit_2x::INT) AS hit_2x_rate, avg(hit_3x::INT) AS hit_3x_rate,
                  median(peak_multiple) AS median_peak_multiple, median(dd_bps) AS median_dd_bps FROM paths GROUP BY 1""",
    )
    summary = ask(
        market, "SELECT run_id, policy_id, trades_count, avg_return_bps, median_return_bps, es95_bps FROM summary"
    )
    walk = ask(
        market,
        "SELECT run_id, scheme, in_sample_avg_return_bps, out_of_sample_trades FROM walk_forward WHERE caller_name = '__all__'",
    )
    best = ask(
        market,
        "SELECT run_id, objective_score, median_return_bps, trades FROM frontier WHERE caller_name = '__all__' AND rank = 1",
    )
    assert len(truth) == len(MONTHS)
    assert len(summary) == 4 * len(MONTHS)
    for rows, of in ((truth, lambda _: None), (summary, lambda row: row.pop("policy_id")),
                     (walk, lambda row: "all callers, " + row.pop("scheme")), (best, lambda _: "best policy of all callers")):  # fmt: skip  # a table: what belongs together stands on one line
        for row in rows:
            found = measured(row.pop("run_id"), of(row))
            expected = {name: value for name, value in row.items() if value is not None}
            assert {name: found[name] for name in expected} == expected
    assert all(data["runs"]["parameters"][run["parameters"]] for run in runs.values())


def test_a_run_that_somebody_named_can_always_be_chosen(tmp_path: Path) -> None:
    home = Home(Settings(home=tmp_path))
    first, *_, last = made = [f"0000000{n}-0000-4000-8000-000000000000" for n in range(4)]
    for run_id in made:
        commit_run(home.runs.folder, run_id=run_id)
    notes.name_run(home.runs.folder, first, "before-fees")
    notes.tag_run(home.runs.folder, last, ["paper", "checked"])
    sync(home.catalog)
    shown = {run["run_id"]: (run["name"], run["note"], run["tags"]) for run in runs_section(home.catalog, 2)["runs"]}
    assert shown == {
        last: (None, None, "checked,paper"),
        made[2]: (None, None, None),
        first: ("before-fees", None, None),
    }


def test_calls_at_the_same_moment_are_shown_once(tmp_path: Path) -> None:
    home = Home(Settings(home=tmp_path))
    paths = artifact_rows("paths", 4, interval=["5m"] * 4, mint=["a", "a", "a", "b"], entry_ts_ms=[5, 5, 6, 5])
    commit_run(home.runs.folder, tables={"alerts": artifact_rows("alerts", 4), "paths": paths})
    sync(home.catalog)
    shown = collect(home)["calls"]
    assert sorted((one["mint"], one["entry_ts_ms"]) for one in shown) == [("a", 5), ("a", 6), ("b", 5)]


def test_a_month_without_any_frontier_row_is_fine(market: Home, tmp_path: Path) -> None:
    """Every call of the newest month was excluded: nobody has a frontier in it, the other months do."""
    home = Home(Settings(home=tmp_path))
    shutil.copytree(market.runs.folder, home.runs.folder)
    nothing = {
        "alerts": artifact_rows("alerts", 1),
        "frontier": artifact_rows("frontier", 0),
        "paths": artifact_rows("paths", 0),
    }
    commit_run(home.runs.folder, "2024-04", tables=nothing, run_type="full")
    sync(home.catalog)
    data = collect(home)
    assert {group["month"] for group in data["frontier"]["points"]} == set(MONTHS)
    assert html.json_block(data)


@pytest.mark.parametrize(
    ("callers", "months", "left", "points"),
    [
        (0, 3, frontiers.POINTS, 0),
        (10, 0, frontiers.POINTS, 0),  # older than the months that are drawn
        (10, 3, frontiers.POINTS, 2_000),
        (501, 3, frontiers.POINTS, 119),
        (501, 2, 400, 0),  # nothing left for an older month
        (9_000, 1, frontiers.POINTS, frontiers.BEST_RANKS),  # the newest is drawn all the same
        (3, 2, 59_000, 9_833),
        (500, 1, 59_000, 0),
    ],
)
def test_points_are_shared_out_by_the_callers_of_each_month(callers: int, months: int, left: int, points: int) -> None:
    assert frontiers._points_per_caller(callers, months, left) == points


def test_json_block_holds_anything_and_ends_nowhere() -> None:
    nasty = {"a": ["</script>", "<!--", "&amp;", "\u2028\u2029", "\x00", '"\\', "🦊", MARKUP, FORMULA, CLOSING]}
    text = html.json_block(nasty)
    assert json.loads(text) == nasty
    assert not set("<>&\u2028\u2029") & set(text)
    with pytest.raises(ValueError, match="JSON"):
        html.json_block({"a": float("nan")})


def test_page_is_replaced_whole_or_not_at_all(market: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "deep" / "page.html"
    monkeypatch.setattr(page, "collect", lambda *_: {})
    monkeypatch.setattr(page, "render", lambda _: "first")
    assert page.write_dashboard(market, out).read_text() == "first"
    monkeypatch.setattr(html, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        page.write_dashboard(market, out)
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]


def test_a_flipped_bit_is_an_error_and_never_a_number(market: Home, tmp_path: Path) -> None:
    home = Home(Settings(home=tmp_path))
    shutil.copytree(market.path, home.path, dirs_exist_ok=True)
    victim = next(path for path in home.runs.folder.glob("*/*/truth/paths.parquet"))
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    with pytest.raises(IntegrityError, match="checksum"):
        collect(home)


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_superseded_run_that_is_lost_is_named_and_the_others_are_shown(tmp_path: Path, damage: str) -> None:
    home = Home(Settings(home=tmp_path))
    tables = {"alerts": artifact_rows("alerts", 2), "paths": artifact_rows("paths", 2, interval=["5m"] * 2)}
    older = commit_run(home.runs.folder, tables=tables, created_at="2024-02-01T00:00:00.000Z")
    newer = commit_run(home.runs.folder, tables=tables, created_at="2024-02-02T00:00:00.000Z")
    sync(home.catalog)
    if damage == "gone":
        shutil.rmtree(older)
    else:
        with (older / "truth" / "paths.parquet").open("ab") as f:
            f.write(b"x")
    shown = page.write_dashboard(home).read_text()
    lost = older.name.removeprefix("run_id=")
    block = re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', shown, re.DOTALL)
    assert block is not None
    runs = json.loads(block[1])["runs"]
    assert runs["left_out"] == [{"run_id": lost, "month": "2024-01"}]
    assert [run["run_id"] for run in runs["runs"]] == [newer.name.removeprefix("run_id=")]


def test_without_a_catalog_it_says_how_to_make_one(tmp_path: Path) -> None:
    home = Home(Settings(home=tmp_path))
    with pytest.raises(InputError, match="catalog-sync"):
        page.write_dashboard(home)


def test_hundreds_of_callers_stay_small(tmp_path: Path) -> None:
    home = commit_crowd(tmp_path, Crowd(callers=500, calls=50_000, months=2))
    started = time.process_time()  # not the wall: other tests share the cores
    data = collect(home)
    size = len(page.render(data).encode())
    assert time.process_time() - started < 30
    assert size < 10_000_000
    groups = data["frontier"]["points"]
    assert sum(len(group["policy"]) for group in groups) <= frontiers.POINTS
    assert len(groups) == 501  # nobody is left out, older months are
    for group in groups:
        assert group["rank"][: frontiers.BEST_RANKS] == list(range(1, frontiers.BEST_RANKS + 1))
        assert group["policies"] == 450
