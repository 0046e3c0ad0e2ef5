-- Compares policy runs of the branches main and slow-entry: put yours in.
WITH newest AS (
    SELECT run_id, git_branch, month FROM backtest_runs_catalog WHERE status = 'completed' AND run_type = 'policy'
    QUALIFY row_number() OVER (PARTITION BY git_branch, month ORDER BY created_at DESC, run_id DESC) = 1),
result AS (SELECT git_branch, month, policy_id, avg_return_bps FROM summary JOIN newest USING (run_id))
SELECT month, policy_id, a.avg_return_bps AS main_bps, b.avg_return_bps AS branch_bps, b.avg_return_bps - a.avg_return_bps AS change_bps,
       CASE WHEN b.avg_return_bps < a.avg_return_bps - 100 THEN 'worse' ELSE '' END AS verdict
FROM result AS a JOIN result AS b USING (month, policy_id)
WHERE a.git_branch = 'main' AND b.git_branch = 'slow-entry' ORDER BY change_bps, policy_id, month LIMIT 8;
