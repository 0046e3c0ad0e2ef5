"""The leaderboard by verdict: its order, its words, what it remarks; on runs whose evidence was written by hand.

Belongs here: what is shown of evidence. How the columns about prices are computed is in `test_tables`.
"""

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from quantbot_pipeline import Home
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.evidence.wording import said
from quantbot_pipeline.reports.changes import changes
from quantbot_pipeline.reports.leaderboard import (
    COLUMNS,
    FOLLOWED,
    JUDGED,
    for_people,
    leaderboard,
    leaderboard_remarks,
)
from quantbot_pipeline.vocabulary import VERDICTS
from quantbot_pipeline_tests.conftest import Quantbot
from quantbot_pipeline_tests.support import homes
from quantbot_pipeline_tests.support.builders import artifact_rows, commit_evidence, commit_run, ms
from quantbot_pipeline_tests.support.homes import DAY, HOUR, JANUARY, MINUTE, Call, Market

# (caller, verdict, e, calls needed), in an order that is not that of the leaderboard.
STANDINGS: tuple[tuple[str, str, float, int | None], ...] = (
    ("refuted", "none", 0.2, None),
    ("z", "inconclusive", 2.0, 1_400),
    ("é", "inconclusive", 2.0, None),
    ("Z", "inconclusive", 2.0, 12),
    ("lucky", "inconclusive", 900.0, 20),
    ("sure", "evidence", 41.2, None),
    ("surest", "evidence", 1_559.8, None),
)
ORDER = ["surest", "sure", "lucky", "Z", "z", "é", "refuted"]
ALERT = ms("2024-02-03T04:05:06")


def evidence_of(*standings: tuple[str, str, float, int | None], **columns: list[Any]) -> pa.Table:
    """Rows of the artifact `evidence`."""
    n = len(standings)
    names, verdicts, values, needed = (list(column) for column in zip(*standings, strict=True))
    own = {"caller_name": names, "verdict": verdicts, "e_value": values, "calls_needed": needed, "flags": [""] * n}
    return artifact_rows("evidence", n, **own | columns)


def commit_truth(home: Home, month: str, *callers: str, **columns: list[Any]) -> None:
    """A run with one call of each caller."""
    n = len(callers)
    rows = {"caller_name": list(callers), "alert_ts_ms": [ALERT + i for i in range(n)], "censored": [False] * n}
    tables = {"alerts": artifact_rows("alerts", n), "paths": artifact_rows("paths", n, **rows | columns)}
    commit_run(home.runs.folder, month, tables=tables)


@pytest.fixture
def judged(tmp_path: Path) -> Home:
    """Verdicts of January and of February; two callers of February without one, and one without a measured call."""
    home = Home(tmp_path / "judged")
    commit_truth(home, "2024-01", "lucky", "sure")
    commit_truth(home, "2024-02", *(name for name in ORDER if name != "refuted"), "new", "New")
    commit_evidence(home, "2024-01", evidence_of(("lucky", "evidence", 99.0, None)))
    commit_evidence(home, "2024-02", evidence_of(*STANDINGS))
    sync(home.catalog)
    return home


def test_verdicts_lead_and_callers_without_one_stand_below_by_name(judged: Home) -> None:
    rows = leaderboard(judged.catalog)
    assert [row["caller_name"] for row in rows] == [*ORDER, "New", "new"]
    assert all(tuple(row) == COLUMNS for row in rows)
    assert [row["verdict"] for row in rows] == [
        "evidence", "evidence", "inconclusive: about 20 more calls", "inconclusive: about 12 more calls",
        "inconclusive: about 1,400 more calls", "inconclusive: no end in sight", "none", None, None,
    ]  # fmt: skip  # a table: what belongs together stands on one line
    assert {row["month"] for row in rows[:-2]} == {"2024-02"}, "of the newest month alone"
    assert all(row[name] is None for row in rows[-2:] for name in JUDGED)


def test_a_caller_counts_all_its_calls_and_one_that_was_not_measured_has_none(judged: Home) -> None:
    rows = {row["caller_name"]: row for row in leaderboard(judged.catalog)}
    assert [rows[name]["calls"] for name in ("sure", "lucky", "surest", "new")] == [2, 2, 1, 1]
    assert rows["surest"]["last_call"] == "2024-02-03T04:05:06.000Z"
    assert {rows["refuted"][name] for name in FOLLOWED} == {None}


