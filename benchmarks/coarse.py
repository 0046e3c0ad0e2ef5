"""How wrong coarse candles are: the same entries on 1m candles and on the 5m candles made of them, policy by policy.

Needs a home with 1m candles (`--home`): a generated random walk has no wicks worth the name and would flatter. Entries are
every full hour at which a token traded, calls or not, so that there are enough of them; their windows overlap. Both replays
enter at the same moment and price. What then differs comes from the candles alone.
"""

import argparse
import json
from collections import defaultdict
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from benchmarks import measuring
from benchmarks.market import MINUTE_MS
from quantbot_pipeline import vocabulary
from quantbot_pipeline.home import Home
from quantbot_pipeline.market.candle_footer import COLUMNS
from quantbot_pipeline.replay import kernel, results
from quantbot_pipeline.replay.compile import compile_policies
from quantbot_pipeline.replay.policies import Policy, canonical_json
from quantbot_pipeline.replay.statistics import cost_per_side, realized_return_bps
from quantbot_pipeline.search.grid import Grid
from quantbot_pipeline.settings import Settings

STEP_MS, EVERY_MS = 5 * MINUTE_MS, 60 * MINUTE_MS
COST = cost_per_side(30, 10)


class _Inputs(NamedTuple):
    """One-minute candles, token after token; where each token lies; each entry's token and alert (UTC ms)."""

    candles: results.Candles
    bounds: npt.NDArray[np.int64]
    token: npt.NDArray[np.int64]
    alert: npt.NDArray[np.int64]


def run(options: argparse.Namespace) -> None:
    """Compare and print, per kind of policy, how often and by how much the results differ."""
    measuring.title("Coarse candles: 5m against 1m, entries alike")
    if options.home is None:
        print("left out: give --home with a home that has 1m candles")
        return
    inputs = _stored(Home(Settings(home=options.home)))
    policies = Grid().multiply()
    fine = _replay(inputs.candles, inputs.bounds, inputs, MINUTE_MS, policies)
    coarse = _replay(*_aggregated(inputs), inputs, STEP_MS, policies)
    both = (fine[0].status == vocabulary.INCLUDED) & (coarse[0].status == vocabulary.INCLUDED)
    alike = np.flatnonzero(both & (fine[0].p0 == coarse[0].p0) & (fine[0].entry_ts == coarse[0].entry_ts))
    print(f"{len(alike)} entries compared on {len(inputs.bounds) - 1} tokens, {len(both) - len(alike)} left out\n")
    p0 = fine[0].p0[alike, None]
    exits = [outcomes.at(alike) for _, outcomes in (fine, coarse)]
    realized = [realized_return_bps(e.px, p0, COST) for e in exits]
    # Whether a window counts as complete depends on the interval; either way the position is sold at its end.
    reasons = [np.minimum(e.reason, vocabulary.HORIZON) for e in exits]
    columns = defaultdict(list)
    for p, policy in enumerate(policies):
        columns[_family(policy)].append(p)
    measuring.table(
        ("", "policies", "return differs", "reason differs", "mean 5m - 1m, bps", "median |diff|", "95 % |diff|"),
        [_row(kind, realized, reasons, np.array(chosen)) for kind, chosen in columns.items()],
    )


def _row(kind: str, realized: list, reasons: list, chosen: npt.NDArray[np.int64]) -> tuple[object, ...]:
    difference = (realized[1] - realized[0])[:, chosen].ravel()
    differs = np.abs(difference) > 1e-6
    size = np.abs(difference[differs]) if differs.any() else np.zeros(1)
    other = (reasons[1] != reasons[0])[:, chosen].mean()
    return (
        kind,
        len(chosen),
        f"{differs.mean():.1%}",
        f"{other:.1%}",
        f"{difference.mean():+.1f}",
        f"{np.median(size):.1f}",
        f"{np.quantile(size, 0.95):.1f}",
    )


def _family(policy: Policy) -> str:
    """The kind, and what of it matters to coarse candles: how tight it trails."""
    raw = json.loads(canonical_json(policy))
    trails = [rule["trail_pct"] for rule in raw.get("policies", [raw]) if "trail_pct" in rule]
    return raw["kind"] + (f", trails by {max(trails):.0%}" if trails else "")


def _replay(
    candles: results.Candles,
    bounds: npt.NDArray[np.int64],
    inputs: _Inputs,
    interval_ms: int,
    policies: list[Policy],
) -> tuple[results.Truth, results.Outcomes]:
    token, alert = inputs.token, inputs.alert
    truth, outcomes = results.empty_truth(len(alert)), results.empty_outcomes(len(alert), len(policies))
    rows = np.arange(len(alert))
    exits = kernel.replay(
        candles,
        alert,
        bounds[token],
        bounds[token + 1],
        rows,
        results.Rules(interval_ms=interval_ms),
        compile_policies(policies),
        truth,
        outcomes,
    )
    return truth, results.with_exits(outcomes, [(rows, exits)])


def _aggregated(inputs: _Inputs) -> tuple[results.Candles, npt.NDArray[np.int64]]:
    """The 5m candles of the same tokens: first open, highest high, lowest low, last close; no empty ones."""
    candles = inputs.candles
    bucket = candles.ts // STEP_MS
    token = np.repeat(np.arange(len(inputs.bounds) - 1), np.diff(inputs.bounds))
    starts = np.flatnonzero(np.r_[True, (np.diff(bucket) != 0) | (np.diff(token) != 0)])
    last = np.r_[starts[1:], len(bucket)] - 1
    five = results.Candles(
        bucket[starts] * STEP_MS,
        candles.open[starts],
        np.maximum.reduceat(candles.high, starts),
        np.minimum.reduceat(candles.low, starts),
        candles.close[last],
    )
    return five, np.searchsorted(token[starts], np.arange(len(inputs.bounds)))


def _stored(lab: Home) -> _Inputs:
    files = sorted((lab.candles.folder / "interval=1m").glob("month=*/candles.parquet"))
    if not files:
        raise SystemExit(f"{lab.candles.folder}: no 1m candles")
    table = pq.read_table(files, partitioning=None).sort_by([("mint", "ascending"), ("ts_ms", "ascending")])
    mints = table["mint"].combine_chunks().dictionary_encode()
    bounds = np.r_[0, np.cumsum(np.bincount(mints.indices.to_numpy()))].astype(np.int64)
    hourly = np.flatnonzero(table["ts_ms"].to_numpy() % EVERY_MS == 0)
    token, alert = mints.indices.to_numpy()[hourly].astype(np.int64), table["ts_ms"].to_numpy()[hourly] - MINUTE_MS
    candles = results.Candles(*(table[name].to_numpy() for name in COLUMNS))
    return _Inputs(candles, bounds, token, alert)
