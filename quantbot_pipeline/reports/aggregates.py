"""The statistics of trades that lie in artifacts, made by the same kernel that makes them in a run.

Belongs here: how rows of `trades` become what the kernel takes. Does not: any formula. Source: docs/semantics.md, "Aggregates".
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

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

    Sums run in the order of the returns, so the rows may come in any order. A statistic that its trades do not give is null.
    """
    if not trades.num_rows:
        return []
    rows, group = _groups(trades, keys)
    counts = np.bincount(group, minlength=len(rows)).tolist()
    found = statistics_of(trades, group, len(rows))
    at = [STATS.index(name) for name in names]
    return [
        row | {"trades_count": n} | dict(zip(names, map(_or_null, values[at].tolist()), strict=True))
        for row, n, values in zip(rows, counts, found, strict=True)
    ]


def _groups(table: pa.Table, keys: Sequence[str]) -> tuple[list[dict[str, Any]], npt.NDArray[np.int64]]:
    """Return the distinct values of the keys in their order, and which of them each row has."""
    code = np.zeros(table.num_rows, np.int64)
    values = []
    for key in keys:
        coded = table[key].combine_chunks().dictionary_encode()
        order = pc.array_sort_indices(coded.dictionary).to_numpy()
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        values.append(coded.dictionary.take(pa.array(order)).to_pylist())
        code = code * len(order) + rank[coded.indices.to_numpy()]
    distinct, group = np.unique(code, return_inverse=True)
    places = np.unravel_index(distinct, [len(found) for found in values])
    rows = [
        {key: found[at] for key, found, at in zip(keys, values, place, strict=True)}
        for place in zip(*(column.tolist() for column in places), strict=True)
    ]
    return rows, group.astype(np.int64)


def statistics_of(trades: pa.Table, group: npt.NDArray[np.int64], groups: int) -> npt.NDArray[np.float64]:
    """Return STATS of each group of trades, shape (groups, len(STATS)); NaN where undefined."""
    made = np.full((groups, len(STATS)), np.nan)
    facts = _facts(trades)
    order = np.lexsort([*facts.T[::-1], group]).astype(np.uint32)
    ends = np.cumsum(np.bincount(group, minlength=groups)).tolist()
    room = [np.empty(trades.num_rows) for _ in range(4)]
    for i, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        if end > start:
            statistics.fill_statistics(facts, order[start:end], *room, made[i])
    return made


def _facts(trades: pa.Table) -> npt.NDArray[np.float64]:
    capture = trades["tail_capture"].to_numpy().astype(float)
    stopped = trades["stop_out"].to_numpy().astype(bool)
    ended = pc.equal(trades["exit_reason"], EXIT_REASONS[DATA_END]).to_numpy().astype(bool)
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
