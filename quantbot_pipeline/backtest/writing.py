"""Artifacts that several recipes write: truth, trades, summaries, rows; in pieces, so that memory stays bounded."""

from typing import Any

import numpy as np
import pyarrow as pa

from quantbot_pipeline.artifacts.schemas import ARTIFACTS
from quantbot_pipeline.backtest.features import with_candles
from quantbot_pipeline.backtest.inputs import PIECE, pieces
from quantbot_pipeline.backtest.replaying import Replayed
from quantbot_pipeline.backtest.run import Run
from quantbot_pipeline.replay.policies import Policy, canonical_json
from quantbot_pipeline.runs.commit import ArtifactWriter


def write_rows(run: Run, artifact: str, rows: list[dict[str, Any]]) -> None:
    schema = pa.schema([f for f in ARTIFACTS[artifact][1] if f.name != "run_id"])
    run.staged.write(artifact, pa.Table.from_pylist(rows, schema=schema))


def write_truth(run: Run, replayed: Replayed) -> None:
    from quantbot_pipeline.replay.truth import paths_table

    calls, truth = run.inputs.calls, replayed.truth
    with run.record.phase("execution"):
        with run.staged.writing("paths") as paths:
            for rows in pieces(calls.num_rows, PIECE):
                paths.add(paths_table(calls[rows], truth.of_calls(rows), replayed.rules, run.config.interval))
        with run.staged.writing("features") as features:
            if run.features is None or run.from_candles is None:
                raise ValueError("this recipe has no features")
            for piece in with_candles(run.features(), run.from_candles):
                features.add(piece)


def write_trades(run: Run, replayed: Replayed, policies: dict[str, Policy]) -> None:
    with run.staged.writing("trades") as trades:
        add_trades(run, trades, replayed, policies)


def add_trades(run: Run, trades: ArtifactWriter, replayed: Replayed, policies: dict[str, Policy]) -> None:
    """The trades of all policies, one policy after the other, made in pieces; policies of few calls are one piece."""
    from quantbot_pipeline.replay.trades import trades_table

    calls, truth, names = run.inputs.calls, replayed.truth, list(policies)
    at_once = max(1, PIECE // calls.num_rows)
    with run.record.phase("execution"):
        for first in range(0, max(1, len(names)), at_once):
            some = slice(first, first + at_once)
            for rows in pieces(calls.num_rows, PIECE):
                table = trades_table(
                    calls[rows],
                    truth.of_calls(rows),
                    replayed.outcomes.part(rows, some),
                    names[some],
                    run.cost,
                    None if replayed.other_order is None else replayed.other_order.part(rows, some),
                    other_is_optimistic=not replayed.rules.optimistic,
                    raised=None if replayed.raised is None else replayed.raised[rows, some],
                )
                trades.add(table)


def summary_rows(run: Run, replayed: Replayed, policies: dict[str, Policy]) -> list[dict[str, Any]]:
    """Statistics of every policy over all included calls."""
    from quantbot_pipeline.replay.statistics import STATS, aggregate
    from quantbot_pipeline.replay.truth import included_rows

    rows = included_rows(replayed.truth)
    ends = np.array([len(rows)], dtype=np.int64)
    stats = aggregate(replayed.truth, replayed.outcomes, rows, ends, run.cost)[0]
    calls = run.inputs.calls.num_rows
    counts = {
        "calls_processed": calls,
        "calls_excluded": calls - len(rows),
        "trades_count": len(rows),
        "censored_count": int(replayed.truth.censored[rows].sum()),
    }
    return [
        {"policy_id": name, "policy_params": canonical_json(policy), **counts}
        | {stat: None if np.isnan(value) else float(value) for stat, value in zip(STATS, values, strict=True)}
        for (name, policy), values in zip(policies.items(), stats, strict=True)
    ]
