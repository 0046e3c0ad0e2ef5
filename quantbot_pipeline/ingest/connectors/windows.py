"""Which candles the calls of the store still miss: their windows, less what the store has and what was answered before.

Belongs here: arithmetic of windows and slots; a slot is the open time of a candle. Does not: how a source is asked.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from quantbot_pipeline.config import BacktestConfig
from quantbot_pipeline.ingest.connectors.common import Span, Token
from quantbot_pipeline.market.candle_files import month_file, readable
from quantbot_pipeline.market.opening import opened
from quantbot_pipeline.months import month_of, month_range

Slots = npt.NDArray[np.int64]


def windows_of(calls: pa.Table, step: int, horizon_ms: int, until_ms: int) -> dict[Token, list[Span]]:
    """Return the windows of every token, those that touch joined, on the grid of `step`, and no later than `until_ms`.

    A window begins with the call. It ends where a window ends that is entered as late as the configuration lets it.
    """
    length = BacktestConfig().max_entry_delay_ms + step + horizon_ms  # one step more: an entry at the close
    last = until_ms // step * step
    spans: defaultdict[str, list[Span]] = defaultdict(list)
    chains: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for mint, chain, alert in zip(*(calls[name].to_pylist() for name in ("mint", "chain", "alert_ts_ms")), strict=True):
        chains[mint][chain or ""] += 1
        start = alert // step * step
        if start < last:
            spans[mint].append(Span(start, min(-(-(alert + length) // step) * step, last)))
    return {Token(mint, _chain(chains[mint])): joined(spans[mint]) for mint in sorted(spans)}


def _chain(found: Counter[str]) -> str:
    """The chain that most calls of a token say; of equals the first by name."""
    said = sorted((-n, name) for name, n in found.items() if name and name != "evm")
    return said[0][1] if said else ""


def joined(spans: Iterable[Span]) -> list[Span]:
    """Return stretches in their order, those that overlap or touch as one."""
    result: list[Span] = []
    for span in sorted(spans):
        if result and span.start <= result[-1].end:
            result[-1] = Span(result[-1].start, max(result[-1].end, span.end))
        else:
            result.append(span)
    return result


def missing_slots(span: Span, step: int, stored: Slots, kept: Sequence[Span]) -> list[int]:
    """Return the slots of a window that neither the store nor a kept answer has."""
    slots = np.arange(span.start, span.end, step, dtype=np.int64)
    open_ = ~np.isin(slots, stored)
    for answered in kept:
        open_ &= (slots < answered.start) | (slots >= answered.end)
    found: list[int] = slots[open_].tolist()
    return found


def stored_slots(store: Path, interval: str, windows: Mapping[Token, Sequence[Span]]) -> dict[str, Slots]:
    """Return the open times that the candle store has of each token in the months of its windows."""
    by_month: defaultdict[str, set[str]] = defaultdict(set)
    for token, spans in windows.items():
        for span in spans:
            for month in month_range(month_of(span.start), month_of(span.end - 1)):
                by_month[month].add(token.mint)
    found: defaultdict[str, list[Slots]] = defaultdict(list)
    for month, mints in sorted(by_month.items()):
        path = month_file(store, interval, month)
        if not path.exists():
            continue
        with readable(path):
            table = pq.read_table(
                opened(path),
                columns=["mint", "ts_ms"],
                filters=[("mint", "in", sorted(mints))],
                page_checksum_verification=True,
            ).combine_chunks()
        grouped = table.group_by("mint", use_threads=False).aggregate([("ts_ms", "list")])
        for mint, times in zip(grouped["mint"].to_pylist(), grouped["ts_ms_list"], strict=True):
            found[mint].append(times.values.to_numpy())
    return {mint: np.concatenate(parts) for mint, parts in found.items()}
