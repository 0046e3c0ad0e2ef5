SELECT dayname(make_timestamp_ms(alert_ts_ms)) AS weekday, count(*) AS calls, avg(hit_2x::INT) AS hit_2x_rate,
       1.96 * sqrt(avg(hit_2x::INT) * (1 - avg(hit_2x::INT)) / count(*)) AS plus_minus, median(peak_multiple) AS median_peak
FROM paths JOIN newest_runs USING (run_id) WHERE artifact_type = 'paths'
GROUP BY weekday, isodow(make_timestamp_ms(alert_ts_ms)) ORDER BY isodow(make_timestamp_ms(alert_ts_ms));
