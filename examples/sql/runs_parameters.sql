-- Compares policy runs of the branches main and slow-entry: put yours in.
WITH each AS (
    SELECT git_branch, parameter.key AS parameter, parameter.value::VARCHAR AS value
    FROM backtest_runs_catalog, json_each(parameters_json) AS parameter
    WHERE run_type = 'policy' QUALIFY month = max(month) OVER ())
SELECT parameter, a.value AS main, b.value AS slow_entry
FROM each AS a JOIN each AS b USING (parameter)
WHERE a.git_branch = 'main' AND b.git_branch = 'slow-entry' AND a.value <> b.value AND parameter <> 'config_hash'
ORDER BY parameter;
