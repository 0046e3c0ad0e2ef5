"""Whether predicted chances come true as often as they say: the slope of the calibration, and how sure it is.

Belongs here: the judgement of a month's report. Does not: how the slope is found; that is in `models`.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from quantbot_pipeline.vocabulary import BLEND, TO_DATE

if TYPE_CHECKING:
    from quantbot_pipeline.runs.manifest import RunDirectory

LOW, HIGH = 0.6, 1.6
MIN_OUTCOMES = 100
Z = 1.959963984540054


def slope_error(bins: Sequence[dict[str, Any]]) -> float | None:
    """Return the standard error of the slope, from bins of `calibration` of one target; None where all say the same.

    What the slope knows comes from the spread of the logits; ten bins hold nearly all of it.
    """
    known = []
    for row in bins:
        p = min(max(row["predicted"], 1e-9), 1 - 1e-9)
        known.append((row["calls"] * p * (1 - p), math.log(p / (1 - p))))
    total = sum(weight for weight, _ in known)
    if not total:
        return None
    middle = sum(weight * x for weight, x in known) / total
    information = sum(weight * (x - middle) ** 2 for weight, x in known)
    return 1 / math.sqrt(information) if information > 1e-9 else None


def slopes(report: Sequence[dict[str, Any]], bins: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return per target with 100 outcomes the slope of the blend to date, its 95 % interval, and whether that leaves 0.6 to 1.6."""
    found = []
    for row in report:
        if row["model"] != BLEND or row["scope"] != TO_DATE or row["calibration_slope"] is None:
            continue
        error = slope_error([one for one in bins if one["target"] == row["target"]])
        if row["calls"] < MIN_OUTCOMES or error is None:
            continue
        low, high = row["calibration_slope"] - Z * error, row["calibration_slope"] + Z * error
        found.append(
            {
                "target": row["target"],
                "slope": row["calibration_slope"],
                "low": low,
                "high": high,
                "calls": row["calls"],
                "is_off": high < LOW or low > HIGH,
            }
        )
    return found


def sentence(row: dict[str, Any]) -> str:
    """Return what is wrong with a slope."""
    how = "too far apart" if row["slope"] < 1 else "too close together"
    return (
        f"{row['target']}: predicted chances lie {how} (calibration slope {row['slope']:.2f}, "
        f"{row['low']:.2f} to {row['high']:.2f} of {row['calls']} outcomes)"
    )


def read_slopes(run_dir: "RunDirectory") -> list[dict[str, Any]]:
    """Return `slopes` of a run. Raises IntegrityError when a file is not what was committed."""
    from quantbot_pipeline.runs.manifest import read_manifest
    from quantbot_pipeline.runs.verify import read_artifact

    manifest = read_manifest(run_dir)
    report = read_artifact(
        run_dir, manifest, "model_report", ("target", "model", "scope", "calls", "calibration_slope")
    )
    bins = read_artifact(run_dir, manifest, "calibration", ("target", "calls", "predicted"))
    return slopes(report.to_pylist(), bins.to_pylist())
