"""What must be true of the tuning, whatever the market did."""

from collections.abc import Iterator

from quantbot_pipeline.artifacts.columns import Columns, Fault, counts, named
from quantbot_pipeline.vocabulary import HOLD_VERDICTS, LEANING_VERDICTS, SCHEMES, TUNED_VERDICTS

SURE_Z = 2.0


def tuned(t: Columns) -> Iterator[Fault]:
    """Yield what is wrong with the rows of `tuned`."""
    yield from named(t, "caller_name")
    yield "scheme", "unknown", ~t.among("scheme", SCHEMES)
    yield "caller_name", "repeated under one scheme", t.repeated("caller_name", "scheme")
    yield from counts(t, "pool_calls", "train_calls", "test_calls", "evaluations")
    for prefix in ("", "grid_", "unleaned_"):
        name, params = f"{prefix}policy_id", f"{prefix}policy_params"
        yield params, f"without {name}, or the other way round", t.absent(params) != t.absent(name)
    idle = t.absent("policy_id")
    for name in ("promise_bps", "plateau_bps"):
        yield name, "without policy_id, or the other way round", t.absent(name) != idle
    yield "evaluations", "none behind a policy", (t["evaluations"] == 0) & ~idle
    yield "train_calls", "none behind a policy", (t["train_calls"] == 0) & ~idle
    untested = t["test_calls"] == 0
    for name, absent in (
        ("out_of_sample_bps", idle),
        ("grid_bps", t.absent("grid_policy_id")),
        ("unleaned_bps", t.absent("unleaned_policy_id")),
    ):
        yield name, "not 0 without a trade", (absent | untested) & (t[name] != 0)
    for name, z, words in (
        ("verdict", "difference_z", TUNED_VERDICTS),
        ("leaning_verdict", "leaning_z", LEANING_VERDICTS),
        ("hold_verdict", "hold_z", HOLD_VERDICTS),
    ):
        first, second, _ = words
        yield name, "unknown", ~t.among(name, words)
        yield name, f"not what {z} says", t.among(name, (first,)) & ~(t[z] >= SURE_Z)
        yield name, f"not what {z} says", t.among(name, (second,)) != (t[z] <= -SURE_Z)
