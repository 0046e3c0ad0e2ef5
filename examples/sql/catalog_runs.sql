SELECT coalesce(parameters_json ->> '$.strategy_id', run_type) AS kind, git_branch AS branch, status, count(*) AS runs,
       min(month) AS first_month, max(month) AS last_month, sum(dataset_calls_count) AS calls, sum(dataset_calls_excluded) AS excluded
FROM backtest_runs_catalog GROUP BY ALL ORDER BY ALL;
