SELECT caller_name, verdict, calls_needed, towards, round(e_value, 2) AS e, round(e_threshold, 1) AS threshold, units,
       round(choice_mean_bps) AS choice, round(choice_low_bps) AS low, round(choice_high_bps) AS high, flags
FROM evidence JOIN newest_runs USING (run_id)
WHERE artifact_type = 'evidence'
QUALIFY month = max(month) OVER ()
ORDER BY verdict, e_value DESC, caller_name;
