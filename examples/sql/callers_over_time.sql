WITH monthly AS (
    SELECT caller_name, dense_rank() OVER (ORDER BY month DESC) AS back, hit_2x::INT AS hit
    FROM paths JOIN newest_runs USING (run_id) WHERE artifact_type = 'paths')
SELECT caller_name, count(*) AS calls, avg(hit) FILTER (back = 3) AS two_months_before, avg(hit) FILTER (back = 2) AS month_before,
       avg(hit) FILTER (back = 1) AS newest_month
FROM monthly GROUP BY caller_name ORDER BY caller_name;
