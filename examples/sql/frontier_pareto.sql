SELECT rank, policy_id, median_return_bps, stop_out_rate, p95_drawdown_bps, meets_constraints
FROM frontier JOIN newest_runs USING (run_id)
WHERE artifact_type = 'frontier' AND strategy = 'grid-search' AND caller_name = '__all__'
QUALIFY month = max(month) OVER () AND is_pareto
ORDER BY median_return_bps DESC, rank LIMIT 10;
