"""The rows of the report of a target: every model, for the month and to date, with the verdict of the blend.

Belongs here: which measure goes into which column. Does not: the measures.
"""

from typing import Any

import numpy as np

from quantbot_pipeline.models.metrics import Judged, auc, calibration, gain, losses, money
from quantbot_pipeline.models.model import Model
from quantbot_pipeline.models.verdict import money_verdict, number, verdict
from quantbot_pipeline.vocabulary import BLEND, MODEL_SCOPES, MODELS

WILSON_Z = 1.959963984540054
BINS = 10


def report_rows(model: Model, judged: Judged, month: int) -> list[dict[str, Any]]:
    """Return the rows of `model_report` without `run_id`.

    judged: calls of all test months up to the model's with a fitted model and a known outcome. month: the number of the
    model's own month in it. The verdicts of a blend's rows are those to date.
    """
    to_date = judged
    own = judged.of(judged.month == month)
    verdicts = _verdicts(model, to_date)
    rows = []
    for scope, calls in zip(MODEL_SCOPES, (own, to_date), strict=True):
        for name in MODELS:
            row = _common(model, name, scope, calls) | _measures(model, name, calls)
            if name == BLEND:
                row |= _of_blend(model, calls) | verdicts
            rows.append(row)
    return rows


def _verdicts(model: Model, calls: Judged) -> dict[str, Any]:
    amount, n = model.target.is_amount, len(calls.outcome)
    rarer = n if amount else int(min(calls.outcome.sum(), n - calls.outcome.sum()))
    over_base, over_caller = (gain(calls, BLEND, over, is_amount=amount) for over in ("base", "caller"))
    return {
        "verdict": verdict(len(np.unique(calls.month)), rarer, over_base, over_caller),
        "money_verdict": money_verdict(int(calls.take.sum()), money(calls)),
    }


def _common(model: Model, name: str, scope: str, calls: Judged) -> dict[str, Any]:
    return {
        "target": model.target.name,
        "model": name,
        "scope": scope,
        "train_calls": model.train_calls,
        "calls": len(calls.outcome),
        "positives": None if model.target.is_amount else int(calls.outcome.sum()),
        "test_months": len(np.unique(calls.month)),
    }


def _measures(model: Model, name: str, calls: Judged) -> dict[str, Any]:
    """Return what every model is measured by, over the calls of which it said something."""
    amount = model.target.is_amount
    calls = calls.of(~np.isnan(calls.said[name]))
    if not len(calls.outcome):
        return {}
    said = calls.said[name]
    over_base, over_caller = (gain(calls, name, over, is_amount=amount) for over in ("base", "caller"))
    row = {
        "gain_over_base": number(over_base.value),
        "gain_over_base_z": number(over_base.z),
        "gain_over_caller": number(over_caller.value),
        "gain_over_caller_z": number(over_caller.z),
    }
    if amount:
        return row | {"r2": number(_share_below(calls, name))}
    fitted = calibration(calls.outcome, said)
    return row | {
        "log_loss": float(losses(calls.outcome, said, is_amount=False).mean()),
        "brier_gain": number(_share_below(calls, name)),
        "auc": number(auc(calls.outcome, said)),
        "calibration_slope": number(fitted.slope),
        "calibration_intercept": number(fitted.intercept),
    }


def _share_below(calls: Judged, name: str) -> float:
    """Return by which share the squared error of a model is below the base's."""
    own, base = (losses(calls.outcome, calls.said[which], is_amount=True).mean() for which in (name, "base"))
    return float(1 - own / base) if base > 0 else float("nan")


def _of_blend(model: Model, calls: Judged) -> dict[str, Any]:
    caller, linear, boosting = model.weights
    row: dict[str, Any] = {"weight_caller": caller, "weight_linear": linear, "weight_boosting": boosting}
    if not len(calls.outcome):
        return row
    taken, earned = calls.take, money(calls)
    row["taken_share"] = float(taken.mean())
    row["all_return_bps"] = float(calls.returns.mean()) * 1e4
    if taken.any():
        row["taken_return_bps"] = float(calls.returns[taken].mean()) * 1e4
        row["taken_return_z"] = number(earned.z)
    if model.target.is_amount:
        bounded = ~np.isnan(calls.low)
        inside = (calls.low <= calls.outcome) & (calls.outcome <= calls.high)
        row["covered"] = float(inside[bounded].mean()) if bounded.any() else None
    elif taken.any() and calls.outcome.any():
        row["lift"] = float(calls.outcome[taken].mean() / calls.outcome.mean())
    return row


def calibration_rows(model: Model, judged: Judged) -> list[dict[str, Any]]:
    """Return the rows of `calibration` without `run_id`: up to ten bins of the blend to date; none for an amount."""
    if model.target.is_amount or not len(judged.outcome):
        return []
    said = judged.said[BLEND]
    # Equal values share a bin, so that a constant prediction is one bin.
    edges = np.unique(np.quantile(said, np.linspace(0, 1, BINS + 1)[1:-1], method="inverted_cdf"))
    code = np.searchsorted(edges, said, side="left")
    rows = []
    for number_of_bin, which in enumerate(np.unique(code), 1):
        inside = code == which
        hits, n = judged.outcome[inside].sum(), int(inside.sum())
        low, high = wilson(float(hits), n)
        rows.append(
            {
                "target": model.target.name,
                "bin": number_of_bin,
                "calls": n,
                "predicted": float(said[inside].mean()),
                "observed": float(hits / n),
                "low": low,
                "high": high,
            }
        )
    return rows


def wilson(hits: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a rate (Wilson, 1927)."""
    rate, z2 = hits / n, WILSON_Z**2
    middle = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = WILSON_Z / (1 + z2 / n) * np.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))
