"""What is odd in a month's candles and calls, and which calls it touches. Source: docs/anomalies.md."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from quantbot_pipeline.anomalies.bursts import call_bursts
from quantbot_pipeline.anomalies.calls import Calls
from quantbot_pipeline.anomalies.copies import copied_calls
from quantbot_pipeline.anomalies.findings import Finding, Span
from quantbot_pipeline.anomalies.ingested import deleted_calls, late_calls
from quantbot_pipeline.anomalies.regimes import regimes
from quantbot_pipeline.anomalies.touching import rows_of
from quantbot_pipeline.backtest.drifting import drift_findings
from quantbot_pipeline.backtest.earlier_runs import config_hash_of
from quantbot_pipeline.backtest.remembered import forget_others
from quantbot_pipeline.backtest.replaying import replay_month
from quantbot_pipeline.backtest.run import Run
from quantbot_pipeline.backtest.surveying import candle_findings, span_of, told_of
from quantbot_pipeline.backtest.writing import write_rows
from quantbot_pipeline.replay.policies import DEFAULT_POLICIES, parse_policy
from quantbot_pipeline.specs import KINDS
from quantbot_pipeline.vocabulary import INCLUDED, TIME_STOP

if TYPE_CHECKING:
    from quantbot_pipeline.backtest.replaying import Replayed

# Stop 20 %, take profit 100 %: a spike may set its stop, and its wins tell a caller's regime.
POLICY = DEFAULT_POLICIES[0]
KNOWN = "calls known at a month's end"


def make(run: Run) -> None:
    month, config = run.inputs.month, run.config
    calls, span = _calls_of(run), span_of(month, config)
    with run.record.phase("slice"):
        found = candle_findings(run.home, month, config)
    with run.record.phase("optimization"):
        found += [*_call_findings(calls, span), *drift_findings(run.home, month, config)]
        write_rows(run, "anomalies", list(rows_of(found, calls, span.interval_ms)))


def _call_findings(calls: Calls, span: Span) -> Iterator[Finding]:
    """Yield what is odd in the calls themselves."""
    for detect in (call_bursts, copied_calls, late_calls, deleted_calls, regimes):
        yield from detect(calls, span)


def _calls_of(run: Run) -> Calls:
    """Return all calls up to the month's end with what was known of them then; earlier months from the cache where it can."""
    month, policy = run.inputs.month, [parse_policy(POLICY)]
    config_hash = config_hash_of(KINDS["anomalies"], run.config, month)
    keys = [(KNOWN, inputs.month, inputs.fingerprint, config_hash) for inputs in run.earlier]
    for key, inputs in zip(keys, run.earlier, strict=True):
        if key not in run.cache:
            run.cache[key] = _known(run, replay_month(run.home, inputs, run.config, policy, run.record))
    parts = [*(run.cache[key] for key in keys), _known(run, run.replay(policy))]
    forget_others(run.cache, KNOWN, keys)
    late, missing = told_of(run.home, run.inputs, run.earlier)
    return Calls(*map(np.concatenate, zip(*parts, strict=True)))._replace(late=late, missing=missing)


def _known(run: Run, replayed: "Replayed") -> Calls:
    """Return a month's calls as its candles tell of them."""
    from quantbot_pipeline.replay.statistics import realized_return_bps

    truth, calls = replayed.truth, replayed.month.calls
    included = np.flatnonzero(truth.status == INCLUDED)
    exits = replayed.outcomes.at(included, 0)
    exit_ts, reason = np.full(calls.num_rows, -1, np.int64), np.full(calls.num_rows, TIME_STOP, np.uint8)
    win = np.zeros(calls.num_rows, bool)
    exit_ts[included], reason[included] = exits.ts, exits.reason
    win[included] = realized_return_bps(exits.px, truth.p0[included], run.cost) > 0
    return Calls(
        mint=np.array(calls["mint"].to_pylist(), dtype=object),
        caller=np.array(calls["caller_name"].to_pylist(), dtype=object),
        alert=calls["alert_ts_ms"].to_numpy(),
        status=truth.status,
        p0=truth.p0,
        entry=truth.entry_ts,
        end=truth.entry_ts + run.config.horizon_ms,
        t_peak=truth.t_peak,
        t_multiple=truth.t_multiple,
        dd_bps=truth.dd_bps,
        exit_ts=exit_ts,
        exit_reason=reason,
        win=win,
        late=np.zeros(calls.num_rows, bool),  # is made of the store, which later ingests change
        missing=np.zeros(calls.num_rows, bool),
    )
