"""A model sees only what had ended, finds what is planted, and knows when it knows nothing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from quantbot_pipeline.models.blend import MAX_WEIGHT
from quantbot_pipeline.models.document import to_text
from quantbot_pipeline.models.explain import dependence_rows, importance_rows
from quantbot_pipeline.models.fitting import fitting
from quantbot_pipeline.models.model import predict
from quantbot_pipeline.models.report import calibration_rows, report_rows
from quantbot_pipeline.models.targets import parse_target
from quantbot_pipeline.models.training import TrainCalls, blocks, train
from quantbot_pipeline.models.walk import History, judge_month, judged_of, model_of
from quantbot_pipeline_tests.support.planted import DAY, FEATURES, HORIZON, MONTH, planted, walked

HIT = parse_target("hit_2x")


def report(history: History, months: int) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows of the last month's report, by scope and model."""
    with fitting():
        model = model_of(history, HIT, (months - 1) * MONTH)
    rows = report_rows(model, walked(history, months), months - 1)
    return {(row["scope"], row["model"]): row for row in rows}


def test_a_planted_edge_is_found_in_feature_and_caller() -> None:
    months = 5
    history = planted(1500, months, seed=1, strength=1.2, by_caller=0.8)
    with fitting():
        models = [model_of(history, HIT, month * MONTH) for month in range(months)]
    walk = [judge_month(history, model, month) for month, model in enumerate(models)]
    rows = {(r["scope"], r["model"]): r for r in report_rows(models[-1], judged_of(history, walk), months - 1)}
    blend = rows["to_date", "blend"]
    assert blend["verdict"] == "better" and blend["money_verdict"] == "earns more"
    assert blend["gain_over_base_z"] > 4 and blend["test_months"] == 4 and 0.6 < blend["calibration_slope"] < 1.6
    assert rows["month", "blend"]["verdict"] == "better" and rows["month", "blend"]["calls"] < blend["calls"]
    assert rows["to_date", "base"]["gain_over_base"] is None
    found = {(r["feature"], r["group"]): r for r in importance_rows("hit_2x", [month.increases for month in walk])}
    assert found["rv_24h", "volatility"]["z"] > 4 and found["caller", "caller"]["z"] > 2
    assert abs(found["volume_share_1h", "volume"]["loss_increase"]) < found["rv_24h", "volatility"]["loss_increase"] / 5
    bins = calibration_rows(models[-1], judged_of(history, walk))
    assert len(bins) == 10 and sum(row["calls"] for row in bins) == blend["calls"]
    trained = np.flatnonzero(history.included & (history.entry + HORIZON <= models[-1].trained_until))
    shape = dependence_rows(models[-1], history.x[trained], history.names(trained))
    volatility = [row["value"] for row in shape if row["feature"] == "rv_24h"]
    assert len(volatility) == 20 and volatility[-1] > volatility[0] + 0.2


@pytest.mark.parametrize("seed", [1, 2])
def test_without_a_signal_nothing_is_better(seed: int) -> None:
    found = report(planted(800, 4, seed, strength=0.0), 4)["to_date", "blend"]
    assert found["verdict"] != "better" and found["money_verdict"] == "not shown"
    assert found["gain_over_base"] > -0.03


@pytest.mark.torture
def test_of_100_stores_without_a_signal_at_most_two_are_ever_better() -> None:
    better = []
    for seed in range(100):
        history, months = planted(2000, 8, 1000 + seed, strength=0.0), 8
        judged = walked(history, months)
        for month in range(3, months):
            to_date = judged.of(judged.month <= month)
            with fitting():
                model = model_of(history, HIT, month * MONTH)
            if report_rows(model, to_date, month)[-1]["verdict"] == "better":
                better.append((seed, month))
    assert len({seed for seed, _ in better}) <= 2, better


@pytest.mark.torture
def test_of_20_stores_with_a_planted_edge_all_are_better() -> None:
    found = [report(planted(2000, 6, seed, strength=0.8, by_caller=0.3), 6)["to_date", "blend"] for seed in range(20)]
    assert [row["verdict"] for row in found] == ["better"] * 20


