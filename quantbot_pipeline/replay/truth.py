"""Truth metrics as a table: what the price did after each included call, and why the other calls are left out.

The numbers come from `engine`; here they get their names, units and nulls. Source: docs/semantics.md, "Truth layer".
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quantbot_pipeline.replay.results import Rules, Truth
from quantbot_pipeline.vocabulary import CALL_STATUSES, INCLUDED


def included_rows(truth: Truth) -> npt.NDArray[np.int64]:
    """Indices of the calls that have a window, ascending."""
    return np.flatnonzero(truth.status == INCLUDED)


def excluded(status: npt.NDArray[np.uint8]) -> list[tuple[int, str]]:
    """(row, reason) of every call that is left out, in call order; `status` is that of `Truth`, or a part of it."""
    return [(int(i), CALL_STATUSES[status[i]]) for i in np.flatnonzero(status != INCLUDED)]


def coverage(truth: Truth, rules: Rules) -> npt.NDArray[np.float64]:
    """Candles in the window / `floor(horizon_ms / interval_ms)`, per call."""
    return truth.candles / max(1, rules.horizon_ms // rules.interval_ms)


def paths_table(calls: pa.Table, truth: Truth, rules: Rules, interval: str) -> pa.Table:
    """One row per included call, in call order; columns as the `paths` artifact without `run_id`.

    calls: (C,) rows with call_id, caller_name, mint, chain, alert_ts_ms; truth: (C,) as filled by `engine.replay`.
    """
    rows = included_rows(truth)
    kept = calls.take(pa.array(rows))
    alert = kept["alert_ts_ms"].to_numpy()
    p0, entry = truth.p0[rows], truth.entry_ts[rows]
    columns: dict[str, object] = {
        name: kept[name] for name in ("call_id", "caller_name", "mint", "chain", "alert_ts_ms")
    }
    columns |= {"interval": pa.repeat(pa.scalar(interval), len(rows)), "p0": p0}
    for i, k in enumerate((2, 3, 4)):
        touched = truth.t_multiple[rows, i]
        columns |= {f"hit_{k}x": touched >= 0, f"t_{k}x_ms": _times(touched)}
    to_2x = truth.dd_to_2x_bps[rows]
    activity = truth.t_activity[rows]
    columns |= {
        "dd_bps": truth.dd_bps[rows],
        "dd_to_2x_bps": pa.array(to_2x, mask=np.isnan(to_2x)),
        "alert_to_activity_ms": pa.array(activity - alert, mask=activity < 0),
        "peak_multiple": truth.peak[rows] / p0,
        "entry_ts_ms": entry,
        "entry_delay_ms": entry - alert,
        "t_peak_ms": _times(truth.t_peak[rows]),
        "observed_ms": truth.observed[rows],
        "coverage": coverage(truth, rules)[rows],
        "censored": truth.censored[rows].astype(bool),
    }
    return pa.table(columns)


def _times(ms: npt.NDArray[np.int64]) -> pa.Array:
    return pa.array(ms, mask=ms < 0)
