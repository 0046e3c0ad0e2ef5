"""Runs of many callers without a replay: made-up artifacts of real shape and size, committed through the real protocol.

Belongs here: what a dashboard over hundreds of callers must carry. Numbers are random but repeatable; a policy is one of the
default grid, so that its parameters parse.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.home import Home
from quantbot_pipeline.months import month_start_ms, months_before
from quantbot_pipeline.replay.policies import DEFAULT_POLICIES, canonical_json, parse_policy, policy_id
from quantbot_pipeline.runs.manifest import Dataset
from quantbot_pipeline.search.grid import Grid
from quantbot_pipeline.settings import Settings
from quantbot_pipeline.vocabulary import VERDICTS
from quantbot_pipeline_tests.support.builders import artifact_rows, commit_run

HOUR_MS = 3_600_000


class Crowd(NamedTuple):
    """How many of what, spread evenly over months that end with 2024-06."""

    callers: int = 500
    calls: int = 50_000
    months: int = 3


def commit_crowd(home: Path, crowd: Crowd) -> Home:
    """A cataloged home with full, V1, walk-forward and evidence runs of every month."""
    lab = Home(Settings(home=home))
    names = [f"caller {i:04}" for i in range(crowd.callers)]
    policies = [(policy_id(p), canonical_json(p)) for p in Grid().multiply()]
    replayed = [(policy_id(p), canonical_json(p)) for p in map(parse_policy, DEFAULT_POLICIES)]
    rng = np.random.default_rng(7)
    for i in range(crowd.months):
        month = months_before("2024-06", i)
        calls = _calls(rng, names, crowd.calls // crowd.months, month)
        truth = _paths(rng, calls)
        tables = {"paths": truth, "frontier": _frontier(rng, names, policies), **_replayed(rng, truth, replayed)}
        dataset = Dataset(
            from_=month, to=month, interval="5m", calls_count=len(calls), calls_excluded=0, fingerprint=month
        )
        common: dict[str, Any] = {"dataset": dataset}
        commit_run(lab.runs.folder, month, tables={"alerts": calls, **tables}, run_type="full", **common)
        for strategy, found in (
            ("v1-baseline", {"frontier": _v1(rng, names), "equity": _equity(rng, calls)}),
            ("walk-forward", {"walk_forward": _walk_forward(rng, names, policies)}),
            ("evidence", _evidence(rng, names)),
        ):
            parameters = {"config_hash": strategy, "strategy_id": strategy}
            commit_run(
                lab.runs.folder, month, tables={"alerts": calls, **found}, run_type="optimization",
                parameters=parameters, **common,
            )  # fmt: skip  # a table: what belongs together stands on one line
    sync(lab.catalog)
    return lab


def _calls(rng: np.random.Generator, names: list[str], n: int, month: str) -> pa.Table:
    alert = month_start_ms(month) + np.sort(rng.integers(0, 27 * 24 * HOUR_MS, n))
    return pa.table(
        {
            "call_id": [f"{month}-{i:06}" for i in range(n)],
            "mint": [f"mint-{month}-{i:06}" for i in range(n)],
            "caller_name": _pick(names, np.arange(n) % len(names)),
            "chain": pa.repeat("solana", n),
            "alert_ts_ms": alert,
            "created_at": pa.repeat("2024-01-01T00:00:00.000Z", n),
        }
    )


def _pick(texts: list[str], index: npt.NDArray[np.int64]) -> pa.Array:
    return pa.array(texts, pa.string()).take(pa.array(index))


def _paths(rng: np.random.Generator, calls: pa.Table) -> pa.Table:
    n = len(calls)
    alert = calls["alert_ts_ms"].to_numpy()
    peak = np.exp(np.abs(rng.normal(0, 0.7, n)))
    columns: dict[str, Any] = {name: calls[name] for name in ("call_id", "caller_name", "mint", "chain", "alert_ts_ms")}
    for k in (2, 3, 4):
        hit = peak >= k
        columns |= {f"hit_{k}x": hit, f"t_{k}x_ms": pa.array(alert + rng.integers(1, 48 * HOUR_MS, n), mask=~hit)}
    return pa.table(
        columns
        | {
            "interval": pa.repeat("5m", n), "p0": rng.uniform(0.1, 1, n), "dd_bps": -rng.uniform(0, 9_900, n),
            "peak_multiple": peak, "entry_ts_ms": alert + 60_000, "entry_delay_ms": np.full(n, 60_000),
            "observed_ms": np.full(n, 48 * HOUR_MS), "coverage": np.ones(n), "censored": np.zeros(n, bool),
        }
    )  # fmt: skip  # a table: what belongs together stands on one line


def _replayed(rng: np.random.Generator, truth: pa.Table, policies: list[tuple[str, str]]) -> dict[str, pa.Table]:
    n, p = len(truth), len(policies)
    total = n * p
    repeated = {
        name: pa.concat_arrays([truth[name].combine_chunks()] * p) for name in ("call_id", "entry_ts_ms", "caller_name")
    }
    trades = pa.table(
        {
            **repeated, "policy_id": _pick([name for name, _ in policies], np.repeat(np.arange(p), n)),
            "entry_px": np.ones(total), "exit_ts_ms": rng.integers(0, HOUR_MS, total), "exit_px": rng.uniform(0.5, 2, total),
            "exit_reason": pa.repeat("stop_loss", total), "realized_return_bps": rng.normal(0, 2_000, total),
            "stop_out": rng.random(total) < 0.3, "max_adverse_excursion_bps": -rng.uniform(0, 5_000, total),
            "time_exposed_ms": rng.integers(0, HOUR_MS, total), "gross_return_bps": np.zeros(total), "fills": np.ones(total, int),
        }
    )  # fmt: skip  # a table: what belongs together stands on one line
    counts = {name: [n] * p for name in ("calls_processed", "calls_excluded", "trades_count", "censored_count")}
    names = {"policy_id": [name for name, _ in policies], "policy_params": [text for _, text in policies]}
    return {"trades": trades, "summary": pa.table({**counts, **names})}


def _frontier(rng: np.random.Generator, names: list[str], policies: list[tuple[str, str]]) -> pa.Table:
    groups, p = len(names) + 1, len(policies)
    total = groups * p
    order = np.concatenate([rng.permutation(p) for _ in range(groups)])
    feasible = rng.random(total) < 0.2
    return pa.table(
        {
            **_stats(rng, total),
            "caller_name": _pick(["__all__", *names], np.repeat(np.arange(groups), p)),
            "policy_id": _pick([name for name, _ in policies], order),
            "policy_params": _pick([text for _, text in policies], order),
            "meets_constraints": feasible,
            "violations": _pick(["stop_out_rate", ""], feasible.astype(np.int64)),
            "rank": np.tile(np.arange(1, p + 1), groups),
            "is_pareto": rng.random(total) < 0.05,
        }
    )


def _stats(rng: np.random.Generator, n: int) -> dict[str, npt.NDArray[Any]]:
    """Statistics that every frontier row has."""
    counts = {name: rng.integers(5, 40, n) for name in ("trades", "calls_excluded", "distinct_mints", "censored_count")}
    values = ("objective_score", "avg_return_bps", "median_return_bps", "p95_drawdown_bps", "avg_time_exposed_ms")
    return {**counts, **{name: rng.normal(0, 1_000, n) for name in values}, "stop_out_rate": rng.random(n)}


def _v1(rng: np.random.Generator, names: list[str]) -> pa.Table:
    n = len(names)
    params = json.dumps({"max_hold_hrs": 48, "sl_mult": 0.9, "tp_mult": 2}, sort_keys=True, separators=(",", ":"))
    return pa.table(
        {
            **_stats(rng, n), "caller_name": names, "policy_id": pa.repeat("v1_tp2_sl0.9_h48", n),
            "policy_params": pa.repeat(params, n), "meets_constraints": np.ones(n, bool), "violations": pa.repeat("", n),
            "rank": np.ones(n, int), "is_pareto": np.zeros(n, bool), "objective_score": rng.normal(10_000, 900, n),
        }
    )  # fmt: skip  # a table: what belongs together stands on one line


def _equity(rng: np.random.Generator, calls: pa.Table) -> pa.Table:
    n = 2 * len(calls)
    twice = np.repeat(np.arange(len(calls)), 2)
    index = twice[np.argsort((twice % 500), kind="stable")]  # account after account, each in order of time
    return pa.table(
        {
            "caller_name": calls["caller_name"].take(pa.array(index)), "policy_id": pa.repeat("v1_tp2_sl0.9_h48", n),
            "ts_ms": calls["alert_ts_ms"].to_numpy()[index], "event": pa.repeat("close", n),
            "call_id": calls["call_id"].take(pa.array(index)), "size": np.full(n, 400.0), "cash": np.full(n, 9_000.0),
            "equity": rng.normal(10_000, 500, n),
        }
    )  # fmt: skip  # a table: what belongs together stands on one line


def _walk_forward(rng: np.random.Generator, names: list[str], policies: list[tuple[str, str]]) -> pa.Table:
    groups = ["__all__", *names]
    n = 2 * len(groups)
    chosen = rng.integers(0, len(policies), n)
    measures = ("avg_return_bps", "median_return_bps", "stop_out_rate", "es95_bps")
    prefixes = ("in_sample", "out_of_sample", "hold", "pooled")
    counts = ("train_calls", "test_calls", "out_of_sample_trades", "hold_trades", "pooled_trades")
    return pa.table(
        {
            "caller_name": groups * 2, "scheme": ["anchored"] * len(groups) + ["rolling"] * len(groups),
            "policy_id": _pick([name for name, _ in policies], chosen), "pooled": rng.random(n) < 0.3,
            "policy_params": _pick([text for _, text in policies], chosen),
            **{name: rng.integers(10, 60, n) for name in counts},
            **{f"{prefix}_{measure}": rng.normal(0, 900, n) for prefix in prefixes for measure in measures},
        }
    )  # fmt: skip  # a table: what belongs together stands on one line


def _evidence(rng: np.random.Generator, names: list[str]) -> dict[str, pa.Table]:
    """Verdicts of every caller, with curves of nine times, eight sizes and eight delays."""
    n, times, points = len(names), 9, 8
    verdicts = _pick(list(VERDICTS), rng.integers(0, len(VERDICTS), n)).to_pylist()
    judged = artifact_rows("evidence", n, caller_name=names, verdict=verdicts, e_value=np.exp(rng.normal(0, 3, n)))
    shares = {name: rng.random(n * times) for name in ("hit_2x", "hit_low", "hit_high", "stop", "silent")}
    of_times = {"caller_name": np.repeat(names, times), "t_ms": np.tile(np.arange(1, times + 1) * HOUR_MS, n), **shares}
    m = 2 * points * n
    of_costs = {
        "caller_name": np.repeat(names, 2 * points), "kind": (["size"] * points + ["latency"] * points) * n,
        "value": np.tile(np.arange(points, dtype=float), 2 * n), "mean_bps": rng.normal(0, 900, m),
        "se_bps": rng.uniform(10, 900, m), "same_entry": rng.random(m),
    }  # fmt: skip  # a table: what belongs together stands on one line
    return {
        "evidence": judged,
        "evidence_times": artifact_rows("evidence_times", n * times, **of_times),
        "evidence_costs": artifact_rows("evidence_costs", m, **of_costs),
    }
