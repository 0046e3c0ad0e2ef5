"""All candles of a month and of the days before, token by token, for whoever looks for what is odd in them.

Belongs here: which files are read, and in which order. Does not: what is odd; that is in `anomalies`.
"""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from quantbot_pipeline.anomalies.calls import Flags
from quantbot_pipeline.anomalies.findings import LOOK_BACK_MS, Finding, Series, Span
from quantbot_pipeline.anomalies.intervals import interval_mismatches
from quantbot_pipeline.anomalies.survey import Survey
from quantbot_pipeline.backtest.drifting import drift_inputs
from quantbot_pipeline.backtest.inputs import MonthInputs
from quantbot_pipeline.config import BacktestConfig
from quantbot_pipeline.home import Home
from quantbot_pipeline.market.candle_files import month_file
from quantbot_pipeline.market.candle_reader import month_content
from quantbot_pipeline.market.sightings import UNKNOWN, read_sightings
from quantbot_pipeline.market.tokens import TokenCandles, side_by_side, tokens_of
from quantbot_pipeline.months import month_start_ms, months_before, next_month
from quantbot_pipeline.vocabulary import INTERVALS_MS

LATE_MS = 48 * 3_600_000  # between the alert and its ingest


def span_of(month: str, config: BacktestConfig) -> Span:
    """Return the month that is looked at."""
    return Span(month_start_ms(month), month_start_ms(next_month(month)), INTERVALS_MS[config.interval])


def surveyed(home: Home, config: BacktestConfig, inputs: MonthInputs, earlier: Sequence[MonthInputs]) -> list[str]:
    """Return what changes when something does that a survey of the month reads beside the windows of its calls."""
    month, store = inputs.month, home.candles.folder
    candles = [month_content(store, config.interval, m) for m in (months_before(month, 1), month)]
    others = [f"{name} {month_content(store, name, month)}" for name in _other_intervals(home, month, config)]
    flags = hashlib.sha256(b"".join(flag.tobytes() for flag in told_of(home, inputs, earlier))).hexdigest()
    drift = drift_inputs(home, month, config)
    return [*candles, *others, flags, *drift]


def told_of(home: Home, inputs: MonthInputs, earlier: Sequence[MonthInputs]) -> tuple[Flags, Flags]:
    """Return which calls of the earlier months and of this one were taken in late, and which a later ingest misses, shapes (C,)."""
    found = read_sightings(home.calls, month_start_ms(next_month(inputs.month)))
    months = (*earlier, inputs)
    ids = pa.concat_arrays([chunk for m in months for chunk in m.calls["call_id"].chunks])
    alert = np.concatenate([m.calls["alert_ts_ms"].to_numpy() for m in months])
    at = pc.index_in(ids, value_set=pa.array(found.call_id, pa.string())).fill_null(-1).to_numpy(zero_copy_only=False)
    ingested = np.append(found.ingested, UNKNOWN)[at]
    return (ingested != UNKNOWN) & (ingested - alert > LATE_MS), np.append(found.missing, False)[at]


def candle_findings(home: Home, month: str, config: BacktestConfig) -> list[Finding]:
    """Return what is odd in the candles of a month, of all tokens, those without a call included."""
    span, store = span_of(month, config), home.candles.folder
    survey = Survey(span)
    before = tokens_of(store, config.interval, months_before(month, 1))
    recent = (token.since(span.start - LOOK_BACK_MS) for token in before)
    for earlier, own in side_by_side(recent, tokens_of(store, config.interval, month)):
        candles = own if earlier is None else earlier if own is None else earlier.followed_by(own)
        if candles is not None and len(candles.ts):
            survey.add(Series(*candles))
    found = survey.findings()
    for name in _other_intervals(home, month, config):
        found += _mismatches(home, month, config, name)
    return found


def _other_intervals(home: Home, month: str, config: BacktestConfig) -> list[str]:
    """Return the store's other intervals of the month that divide the run's, or are divided by it."""
    own = INTERVALS_MS[config.interval]
    return [
        name
        for name, length in INTERVALS_MS.items()
        if name != config.interval
        and (own % length == 0 or length % own == 0)
        and month_file(home.candles.folder, name, month).exists()
    ]


def _mismatches(home: Home, month: str, config: BacktestConfig, name: str) -> Iterator[Finding]:
    """Yield the tokens whose candles of another interval are not those of the run's."""
    own, other, store = INTERVALS_MS[config.interval], INTERVALS_MS[name], home.candles.folder
    span = span_of(month, config)
    for mine, theirs in side_by_side(tokens_of(store, config.interval, month), tokens_of(store, name, month)):
        if mine is None or theirs is None:
            continue
        pair: list[tuple[int, str, TokenCandles]] = [(own, config.interval, mine), (other, name, theirs)]
        (fine_ms, fine, below), (coarse_ms, coarse, above) = sorted(pair, key=lambda side: side[0])
        yield from interval_mismatches(Series(*above), Series(*below), coarse_ms, fine_ms, (coarse, fine), span)
