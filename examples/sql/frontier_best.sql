WITH newest AS (
    SELECT * FROM frontier JOIN newest_runs USING (run_id) WHERE artifact_type = 'frontier' AND strategy = 'grid-search'
    QUALIFY month = max(month) OVER ())
SELECT caller_name, any_value(trades) AS trades, count(*) FILTER (meets_constraints) AS feasible, count(*) AS policies,
       arg_min(policy_id, rank) AS best_policy, arg_min(median_return_bps, rank) AS median_bps,
       arg_min(stop_out_rate, rank) AS stop_out_rate
FROM newest GROUP BY caller_name ORDER BY caller_name;
