"""What there is and how good it is: runs, months, exclusions, rejected candles, quarantine, errors."""

from typing import Any

import pyarrow as pa

from quantbot_pipeline.catalog.catalog import Catalog, latest_runs_with, newest_runs_with, quarantined, reading
from quantbot_pipeline.duck import database_of
from quantbot_pipeline.errors import IntegrityError
from quantbot_pipeline.reports.page.encode import Columns, Index, columns, of_rows
from quantbot_pipeline.reports.remarks import manifests_behind, mixed_settings, read_each
from quantbot_pipeline.runs.manifest import RunManifest, read_manifest

# A search is told apart by its strategy; every other run by its type.
KIND = "CASE WHEN run_type = 'optimization' THEN coalesce(parameters_json ->> '$.strategy_id', 'grid-search') ELSE run_type END"
FAILED_SHOWN = 50
MESSAGES_SHOWN = 200


def overview(catalog: Catalog) -> dict[str, Any]:
    """Runs by kind and status, the months that they cover, and the quality of the inputs behind them."""
    with reading(catalog) as con:
        runs = con.sql(
            f"""SELECT {KIND} AS kind, run_type, status, count(*) AS runs, count(DISTINCT month) AS months,
                       min(month) AS first_month, max(month) AS last_month, sum(dataset_calls_count)::BIGINT AS calls,
                       coalesce(sum(a.n), 0)::BIGINT AS artifact_rows, coalesce(sum(a.b), 0)::BIGINT AS bytes,
                       avg(timing_total_ms) AS avg_total_ms
                FROM backtest_runs_catalog LEFT JOIN (SELECT run_id, sum(rows) AS n, sum(bytes) AS b
                     FROM backtest_artifacts_catalog GROUP BY 1) a USING (run_id)
                GROUP BY 1, 2, 3 ORDER BY 1, 3"""
        ).to_arrow_table()
        coverage = con.sql(
            f"""SELECT {KIND} AS kind, month, count(*) FILTER (status = 'completed') AS completed,
                       count(*) FILTER (status = 'failed') AS failed
                FROM backtest_runs_catalog GROUP BY 1, 2 ORDER BY 1, 2"""
        ).to_arrow_table()
    return {
        "runs": columns(runs),
        "coverage": columns(coverage),
        "quarantine": columns(quarantined(catalog).select(["path", "reason"])),
        "sources": _sources(catalog),
        "mixed": _mixed(catalog),
        "quality": _quality(catalog),
    }


def errors(catalog: Catalog, callers: Index[str]) -> dict[str, Any]:
    """Messages of the newest runs by kind, level and phase; failed runs; excluded calls by caller and reason."""
    tables = [
        table.append_column("kind", pa.repeat(pa.scalar(_kind(manifest)), table.num_rows)).append_column(
            "month", pa.repeat(pa.scalar(manifest.month), table.num_rows)
        )
        for manifest, table in read_each(catalog, latest_runs_with(catalog, "errors"), "errors")
    ]
    return {
        "messages": _messages(tables),
        "failed": _failed(catalog),
        "excluded": _excluded_by_caller(catalog, callers),
    }


def _kind(manifest: RunManifest) -> str:
    """As KIND, for a manifest."""
    if manifest.run_type != "optimization":
        return manifest.run_type
    return manifest.parameters.get("strategy_id", "grid-search")


def _quality_runs(catalog: Catalog) -> list[str]:
    """The runs behind the leaderboard or, without any, the newest of each month: each call's exclusion counts once."""
    return newest_runs_with(catalog, "paths") or newest_runs_with(catalog, "errors")


def _quality(catalog: Catalog) -> dict[str, Columns]:
    months, found = [], []
    for manifest, table in read_each(catalog, _quality_runs(catalog), "errors"):
        calls, excluded = manifest.dataset.calls_count, manifest.dataset.calls_excluded
        months.append({"month": manifest.month, "included": calls - excluded, "excluded": excluded})
        found.append(table.select(["phase", "call_id", "details"]))
    parts = {name: _by_reason(found, where, what) for name, where, what in _QUALITY}
    return {"months": of_rows(months, ("month", "included", "excluded")), **parts}


# (name, rows of errors.parquet, what is counted)
_QUALITY = (
    ("excluded", "phase = 'coverage' AND call_id IS NOT NULL", "count(*)"),
    ("rejected_candles", "phase = 'coverage' AND call_id IS NULL", "sum((details ->> '$.rows')::BIGINT)::BIGINT"),
    ("rejected_calls", "phase = 'plan' AND call_id IS NULL", "sum((details ->> '$.rows')::BIGINT)::BIGINT"),
)


