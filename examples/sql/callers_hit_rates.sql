WITH callers AS (
    SELECT caller_name, count(*) AS calls, count(DISTINCT mint) AS mints, avg(hit_2x::INT) AS p,
           median(peak_multiple) AS median_peak, median(dd_bps) AS median_dd_bps
    FROM paths JOIN newest_runs USING (run_id) WHERE artifact_type = 'paths' GROUP BY caller_name)
SELECT caller_name, calls, mints, p AS hit_2x_rate,
       -- the lower end of the 95% Wilson interval (1.96 squared is 3.8416): a few calls say little
       round((p + 1.9208 / calls - 1.96 * sqrt(p * (1 - p) / calls + 0.9604 / calls ^ 2)) / (1 + 3.8416 / calls), 4) AS at_least,
       median_peak, median_dd_bps
FROM callers ORDER BY caller_name;
