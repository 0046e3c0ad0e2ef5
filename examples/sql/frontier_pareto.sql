SELECT rank, policy_id, median_return_bps, stop_out_rate, p95_drawdown_bps, meets_constraints
FROM frontier JOIN latest_runs USING (run_id)
WHERE run_type = 'full' AND month = '2026-03' AND caller_name = '__all__' AND is_pareto
ORDER BY median_return_bps DESC, rank LIMIT 10;
