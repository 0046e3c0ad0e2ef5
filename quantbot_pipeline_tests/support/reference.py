"""The search as plain Python and numpy, written from docs/semantics.md: trades, aggregates, ranking, Pareto set.

Belongs here: nothing that the package computes; only single outcomes come in (from `replay.naive`). Slow and flat, to be
read beside the sections "Policies" (trades), "Aggregates" and "Frontier" of the contract.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from quantbot_pipeline.replay.results import Rules
from quantbot_pipeline_tests.support import homes

PROTECTIVE = ("stop_loss", "hard_stop", "trailing_stop")
RATIOS = ("stop_out_rate", "loss_rate", "avg_tail_capture", "median_tail_capture", "tail_capture", "efficiency")
CONSTRAINTS = {
    "min_trades": 10,
    "min_avg_return_bps": 0.0,
    "max_stop_out_rate": 0.40,
    "min_p95_drawdown_bps": -5_000.0,
    "max_avg_time_exposed_ms": 86_400_000.0,
}
OPTIONAL = ("min_distinct_mints", "max_data_end_share", "min_stressed_avg_return_bps")


class Row(NamedTuple):
    """One trade as `trades.parquet` describes it; `peak` is the call's peak multiple."""

    realized_return_bps: float
    gross_return_bps: float
    exit_reason: str
    stop_out: bool
    max_adverse_excursion_bps: float
    time_exposed_ms: int
    tail_capture: float | None


def cost(config: Mapping[str, Any]) -> float:
    """`c` of a configuration."""
    return (config.get("taker_fee_bps", 30.0) + config.get("slippage_bps", 10.0)) / 10_000


class Exit(NamedTuple):
    """What the replay says about one policy on one call that was bought at `p0` and rose to `peak` times that."""

    p0: float
    entry_ts: int
    peak: float
    exit_px: float
    exit_ts: int
    reason: str
    mae_bps: float


def row(replayed: homes.Replayed, policy: Mapping[str, Any], rules: Rules, c: float) -> Row:
    """The numbers of one trade."""
    window, trade = replayed.window, homes.trade(replayed, policy, rules)
    left = Exit(window.p0, window.entry_ts, replayed.peak, trade.exit_px, trade.exit_ts, trade.reason, trade.mae_bps)
    return row_of(left, c)


def row_of(left: Exit, c: float) -> Row:
    """The numbers of a trade that ended so."""
    gross = (left.exit_px / left.p0 - 1) * 10_000
    capture = None
    if left.peak >= 1.25:
        capture = min(1.0, max(0.0, gross / ((left.peak - 1) * 10_000)))
    return Row(
        realized_return_bps=(left.exit_px * (1 - c) / (left.p0 * (1 + c)) - 1) * 10_000,
        gross_return_bps=gross,
        exit_reason=left.reason,
        stop_out=left.reason in PROTECTIVE and gross < -1e-6,
        max_adverse_excursion_bps=left.mae_bps,
        time_exposed_ms=left.exit_ts - left.entry_ts,
        tail_capture=capture,
    )


def aggregates(rows: Sequence[Row]) -> dict[str, float | None]:
    """Every statistic of the contract, and the growth score, over at least one trade."""
    returns = np.array([r.realized_return_bps for r in rows])
    excursions = np.array([r.max_adverse_excursion_bps for r in rows])
    exposed = np.array([r.time_exposed_ms for r in rows], dtype=float)
    captures = np.array([r.tail_capture for r in rows if r.tail_capture is not None])
    stressed = np.array([-10_000.0 if r.exit_reason == "data_end" else r.realized_return_bps for r in rows])
    worst = np.sort(returns)[: max(1, math.floor(len(rows) / 20))]
    stake = 0.04
    return {
        "avg_return_bps": returns.mean(),
        "median_return_bps": np.quantile(returns, 0.5),
        "p25_return_bps": np.quantile(returns, 0.25),
        "p75_return_bps": np.quantile(returns, 0.75),
        "p90_return_bps": np.quantile(returns, 0.9),
        "stop_out_rate": np.mean([r.stop_out for r in rows]),
        "loss_rate": np.mean(returns < 0),
        "es95_bps": worst.mean(),
        "p95_drawdown_bps": np.quantile(excursions, 0.05),
        "avg_max_adverse_excursion_bps": excursions.mean(),
        "median_max_adverse_excursion_bps": np.quantile(excursions, 0.5),
        "stressed_avg_return_bps": stressed.mean(),
        "data_end_share": np.mean([r.exit_reason == "data_end" for r in rows]),
        "avg_time_exposed_ms": exposed.mean(),
        "median_time_exposed_ms": np.quantile(exposed, 0.5),
        "avg_tail_capture": captures.mean() if len(captures) else None,
        "median_tail_capture": np.quantile(captures, 0.5) if len(captures) else None,
        "growth_score": 10_000 / stake * np.mean([math.log(1 + stake * (r / 10_000)) for r in returns]),
    }


