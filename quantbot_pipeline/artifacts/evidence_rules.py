"""What must be true of the artifacts of the evidence, whatever the market did. Source: docs/evidence.md."""

from collections.abc import Iterator

import numpy as np

from quantbot_pipeline.artifacts.columns import Columns, Fault, above, apart, counts, named, outside, rates
from quantbot_pipeline.vocabulary import VERDICTS


def evidence(t: Columns) -> Iterator[Fault]:
    claimed, e = t["verdict"] == "evidence", t["e_value"]
    yield from named(t, "caller_name")
    yield "caller_name", "repeated", t.repeated("caller_name")
    yield "verdict", "unknown", ~t.among("verdict", VERDICTS)
    yield "verdict", "evidence of a caller that was not tested", claimed & ~t["tested"]
    yield "e_value", "below the threshold of a claimed caller", claimed & above(t["e_threshold"], e)
    yield "e_value", "not the mean of e_family and e_choice", apart(e, (t["e_family"] + t["e_choice"]) / 2)
    yield "e_threshold", "not above 0", ~(t["e_threshold"] > 0)
    yield from counts(t, "e_value", "e_zero", "e_known", "e_family", "e_choice", "e_none", "e_recent")
    yield from counts(t, "calls", "units", "mints", "missing_units", "unresolved_units", "choice_units")
    yield "units", "more than the calls", t["units"] + t["missing_units"] + t["unresolved_units"] > t["calls"]
    yield "mints", "more than the units", t["mints"] > t["units"]
    yield "choice_units", "more than the units", t["choice_units"] > t["units"]
    yield "calls_needed", "without towards, or the other way round", t.absent("calls_needed") != t.absent("towards")
    yield "calls_needed", "though the verdict is found", ~t.absent("calls_needed") & (t["verdict"] != "inconclusive")
    yield "calls_needed", "below 1", ~t.absent("calls_needed") & (t["calls_needed"] < 1)
    yield "towards", "unknown", ~(t.among("towards", ("evidence", "none")) | t.absent("towards"))
    yield "spa_p", "not in (0, 1]", (t["spa_p"] <= 0) | (t["spa_p"] > 1)
    yield from rates(t, "deflated_sharpe")
    low, mean, high = (t[f"choice_{name}_bps"] for name in ("low", "mean", "high"))
    yield "choice_low_bps", "above choice_high_bps", above(low, high)
    yield "choice_mean_bps", "without choice_units, or the other way round", np.isnan(mean) != (t["choice_units"] == 0)
    for k in (2, 3, 4):
        hits, names = t[f"hit_{k}x"], [f"hit_{k}x_{part}" for part in ("low", "shrunk", "high")]
        yield f"hit_{k}x", "negative or more than the units", outside(hits, 0, np.inf) | (hits > t["units"])
        yield from rates(t, *names)
        yield names[1], "without units, or the other way round", t.absent(names[1]) != (t["units"] == 0)
        yield names[0], f"above {names[2]}", above(t[names[0]], t[names[2]])
    yield from counts(t, "median_ms_to_2x", "break_even_share", "break_even_usd", "break_even_latency_ms")


def evidence_times(t: Columns) -> Iterator[Fault]:
    yield from named(t, "caller_name")
    yield "t_ms", "repeated for one caller", t.repeated("caller_name", "t_ms")
    yield from rates(t, "hit_2x", "hit_low", "hit_high", "stop", "silent")
    yield "hit_2x", "with stop and silent above 1", above(t["hit_2x"] + t["stop"] + t["silent"], np.ones(t.rows))
    yield "hit_low", "above hit_2x", above(t["hit_low"], t["hit_2x"])
    yield "hit_high", "below hit_2x", above(t["hit_2x"], t["hit_high"])
    yield from counts(t, "at_risk")


def evidence_costs(t: Columns) -> Iterator[Fault]:
    yield from named(t, "caller_name")
    yield "kind", "unknown", ~t.among("kind", ("size", "latency"))
    yield "value", "repeated for one caller", t.repeated("caller_name", "kind", "value")
    yield "units", "less than 1", t["units"] < 1
    yield "same_entry", "without a latency, or the other way round", t.absent("same_entry") != (t["kind"] == "size")
    yield from rates(t, "same_entry")
    yield from counts(t, "value", "se_bps")
    yield "mean_bps", "below -10,000", above(np.full(t.rows, -10_000.0), t["mean_bps"])
