"""Two runs of one month: what differs in their parameters, in their inputs, and in each artifact's values."""

import os
from pathlib import Path

from quantbot_pipeline.catalog.catalog import Catalog, query_runs
from quantbot_pipeline.runs.manifest import read_manifest
from quantbot_pipeline.runs.store import LocalRuns
from quantbot_pipeline.runs.verify import read_artifact

home = Path(os.environ.get("QUANTBOT_HOME", "."))
runs = query_runs(
    Catalog(home / "data/backtest_catalog.duckdb", LocalRuns(home / "runs")), run_type="policy", limit=100
).to_pylist()
newest = [run for run in runs if run["month"] == "2026-03"][:2]
if len(newest) < 2:
    raise SystemExit(
        "fewer than two cataloged policy runs of 2026-03: make some with `quantbot backtest policy`, then sync"
    )
new, old = newest
a, b = (read_manifest(home / "runs" / run["run_dir"]) for run in (old, new))

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
trades = [read_artifact(home / "runs" / run["run_dir"], m, "trades", columns) for run, m in ((old, a), (new, b))]
returns = [{(t["policy_id"], t["call_id"]): t["realized_return_bps"] for t in table.to_pylist()} for table in trades]
changes = {key: returns[1][key] - returns[0][key] for key in returns[0].keys() & returns[1].keys()}
print(f"{sum(change != 0 for change in changes.values())} of {len(changes)} trades have another return")
for (policy, call), change in sorted(changes.items(), key=lambda item: (item[1], item[0]))[:3]:
    print(f"{change:10,.1f} bps  {policy} on call {call}")
