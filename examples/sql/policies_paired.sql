-- Needs two policies on the same calls, such as those that `quantbot backtest policy` replays without --policy.
WITH played AS (
    SELECT call_id, policy_id, realized_return_bps AS bps
    FROM trades JOIN newest_runs USING (run_id) WHERE artifact_type = 'summary')
SELECT a.policy_id AS a, b.policy_id AS b, count(*) AS calls, avg(b.bps - a.bps) AS b_less_a_bps,
       stddev_samp(b.bps - a.bps) / sqrt(count(*)) AS standard_error, avg((b.bps > a.bps)::INT) AS b_better
FROM played AS a JOIN played AS b USING (call_id) WHERE a.policy_id < b.policy_id
GROUP BY ALL ORDER BY abs(b_less_a_bps / standard_error) DESC, a, b;
