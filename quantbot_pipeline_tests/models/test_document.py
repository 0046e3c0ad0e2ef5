"""A document is a model and nothing else: read again it says the same bits, and anything else is refused in one sentence."""

import copy
import json
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.models.document import MAX_CHARACTERS, from_text, model_id_of, to_text
from quantbot_pipeline.models.fitting import fitting
from quantbot_pipeline.models.model import Model, predict
from quantbot_pipeline.models.targets import parse_target
from quantbot_pipeline.models.training import TrainCalls, train
from quantbot_pipeline_tests.support.planted import DAY, FEATURES, HORIZON


@cache
def model(target: str = "hit_2x", calls: int = 400) -> tuple[Model, TrainCalls]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(calls, 3))
    x[rng.random(x.shape) < 0.1] = np.nan
    alert = np.sort(rng.integers(0, 90 * DAY, calls))
    outcome = (np.nan_to_num(x[:, 1]) + rng.normal(size=calls) > 0.5).astype(float)
    learned = TrainCalls(x, [f"c{i % 7}" for i in range(calls)], alert, alert + HORIZON, outcome)
    with fitting():
        return train(parse_target(target), learned, 92 * DAY, 1, FEATURES), learned


@pytest.mark.parametrize("target", ["hit_2x", "return"])
@pytest.mark.parametrize("calls", [400, 50, 0])
def test_a_document_read_again_says_the_same_bits(target: str, calls: int) -> None:
    made, learned = model(target, calls)
    text = to_text(made)
    again = from_text(text, FEATURES)
    assert to_text(again) == text
    assert len(model_id_of(text)) == 16
    said, repeated = (predict(m, learned.x, learned.callers) for m in (made, again))
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(said, repeated, strict=True))


def changed(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of one place of a document; the path is a list of keys and positions."""

    def change(document: dict[str, Any]) -> None:
        *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        at: Any = document
        for part in way:
            at = at[part]
        at[last] = value

    return change


def many_nodes(document: dict[str, Any], inner: int = 60_000) -> None:
    nodes = 2 * inner + 1
    tree = {
        "feature": [0] * nodes,
        "threshold": [0] * nodes,
        "left": [2 * i + 1 for i in range(inner)] + [-1] * (inner + 1),
        "right": [2 * i + 2 for i in range(inner)] + [-1] * (inner + 1),
        "missing_left": [False] * nodes,
        "value": [0] * nodes,
    }
    document["boosting"]["trees"] = [tree]


DAMAGES = {
    "a child out of range": (changed("boosting.trees.0.left.0", 99), "a child is out of range"),
    "a child far out of range": (changed("boosting.trees.0.left.0", 1 << 70), "out of range"),
    "a child below none": (changed("boosting.trees.0.left.0", -2), "out of range"),
    "a cycle": (changed("boosting.trees.0.left.1", 0), "before its parent"),
    "a node that is its own child": (changed("boosting.trees.0.right.0", 0), "before its parent"),
    "two parents": (changed("boosting.trees.0.right.0", 1), "one parent"),
    "one child": (changed("boosting.trees.0.right.0", -1), "one child"),
    "a feature out of range": (changed("boosting.trees.0.feature.0", 3), "feature is out of range"),
    "a threshold that is text": (changed("boosting.trees.0.threshold.0", "1"), "finite number"),
    "a threshold that is no number": (changed("boosting.trees.0.threshold.0", float("nan")), "NaN"),
    "an infinite value": (changed("boosting.trees.0.value.0", float("inf")), "Infinity"),
    "a whole number beyond a double": (changed("boosting.trees.0.value.0", 10**400), "finite"),
    "a list too short": (changed("boosting.trees.0.value", [0.0]), "different lengths"),
    "an empty tree": (
        changed(
            "boosting.trees.0", {k: [] for k in ("feature", "threshold", "left", "right", "missing_left", "value")}
        ),
        "none",
    ),
    "more nodes than a model has": (many_nodes, "nodes, more than"),
    "a foreign feature": (changed("features.0", "rate of the moon"), "none of the columns"),
    "a feature twice": (changed("features.0", "rv_24h"), "named twice"),
    "too few features": (changed("features", ["rv_24h"]), "has not 1 to 1 numbers"),
    "weights too short": (changed("weights", [0.1, 0.2]), "3 numbers"),
    "a weight above 1.5": (changed("weights.0", 1.6), "outside 0 to 1.5"),
    "a weight that is true": (changed("weights.0", True), "no number"),
    "a scale of 0": (changed("linear.scale.0", 0), "not above 0"),
    "linear too short": (changed("linear.mean", [0.0]), "numbers"),
    "a linear column out of range": (changed("linear.columns.0", 3), "not there"),
    "a range in disorder": (changed("residuals", [1.0, 0.0]), "not in order"),
    "an unknown key": (changed("code", "import os"), "unknown key"),
    "another format": (changed("format", "pickle"), "format is"),
    "an unknown target": (changed("target", "moon"), "no target"),
    "a base that is infinite": (changed("base", 1e999), "Infinity"),
    "callers that are a list": (changed("callers.distances", [1]), "no object"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_document_is_refused_in_one_sentence(damage: str) -> None:
    change, why = DAMAGES[damage]
    document = copy.deepcopy(json.loads(to_text(model()[0])))
    change(document)
    text = json.dumps(document)
    with pytest.raises(InputError, match=why) as refused:
        from_text(text, FEATURES)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 300


def test_two_million_nodes_are_refused_before_they_are_read() -> None:
    document = json.loads(to_text(model()[0]))
    document["boosting"]["trees"] = [dict.fromkeys(document["boosting"]["trees"][0], "NODES")]
    text = json.dumps(document).replace('"NODES"', "[" + "0," * 2_000_000 + "0]")
    with pytest.raises(InputError, match="characters, more than"):
        from_text(text, FEATURES)


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "{}", '{"a":1,"a":2}', "[" * 100_000, "\x80\x04K\x01.", " " * (MAX_CHARACTERS + 1)],
    ids=["empty", "null", "list", "object", "key twice", "deep", "pickle", "too long"],
)
def test_what_is_no_document_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="a model document is refused"):
        from_text(text, FEATURES)
