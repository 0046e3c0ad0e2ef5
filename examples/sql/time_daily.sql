-- Of one policy: put the name of yours in (policies_compare.sql lists them).
WITH daily AS (
    SELECT make_timestamp_ms(entry_ts_ms)::DATE AS day, count(*) AS trades, avg(realized_return_bps) AS avg_bps
    FROM trades JOIN newest_runs USING (run_id)
    WHERE artifact_type = 'summary' AND policy_id = 'fixed_sl0.2_tp1' GROUP BY day)
SELECT day, trades, avg_bps,
       sum(trades * avg_bps) OVER week / sum(trades) OVER week AS seven_days_bps, sum(trades * avg_bps) OVER (ORDER BY day) AS total_bps
FROM daily WINDOW week AS (ORDER BY day RANGE BETWEEN INTERVAL 6 DAYS PRECEDING AND CURRENT ROW)
ORDER BY day DESC LIMIT 10;