def _by_reason(tables: list[pa.Table], where: str, what: str) -> Columns:
    if not tables:
        return {"reason": [], "count": []}
    with database_of(found=pa.concat_tables(tables)) as con:
        return columns(
            con.sql(
                f"""SELECT details ->> '$.reason' AS reason, {what} AS count FROM found
                    WHERE {where} AND details ->> '$.reason' IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1"""
            ).to_arrow_table()
        )


def _sources(catalog: Catalog) -> Columns:
    """Which run stands behind which month: newest per artifact, as every table on the page uses them."""
    chosen = {
        "paths": newest_runs_with(catalog, "paths"),
        "frontier": newest_runs_with(catalog, "frontier", strategy_id="grid-search"),
        "v1-baseline": newest_runs_with(catalog, "frontier", strategy_id="v1-baseline"),
        "walk_forward": newest_runs_with(catalog, "walk_forward"),
        **{name: newest_runs_with(catalog, name) for name in ("evidence", "model_report", "tuned", "anomalies")},
    }
    rows = [
        {
            "month": manifest.month,
            "artifact": artifact,
            "run_id": manifest.run_id,
            "interval": manifest.dataset.interval,
            "config_hash": manifest.parameters.get("config_hash"),
            "created_at": manifest.created_at,
        }
        for artifact, run_dirs in chosen.items()
        for manifest in (read_manifest(catalog.runs.open(run_dir)) for run_dir in run_dirs)
    ]
    return of_rows(rows, ("month", "artifact", "run_id", "interval", "config_hash", "created_at"))


def _mixed(catalog: Catalog) -> Columns:
    """In which settings the months behind each artifact differ, as the reports of the command line remark it."""
    behind = (
        ("paths", None),
        ("frontier", "grid-search"),
        ("frontier", "v1-baseline"),
        ("walk_forward", None),
        ("model_report", None),
        ("tuned", None),
        ("anomalies", None),
    )
    rows = [
        {"artifact": artifact if strategy in (None, "grid-search") else strategy, "settings": ", ".join(unlike)}
        for artifact, strategy in behind
        if (unlike := mixed_settings(manifests_behind(catalog, artifact, strategy_id=strategy), artifact, strategy))
    ]
    return of_rows(rows, ("artifact", "settings"))


def _messages(tables: list[pa.Table]) -> Columns:
    if not tables:
        return {}
    with database_of(found=pa.concat_tables(tables)) as con:
        return columns(
            con.sql(
                # "3 candles rejected: price" and "1 candles rejected: price" are one message.
                """SELECT level, kind, phase, regexp_replace(message, '^[0-9]+ ', '') AS message, count(*) AS rows,
                          count(DISTINCT run_id) AS runs, min(month) AS first_month, max(month) AS last_month
                   FROM found GROUP BY 1, 2, 3, 4
                   ORDER BY list_position(['error', 'warning', 'info'], level), rows DESC, kind, message LIMIT ?""",
                params=[MESSAGES_SHOWN],
            ).to_arrow_table()
        )


def _failed(catalog: Catalog) -> Columns:
    with reading(catalog) as con:
        found = con.execute(
            f"""SELECT run_id, {KIND}, month, epoch_ms(created_at), run_dir FROM backtest_runs_catalog
                WHERE status = 'failed' ORDER BY created_at DESC, run_id LIMIT ?""",
            [FAILED_SHOWN],
        ).fetchall()
    rows = [
        {
            "month": month,
            "kind": kind,
            "created_at": created,
            "run_id": run_id,
            "error": _error(catalog, run_dir),
        }
        for run_id, kind, month, created, run_dir in found
    ]
    return of_rows(rows, ("month", "kind", "created_at", "run_id", "error"))


def _error(catalog: Catalog, run_dir: str) -> str:
    try:
        return read_manifest(catalog.runs.open(run_dir)).error or ""
    except IntegrityError as e:  # a failed run may be removed by hand at any time; it carries no numbers
        return str(e).replace(f"{catalog.runs.place}/", "")


def _excluded_by_caller(catalog: Catalog, callers: Index[str]) -> Columns:
    run_dirs = _quality_runs(catalog)
    found = [table for _, table in read_each(catalog, run_dirs, "errors", ["call_id", "phase", "details"])]
    alerts = [table for _, table in read_each(catalog, run_dirs, "alerts", ["call_id", "caller_name"])]
    if not found:
        return {"caller": [], "reason": [], "calls": []}
    with database_of(found=pa.concat_tables(found), alerts=pa.concat_tables(alerts)) as con:
        table = con.sql(
            """SELECT caller_name, details ->> '$.reason' AS reason, count(*) AS calls
               FROM found JOIN (SELECT DISTINCT call_id, caller_name FROM alerts) USING (call_id)
               WHERE phase = 'coverage' GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2"""
        ).to_arrow_table()
    return {"caller": callers.of_each(table["caller_name"]).tolist(), **columns(table.drop_columns(["caller_name"]))}