# --- frontier ---------------------------------------------------------------------------------------------------------


def limits(given: Mapping[str, Any], peaks: Sequence[float]) -> dict[str, float]:
    """The constraints that hold for a caller with these peaks: the defaults, those given, relaxed for fat tails."""
    found = {key: given.get(key, default) for key, default in CONSTRAINTS.items()}
    found |= {key: given[key] for key in OPTIONAL if given.get(key) is not None}
    factor = given.get("fat_tail_factor")
    if factor is not None and (
        np.quantile(peaks, 0.95) >= given.get("fat_tail_p95_peak", 20.0)
        or np.quantile(peaks, 0.75) >= given.get("fat_tail_p75_peak", 10.0)
    ):
        found["max_stop_out_rate"] = min(1.0, found["max_stop_out_rate"] / factor)
        found["min_p95_drawdown_bps"] = found["min_p95_drawdown_bps"] / factor
    return found


def violations(stats: Mapping[str, Any], trades: int, mints: int, limit: Mapping[str, float]) -> list[str]:
    """The constraints that do not hold, in the order of the contract; the last three where they are set."""
    holds = {
        "trades": trades >= limit["min_trades"],
        "avg_return_bps": stats["avg_return_bps"] > limit["min_avg_return_bps"],
        "stop_out_rate": stats["stop_out_rate"] <= limit["max_stop_out_rate"],
        "p95_drawdown_bps": stats["p95_drawdown_bps"] >= limit["min_p95_drawdown_bps"],
        "avg_time_exposed_ms": stats["avg_time_exposed_ms"] <= limit["max_avg_time_exposed_ms"],
        "distinct_mints": mints >= limit.get("min_distinct_mints", 0),
        "data_end_share": stats["data_end_share"] <= limit.get("max_data_end_share", 1.0),
        "stressed_avg_return_bps": stats["stressed_avg_return_bps"] >= limit.get("min_stressed_avg_return_bps", -1e9),
    }
    return [name for name, held in holds.items() if not held]


def objective_score(stats: Mapping[str, Any], kind: str) -> float:
    """`growth` or `median`."""
    if kind == "growth":
        return stats["growth_score"]
    capture = stats["avg_tail_capture"] or 0.0
    return stats["median_return_bps"] + 200 * capture - abs(stats["median_max_adverse_excursion_bps"]) / 100


def ranked(
    stats: Mapping[str, Mapping[str, Any]],
    trades: int,
    mints: int,
    limit: Mapping[str, float],
    kind: str = "growth",
) -> list[dict[str, Any]]:
    """One row per policy (canonical JSON → statistics), best first, with rank, violations, score and Pareto flag."""
    rows = []
    for text, own in stats.items():
        broken = violations(own, trades, mints, limit)
        rows.append(
            {
                **own,
                "policy_params": text,
                "objective_score": objective_score(own, kind),
                "violations": ",".join(broken),
                "meets_constraints": not broken,
                "is_pareto": not any(dominates(other, own) for other in stats.values()),
            }
        )
    rows.sort(key=_order)
    return [{**found, "rank": i} for i, found in enumerate(rows, start=1)]


def _order(found: Mapping[str, Any]) -> tuple[Any, ...]:
    measures = [-round(found[name], 6) for name in ("objective_score", "median_return_bps", "p95_drawdown_bps")]
    return (not found["meets_constraints"], *measures, found["policy_params"].encode())


def dominates(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """At least as good in median return, stop-out rate and p95 drawdown, and better in one."""
    pairs = [
        (a["median_return_bps"], b["median_return_bps"]),
        (-a["stop_out_rate"], -b["stop_out_rate"]),
        (a["p95_drawdown_bps"], b["p95_drawdown_bps"]),
    ]
    return all(x >= y for x, y in pairs) and any(x > y for x, y in pairs)


# --- policies ---------------------------------------------------------------------------------------------------------


def canonical(policy: Mapping[str, Any]) -> str:
    """Canonical JSON of a policy as a user writes it."""
    return json.dumps(_plain(policy), sort_keys=True, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        plain = {k: _plain(v) for k, v in value.items() if v is not None}
        if plain.get("kind") == "ladder":
            plain["levels"].sort(key=lambda level: level["multiple"])
        if plain.get("kind") == "combo":
            plain["policies"].sort(key=lambda rule: canonical(rule).encode())
        return plain
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


# --- comparison -------------------------------------------------------------------------------------------------------


def assert_close(got: Any, want: Any, name: str, where: object = "") -> None:
    """Equal within the contract: 1e-9 relative or 1e-6 bps absolute (1e-9 for ratios); anything but floats exactly."""
    if want is None or not isinstance(want, float):
        assert got == want, (name, got, want, where)
        return
    assert got is not None, (name, want, where)
    slack = 1e-9 if name.endswith(RATIOS) else 1e-6
    assert abs(got - want) <= max(slack, 1e-9 * abs(want)), (name, got, want, where)
