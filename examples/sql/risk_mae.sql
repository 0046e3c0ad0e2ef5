SELECT CASE WHEN realized_return_bps > 0 THEN 'winners' ELSE 'losers' END AS trades, count(*) AS n,
       avg((max_adverse_excursion_bps > -500)::INT) AS under_5_percent,
       avg((max_adverse_excursion_bps <= -500 AND max_adverse_excursion_bps > -1000)::INT) AS "5_to_10_percent",
       avg((max_adverse_excursion_bps <= -1000 AND max_adverse_excursion_bps > -2000)::INT) AS "10_to_20_percent",
       avg((max_adverse_excursion_bps <= -2000)::INT) AS "20_percent_or_more"
FROM trades JOIN latest_runs USING (run_id) WHERE run_type = 'full' AND policy_id = 'time_1h'
GROUP BY 1 ORDER BY 1 DESC;
