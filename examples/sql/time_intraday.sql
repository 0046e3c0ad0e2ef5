SELECT format('{:02d} to {:02d} h', hour, hour + 4) AS utc, count(*) AS calls, avg(hit_2x::INT) AS hit_2x_rate,
       median(peak_multiple) AS median_peak, median(dd_bps) AS median_dd_bps
FROM (SELECT *, hour(make_timestamp_ms(alert_ts_ms)) // 4 * 4 AS hour FROM paths JOIN newest_runs USING (run_id) WHERE artifact_type = 'paths')
GROUP BY hour ORDER BY hour;
