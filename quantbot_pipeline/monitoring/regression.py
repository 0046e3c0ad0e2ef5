"""Whether a month is worse than the months before it: hit rates and the highest out-of-sample median, as robust z.

Belongs here: the reading of a month, which earlier runs it may be compared with, and the comparison. The robust z is that
of Iglewicz and Hoaglin ("How to Detect and Handle Outliers", 1993): distance from the median in scaled median absolute
deviations, which one bad month among the six does not move.
"""

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from quantbot_pipeline.catalog.catalog import Catalog, reading
from quantbot_pipeline.errors import InputError, IntegrityError
from quantbot_pipeline.months import month_range, months_before
from quantbot_pipeline.runs.manifest import RunDirectory, read_manifest
from quantbot_pipeline.runs.verify import read_artifact

TRAILING_MONTHS = 6
MIN_HISTORY = 3
MIN_EVIDENCE = 10  # calls behind a rate, trades behind a median: the evidence that the search asks for
MAD_TO_SIGMA = 1.4826  # of a normal distribution
MEDIAN_NOISE_BPS = 100.0  # 1 %: differences of a month's median return below it are never news
HIGHEST_OUT_OF_SAMPLE = "highest_out_of_sample_median_bps"
# Hit rates compare between runs whose windows were made alike; whatever else was computed in the run does not matter.
WINDOW_KEYS = (
    "interval",
    "latency_ms",
    "entry",
    "horizon_ms",
    "max_entry_delay_ms",
    "min_coverage",
    "from_ms",
    "to_ms",
)


class Reading(NamedTuple):
    """The numbers of one month, the evidence behind them (calls or trades), and whose they are."""

    values: dict[str, float]
    evidence: int
    subject: str = "all callers"


class Verdict(NamedTuple):
    """One number of a month against its history; `z` is None with too little of it."""

    month: str
    metric: str
    value: float
    history: int
    usual: float | None
    z: float | None
    subject: str


def robust_z(value: float, history: Sequence[float], noise: float = 0.0) -> float | None:
    """Distance of `value` from the median of `history`, in scaled MADs but at least `noise`; None with too little history.

    Without any spread, a value at the median has z 0 and any other an infinite one.
    """
    if len(history) < MIN_HISTORY:
        return None
    center = median(history)
    scale = max(MAD_TO_SIGMA * median(abs(x - center) for x in history), noise)
    if scale == 0:
        return 0.0 if value == center else math.copysign(math.inf, value - center)
    return (value - center) / scale


def judge(readings: Mapping[str, Reading], month: str) -> list[Verdict]:
    """The numbers of `month` against those of the six months before it."""
    before = [readings[m] for m in _months_before(month) if m in readings]
    verdicts = []
    for metric, value in readings[month].values.items():
        history = [r.values[metric] for r in before if metric in r.values]
        usual = median(history) if history else None
        z = robust_z(value, history, _noise(metric, usual, readings[month].evidence))
        verdicts.append(Verdict(month, metric, value, len(history), usual, z, readings[month].subject))
    return verdicts


def _months_before(month: str) -> list[str]:
    return list(month_range(months_before(month, TRAILING_MONTHS), months_before(month, 1)))


def _noise(metric: str, usual: float | None, evidence: int) -> float:
    """What chance alone does: the standard error of a rate over so many calls, a fixed step for a median return."""
    if metric == HIGHEST_OUT_OF_SAMPLE or usual is None:
        return MEDIAN_NOISE_BPS
    rate = min(max(usual, 0.5 / evidence), 1 - 0.5 / evidence)
    return math.sqrt(rate * (1 - rate) / evidence)


def read_paths(paths: pa.Table, horizon_ms: int) -> Reading | None:
    """Hit rates over the calls whose window was over when the data ended; None with too few of them.

    In a month that is still open the last windows have had less time to hit: they would make every open month look bad.
    """
    entry, observed = paths["entry_ts_ms"].to_numpy(), paths["observed_ms"].to_numpy()
    over = entry + horizon_ms <= (entry + observed).max(initial=0)
    calls = int(over.sum())
    if calls < MIN_EVIDENCE:
        return None
    rates = {f"hit_{k}x_rate": float(np.mean(paths[f"hit_{k}x"].to_numpy()[over])) for k in (2, 3, 4)}
    return Reading(rates, calls)


def read_walk_forward(rows: pa.Table) -> Reading | None:
    """The highest out-of-sample median among callers and schemes with enough trades: not a claim of an edge. None without one."""
    trades = rows["out_of_sample_trades"].to_numpy()
    medians = np.where(trades >= MIN_EVIDENCE, rows["out_of_sample_median_return_bps"].to_numpy(), -np.inf)
    if not (trades >= MIN_EVIDENCE).any():
        return None
    best = int(np.argmax(medians))
    return Reading({HIGHEST_OUT_OF_SAMPLE: float(medians[best])}, int(trades[best]), rows["caller_name"][best].as_py())


def load_readings(catalog: Catalog, artifact_type: str, run_dirs: Mapping[str, RunDirectory]) -> dict[str, Reading]:
    """Readings of these runs (by month), and of the six months before each from the newest comparable cataloged run.

    A range of months is its own history: its runs are not in the catalog yet. A run that cannot be trusted has no reading;
    telling so is the task of other checks.
    """
    like = max(run_dirs, default=None)
    if like is None:
        return {}
    wanted = {m for month in run_dirs for m in _months_before(month)} - run_dirs.keys()
    try:
        earlier = _cataloged(catalog, artifact_type, wanted, read_manifest(run_dirs[like]).parameters)
    except IntegrityError:
        return {}
    readings = {}
    for month, run_dir in {**{m: catalog.runs.open(d) for m, d in earlier.items()}, **run_dirs}.items():
        with contextlib.suppress(IntegrityError):
            if (found := _read(run_dir, artifact_type)) is not None:
                readings[month] = found
    return readings


def _read(run_dir: RunDirectory, artifact_type: str) -> Reading | None:
    manifest = read_manifest(run_dir)
    if artifact_type == "walk_forward":
        return read_walk_forward(read_artifact(run_dir, manifest, artifact_type))
    columns = ["entry_ts_ms", "observed_ms", "hit_2x", "hit_3x", "hit_4x"]
    return read_paths(read_artifact(run_dir, manifest, artifact_type, columns), manifest.parameters["horizon_ms"])


def _cataloged(catalog: Catalog, artifact_type: str, months: set[str], parameters: Mapping[str, Any]) -> dict[str, str]:
    """{month: directory of its newest completed run that was configured like this one}; none without a catalog."""
    if not months:
        return {}
    try:
        with reading(catalog) as con:
            rows = con.execute(
                """SELECT month, run_dir, parameters_json FROM backtest_runs_catalog r
                   JOIN backtest_artifacts_catalog USING (run_id)
                   WHERE status = 'completed' AND artifact_type = ? AND month IN (SELECT unnest(?))
                   ORDER BY r.created_at, run_id""",
                [artifact_type, sorted(months)],
            ).fetchall()
    except InputError:
        return {}
    wanted = _identity(artifact_type, parameters)
    return {month: run_dir for month, run_dir, text in rows if _identity(artifact_type, json.loads(text)) == wanted}


def _identity(artifact_type: str, parameters: Mapping[str, Any]) -> list[Any]:
    keys = ("config_hash",) if artifact_type == "walk_forward" else WINDOW_KEYS
    return [parameters.get(key) for key in keys]
