SELECT artifact_type, count(*) AS files, sum(rows) AS rows
FROM backtest_artifacts_catalog GROUP BY ALL ORDER BY rows DESC, artifact_type;
