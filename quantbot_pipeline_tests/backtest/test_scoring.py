"""A score says, bit for bit, what the month's run predicts; its verdict stands beside it; scikit-learn stays away."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from quantbot_pipeline import api
from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.backtest.scoring import SCORES, remark_of, score
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.config import make_config
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.home import Home
from quantbot_pipeline.market.calls import read_calls
from quantbot_pipeline.months import month_start_ms
from quantbot_pipeline.reports.predictions import model_report, predictions, verdicts_of
from quantbot_pipeline_tests.support import builders, forecasts
from quantbot_pipeline_tests.support.forecasts import CONFIG, HOUR, OUTCOMES

MARCH = month_start_ms("2024-03")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with the models of February and March, and the truth of January alone, all cataloged."""
    home = forecasts.make_home(tmp_path_factory.mktemp("scoring") / "home")
    cache: dict[Any, Any] = {}
    for month in ("2024-02", "2024-03"):
        forecasts.model(home, month, cache)
    window = {name: value for name, value in CONFIG.items() if name != "targets"}
    run_month(home, "path-only", "2024-01", make_config(window))
    sync(home.catalog)
    return home


def of_month(home: Home, month: str, end: str) -> pa.Table:
    return read_calls(home.calls, month_start_ms(month), month_start_ms(end)).calls


@pytest.mark.parametrize(("month", "end"), [("2024-02", "2024-03"), ("2024-03", "2024-04")])
def test_a_score_equals_the_prediction_of_its_month_bit_for_bit(home: Home, month: str, end: str) -> None:
    found = score(home, of_month(home, month, end), verdicts_of(home.catalog))
    kept = [
        name for name in SCORES.names if name not in (*OUTCOMES, "scored_at", "model_month", "verdict", "money_verdict")
    ]
    committed = predictions(home.catalog, month=month)
    assert found.num_rows == committed.num_rows > 100
    assert found.select(kept).equals(committed.select(kept))
    assert set(found["model_month"].to_pylist()) == {month}
    assert all(found[name].null_count == found.num_rows for name in OUTCOMES)


def test_a_call_alone_gets_the_bits_that_it_gets_among_others(home: Home) -> None:
    calls, verdicts = of_month(home, "2024-03", "2024-04"), verdicts_of(home.catalog)
    whole = score(home, calls, verdicts, targets=["return"]).drop_columns("scored_at")
    for row in (0, 7, 60):
        alone = score(home, calls.slice(row, 1), verdicts, targets=["return"]).drop_columns("scored_at")
        assert alone.equals(whole.slice(row, 1))


def test_a_call_of_a_later_month_is_scored_by_the_newest_models_and_that_is_said(home: Home) -> None:
    calls = of_month(home, "2024-03", "2024-04").slice(0, 1)
    later = calls.set_column(4, "alert_ts_ms", pa.array([month_start_ms("2024-05")]))
    found = score(home, later, {})
    assert found["model_month"].to_pylist() == ["2024-03"] * 2
    assert found["verdict"].to_pylist() == ["too little data"] * 2, "a target without a report claims nothing"
    said = remark_of(found)
    assert any("2024-05 by the models of 2024-03" in text for text in said) and any(
        "no candle" in text for text in said
    )
    early = calls.set_column(4, "alert_ts_ms", pa.array([month_start_ms("2024-01")]))
    with pytest.raises(InputError, match="no cataloged models of 2024-01"):
        score(home, early, {})
    with pytest.raises(InputError, match="--target win"):
        score(home, calls, {}, targets=["win"])


def test_reports_begin_with_the_verdict(home: Home) -> None:
    rows = model_report(home.catalog)
    assert [row["target"] for row in rows] == ["peak_1.1", "return"]
    assert all(row["month"] == "2024-03" and row["meaning"].startswith("too few months") for row in rows)
    with pytest.raises(InputError, match="no report of the target 'win'; targets there: peak"):
        model_report(home.catalog, target="win")
    found = predictions(home.catalog, target="return", caller="ann")
    assert set(found["verdict"].to_pylist()) == {"too little data"} and set(found["caller_name"].to_pylist()) == {"ann"}


