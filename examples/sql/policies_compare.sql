SELECT policy_id, count(*) AS trades, avg(realized_return_bps) AS avg_bps, median(realized_return_bps) AS median_bps,
       avg(stop_out::INT) AS stop_out_rate, avg((realized_return_bps < 0)::INT) AS loss_rate,
       quantile_cont(max_adverse_excursion_bps, 0.05) AS p95_drawdown_bps, avg(time_exposed_ms) / 3.6e6 AS hours
FROM trades JOIN newest_runs USING (run_id) WHERE artifact_type = 'summary'
GROUP BY policy_id ORDER BY avg_bps DESC;