def test_a_row_reads_well_on_a_terminal(tmp_path: Path) -> None:
    home = Home(tmp_path)
    columns: dict[str, list[Any]] = {
        "e_threshold": [40.0, 26.66], "units": [1_030, 12], "mints": [30, 12], "hit_2x": [15, 0],
        "choice_mean_bps": [901.7, None], "choice_low_bps": [-274.2, None], "choice_high_bps": [1_731.6, None],
        "hit_2x_shrunk": [0.45121, 0.02], "hit_2x_low": [0.28, 0.0], "hit_2x_high": [0.6, 0.1],
        "median_ms_to_2x": [11_100_000, None], "break_even_share": [0.2385, None], "break_even_latency_ms": [90_000.0, None],
        "flags": ["missing_data,fading", "few_calls"], "towards": [None, "evidence"],
    }  # fmt: skip  # a table: what belongs together stands on one line
    commit_truth(home, "2024-02", "a", "b", "c")
    for month, mean, trades in (("2023-11", -50.0, 3), ("2023-12", 7.0, 0), ("2024-01", 50.0, 2)):
        walked = artifact_rows(
            "walk_forward", 1, caller_name=["a"], scheme=["anchored"], out_of_sample_trades=[trades],
            out_of_sample_avg_return_bps=[mean],
        )  # fmt: skip  # a table: what belongs together stands on one line
        tables = {"alerts": artifact_rows("alerts", 1), "walk_forward": walked}
        commit_run(
            home.runs.folder, month, tables=tables, run_type="optimization", parameters={"strategy_id": "walk-forward"}
        )
    standings = (("a", "evidence", 1_559.8, None), ("b", "inconclusive", 0.5651, 40))
    commit_evidence(home, "2024-02", evidence_of(*standings, **columns))
    sync(home.catalog)
    first, line, second, third = for_people(leaderboard(home.catalog))
    assert list(first.items())[:14] == [
        ("caller_name", "a"), ("verdict", "evidence"), ("choice bps [95%]", "902 [-274, 1,732]"), ("calls", 1),
        ("last_call", "2024-02-03"), ("trend", "▁·▇"), ("e / threshold", "1,560 / 40"), ("units / mints", "1,030 / 30"), ("2x rate [95%]", "45.1% [28.0%, 60.0%]"), ("2x hits", 15),
        ("median time of hits", "3.1 h"), ("break-even share", "23.85%"), ("break-even latency", "1.5 min"),
        ("flags", "missing_data,fading"),
    ]  # fmt: skip  # a table: what belongs together stands on one line
    assert {name: value for name, value in line.items() if value is not None} == {"caller_name": "too few to test:"}
    assert second["e / threshold"] == "0.565 / 26.7"
    assert second["verdict"] == "inconclusive: about 40 more calls" and second["towards"] == "evidence"
    for name in ("choice bps [95%]", "median time of hits", "break-even share", "break-even latency"):
        assert second[name] is None
    known = {
        "caller_name",
        "calls",
        "last_call",
        "data_end_share",
        "hit_2x_rate",
        "median_peak_multiple",
        "median_dd_bps",
    }
    assert {name for name, value in third.items() if value is not None} == known


def test_callers_with_too_few_calls_never_lead(tmp_path: Path) -> None:
    home = Home(tmp_path)
    standings = (
        ("lucky", "inconclusive", 3.0, 40),
        ("tested", "inconclusive", 1.5, 90),
        ("refuted", "none", 0.1, None),
    )
    commit_truth(home, "2024-02", "lucky", "tested", "refuted")
    commit_evidence(home, "2024-02", evidence_of(*standings, flags=["few_mints", "", "missing_data"]))
    sync(home.catalog)
    rows = leaderboard(home.catalog)
    assert [row["caller_name"] for row in rows] == ["lucky", "tested", "refuted"], (
        "data are in the order of verdict and e-value"
    )
    assert [row["caller_name"] for row in for_people(rows)] == ["tested", "refuted", "too few to test:", "lucky"]


def test_what_changed_is_told_the_gravest_first(tmp_path: Path) -> None:
    home = Home(tmp_path)
    earlier = (
        ("won", "inconclusive", 9.0, 4),
        ("grew", "none", 1.0, None),
        ("stays", "none", 1.0, None),
        ("left", "none", 1.0, None),
    )
    commit_evidence(home, "2024-01", evidence_of(*earlier))
    sync(home.catalog)
    assert changes(home.catalog) == ("2024-01", None, [])
    later = (
        ("won", "evidence", 90.0, None),
        ("grew", "none", 2.0, None),
        ("stays", "none", 1.4, None),
        ("new", "inconclusive", 1.0, 9),
    )
    commit_evidence(home, "2024-02", evidence_of(*later))
    sync(home.catalog)
    month, before, rows = changes(home.catalog)
    assert (month, before) == ("2024-02", "2024-01")
    assert [(row["caller_name"], row["change"]) for row in rows] == [
        ("won", "inconclusive became evidence"), ("left", "gone"), ("new", "new: inconclusive"), ("grew", "e grew from 1 to 2"),
    ]  # fmt: skip  # a table: what belongs together stands on one line


