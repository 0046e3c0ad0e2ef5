"""Two runs of one month: what differs in their parameters, in their inputs, and in each artifact's values."""

from quantbot_pipeline import Home
from quantbot_pipeline.catalog.catalog import query_runs

home = Home()  # QUANTBOT_HOME, or the current directory
runs = query_runs(home.catalog, run_type="policy", limit=100).to_pylist()
newest = [run for run in runs if run["month"] == "2026-03"][:2]
if len(newest) < 2:
    raise SystemExit(
        "fewer than two cataloged policy runs of 2026-03: make some with `quantbot backtest policy`, then sync"
    )
new, old = (home.run(run["run_id"]) for run in newest)
a, b = old.manifest, new.manifest

print(f"A {a.git_branch}, B {b.git_branch}; same inputs: {a.dataset.fingerprint == b.dataset.fingerprint}")
for name in sorted(a.parameters.keys() | b.parameters.keys()):
    if name != "config_hash" and a.parameters.get(name) != b.parameters.get(name):
        print(f"parameter {name}: {a.parameters.get(name)} -> {b.parameters.get(name)}")
for name in sorted(a.artifacts.keys() & b.artifacts.keys()):
    same = a.artifacts[name].content_sha256 == b.artifacts[name].content_sha256
    print(
        f"artifact {name}: {'equal' if same else 'differs'}, {a.artifacts[name].rows} and {b.artifacts[name].rows} rows"
    )

# Verified: every byte is what was committed.
columns = ["call_id", "policy_id", "realized_return_bps"]
trades = [run.frame("trades", columns).to_dict("records") for run in (old, new)]
returns = [{(t["policy_id"], t["call_id"]): t["realized_return_bps"] for t in rows} for rows in trades]
changes = {key: returns[1][key] - returns[0][key] for key in returns[0].keys() & returns[1].keys()}
print(f"{sum(change != 0 for change in changes.values())} of {len(changes)} trades have another return")
for (policy, call), change in sorted(changes.items(), key=lambda item: (item[1], item[0]))[:3]:
    print(f"{change:10,.1f} bps  {policy} on call {call}")
