"""The few numbers that sum up what one run measured, so that two runs can be compared.

Belongs here: which numbers of an artifact stand for it. The rows of the artifact are verified first.
"""

from quantbot_pipeline.duck import database_of
from quantbot_pipeline.runs.manifest import RunDirectory, RunManifest
from quantbot_pipeline.runs.verify import read_artifact
from quantbot_pipeline.vocabulary import ALL_CALLERS

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


def measured(run_dir: RunDirectory, manifest: RunManifest) -> list[tuple[str, str | None, float]]:
    """Return (measure, of what, value) of each artifact of a run; of what: None for the run as a whole."""
    return [row for artifact in _MEASURES for row in _measured(run_dir, manifest, artifact)]


def _measured(run_dir: RunDirectory, manifest: RunManifest, artifact: str) -> list[tuple[str, str | None, float]]:
    if artifact not in manifest.artifacts:
        return []
    names, query = _MEASURES[artifact]
    with database_of(rows=read_artifact(run_dir, manifest, artifact, names)) as con:
        rows = con.sql(query, params={"all": ALL_CALLERS} if "$all" in query else None).to_arrow_table().to_pylist()
    return [
        (name, row["of"], value) for row in rows for name, value in row.items() if name != "of" and value is not None
    ]
