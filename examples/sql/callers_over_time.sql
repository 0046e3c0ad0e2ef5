SELECT caller_name, count(*) AS calls,
       avg(hit_2x::INT) FILTER (month = '2026-01') AS jan, avg(hit_2x::INT) FILTER (month = '2026-02') AS feb,
       avg(hit_2x::INT) FILTER (month = '2026-03') AS mar
FROM paths JOIN latest_runs USING (run_id) WHERE run_type = 'full'
GROUP BY caller_name ORDER BY caller_name;
