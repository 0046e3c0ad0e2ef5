"""Single runs: what each was made from and what it measured, so that the page can lay two side by side."""

import json
from pathlib import Path
from typing import Any

import duckdb

from quantbot_pipeline.catalog.catalog import Catalog, query_runs
from quantbot_pipeline.errors import IntegrityError
from quantbot_pipeline.reports.page.encode import Index
from quantbot_pipeline.runs.manifest import RunManifest, read_manifest
from quantbot_pipeline.runs.verify import read_artifact
from quantbot_pipeline.vocabulary import ALL_CALLERS

RUNS = 40  # the newest: what a person chooses from
_SUMMARY = (
    "trades_count",
    "avg_return_bps",
    "median_return_bps",
    "stop_out_rate",
    "loss_rate",
    "es95_bps",
    "p95_drawdown_bps",
    "avg_time_exposed_ms",
)
_WALK = (
    "out_of_sample_trades",
    "in_sample_avg_return_bps",
    "out_of_sample_avg_return_bps",
    "in_sample_median_return_bps",
    "out_of_sample_median_return_bps",
)
_RANKED = ("objective_score", "avg_return_bps", "median_return_bps", "stop_out_rate", "trades")
# {artifact: (its columns, the query that sums it up; `of` says of what, null: of the run)}
_MEASURES = {
    "paths": (
        ("hit_2x", "hit_3x", "peak_multiple", "dd_bps"),
        """SELECT NULL AS "of", count(*) AS calls_with_a_window, avg(hit_2x::INT) AS hit_2x_rate, avg(hit_3x::INT) AS hit_3x_rate,
                  median(peak_multiple) AS median_peak_multiple, median(dd_bps) AS median_dd_bps FROM rows""",
    ),
    "summary": (("policy_id", *_SUMMARY), f'SELECT policy_id AS "of", {", ".join(_SUMMARY)} FROM rows ORDER BY 1'),
    "frontier": (
        ("caller_name", "rank", "meets_constraints", *_RANKED),
        f"""SELECT 'best policy of all callers' AS "of", {", ".join(_RANKED)}, feasible AS feasible_policies
            FROM (SELECT *, count(*) FILTER (meets_constraints) OVER () AS feasible FROM rows WHERE caller_name = $all)
            WHERE rank = 1""",
    ),
    "walk_forward": (
        ("caller_name", "scheme", *_WALK),
        f"""SELECT 'all callers, ' || scheme AS "of", {", ".join(_WALK)} FROM rows WHERE caller_name = $all ORDER BY scheme""",
    ),
}


def runs_section(catalog: Catalog) -> dict[str, Any]:
    """The newest completed runs: origin, parameters (as a position in `parameters`), and [measure, of what, value] rows.

    A run that is gone or damaged is named in `left_out` instead: the other sections refuse it if they need it, and the rest
    can be compared without it.
    """
    parameters: Index[str] = Index()
    runs, left_out = [], []
    for run in query_runs(catalog, status="completed", limit=RUNS).to_pylist():
        try:
            runs.append(_described(catalog.runs.folder / run["run_dir"], parameters))
        except IntegrityError:
            left_out.append({"run_id": run["run_id"], "month": run["month"]})
    return {
        "runs": runs,
        "most": RUNS,
        "left_out": left_out,
        "parameters": [json.loads(text) for text in parameters.values],
    }


def _described(run_dir: Path, parameters: Index[str]) -> dict[str, Any]:
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
        "measures": [row for artifact in _MEASURES for row in _measured(run_dir, manifest, artifact)],
    }


def _measured(run_dir: Path, manifest: RunManifest, artifact: str) -> list[tuple[str, str | None, float]]:
    if artifact not in manifest.artifacts:
        return []
    names, query = _MEASURES[artifact]
    with duckdb.connect() as con:
        con.register("rows", read_artifact(run_dir, manifest, artifact, names))
        rows = con.sql(query, params={"all": ALL_CALLERS} if "$all" in query else None).to_arrow_table().to_pylist()
    return [
        (name, row["of"], value) for row in rows for name, value in row.items() if name != "of" and value is not None
    ]