def test_a_frame_of_predictions_never_comes_without_its_verdict(home: Home) -> None:
    lab = api.Home(home.path)
    verdicts = {"verdict": {"too little data"}, "money_verdict": {"not shown"}}
    frames = {
        "predictions": lab.predictions(target="return"),
        "documents": lab.model_documents(month="2024-03"),
        "report": lab.model_report(target="peak_1.1"),
        **{name: lab.explanations(name, target="return") for name in ("importance", "dependence")},
    }
    run = lab.run(next(iter(frames["documents"].attrs["runs"])))
    for name in ("predictions", "models", "importance", "dependence", "calibration"):
        frames[f"{name} of the run"] = run.frame(name)
    frames["some columns"] = run.frame("predictions", ["call_id", "value"])
    assert list(frames["some columns"].columns) == ["call_id", "value", "verdict", "money_verdict"]
    for name, frame in frames.items():
        assert len(frame), name
        assert {column: set(frame[column]) for column in verdicts} == verdicts, name
    assert len(frames["report"]) == 2 * 2 * 5, "months, scopes, models"
    assert str(frames["predictions"]["take"].dtype) == "boolean"


def test_a_frame_of_calls_is_scored_as_the_command_scores_a_file(home: Home) -> None:
    lab = api.Home(home.path)
    calls = lab.calls.frame(month="2024-03")
    scored = lab.score(calls[["call_id", "mint", "caller_name", "chain", "alert_ts_ms"]], targets=["return"])
    kept = lab.predictions(target="return", month="2024-03").set_index("call_id")["value"]
    assert scored.set_index("call_id")["value"].sort_index().equals(kept.sort_index())
    assert set(scored["verdict"]) == {"too little data"}
    assert scored.attrs["remarks"] == remark_of(score(home, of_month(home, "2024-03", "2024-04"), {}))
    stored = lab.score(since="2024-03-01T00:00Z", targets=["return"])
    assert stored.drop(columns="scored_at").equals(scored.drop(columns="scored_at"))
    bad = lab.score(calls.assign(mint=calls["mint"].where(calls.index > 0, "")), targets=["return"])
    assert len(bad) == len(scored) - 1 and bad.attrs["remarks"][0].startswith("1 calls rejected")
    for ask in (lab.score, lambda: lab.score(calls, since="2024-03")):
        with pytest.raises(InputError, match="give one of the two"):
            ask()
    with pytest.raises(InputError, match="not a time"):
        lab.score(since="soon")


def test_what_ingests_saw_is_a_frame(home: Home) -> None:
    lab = api.Home(home.path)
    assert set(lab.ingests()["caller_name"]) == {"ann", "bob", "cy"}
    assert str(lab.ingests()["at"].dtype) == "datetime64[ms, UTC]"
    assert sorted(lab.call_sightings()["call_id"]) == sorted(lab.calls.frame()["call_id"])


def test_the_command_scores_a_file_without_storing_it_and_without_scikit_learn(home: Home, tmp_path: Path) -> None:
    calls = [
        builders.call("token1", MARCH + 5 * 24 * HOUR, "ann", call_id="new"),
        builders.call("", MARCH, "ann", call_id="bad"),
    ]
    file = builders.write_jsonl(tmp_path / "calls.jsonl", calls)
    program = (
        "import sys; from quantbot_pipeline.cli.main import main\n"
        "try: main()\n"
        "finally: print(sorted({'sklearn', 'pandas', 'scipy'} & sys.modules.keys()), file=sys.stderr)"
    )
    arguments = ["score", str(file), "--home", str(home.path), "--format", "json", "--target", "peak_1.1"]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["call_id"], row["target"], row["verdict"], row["model_month"]) == (
        "new",
        "peak_1.1",
        "too little data",
        "2024-03",
    )
    assert "1 calls rejected" in done.stderr and done.stderr.splitlines()[-1] == "[]"
    assert "new" not in read_calls(home.calls, 0, 1 << 62).calls["call_id"].to_pylist()
