"""The Pareto set of one caller's search: what a higher median return costs in stop-outs and drawdown."""

import os
from pathlib import Path

import duckdb

home = Path(os.environ.get("QUANTBOT_HOME", "."))
with duckdb.connect(str(home / "data/backtest_catalog.duckdb"), read_only=True) as con:
    found = con.execute(
        """SELECT policy_id, median_return_bps, stop_out_rate, p95_drawdown_bps, rank
           FROM frontier JOIN latest_runs USING (run_id)
           WHERE run_type = 'full' AND month = $month AND caller_name = $caller AND is_pareto""",
        {"month": "2026-03", "caller": "sample:alpha_hunter"},
    ).fetchall()

# Many policies do the same on the same calls: one line for each outcome, named after the best ranked.
outcomes: dict[tuple[float, float, float], list[tuple[int, str]]] = {}
for policy_id, median, stop_outs, drawdown, rank in found:
    outcomes.setdefault((median, stop_outs, drawdown), []).append((rank, policy_id))
print(f"{len(found)} of the policies are in the Pareto set, with {len(outcomes)} outcomes")
for (median, stop_outs, drawdown), policies in sorted(outcomes.items(), reverse=True)[:8]:
    print(f"{median:9,.1f} bps  {stop_outs:6.1%} stop-outs  {drawdown:9,.1f} bps p95 drawdown  {min(policies)[1]}")
