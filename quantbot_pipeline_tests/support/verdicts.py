"""A home with made-up runs of models, tuning and anomalies whose names attack: one target is better, another is not.

Belongs here: what the pages and reports of such runs are tested on. The candles are real ones, taken in by the ingest.
"""

from pathlib import Path
from typing import Any

from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.home import Home
from quantbot_pipeline_tests.support.builders import (
    DAY_MS,
    HOUR_MS,
    artifact_rows,
    call,
    candles,
    commit_run,
    make_home,
    ms,
)
from quantbot_pipeline_tests.support.markets import FORMULA, MARKUP

MINT = "token <b>one</b>"
REASON = "<script>alert(3)</script> opens high."
MONTHS = ("2024-01", "2024-02", "2024-03")
BETTER, WORSE = "peak_1.5", "return"
ALERT = ms("2024-03-05T02:02")
POLICY = '{"kind":"fixed_stop","stop_pct":0.2137,"take_profit_pct":1.0}'


def make_judged(home: Path) -> Home:
    """Three months of runs, cataloged; the call `best` is on the page of calls, with candles."""
    lab = make_home(home, [call(MINT, ALERT, MARKUP, call_id="best")], candles(MINT, "2024-03-05", 700))
    alerts = artifact_rows("alerts", 1, call_id=["best"])
    paths = artifact_rows(
        "paths", 1, call_id=["best"], caller_name=[MARKUP], mint=[MINT], chain=["solana"], interval=["5m"], alert_ts_ms=[ALERT],
        entry_ts_ms=[ALERT + 60_000], observed_ms=[DAY_MS], p0=[1.0], peak_multiple=[3.0], t_peak_ms=[ALERT + HOUR_MS],
    )  # fmt: skip  # a table: what belongs together stands on one line
    commit_run(lab.runs.folder, "2024-03", tables={"alerts": alerts, "paths": paths})
    for number, month in enumerate(MONTHS):
        tables = {"alerts": alerts, **_model(number)}
        commit_run(lab.runs.folder, month, tables=tables, run_type="model", parameters={"config_hash": "m"})
        tuned = {"config_hash": "t", "strategy_id": "tuned"}
        commit_run(
            lab.runs.folder,
            month,
            tables={"alerts": alerts, "tuned": _tuned(number)},
            run_type="optimization",
            parameters=tuned,
        )
        odd = {"alerts": alerts, "anomalies": _anomalies(month)}
        commit_run(lab.runs.folder, month, tables=odd, run_type="anomalies", parameters={"config_hash": "a"})
    sync(lab.catalog)
    return lab


def _model(number: int) -> dict[str, Any]:
    first = number == 0
    report = artifact_rows(
        "model_report", 6, target=[BETTER] * 3 + [WORSE] * 3, model=["base", "blend", "blend"] * 2, scope=["to_date", "month", "to_date"] * 2,
        test_months=[number] * 6, calls=[40 * number] * 6, gain_over_base=[None if first else 0.1 * number] * 3 + [-0.01] * 3,
        gain_over_base_z=[None if first else 2.0 * number] * 3 + [-0.5] * 3, gain_over_caller_z=[2.5] * 6, covered=[None] * 3 + [0.74] * 3,
        calibration_slope=[1.04] * 3 + [None] * 3, auc=[0.7] * 3 + [None] * 3,
        verdict=[None, *["too little data" if number < 2 else "better"] * 2, None, *["no better than the base rate"] * 2],
        money_verdict=[None, *["not shown" if number < 2 else "earns more"] * 2, None, *["not shown"] * 2],
    )  # fmt: skip  # a table: what belongs together stands on one line
    said = artifact_rows(
        "predictions", 2, call_id=["best"] * 2, caller_name=[MARKUP] * 2, mint=[MINT] * 2, target=[BETTER, WORSE], status=["fitted"] * 2,
        value=[0.61, -0.02], low=[None, -0.3], high=[None, 0.4], stale=[False, False],
    )  # fmt: skip  # a table: what belongs together stands on one line
    features = ["ret_1h", "rv_24h", "__all__"]
    importance = artifact_rows(
        "importance", 6, target=[BETTER] * 3 + [WORSE] * 3, feature=features * 2, group=["returns", "volatility", "volatility"] * 2,
        loss_increase=[0.02, 0.05, 0.07] * 2,
    )  # fmt: skip  # a table: what belongs together stands on one line
    dependence = artifact_rows(
        "dependence", 8, target=[BETTER] * 4 + [WORSE] * 4, feature=["ret_1h", "ret_1h", "rv_24h", "rv_24h"] * 2, at=[0.0, 1.0] * 4,
        value=[0.2, 0.3, 0.1, 0.6] * 2,
    )  # fmt: skip  # a table: what belongs together stands on one line
    calibration = artifact_rows(
        "calibration", 3, target=[BETTER] * 3, bin=[1, 2, 3], calls=[20] * 3, predicted=[0.1, 0.4, 0.7], observed=[0.15, 0.35, 0.7],
        low=[0.05, 0.2, 0.5], high=[0.35, 0.55, 0.85],
    )  # fmt: skip  # a table: what belongs together stands on one line
    return {
        "model_report": report,
        "predictions": said,
        "importance": importance,
        "dependence": dependence,
        "calibration": calibration,
    }


def _tuned(number: int) -> Any:
    promise = [None] * 4 if number == 0 else [300.0, 500.0, 200.0, 400.0]
    return artifact_rows(
        "tuned", 4, caller_name=["__all__", MARKUP, FORMULA, MARKUP], scheme=["anchored"] * 3 + ["rolling"], test_calls=[20, 12, 8, 12],
        promise_bps=promise, plateau_bps=promise, out_of_sample_bps=[0.0 if number == 0 else 100.0 * number] * 4, grid_bps=[150.0] * 4,
        policy_id=["p"] * 4, policy_params=[POLICY] * 4, difference_z=[-2.4] * 3 + [0.3], verdict=["grid better"] * 3 + ["not shown"],
        leaning_verdict=["not shown"] * 4, hold_verdict=["grid better"] * 4,
    )  # fmt: skip  # a table: what belongs together stands on one line


def _anomalies(month: str) -> Any:
    start = ALERT + HOUR_MS if month == MONTHS[-1] else 1
    return artifact_rows(
        "anomalies", 4, kind=["price_spike", "regime", "copied_calls", "outage"], severity=["error", "warning", "warning", "info"],
        subject_type=["mint", "caller", "pair", "market"], subject=[MINT, MARKUP, FORMULA, "market"],
        other_subject=[None, None, MARKUP, None], from_ts_ms=[start] * 4, to_ts_ms=[start + HOUR_MS] * 4, calls_touched=[1, 3, 6, 0],
        reason=[REASON] * 4, details=[None] * 4,
    )  # fmt: skip  # a table: what belongs together stands on one line
