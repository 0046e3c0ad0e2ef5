-- Of one policy: put the name of yours in (policies_compare.sql lists them).
SELECT CASE WHEN realized_return_bps > 0 THEN 'winners' ELSE 'losers' END AS trades, count(*) AS n,
       avg((max_adverse_excursion_bps > -500)::INT) AS under_5_percent,
       avg((max_adverse_excursion_bps <= -500 AND max_adverse_excursion_bps > -1000)::INT) AS "5_to_10_percent",
       avg((max_adverse_excursion_bps <= -1000 AND max_adverse_excursion_bps > -2000)::INT) AS "10_to_20_percent",
       avg((max_adverse_excursion_bps <= -2000)::INT) AS "20_percent_or_more"
FROM trades JOIN newest_runs USING (run_id) WHERE artifact_type = 'summary' AND policy_id = 'fixed_sl0.2_tp1'
GROUP BY 1 ORDER BY 1 DESC;
