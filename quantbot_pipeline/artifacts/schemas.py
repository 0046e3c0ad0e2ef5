"""The artifact contract: one pyarrow schema per artifact type, and where its file lies in a run directory.

Belongs here: names, types and nullability of columns, in order. More columns may be appended in a later version, none may
change; what appends some adds a version to `versions.ARTIFACT_COLUMNS`. Units are in the names: `*_bps` basis points, `*_ms` milliseconds, `*_ts_ms` and `t_*_ms` UTC epoch milliseconds.
"""

import pyarrow as pa

from quantbot_pipeline.errors import InputError, counted
from quantbot_pipeline.versions import FIRST

ARTIFACTS_VERSION = FIRST  # of files that do not say their own


def _schema(spec: str) -> pa.Schema:
    """`name:type` words; a `?` behind the type marks a nullable column."""
    types = {"s": pa.string(), "i": pa.int64(), "f": pa.float64(), "b": pa.bool_()}
    fields = []
    for word in spec.split():
        name, kind = word.split(":")
        fields.append(pa.field(name, types[kind[0]], nullable=kind.endswith("?")))
    return pa.schema(fields)


ALERTS = _schema("call_id:s mint:s caller_name:s chain:s alert_ts_ms:i created_at:s")
PATHS = _schema(
    """run_id:s call_id:s caller_name:s mint:s chain:s interval:s alert_ts_ms:i p0:f hit_2x:b t_2x_ms:i? hit_3x:b
    t_3x_ms:i? hit_4x:b t_4x_ms:i? dd_bps:f dd_to_2x_bps:f? alert_to_activity_ms:i? peak_multiple:f
    entry_ts_ms:i entry_delay_ms:i t_peak_ms:i? observed_ms:i coverage:f censored:b"""
)
FEATURES = _schema(
    """run_id:s call_id:s features:s caller_prior_calls:i hour_utc:i mint_age_ms:i? mint_prior_callers:i mint_prior_calls:i
    since_callers_last_call_ms:i? weekday_utc:i caller_calls_24h:i? mint_calls_24h:i? calls_24h:i? mint_callers_1h:i?
    caller_follow_share:f? candles_24h:i? stale_ms:i? ret_1h:f? ret_4h:f? ret_24h:f? from_high_24h:f? from_low_24h:f? rv_4h:f?
    rv_24h:f? max_up_24h:f? up_share_24h:f? volume_share_1h:f? market_tokens:i? market_ret_1h:f? market_ret_24h:f?
    market_rv_24h:f? excess_ret_24h:f?"""
)
TRADES = _schema(
    """run_id:s policy_id:s call_id:s entry_ts_ms:i entry_px:f exit_ts_ms:i exit_px:f exit_reason:s
    realized_return_bps:f stop_out:b max_adverse_excursion_bps:f time_exposed_ms:i tail_capture:f?
    caller_name:s gross_return_bps:f fills:i optimistic_return_bps:f? ambiguous:b? scheme:s?"""
)
SUMMARY = _schema(
    """run_id:s policy_id:s? calls_processed:i calls_excluded:i trades_count:i avg_return_bps:f? median_return_bps:f?
    p25_return_bps:f? p75_return_bps:f? p90_return_bps:f? stop_out_rate:f? avg_max_adverse_excursion_bps:f?
    avg_time_exposed_ms:f? median_time_exposed_ms:f? avg_tail_capture:f? median_tail_capture:f?
    loss_rate:f? es95_bps:f? p95_drawdown_bps:f? stressed_avg_return_bps:f? censored_count:i policy_params:s? data_end_share:f?"""
)
FRONTIER = _schema(
    """run_id:s caller_name:s policy_params:s meets_constraints:b objective_score:f avg_return_bps:f? median_return_bps:f?
    stop_out_rate:f? rank:i policy_id:s trades:i calls_excluded:i distinct_mints:i censored_count:i loss_rate:f?
    es95_bps:f? p95_drawdown_bps:f? stressed_avg_return_bps:f? avg_time_exposed_ms:f? avg_tail_capture:f? violations:s
    is_pareto:b flags:s? skipped_max_positions:i? skipped_below_min_size:i? data_end_share:f?"""
)
EQUITY = _schema("run_id:s caller_name:s policy_id:s ts_ms:i event:s call_id:s size:f cash:f equity:f")
WALK_FORWARD = _schema(
    """run_id:s caller_name:s scheme:s policy_id:s? policy_params:s? pooled:b train_calls:i test_calls:i
    in_sample_avg_return_bps:f? in_sample_median_return_bps:f? in_sample_stop_out_rate:f? in_sample_es95_bps:f?
    out_of_sample_trades:i out_of_sample_avg_return_bps:f out_of_sample_median_return_bps:f out_of_sample_stop_out_rate:f
    out_of_sample_es95_bps:f efficiency:f? hold_trades:i hold_avg_return_bps:f hold_median_return_bps:f hold_stop_out_rate:f
    hold_es95_bps:f pooled_policy_id:s? pooled_trades:i pooled_avg_return_bps:f pooled_median_return_bps:f
    pooled_stop_out_rate:f pooled_es95_bps:f out_of_sample_data_end_share:f? out_of_sample_stressed_avg_return_bps:f?"""
)
TUNED = _schema(
    """run_id:s caller_name:s scheme:s policy_id:s? policy_params:s? pool_calls:i train_calls:i test_calls:i promise_bps:f?
    plateau_bps:f? evaluations:i out_of_sample_bps:f grid_policy_id:s? grid_bps:f hold_bps:f difference_z:f? verdict:s
    grid_policy_params:s? unleaned_policy_id:s? unleaned_policy_params:s? unleaned_bps:f leaning_z:f? leaning_verdict:s hold_z:f? hold_verdict:s"""
)
EVIDENCE = _schema(
    """run_id:s caller_name:s verdict:s calls_needed:i? towards:s? flags:s tested:b e_value:f e_threshold:f e_zero:f e_known:f
    e_family:f e_choice:f e_none:f e_recent:f calls:i units:i mints:i missing_units:i unresolved_units:i choice_units:i
    choice_mean_bps:f? choice_low_bps:f? choice_high_bps:f? spa_p:f? stepm_policies:i? deflated_sharpe:f?
    hit_2x:i hit_2x_shrunk:f? hit_2x_low:f? hit_2x_high:f? hit_3x:i hit_3x_shrunk:f? hit_3x_low:f? hit_3x_high:f?
    hit_4x:i hit_4x_shrunk:f? hit_4x_low:f? hit_4x_high:f? median_ms_to_2x:i? break_even_share:f? break_even_usd:f?
    break_even_latency_ms:f?"""
)
EVIDENCE_TIMES = _schema("run_id:s caller_name:s t_ms:i hit_2x:f hit_low:f hit_high:f stop:f silent:f at_risk:i")
EVIDENCE_COSTS = _schema("run_id:s caller_name:s kind:s value:f units:i same_entry:f? mean_bps:f se_bps:f?")
PREDICTIONS = _schema(
    """run_id:s call_id:s caller_name:s mint:s alert_ts_ms:i target:s model_id:s status:s value:f base_value:f caller_value:f
    linear_value:f? boosting_value:f? low:f? high:f? take:b limit:f? outside:i stale:b caller_settled_calls:i
    caller_hit_2x_rate:f? caller_log_peak:f? pooled_hit_2x_rate:f? excluded:b? outcome:f? outcome_known_ts_ms:i?
    policy_return:f?"""
)
MODEL_REPORT = _schema(
    """run_id:s target:s model:s scope:s train_calls:i calls:i positives:i? test_months:i log_loss:f? gain_over_base:f?
    gain_over_base_z:f? gain_over_caller:f? gain_over_caller_z:f? brier_gain:f? r2:f? auc:f? calibration_slope:f?
    calibration_intercept:f? covered:f? taken_share:f? lift:f? all_return_bps:f? taken_return_bps:f? taken_return_z:f?
    weight_caller:f? weight_linear:f? weight_boosting:f? verdict:s? money_verdict:s?"""
)
IMPORTANCE = _schema("run_id:s target:s feature:s group:s loss_increase:f? z:f? calls:i")
DEPENDENCE = _schema("run_id:s target:s feature:s at:f value:f")
CALIBRATION = _schema("run_id:s target:s bin:i calls:i predicted:f observed:f low:f high:f")
MODELS = _schema("run_id:s target:s model_id:s trained_until_ts_ms:i train_calls:i feature_set:i features:s document:s")
ANOMALIES = _schema(
    """run_id:s kind:s severity:s subject_type:s subject:s other_subject:s? from_ts_ms:i to_ts_ms:i score:f limit:f
    calls_touched:i hits_touched:i reason:s details:s?"""
)
ERRORS = _schema("run_id:s timestamp:s level:s phase:s call_id:s? message:s details:s?")