def test_without_evidence_the_remark_says_how_to_make_it(tmp_path: Path, quantbot: Quantbot) -> None:
    home = Home(tmp_path / "bare")
    with pytest.raises(InputError, match="catalog"):
        leaderboard(home.catalog)
    commit_truth(home, "2024-01", "b", "a")
    commit_truth(home, "2024-03", "c")
    sync(home.catalog)
    done = quantbot("leaderboard", "--home", home.path, "--format", "json")
    assert [(row["caller_name"], row["verdict"]) for row in done.json()] == [("a", None), ("b", None), ("c", None)]
    hint = f"quantbot backtest evidence --from 2024-01 --to 2024-03 --home {home.path}"  # can be pasted
    assert f"no caller has a verdict: `{hint}` says" in done.err
    table = quantbot("leaderboard", "--home", home.path)
    assert table.status == 0 and "verdict" in table.out
    assert Home(home.path).leaderboard().attrs["remarks"] == leaderboard_remarks(
        home.catalog, leaderboard(home.catalog)
    )


def test_remarks_name_who_has_no_verdict_and_months_that_wait_for_theirs(judged: Home) -> None:
    def remarked() -> list[str]:
        return leaderboard_remarks(judged.catalog, leaderboard(judged.catalog))

    (unjudged,) = remarked()
    assert unjudged.startswith("no verdict in 2024-02 on 'New', 'new': none of their calls had seen its whole window")
    assert unjudged.endswith("then `quantbot backtest evidence --from 2024-02 --to 2024-02`")
    commit_truth(judged, "2024-04", "sure")
    sync(judged.catalog)
    behind, unjudged = remarked()
    assert behind == (
        "the verdicts are of 2024-02, the calls go on to 2024-04: "
        "`quantbot backtest evidence --from 2024-03 --to 2024-04` judges them"
    )
    commit_evidence(judged, "2024-04", evidence_of(*STANDINGS), from_ms=ms("2024-04-01"), to_ms=ms("2024-04-03"))
    sync(judged.catalog)
    part, unjudged = remarked()
    assert part.startswith("2024-04: only calls from 2024-04-01T00:00:00.000Z to 2024-04-03T00:00:00.000Z, by run ")


def test_a_frame_of_the_leaderboard_names_the_runs_of_the_verdicts(judged: Home) -> None:
    frame = judged.leaderboard()
    assert list(frame["caller_name"])[:2] == ["surest", "sure"]
    assert sorted(frame.attrs["runs"].values()) == ["2024-01", "2024-02", "2024-02"]


def test_another_interval_has_other_verdicts(judged: Home) -> None:
    assert leaderboard(judged.catalog, "1h") == []
    assert leaderboard_remarks(judged.catalog, [], "1h") == [
        "no cataloged run holds such paths: `quantbot backtest path-only --from MONTH --to MONTH` makes one"
    ]


def test_the_leaderboard_holds_the_rows_that_a_run_made(tmp_path: Path) -> None:
    """From calls and candles to the table: the newest month's artifact, row for row."""
    rng, calls, candles = random.Random(3), [], {}
    for caller, moves in (("up", (1.0, 1.12, 0.97)), ("down", (1.0, 0.97, 0.9))):
        for i in range(24):
            at, mint = JANUARY + (1 + 2 * i) * DAY + rng.randrange(200) * MINUTE, f"{caller}-{i}"
            candles[mint] = homes.token(rng, at // (5 * MINUTE) * 5 * MINUTE, 40, "5m", moves)
            calls.append(Call(mint, caller, mint, at))
    home = homes.make_home(tmp_path, Market("5m", calls, candles))
    config: dict[str, Any] = {
        "horizon_ms": 2 * HOUR,
        "grid": {"stops": [0.1], "take_profits": [0.5], "holds_ms": [HOUR], "activations": [], "ladders": []},
        "evidence": {"draws": 9, "min_units": 8, "min_mints": 3, "hurdle_min_units": 8},
    }
    for month in ("2024-01", "2024-02"):
        homes.run(home, "path-only", month, {"horizon_ms": 2 * HOUR})
        made = homes.run(home, "evidence", month, config)
    sync(home.catalog)
    want = homes.artifact(made, "evidence")
    want.sort(key=lambda row: (VERDICTS.index(row["verdict"]), -row["e_value"], row["caller_name"]))
    got = leaderboard(home.catalog)
    assert [row["caller_name"] for row in got] == [row["caller_name"] for row in want] == ["up", "down"]
    for row, artifact in zip(got, want, strict=True):
        assert row["verdict"] == said(artifact)
        assert (row["unit_mints"], row["month"], row["calls"]) == (artifact["mints"], "2024-02", 24)
        same = set(JUDGED) - {"verdict", "unit_mints", "month"}
        assert {name: row[name] for name in same} == {name: artifact[name] for name in same}
