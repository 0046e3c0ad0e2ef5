SELECT caller_name, count(*) AS calls, quantile_cont(dd_bps, 0.75) AS mild_quarter, median(dd_bps) AS median,
       quantile_cont(dd_bps, 0.25) AS deep_quarter, quantile_cont(dd_bps, 0.05) AS deepest_5_percent,
       avg((dd_bps <= -9000)::INT) AS lost_90_percent, median(dd_to_2x_bps) AS median_before_2x
FROM paths JOIN newest_runs USING (run_id) WHERE artifact_type = 'paths'
GROUP BY caller_name ORDER BY median DESC, caller_name;
