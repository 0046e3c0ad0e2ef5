"""`prediction_drift`: predictions of a target that have been worse than its base rate lately. Source: docs/anomalies.md."""

from quantbot_pipeline.anomalies.findings import TARGET, Finding

KIND = "prediction_drift"
MONTHS = 3
LIMIT = 2.0


def prediction_drift(target: str, excess: float, z: float, calls: int, from_ts: int, to_ts: int) -> Finding | None:
    """Return the finding of a target whose predictions of the last three months lost more than its base rate; else None.

    excess: mean loss of the blend less that of the base rate. z: excess / its standard error over blocks; NaN: undefined. from_ts, to_ts:
    UTC ms, of the three months.
    """
    if not z >= LIMIT:
        return None
    return Finding(
        KIND,
        TARGET,
        target,
        from_ts,
        to_ts,
        z,
        LIMIT,
        f"In the last {MONTHS} months predictions of {calls} calls were worse than the base rate would have been.",
        {"calls": calls, "excess_loss": excess},
        calls=(),
    )
