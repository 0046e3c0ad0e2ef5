"""Trades as a table: one row for each policy and included call.

Belongs here: which columns a trade has. The formulas are in `statistics`. Source: docs/semantics.md, "Policies".
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quantbot_pipeline.replay.results import Exits, Outcomes, Truth
from quantbot_pipeline.replay.statistics import gross_return_bps, is_stop_out, realized_return_bps, tail_capture
from quantbot_pipeline.replay.truth import included_rows
from quantbot_pipeline.vocabulary import EXIT_REASONS


class Trades(NamedTuple):
    """Per included call and policy, shape (C, P), in basis points and ms; `tail_capture` is NaN where undefined."""

    exits: Exits
    gross_bps: npt.NDArray[np.float64]
    realized_bps: npt.NDArray[np.float64]
    stop_out: npt.NDArray[np.bool_]
    exposed_ms: npt.NDArray[np.int64]
    tail_capture: npt.NDArray[np.float64]


def trades_of(truth: Truth, outcomes: Outcomes, c: float) -> Trades:
    """Returns and flags of every (included call, policy)."""
    rows = included_rows(truth)
    p0, exits = truth.p0[rows, None], outcomes.at(rows)
    gross = gross_return_bps(exits.px, p0)
    return Trades(
        exits=exits,
        gross_bps=gross,
        realized_bps=realized_return_bps(exits.px, p0, c),
        stop_out=is_stop_out(exits.reason, gross),
        exposed_ms=exits.ts - truth.entry_ts[rows, None],
        tail_capture=tail_capture(gross, truth.peak[rows, None] / p0),
    )


def trades_table(
    calls: pa.Table,
    truth: Truth,
    outcomes: Outcomes,
    policy_ids: list[str],
    c: float,
    other_order: Outcomes | None = None,
    *,
    other_is_optimistic: bool = True,
    raised: npt.NDArray[np.bool_] | None = None,
) -> pa.Table:
    """One row per (policy, included call), policies in the given order; columns as the `trades` artifact without `run_id`.

    `other_order` holds the outcomes of the order that `outcomes` does not, when both orders inside a candle were
    replayed; it fills `optimistic_return_bps` and `ambiguous`. raised (C, P): trades that are ambiguous whatever the orders say.
    """
    rows = included_rows(truth)
    trades = trades_of(truth, outcomes, c)
    exits = trades.exits
    kept = calls.take(pa.array(rows))
    n, p = len(rows), len(policy_ids)

    def flat(matrix: npt.NDArray) -> npt.NDArray:
        return np.ascontiguousarray(matrix.T).reshape(-1)

    def repeated(values: npt.NDArray) -> npt.NDArray:
        return np.tile(values, p)

    def text(values: pa.ChunkedArray) -> pa.ChunkedArray:
        return pa.chunked_array(values.chunks * p, type=values.type)

    capture = flat(trades.tail_capture)
    ambiguous = optimistic = pa.nulls(n * p)
    if other_order is not None:
        other = trades_of(truth, other_order, c)
        optimistic = pa.array(flat((other if other_is_optimistic else trades).realized_bps))
        a, b = exits, other.exits
        differ = (a.px != b.px) | (a.ts != b.ts) | (a.reason != b.reason)
        ambiguous = pa.array(flat(differ if raised is None else differ | raised[rows]))
    return pa.table(
        {
            "policy_id": pa.array(policy_ids, pa.string()).take(pa.array(np.repeat(np.arange(p), n))),
            "call_id": text(kept["call_id"]),
            "entry_ts_ms": repeated(truth.entry_ts[rows]),
            "entry_px": repeated(truth.p0[rows]),
            "exit_ts_ms": flat(exits.ts),
            "exit_px": flat(exits.px),
            "exit_reason": pa.array(EXIT_REASONS).take(pa.array(flat(exits.reason))),
            "realized_return_bps": flat(trades.realized_bps),
            "stop_out": flat(trades.stop_out),
            "max_adverse_excursion_bps": flat(exits.mae_bps),
            "time_exposed_ms": flat(trades.exposed_ms),
            "tail_capture": pa.array(capture, mask=np.isnan(capture)),
            "caller_name": text(kept["caller_name"]),
            "gross_return_bps": flat(trades.gross_bps),
            "fills": flat(exits.fills).astype(np.int64),
            "optimistic_return_bps": optimistic.cast(pa.float64()),
            "ambiguous": ambiguous.cast(pa.bool_()),
        }
    )


def chosen_trades_table(calls: pa.Table, truth: Truth, outcomes: Outcomes, policy_ids: pa.Array, c: float) -> pa.Table:
    """The trade of one policy on each included call, in call order; outcomes (C, 1) and policy_ids (C,) are those of the call."""
    rows = included_rows(truth)
    table = trades_table(calls, truth, outcomes, [""], c)
    return table.set_column(table.schema.get_field_index("policy_id"), "policy_id", policy_ids.take(pa.array(rows)))
