"""Single runs: what each was made from and what it measured, so that the page can lay two side by side."""

import json
from typing import Any

from quantbot_pipeline.catalog.catalog import Catalog, list_runs
from quantbot_pipeline.errors import IntegrityError
from quantbot_pipeline.reports.measures import measured
from quantbot_pipeline.reports.page.encode import Index
from quantbot_pipeline.runs.manifest import RunDirectory, read_manifest

RUNS = 40  # the newest, and as many of those that somebody named: what a person chooses from


def runs_section(catalog: Catalog, most: int = RUNS) -> dict[str, Any]:
    """The newest completed runs, and older ones that have a name, a note or tags.

    Each has its origin, its parameters (as a position in `parameters`), and [measure, of what, value] rows.

    A run that is gone or damaged is named in `left_out` instead: the other sections refuse it if they need it, and the rest
    can be compared without it.
    """
    parameters: Index[str] = Index()
    runs, left_out = [], []
    for run in _chosen(catalog, most):
        try:
            noted = {key: run[key] for key in ("name", "note", "tags")}
            runs.append(_described(catalog.runs.open(run["run_dir"]), parameters) | noted)
        except IntegrityError:
            left_out.append({"run_id": run["run_id"], "month": run["month"]})
    return {
        "runs": runs,
        "most": most,
        "left_out": left_out,
        "parameters": [json.loads(text) for text in parameters.values],
    }


def _chosen(catalog: Catalog, most: int) -> list[dict[str, Any]]:
    newest = list_runs(catalog, status="completed", limit=most)
    noted = list_runs(catalog, status="completed", noted=True, limit=most)
    known = {run["run_id"] for run in newest}
    return newest + [run for run in noted if run["run_id"] not in known]


def _described(run_dir: RunDirectory, parameters: Index[str]) -> dict[str, Any]:
    manifest = read_manifest(run_dir)
    mine = {key: value for key, value in manifest.parameters.items() if key != "config_hash"}
    return {
        "run_id": manifest.run_id,
        "kind": manifest.parameters.get("strategy_id") or manifest.run_type,
        "month": manifest.month,
        "created_at": manifest.created_at,
        "parameters": parameters.of(json.dumps(mine, sort_keys=True)),
        "origin": {
            "interval": manifest.dataset.interval,
            "inputs_fingerprint": manifest.dataset.fingerprint[:12],
            "calls": manifest.dataset.calls_count,
            "calls_excluded": manifest.dataset.calls_excluded,
            "git_branch": manifest.git_branch,
            "git_commit": manifest.git_commit and manifest.git_commit[:12],
            "git_dirty": manifest.git_dirty,
        },
        "measures": measured(run_dir, manifest),
    }