# type: (file inside the run directory, schema)
ARTIFACTS: dict[str, tuple[str, pa.Schema]] = {
    "alerts": ("inputs/alerts.parquet", ALERTS),
    "paths": ("truth/paths.parquet", PATHS),
    "features": ("features/features.parquet", FEATURES),
    "trades": ("policy/trades.parquet", TRADES),
    "summary": ("results/summary.parquet", SUMMARY),
    "frontier": ("results/frontier.parquet", FRONTIER),
    "walk_forward": ("results/walk_forward.parquet", WALK_FORWARD),
    "tuned": ("results/tuned.parquet", TUNED),
    "equity": ("results/equity.parquet", EQUITY),
    "evidence": ("results/evidence.parquet", EVIDENCE),
    "evidence_times": ("results/evidence_times.parquet", EVIDENCE_TIMES),
    "evidence_costs": ("results/evidence_costs.parquet", EVIDENCE_COSTS),
    "predictions": ("model/predictions.parquet", PREDICTIONS),
    "model_report": ("model/model_report.parquet", MODEL_REPORT),
    "importance": ("model/importance.parquet", IMPORTANCE),
    "dependence": ("model/dependence.parquet", DEPENDENCE),
    "calibration": ("model/calibration.parquet", CALIBRATION),
    "models": ("model/models.parquet", MODELS),
    "anomalies": ("anomalies/anomalies.parquet", ANOMALIES),
    "errors": ("errors/errors.parquet", ERRORS),
}


