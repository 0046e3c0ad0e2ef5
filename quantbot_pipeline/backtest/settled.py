"""Outcomes of calls whose windows have ended, for scoring: read from runs that measured them, replayed where none did.

Belongs here: where a month's outcomes come from. Does not: what they say of a call; that is in `market.features.outcomes`.
"""

from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quantbot_pipeline.artifacts.schemas import PATHS
from quantbot_pipeline.backtest.inputs import planned, reach_ms
from quantbot_pipeline.backtest.record import Record
from quantbot_pipeline.backtest.replaying import replay_month
from quantbot_pipeline.catalog.catalog import latest_runs_with
from quantbot_pipeline.config import BacktestConfig
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.home import Home
from quantbot_pipeline.market.calls import MonthCalls, month_statistics, read_calls
from quantbot_pipeline.market.candle_files import month_file
from quantbot_pipeline.market.features.outcomes import Outcomes
from quantbot_pipeline.months import month_of, month_range, month_start_ms, next_month
from quantbot_pipeline.runs.manifest import RunDirectory, RunManifest, read_manifest
from quantbot_pipeline.runs.verify import read_artifact
from quantbot_pipeline.specs import KINDS
from quantbot_pipeline.vocabulary import INCLUDED

COLUMNS = ("caller_name", "entry_ts_ms", "hit_2x", "peak_multiple")
SCHEMA = pa.schema([PATHS.field(name) for name in COLUMNS])
WINDOW = tuple(name for name in KINDS["path-only"].depends_on if name != "activity_move_pct")


class _Measured(NamedTuple):
    """A run that measured a month's calls."""

    run_dir: RunDirectory
    manifest: RunManifest


def settled_outcomes(home: Home, config: BacktestConfig, until: int) -> Outcomes:
    """Return the outcomes of the store's calls whose windows can have ended at `until` (UTC ms), by the time of the calls.

    A month's newest run of the same window counts, if the month has as many calls as then and its candles are older than the run;
    any other month is replayed.
    """
    calls, _, liquidity = read_calls(home.calls, 0, until - config.horizon_ms)
    alert, parts = calls["alert_ts_ms"].to_numpy(), []
    measured = _measured(home, config) if len(alert) else {}
    counts = month_statistics(home.calls)
    start = 0
    while start < len(alert):
        month = month_of(int(alert[start]))
        end = int(np.searchsorted(alert, month_start_ms(next_month(month))))
        known = measured.get(month)
        # The last month may be cut by `until`: its run must hold all its calls, of which the later ones do not count.
        if known is not None and _is_fresh(home, config, known, counts[month]["calls"], int(alert[end - 1])):
            parts.append(_read(known))
        else:
            parts.append(
                _replayed(home, config, month, MonthCalls(calls.slice(start, end - start), {}, liquidity[start:end]))
            )
        start = end
    joined = pa.concat_tables(parts) if parts else None
    if joined is None:
        return Outcomes([], np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(0))
    return Outcomes(
        joined["caller_name"].to_pylist(),
        joined["entry_ts_ms"].to_numpy(),
        joined["hit_2x"].to_numpy(),
        joined["peak_multiple"].to_numpy(),
    )


def _measured(home: Home, config: BacktestConfig) -> dict[str, _Measured]:
    """Return the newest run of each month that measured paths under the same window."""
    try:
        run_dirs = latest_runs_with(home.catalog, "paths", limit=100_000)
    except InputError:
        return {}
    wanted, found = {name: getattr(config, name) for name in WINDOW}, dict[str, _Measured]()
    for run_dir in run_dirs:
        month = run_dir.split("/")[0]
        if month in found:
            continue
        manifest = read_manifest(home.runs.open(run_dir))
        parameters = manifest.parameters
        if all(parameters.get(name) == value for name, value in wanted.items()) and "from_ms" not in parameters:
            found[month] = _Measured(home.runs.open(run_dir), manifest)
    return found


def _is_fresh(home: Home, config: BacktestConfig, known: _Measured, calls: int, last: int) -> bool:
    """Whether a run measured all calls of its month, on the candles that the store has now."""
    made = datetime.fromisoformat(known.manifest.started_at or known.manifest.created_at).astimezone(UTC).timestamp()
    months = month_range(known.manifest.month, month_of(last + reach_ms(config)))
    files = [month_file(home.candles.folder, config.interval, month) for month in months]
    changed = max((file.stat().st_mtime for file in files if file.exists()), default=0.0)
    return known.manifest.dataset.calls_count == calls and changed < made


def _read(known: _Measured) -> pa.Table:
    return read_artifact(known.run_dir, known.manifest, "paths", COLUMNS).select(COLUMNS)


def _replayed(home: Home, config: BacktestConfig, month: str, read: MonthCalls) -> pa.Table:
    inputs = planned(home, month, config, read)
    if inputs.broken:
        raise InputError(inputs.broken)
    truth = replay_month(home, inputs, config, [], Record()).truth
    rows: npt.NDArray[np.int64] = np.flatnonzero(truth.status == INCLUDED)
    columns = {
        "caller_name": read.calls["caller_name"].take(pa.array(rows)),
        "entry_ts_ms": truth.entry_ts[rows],
        "hit_2x": truth.t_multiple[rows, 0] >= 0,
        "peak_multiple": truth.peak[rows] / truth.p0[rows],
    }
    return pa.table(columns).cast(SCHEMA)
