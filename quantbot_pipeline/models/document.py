"""A model as a text: JSON with lists of numbers, read strictly, and named by its own hash.

Belongs here: the form, and refusing what has not this form. Does not: predicting. Nothing is unpickled, so a document can hold no
code; what is read is checked before it is used: lengths, ranges, children behind their parents, numbers that are finite.
"""

import hashlib
import json
import math
from typing import Any

import numpy as np

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.models.members import Callers, Linear
from quantbot_pipeline.models.model import Model
from quantbot_pipeline.models.numbers import Floats
from quantbot_pipeline.models.targets import parse_target
from quantbot_pipeline.models.tree_document import refuse, tree_of, trees_from, trees_to

FORMAT = "quantbot model 1"
MAX_CHARACTERS = 16_000_000  # a model of the default target has about 30,000
LINEAR = ("columns", "low", "high", "mean", "scale", "weights", "missing_weights")
KEYS = {
    *(
        "format",
        "target",
        "feature_set",
        "features",
        "trained_until_ts_ms",
        "train_calls",
        "positives",
        "status",
        "base",
    ),
    *("callers", "linear", "boosting", "weights", "limit", "residuals", "cut", "low", "high"),
}


def to_text(model: Model) -> str:
    """Return the document of a model: the same text for the same model, whatever made it."""
    linear, boosting = model.linear, model.boosting
    value = {
        "format": FORMAT,
        "target": model.target.name,
        "feature_set": model.feature_set,
        "features": list(model.features),
        "trained_until_ts_ms": model.trained_until,
        "train_calls": model.train_calls,
        "positives": model.positives,
        "status": model.status,
        "base": model.base,
        "callers": {"prior": model.callers.prior, "distances": model.callers.distances},
        "linear": None
        if linear is None
        else {name: getattr(linear, name).tolist() for name in LINEAR} | {"intercept": linear.intercept},
        "boosting": None if boosting is None else trees_to(boosting),
        "weights": list(model.weights),
        "limit": model.limit,
        "residuals": None if model.residuals is None else list(model.residuals),
        "cut": None if model.cut is None else list(model.cut),
        "low": _or_null(model.low),
        "high": _or_null(model.high),
    }
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def model_id_of(text: str) -> str:
    """Return the name of a document: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def from_text(text: str, known_features: tuple[str, ...]) -> Model:
    """Return the model of a document. Raises InputError, one sentence, for anything that `to_text` would not have written.

    known_features: the columns that calls have; a document may name no other.
    """
    if len(text) > MAX_CHARACTERS:
        refuse(f"it has {len(text):,} characters, more than {MAX_CHARACTERS:,}")
    try:
        value = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as e:
        raise InputError(f"a model document is refused: not valid JSON: {str(e)[:120]}") from None
    tree_of(value, "the document", KEYS)
    if value["format"] != FORMAT:
        refuse(f"format is {str(value['format'])[:40]!r}, not {FORMAT!r}")
    features = _features(value["features"], known_features)
    n = len(features)
    if not isinstance(value["target"], str) or not isinstance(value["status"], str):
        refuse("target and status are texts")
    positives = None if value["positives"] is None else _count(value["positives"], "positives")
    return Model(
        target=parse_target(value["target"]),
        feature_set=_count(value["feature_set"], "feature_set"),
        features=features,
        trained_until=_count(value["trained_until_ts_ms"], "trained_until_ts_ms"),
        train_calls=_count(value["train_calls"], "train_calls"),
        positives=positives,
        status=value["status"],
        base=number(value["base"], "base"),
        callers=_callers(value["callers"]),
        linear=_linear(value["linear"], n),
        boosting=None if value["boosting"] is None else trees_from(value["boosting"], n),
        weights=_weights(value["weights"]),
        limit=None if value["limit"] is None else number(value["limit"], "limit"),
        residuals=_pair(value["residuals"], "residuals"),
        cut=_pair(value["cut"], "cut"),
        low=_numbers(value["low"], n, "low", may_miss=True),
        high=_numbers(value["high"], n, "high", may_miss=True),
    )


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is no number that a model may hold")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is repeated")
    return found


def _or_null(values: Floats) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]


def number(value: Any, where: str) -> float:
    """Return a finite number as a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse(f"{where} is no number: {str(value)[:40]!r}")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        refuse(f"{where} is not finite")
    return found


def _numbers(values: Any, length: int, where: str, *, may_miss: bool = False) -> Floats:
    if not isinstance(values, list) or len(values) != length:
        refuse(f"{where} has not {length} numbers")
    return np.array([math.nan if may_miss and v is None else number(v, where) for v in values], np.float64)


def _count(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 62:
        refuse(f"{where} is no count: {str(value)[:40]!r}")
    return int(value)


def _features(names: Any, known: tuple[str, ...]) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        refuse("features is no list of names")
    if foreign := [name for name in names if name not in known]:
        refuse(f"feature {foreign[0][:40]!r} is none of the columns of calls")
    if len(set(names)) < len(names):
        refuse("a feature is named twice")
    return tuple(names)


def _callers(value: Any) -> Callers:
    tree_of(value, "callers", {"prior", "distances"})
    distances = value["distances"]
    if not isinstance(distances, dict):
        refuse("callers.distances is no object")
    found = {name: number(distance, "callers.distances") for name, distance in distances.items()}
    return Callers(number(value["prior"], "callers.prior"), found)


def _linear(value: Any, features: int) -> Linear | None:
    if value is None:
        return None
    tree_of(value, "linear", {*LINEAR, "intercept"})
    columns = value["columns"]
    length = len(columns) if isinstance(columns, list) else 0
    if not length or length > features:
        refuse(f"linear.columns has not 1 to {features} numbers")
    if any(_count(column, "linear.columns") >= features for column in columns) or len(set(columns)) < length:
        refuse("linear.columns names a feature twice or one that is not there")
    parts = {name: _numbers(value[name], length, f"linear.{name}") for name in LINEAR[1:]}
    if not (parts["scale"] > 0).all():
        refuse("linear.scale is not above 0")
    return Linear(np.array(columns, np.int64), **parts, intercept=number(value["intercept"], "linear.intercept"))


def _weights(values: Any) -> tuple[float, float, float]:
    first, second, third = _numbers(values, 3, "weights").tolist()
    if not all(0 <= weight <= 1.5 for weight in (first, second, third)):
        refuse("a weight lies outside 0 to 1.5")
    return first, second, third


def _pair(values: Any, where: str) -> tuple[float, float] | None:
    if values is None:
        return None
    low, high = _numbers(values, 2, where).tolist()
    if low > high:
        refuse(f"{where} is not in order")
    return low, high
