-- Needs months whose callers had enough earlier trades for a choice.
SELECT caller_name, count(policy_id) AS months_traded, sum(out_of_sample_trades) AS trades,
       sum(in_sample_avg_return_bps * out_of_sample_trades) / sum(out_of_sample_trades) AS promised_bps,
       sum(out_of_sample_avg_return_bps * out_of_sample_trades) / sum(out_of_sample_trades) AS earned_bps,
       sum(hold_avg_return_bps * hold_trades) / sum(hold_trades) AS held_bps
FROM walk_forward JOIN newest_runs USING (run_id)
WHERE artifact_type = 'walk_forward' AND scheme = 'anchored' AND out_of_sample_trades > 0
GROUP BY caller_name ORDER BY caller_name;
