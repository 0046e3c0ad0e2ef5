-- Nothing here: no call and no candle was left out.
SELECT r.month, e.details ->> '$.reason' AS reason, count(*) FILTER (e.call_id IS NOT NULL) AS calls,
       sum((e.details ->> '$.rows')::BIGINT) AS candles
FROM errors AS e JOIN newest_runs AS r USING (run_id)
WHERE r.artifact_type = 'paths' AND e.phase = 'coverage'
GROUP BY ALL ORDER BY ALL;
