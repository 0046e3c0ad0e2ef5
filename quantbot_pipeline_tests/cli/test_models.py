"""The commands of models on a lab of a few months, through Dagster: made, checked, reported, with the verdict first."""

import json
from pathlib import Path

from quantbot_pipeline.api import Home
from quantbot_pipeline_tests.conftest import Quantbot


def test_models_are_made_reported_and_framed(quantbot: Quantbot, home: Path) -> None:
    span = ("--from", "2024-01", "--to", "2024-04")
    made = quantbot("backtest", "model", *span, "--target", "peak_1.1", "--target", "win", "--format", "json")
    assert made.status == 0, made.err
    runs = json.loads(made.out)
    assert runs[-1]["month"] == "2024-04", "a month without a call has its models, too"
    again = quantbot("backtest", "model", *span, "--target", "win", "--only-changed")
    assert "What the predictions are worth" in again.out and "too little data" in again.out
    table = quantbot("models")
    assert table.status == 0 and table.out.index("verdict") < table.out.index("calls")
    assert "too few months or outcomes" in table.out
    assert quantbot("models", "--target", "moon").status == 2
    rows = json.loads(quantbot("models", "--format", "json", "--target", "win").out)
    lab = Home(home)
    frame = lab.models(target="win")
    assert len(rows) == len(frame) == 1 and rows[0]["verdict"] == frame["verdict"][0] == "too little data"
    said = lab.predictions(target="win")
    assert set(said["verdict"]) == {"too little data"} and not said["take"].any()
    assert list(lab.explanations("dependence").columns)[-2:] == ["verdict", "money_verdict"]
    assert len(lab.scores()) == 0


def test_mistakes_are_one_sentence(quantbot: Quantbot) -> None:
    wrong = quantbot("backtest", "model", "--from", "2024-01", "--to", "2024-02", "--target", "moon")
    assert wrong.status == 2 and "--target: 'moon' is no target" in wrong.err
    both = quantbot("score", "x.csv", "--since", "2024-01")
    assert both.status == 2 and "give one of the two" in both.err
    since = quantbot("score", "--since", "yesterday")
    assert since.status == 2 and "--since 'yesterday': not a time" in since.err
    nothing = quantbot("score", "--since", "2024-01")
    assert nothing.status == 2 and "no catalog yet" in nothing.err
    for done in (wrong, both, since, nothing):
        assert "Traceback" not in done.err and len(done.err.strip().splitlines()) == 1
