"""The curves of the evidence in plain Python, written from docs/evidence.md alone: time to a double, size, latency."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from quantbot_pipeline_tests.support.naive import naive_trade, naive_window

DAY = 86_400_000


def doubles(oracle: Any, name: str) -> dict[str, Any]:
    """The incidence of doubles; `_times` are the rows of evidence_times.parquet."""
    policy = {"kind": "fixed_stop", "stop_pct": oracle.rules["stop_pct"], "take_profit_pct": 1}
    ends = []
    for u in (u for u in oracle.units if u.caller == name and not u.missing):
        trade = naive_trade(u.window, policy, oracle.replay)
        cause = {"take_profit": 1, "stop_loss": 2}.get(
            trade.reason, 3 if trade.reason == "data_end" and u.resolved else 0
        )
        ends.append((trade.exit_ts - u.entry, cause))
    steps, alive, reached = [], 1.0, {1: 0.0, 2: 0.0, 3: 0.0}
    for t in sorted({t for t, cause in ends if cause}):
        r, d = sum(s >= t for s, _ in ends), {k: ends.count((t, k)) for k in reached}
        before = alive
        reached = {k: f + before * d[k] / r for k, f in reached.items()}
        alive *= 1 - sum(d.values()) / r
        steps.append((t, r, sum(d.values()), d[1], before, dict(reached)))
    rows = []
    for t in (t for m in (5, 15, 30, 60, 120, 240, 480, 1440, 2880) if (t := m * 60_000) <= oracle.horizon and ends):
        past = [step for step in steps if step[0] <= t]
        at = past[-1][5] if past else {1: 0.0, 2: 0.0, 3: 0.0}
        low = high = f = at[1]
        if 0 < f < 1 - 1e-12:
            v = 0.0
            for _, r, ended, hits, before, after in past:
                v += ((f - after[1]) ** 2 * ended / (r * (r - ended)) if ended < r else 0) + before**2 * hits * (
                    r - hits
                ) / r**3
                v -= 2 * (f - after[1]) * before * hits / r**2
            width = 1.959963984540054 * math.sqrt(max(0.0, v)) / (f * math.log(f))
            low, high = f ** math.exp(-width), f ** math.exp(width)
        at_risk = sum(s >= t for s, _ in ends)
        rows.append(
            {
                "t_ms": t,
                "hit_2x": f,
                "hit_low": low,
                "hit_high": high,
                "stop": at[2],
                "silent": at[3],
                "at_risk": at_risk,
            }
        )
    hit = [step for step in steps if steps[-1][5][1] > 0 and step[5][1] >= steps[-1][5][1] / 2]
    return {"_times": rows, "median_ms_to_2x": hit[0][0] if hit else None}


def costs(oracle: Any, traded: Sequence[tuple[Any, int]]) -> dict[str, Any]:
    """Break-evens; `_costs` are the rows of evidence_costs.parquet."""
    void: dict[str, Any] = {
        "break_even_share": None,
        "break_even_usd": None,
        "break_even_latency_ms": None,
        "_costs": [],
    }
    if not traded:
        return void
    cap, c, gross = oracle.rules["cap"], oracle.c, []
    for u, p in traded:
        trade = naive_trade(u.window, oracle.grid[p], oracle.replay)
        gross.append(0.0 if trade.reason == "data_end" else trade.exit_px / u.window.p0)

    def sized(*shares: float) -> list[float]:
        each = zip(gross, shares if len(shares) > 1 else shares * len(gross), strict=True)
        return [min(g / (1 + 2 * s * (1 + math.sqrt(g))) * (1 - c) / (1 + c) - 1, cap) for g, s in each]

    def money(q: float) -> float:
        return float(np.mean(sized(*(q / pool for pool in pools)))) if len(pools) > 1 else sized(q / pools[0])[0]

    rows = [_point("size", s, traded, sized(s), None) for s in (0, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1)]
    share: float | None = 0.0
    if np.mean(sized(0)) > 0:
        low, high = 0.0, 0.5
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if np.mean(sized(middle)) > 0 else (low, middle)
        share = None if np.mean(sized(0.5)) > 0 else low
    known = {(c.caller, c.mint): c.liquidity for c in oracle.market.calls}
    pools = [known[u.caller, u.mint] for u, _ in traded]
    usd = None
    if all(pools) and np.mean(sized(0)) > 0 >= money(0.5 * max(pools)):
        low, high = 0.0, 0.5 * max(pools)
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if money(middle) > 0 else (low, middle)
        usd = low
    elif all(pools) and np.mean(sized(0)) <= 0:
        usd = 0.0
    lates = sorted({0, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000, oracle.replay.latency_ms})
    alerts = {
        (
            c.caller,
            c.mint,
            naive_window(oracle.market.candles.get(c.mint, []), c.alert_ts, oracle.replay).entry_ts,
        ): c.alert_ts
        for c in reversed(oracle.market.calls)
    }
    seen = {}
    for late in lates:
        rules = oracle.replay._replace(latency_ms=late)
        for u, _ in traded:
            alert = alerts[u.caller, u.mint, u.entry]
            seen[late, u.entry, u.mint] = naive_window(oracle.market.candles[u.mint], alert, rules)
    both = [(u, p) for u, p in traded if all(seen[late, u.entry, u.mint].status == "included" for late in lates)]
    curve = []
    for late in lates if both else []:
        windows = [seen[late, u.entry, u.mint] for u, _ in both]
        x = [
            oracle.x(w, oracle.grid[p], oracle.replay._replace(latency_ms=late))[0]
            for w, (_, p) in zip(windows, both, strict=True)
        ]
        same = float(np.mean([w.entry_ts == u.entry for w, (u, _) in zip(windows, both, strict=True)]))
        curve.append(_point("latency", late, both, x, same))
    zero = None
    for i, here in enumerate(curve):
        if here["mean_bps"] <= 0:
            last = curve[i - 1]
            part = 0.0 if i == 0 else last["mean_bps"] / (last["mean_bps"] - here["mean_bps"])
            zero = 0.0 if i == 0 else last["value"] + part * (here["value"] - last["value"])
            break
    return void | {
        "break_even_share": share,
        "break_even_usd": usd,
        "break_even_latency_ms": zero,
        "_costs": rows + curve,
    }


def _point(
    kind: str, value: float, units: Sequence[tuple[Any, int]], x: Sequence[float], same: float | None
) -> dict[str, Any]:
    days, mean = [u.entry // DAY for u, _ in units], float(np.mean(x))
    left = [sum(v - mean for v, d in zip(x, days, strict=True) if d == day) for day in sorted(set(days))]
    g, se = len(left), None
    if g > 1:
        se = math.sqrt(g / (g - 1) * sum(v * v for v in left)) / len(x) * 1e4
    return {
        "kind": kind,
        "value": float(value),
        "units": len(x),
        "same_entry": same,
        "mean_bps": mean * 1e4,
        "se_bps": se,
    }