def test_a_model_does_not_know_what_had_not_ended() -> None:
    history = planted(900, 4, seed=3, strength=1.0)
    until = 2 * MONTH
    open_then = history.entry + HORIZON > until
    rng = np.random.default_rng(0)
    other = history._replace(
        outcomes={"hit_2x": np.where(open_then, 1 - history.outcomes["hit_2x"], history.outcomes["hit_2x"])},
        x=np.where(open_then[:, None], rng.normal(size=history.x.shape), history.x),
        returns=np.where(open_then, 9.0, history.returns),
    )
    last = np.flatnonzero(~open_then & history.included)[-1]
    flipped = history.outcomes["hit_2x"].copy()
    flipped[last] = 1 - flipped[last]
    with fitting():
        text, same = (to_text(model_of(h, HIT, until)) for h in (history, other))
        differs = to_text(model_of(history._replace(outcomes={"hit_2x": flipped}), HIT, until))
    assert text == same and text != differs


def test_inner_blocks_are_learned_for_from_what_had_ended_before_them() -> None:
    history = planted(600, 3, seed=4, strength=1.0)
    calls = TrainCalls(history.x, history.callers, history.alert, history.alert + HORIZON, history.outcomes["hit_2x"])
    found = list(blocks(calls, False))
    assert len(found) == 5
    assert np.concatenate([rows for rows, _ in found]).tolist() == list(range(100, 600))
    for rows, learn in found:
        assert calls.ended[learn].max() <= calls.alert[rows].min()
        assert learn.tolist() == [i for i in range(600) if calls.ended[i] <= calls.alert[rows[0]]]


def few(hits: Sequence[float], x: Any = None) -> TrainCalls:
    n = len(hits)
    alert = np.arange(n) * DAY // 2
    table = np.arange(n * 3, dtype=float).reshape(n, 3) if x is None else x
    return TrainCalls(table, ["a"] * n, alert, alert + HORIZON, np.array(hits, float))


@pytest.mark.parametrize(
    ("target", "calls", "status"),
    [
        ("hit_2x", few([]), "no train call"),
        ("hit_2x", few([1, 0] * 49), "too few train calls"),
        ("hit_2x", few([1] * 200), "too few of a class"),
        ("hit_2x", few([1] * 9 + [0] * 200), "too few of a class"),
        ("win", few([0] * 150), "too few of a class"),
        ("return", few([0.1] * 99), "too few train calls"),
    ],
)
def test_with_too_little_the_prediction_is_the_base_rate(target: str, calls: TrainCalls, status: str) -> None:
    with fitting():
        model = train(parse_target(target), calls, 10**12, 1, FEATURES)
    assert (model.status, model.weights, model.limit) == (status, (0, 0, 0), None)
    said = predict(model, np.full((2, 3), np.nan), ["a", "b"])
    assert said.value.tolist() == said.base.tolist() and not said.take.any() and np.isnan(said.linear).all()
    n, hits = len(calls.outcome), calls.outcome.sum()
    assert said.value[0] == pytest.approx(calls.outcome.mean() if target == "return" else (hits + 0.5) / (n + 1))


@pytest.mark.parametrize("target", ["hit_2x", "return"])
def test_a_single_caller_without_features_or_with_constant_returns_is_no_error(target: str) -> None:
    nothing = np.full((300, 3), np.nan)
    outcomes = [-0.208] * 300 if target == "return" else [1.0, 0.0, 0.0] * 100
    with fitting():
        model = train(parse_target(target), few(outcomes, nothing), 10**12, 1, FEATURES)
    assert model.status == "fitted" and model.linear is None and model.boosting is None
    assert max(model.weights) <= MAX_WEIGHT
    said = predict(model, nothing[:1], ["a"])
    assert said.value[0] == pytest.approx(np.mean(outcomes), abs=0.01)


def test_an_amount_is_cut_and_has_an_interval() -> None:
    history = planted(800, 4, seed=5, strength=1.0)
    amounts = history.returns + np.random.default_rng(0).normal(0, 0.1, 800)
    amounts[10] = 1e6
    history = history._replace(outcomes={"return": amounts}, returns=amounts)
    with fitting():
        models = [model_of(history, parse_target("return"), month * MONTH) for month in range(4)]
    walk = [judge_month(history, model, month) for month, model in enumerate(models)]
    last = models[-1]
    assert last.cut is not None and last.cut[1] < 2 and last.residuals is not None
    row = report_rows(last, judged_of(history, walk), 3)[-1]
    assert 0.6 < row["covered"] < 0.95 and row["r2"] == pytest.approx(row["gain_over_base"])
    assert row.get("log_loss") is None and row.get("auc") is None
