-- Needs policy runs: `quantbot backtest policy` on each branch that you compare.
WITH newest AS (  -- of each branch: newest_runs knows no branches
    SELECT run_id, git_branch, month FROM backtest_runs_catalog WHERE status = 'completed' AND run_type = 'policy'
    QUALIFY row_number() OVER (PARTITION BY git_branch, month ORDER BY created_at DESC, run_id DESC) = 1)
SELECT policy_id, git_branch, count(*) AS trades, avg(realized_return_bps) AS avg_bps, median(realized_return_bps) AS median_bps,
       avg(stop_out::INT) AS stop_out_rate
FROM trades JOIN newest USING (run_id) GROUP BY ALL ORDER BY policy_id, git_branch;
