"""What must be true of the artifacts of the models, whatever the market did. Source: docs/models.md."""

import hashlib
from collections.abc import Iterator

import numpy as np

from quantbot_pipeline.artifacts.columns import Columns, Fault, Mask, above, counts, named, rates
from quantbot_pipeline.vocabulary import (
    BLEND,
    MODEL_SCOPES,
    MODEL_STATUSES,
    MODEL_VERDICTS,
    MODELS,
    MONEY_VERDICTS,
    TO_DATE,
)

MAX_WEIGHT = 1.5
AMOUNT = "return"


def predictions(t: Columns) -> Iterator[Fault]:
    chance = t["target"] != AMOUNT
    yield from named(t, "call_id", "caller_name", "mint", "target", "model_id")
    yield "call_id", "repeated for one target", t.repeated("target", "call_id")
    yield "status", "unknown", ~t.among("status", MODEL_STATUSES)
    for name in ("value", "base_value", "caller_value", "linear_value", "boosting_value"):
        yield name, "no probability between 0 and 1", chance & ~t.absent(name) & ~((t[name] > 0) & (t[name] < 1))
    yield "low", "above high", above(t["low"], t["high"])
    yield "low", "without high, or the other way round", t.absent("low") != t.absent("high")
    yield "take", "not what value and limit say", t["take"] != (~t.absent("limit") & (t["value"] > t["limit"]))
    yield (
        "value",
        "not the base rate of a model that was not fitted",
        (t["status"] != "fitted") & (t["value"] != t["base_value"]),
    )
    yield from counts(t, "outside", "caller_settled_calls")
    yield from rates(t, "caller_hit_2x_rate", "pooled_hit_2x_rate")
    unknown = t.absent("excluded") | t["excluded"].astype(bool)
    for name in ("outcome", "outcome_known_ts_ms", "policy_return"):
        yield name, "though unsettled or excluded, or missing though settled", t.absent(name) != unknown
    yield "outcome", "neither 0 nor 1", chance & ~t.absent("outcome") & ~np.isin(t["outcome"], (0.0, 1.0))
    yield (
        "outcome_known_ts_ms",
        "not after the alert",
        ~t.absent("outcome_known_ts_ms") & (t["outcome_known_ts_ms"] <= t["alert_ts_ms"]),
    )
    yield "policy_return", "below -1", above(np.full(t.rows, -1.0), t["policy_return"])


def model_report(t: Columns) -> Iterator[Fault]:
    yield from named(t, "target")
    yield "model", "unknown", ~t.among("model", MODELS)
    yield "scope", "unknown", ~t.among("scope", MODEL_SCOPES)
    yield "model", "repeated for one target and scope", t.repeated("target", "scope", "model")
    yield from counts(t, "train_calls", "calls", "positives", "test_months", "log_loss")
    yield "positives", "more than the calls", t["positives"] > t["calls"]
    yield from rates(t, "auc", "taken_share", "covered")
    blend = t["model"] == BLEND
    for name in ("weight_caller", "weight_linear", "weight_boosting"):
        yield name, "outside 0 to 1.5", (t[name] < 0) | (t[name] > MAX_WEIGHT)
        yield name, "not of the blend, or missing of it", t.absent(name) == blend
    for name, known in (("verdict", MODEL_VERDICTS), ("money_verdict", MONEY_VERDICTS)):
        yield name, "not of the blend, or missing of it", t.absent(name) == blend
        yield name, "unknown", ~t.absent(name) & ~t.among(name, known)
    yield "verdict", "better without a sure gain", _claims_too_much(t)


def _claims_too_much(t: Columns) -> Mask:
    sure = (t["gain_over_base_z"] >= 2) & (t["gain_over_caller_z"] >= 2) & (t["test_months"] >= 3)
    return (t["verdict"] == MODEL_VERDICTS[0]) & (t["scope"] == TO_DATE) & ~sure


def importance(t: Columns) -> Iterator[Fault]:
    yield from named(t, "target", "feature", "group")
    yield "feature", "repeated for one target and group", t.repeated("target", "group", "feature")
    yield from counts(t, "calls")


def dependence(t: Columns) -> Iterator[Fault]:
    yield from named(t, "target", "feature")
    yield "at", "repeated for one target and feature", t.repeated("target", "feature", "at")
    yield "value", "no probability between 0 and 1", (t["target"] != AMOUNT) & ~((t["value"] > 0) & (t["value"] < 1))


def calibration(t: Columns) -> Iterator[Fault]:
    yield from named(t, "target")
    yield "bin", "repeated for one target", t.repeated("target", "bin")
    yield "bin", "not 1 to 10", (t["bin"] < 1) | (t["bin"] > 10)
    yield "calls", "less than 1", t["calls"] < 1
    yield from rates(t, "predicted", "observed", "low", "high")
    yield "observed", "outside low to high", above(t["low"], t["observed"]) | above(t["observed"], t["high"])


def models(t: Columns) -> Iterator[Fault]:
    yield from named(t, "target", "model_id", "features", "document")
    yield "target", "repeated", t.repeated("target")
    yield from counts(t, "train_calls", "feature_set")
    ids = [hashlib.sha256(str(text).encode()).hexdigest()[:16] for text in t["document"]]
    yield "model_id", "not the hash of its document", t["model_id"] != np.array(ids, dtype=object)
