"""Histories of calls whose truth is known: outcomes that follow features or callers, or nothing at all."""

import numpy as np

from quantbot_pipeline.models.fitting import fitting
from quantbot_pipeline.models.metrics import Judged
from quantbot_pipeline.models.targets import parse_target
from quantbot_pipeline.models.walk import History, judge_month, judged_of, model_of

DAY = 86_400_000
HOUR = 3_600_000
MONTH = 30 * DAY
HORIZON = 48 * HOUR
FEATURES = ("ret_24h", "rv_24h", "volume_share_1h")


def planted(
    calls: int, months: int, seed: int, *, strength: float, by_caller: float = 0.0, callers: int = 20
) -> History:
    """Return a history whose target `hit_2x` follows the feature `rv_24h` and the caller, in logits; 0: chance alone.

    Where nothing is planted, the month and the two days of a call move its outcome all the same.
    """
    rng = np.random.default_rng(seed)
    alert = np.sort(rng.integers(0, months * MONTH, calls))
    month = alert // MONTH
    x = rng.normal(size=(calls, len(FEATURES)))
    x[rng.random(x.shape) < 0.1] = np.nan
    who = rng.integers(0, callers, calls)
    mood = rng.normal(0, 0.4, months)[month] + rng.normal(0, 0.4, months * 16)[alert // (2 * DAY)]
    logit = -0.8 + mood + strength * np.nan_to_num(x[:, 1]) + by_caller * rng.normal(size=callers)[who]
    hit = (rng.random(calls) < 1 / (1 + np.exp(-logit))).astype(float)
    entry = alert + HOUR
    return History(
        x=x,
        callers=[f"caller {i}" for i in who],
        alert=alert,
        entry=entry,
        included=rng.random(calls) > 0.05,
        known=entry + HORIZON <= months * MONTH,
        outcomes={"hit_2x": hit},
        returns=np.where(hit > 0, 1.0, -0.2) - 0.008,
        month=month,
        horizon_ms=HORIZON,
        feature_set=1,
        features=FEATURES,
    )


def walked(history: History, months: int) -> Judged:
    """Return every month's calls as the models of `hit_2x` made before it saw them."""
    target = parse_target("hit_2x")
    with fitting():
        return judged_of(
            history, [judge_month(history, model_of(history, target, m * MONTH), m) for m in range(months)]
        )
