"""Runs of models: what they write keeps its rules, depends on nothing but what was known, and is the same however it is made."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.compute as pc
import pytest

from quantbot_pipeline.backtest.month import MonthResult, run_month
from quantbot_pipeline.config import make_config
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.home import Home
from quantbot_pipeline.ingest.candles import ingest_candles
from quantbot_pipeline.models.document import model_id_of
from quantbot_pipeline.runs.inspection import inspect_run
from quantbot_pipeline_tests.support import builders, forecasts
from quantbot_pipeline_tests.support.forecasts import CONFIG, HOUR, MONTHS, OUTCOMES, contents, rows

ARTIFACTS = ("predictions", "model_report", "importance", "dependence", "calibration", "models")


class Walked(NamedTuple):
    """A home, and its model runs of three months, made in one go."""

    home: Home
    made: dict[str, MonthResult]


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Walked:
    home = forecasts.make_home(tmp_path_factory.mktemp("model") / "home")
    cache: dict[Any, Any] = {}
    return Walked(home, {month: forecasts.model(home, month, cache) for month in MONTHS})


def test_every_artifact_keeps_its_contract(walked: Walked) -> None:
    for made in walked.made.values():
        assert inspect_run(made.run_dir, ARTIFACTS).faults == {name: [] for name in ARTIFACTS}
        assert made.manifest.run_type == "model" and made.manifest.parameters["feature_set"] == 1
        for row in rows(made, "models").to_pylist():
            assert row["model_id"] == model_id_of(row["document"])


def test_every_call_has_a_prediction_per_target_and_excluded_ones_have_no_outcome(walked: Walked) -> None:
    made = walked.made["2024-02"]
    found = rows(made, "predictions")
    calls = made.manifest.dataset.calls_count
    assert found.num_rows == 2 * calls and set(found["status"].to_pylist()) == {"too few train calls"}
    peak = found.filter(pc.equal(found["target"], "peak_1.1"))
    left_out = pc.equal(peak["mint"], "nothing").to_pylist()
    assert peak["excluded"].to_pylist() == left_out and peak["stale"].to_pylist() == left_out
    truth = run_month(
        walked.home, "path-only", "2024-02", make_config({k: v for k, v in CONFIG.items() if k != "targets"})
    )
    assert truth is not None
    paths = {row["call_id"]: row for row in rows(truth, "paths").to_pylist()}
    for row in peak.to_pylist():
        if row["excluded"]:
            assert row["outcome"] is None and row["policy_return"] is None
        else:
            assert row["outcome"] == (paths[row["call_id"]]["peak_multiple"] >= 1.1)
            assert row["outcome_known_ts_ms"] == paths[row["call_id"]]["entry_ts_ms"] + 24 * HOUR


def test_a_fitted_month_predicts_and_is_judged(walked: Walked) -> None:
    made = walked.made["2024-03"]
    found = rows(made, "predictions")
    assert set(found["status"].to_pylist()) == {"fitted"}
    open_at_the_end = found.filter(pc.is_null(found["excluded"]))
    assert 0 < open_at_the_end.num_rows < 30
    assert pc.max(open_at_the_end["alert_ts_ms"]).as_py() == pc.max(found["alert_ts_ms"]).as_py()
    report = {(r["target"], r["scope"], r["model"]): r for r in rows(made, "model_report").to_pylist()}
    known = found.filter(pc.is_valid(found["outcome"]))
    blend = report["peak_1.1", "to_date", "blend"]
    assert blend["verdict"] == "too little data" and blend["test_months"] == 1
    assert 2 * blend["calls"] == known.num_rows
    assert report["return", "month", "blend"]["covered"] is not None
    # Calm and wild tokens: who moves is known, and the features of volatility say so.
    assert blend["auc"] > 0.7 and blend["gain_over_base"] > 0.1
    importance = rows(made, "importance").to_pylist()
    groups = {
        r["group"]: r["loss_increase"] for r in importance if r["feature"] == "__all__" and r["target"] == "peak_1.1"
    }
    assert max(groups, key=lambda group: groups[group]) in ("volatility", "range")
    assert rows(made, "dependence").num_rows > 200


def test_a_month_alone_says_what_the_range_said(walked: Walked, tmp_path: Path) -> None:
    alone = forecasts.model(walked.home, "2024-03")  # the models of February are read from its run
    fresh = Home(walked.home.settings.model_copy(update={"home": tmp_path / "home"}))
    shutil.copytree(walked.home.settings.data_dir, fresh.settings.data_dir)
    anew = forecasts.model(fresh, "2024-03")  # no run of an earlier month is there
    assert contents(alone) == contents(anew) == contents(walked.made["2024-03"])


def test_eight_threads_make_the_same_bytes_as_one(walked: Walked) -> None:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(8):
        many = forecasts.model(Home(walked.home.settings.model_copy(update={"threads": 8})), "2024-03")
    assert contents(many) == contents(walked.made["2024-03"])


def test_a_store_cut_at_a_call_predicts_what_the_full_store_does(walked: Walked, tmp_path: Path) -> None:
    whole = rows(walked.made["2024-03"], "predictions").to_pylist()
    cut = [row for row in whole if not row["excluded"]][45]["alert_ts_ms"]
    # The call of that time is in the cut store, and no candle that had not closed.
    home = builders.make_home(tmp_path / "home", forecasts.calls(cut + 1), forecasts.candles(cut), interval="1h")
    before = rows(forecasts.model(home, "2024-03"), "predictions").to_pylist()
    expected = [row for row in whole if row["alert_ts_ms"] <= cut]
    assert len(before) == len(expected) > 60
    for earlier, later in zip(before, expected, strict=True):
        assert {k: v for k, v in earlier.items() if k not in OUTCOMES} == {
            k: v for k, v in later.items() if k not in OUTCOMES
        }


def test_a_month_that_begins_has_models_before_it_has_calls(walked: Walked, tmp_path: Path) -> None:
    home = forecasts.make_home(tmp_path / "home", until=builders.ms("2024-03-01"))
    made = forecasts.model(home, "2024-03")
    assert rows(made, "predictions").num_rows == 0 and made.manifest.dataset.calls_count == 0
    assert rows(made, "models").equals(rows(walked.made["2024-03"], "models"))
    assert inspect_run(made.run_dir, ARTIFACTS).faults == {name: [] for name in ARTIFACTS}
    assert run_month(home, "model", "2023-06", make_config(CONFIG)) is None, "nothing to learn from"


def test_an_unchanged_month_is_kept_and_one_with_other_candles_before_is_not(walked: Walked) -> None:
    kept = run_month(walked.home, "model", "2024-03", make_config(CONFIG), only_changed=True)
    assert kept is not None and kept.reused
    other = run_month(walked.home, "model", "2024-03", make_config(CONFIG | {"targets": ["win"]}), only_changed=True)
    assert other is not None and not other.reused


def test_a_window_ends_though_its_token_stopped_trading(tmp_path: Path) -> None:
    """How the last calls of a month ended is known when the market went on, whichever tokens did."""
    rug = builders.candles("rug", "2024-01-31T06:00", 8, interval="1h")
    home = builders.make_home(tmp_path / "home", [builders.call("rug", "2024-01-31T08:30")], rug, interval="1h")

    def predicted() -> tuple[bool, dict[str, object]]:
        made = run_month(home, "model", "2024-01", make_config(CONFIG | {"targets": ["peak_1.1"]}), only_changed=True)
        assert made is not None
        return made.reused, {name: rows(made, "predictions")[name][0].as_py() for name in OUTCOMES}

    open_still = dict.fromkeys(OUTCOMES)
    assert predicted() == (False, open_still)
    assert predicted() == (True, open_still)
    more = builders.candles("another", "2024-01-31T12:00", 30, interval="1h")
    ingest_candles([builders.write_csv(tmp_path / "more_1h.csv", more)], home.candles, "1h")
    reused, known = predicted()
    assert not reused and None not in known.values()
    assert known["excluded"] is False and known["outcome_known_ts_ms"] == builders.ms("2024-02-01T09:00")


@pytest.mark.parametrize("targets", [[], ["moon"], ["win", "win"]])
def test_a_target_that_is_none_is_refused(targets: list[str]) -> None:
    with pytest.raises(InputError, match="targets: "):
        make_config({"targets": targets})


def test_too_little_of_everything_is_a_run_with_its_reason(tmp_path: Path) -> None:
    calls = [builders.call("nothing", forecasts.JANUARY + i * HOUR, "ann", call_id=f"{i}") for i in range(5)]
    home = builders.make_home(
        tmp_path / "home", calls, builders.candles("x", "2024-01-01", 30, interval="1h"), interval="1h"
    )
    made = forecasts.model(home, "2024-01", targets=["hit_2x", "win", "return"])
    found = rows(made, "predictions")
    assert set(found["status"].to_pylist()) == {"no train call"}
    assert found["take"].to_pylist() == [False] * 15 and found["caller_hit_2x_rate"].null_count == 15
    told = [row["message"] for row in rows(made, "errors").to_pylist() if row["level"] == "info"]
    assert any("no train call before 2024-01" in text for text in told)
    verdicts = {row["verdict"] for row in rows(made, "model_report").to_pylist() if row["model"] == "blend"}
    assert verdicts == {"too little data"}
