"""The statistics of trades that lie in artifacts, made by the same kernel that makes them in a run.

Belongs here: how rows of `trades` become what the kernel takes. Does not: any formula. Source: docs/semantics.md, "Aggregates".
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quantbot_pipeline.replay import statistics
from quantbot_pipeline.replay.statistics import STATS
from quantbot_pipeline.vocabulary import DATA_END, EXIT_REASONS

# Columns of `trades` from which the statistics are made.
NEEDED = (
    "exit_reason",
    "realized_return_bps",
    "stop_out",
    "max_adverse_excursion_bps",
    "time_exposed_ms",
    "tail_capture",
)


def statistics_by(trades: pa.Table, keys: Sequence[str], names: Sequence[str] = STATS) -> list[dict[str, Any]]:
    """Return one row per distinct value of the keys, in their order: the keys, `trades_count`, and statistics of its trades.

    Sums run in the order of the rows. A statistic that its trades do not give is null.
    """
    if not trades.num_rows:
        return []
    table = trades.select(keys).combine_chunks()
    distinct = table.group_by(list(keys), use_threads=False).aggregate([]).sort_by([(key, "ascending") for key in keys])
    rows: list[dict[str, Any]] = distinct.to_pylist()
    place = {tuple(row[key] for key in keys): i for i, row in enumerate(rows)}
    group = np.fromiter(
        (place[values] for values in zip(*(table[key].to_pylist() for key in keys), strict=True)),
        dtype=np.int64,
        count=table.num_rows,
    )
    counts = np.bincount(group, minlength=len(rows)).tolist()
    found = statistics_of(trades, group, len(rows))
    at = [STATS.index(name) for name in names]
    return [
        row | {"trades_count": n} | dict(zip(names, map(_or_null, values[at].tolist()), strict=True))
        for row, n, values in zip(rows, counts, found, strict=True)
    ]


def statistics_of(trades: pa.Table, group: npt.NDArray[np.int64], groups: int) -> npt.NDArray[np.float64]:
    """Return STATS of each group of trades, shape (groups, len(STATS)); NaN where undefined."""
    made = np.full((groups, len(STATS)), np.nan)
    facts = _facts(trades)
    order = np.argsort(group, kind="stable").astype(np.uint32)
    ends = np.cumsum(np.bincount(group, minlength=groups)).tolist()
    room = [np.empty(trades.num_rows) for _ in range(4)]
    for i, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        if end > start:
            statistics.fill_statistics(facts, order[start:end], *room, made[i])
    return made


def _facts(trades: pa.Table) -> npt.NDArray[np.float64]:
    capture = trades["tail_capture"].to_numpy(zero_copy_only=False).astype(float)
    stopped = trades["stop_out"].to_numpy(zero_copy_only=False).astype(bool)
    ended = np.array(trades["exit_reason"].to_pylist(), dtype=object) == EXIT_REASONS[DATA_END]
    facts = np.zeros((trades.num_rows, statistics.FACTS))
    facts[:, statistics.REALIZED] = trades["realized_return_bps"].to_numpy()
    facts[:, statistics.DRAWDOWN] = trades["max_adverse_excursion_bps"].to_numpy()
    facts[:, statistics.HELD] = trades["time_exposed_ms"].to_numpy()
    facts[:, statistics.SHARE] = np.nan_to_num(capture)
    facts[:, statistics.FLAGS] = (
        stopped * statistics.STOPPED + ended * statistics.ENDED + ~np.isnan(capture) * statistics.PEAKED
    )
    return facts


def _or_null(value: float) -> float | None:
    return None if np.isnan(value) else value