def conform(artifact_type: str, table: pa.Table) -> pa.Table:
    """`table` with exactly the columns of its schema, in order; absent nullable ones are null.

    Raises ValueError when a value does not fit, InputError for a number that is not finite: nobody could do sums with it.
    """
    schema = ARTIFACTS[artifact_type][1]
    absent = [field for field in schema if field.nullable and field.name not in table.schema.names]
    for field in absent:
        table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    for field in schema:
        if not field.nullable and table[field.name].null_count:
            raise ValueError(f"{artifact_type}.{field.name} must not be null ({table[field.name].null_count} rows are)")
    fitting = table.select(schema.names).cast(schema)
    for field in schema:
        if pa.types.is_floating(field.type):
            _require_finite(f"{artifact_type}.{field.name}", fitting, fitting[field.name])
    return fitting


def _require_finite(name: str, table: pa.Table, column: pa.ChunkedArray) -> None:
    import pyarrow.compute as pc  # 0.1 s: who only reads needs no functions

    infinite = pc.invert(pc.is_finite(column))
    if not pc.any(infinite).as_py():
        return
    first = table.slice(pc.index(infinite, True).as_py(), 1).to_pylist()[0]
    whose = next((f" of {key} {first[key]!r}" for key in ("call_id", "caller_name", "policy_id") if first.get(key)), "")
    raise InputError(
        f"{name} is not a finite number in {counted(pc.sum(infinite).as_py(), 'row')}, the first{whose}: prices of one token that are more than "
        "1e304 times apart are beyond what a number can hold; mend its candles and ingest them again"
    )
