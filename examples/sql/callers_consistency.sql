WITH monthly AS (
    SELECT caller_name, month, count(*) AS calls, avg(hit_2x::INT) AS rate, median(peak_multiple) AS peak
    FROM paths JOIN newest_runs USING (run_id) WHERE artifact_type = 'paths' GROUP BY ALL),
everyone AS (
    SELECT month, avg(hit_2x::INT) AS rate FROM paths JOIN newest_runs USING (run_id) WHERE artifact_type = 'paths' GROUP BY ALL)
SELECT caller_name, count(*) AS months, sum(calls) AS calls, count(*) FILTER (m.rate > e.rate) AS months_above_all,
       min(m.rate) AS worst_month, max(m.rate) AS best_month, stddev_samp(peak) AS spread_of_median_peak
FROM monthly AS m JOIN everyone AS e USING (month)
GROUP BY caller_name ORDER BY months_above_all DESC, worst_month DESC, caller_name;
