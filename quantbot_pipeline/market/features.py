"""What was known when a call was made: features of earlier calls alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyarrow as pa

from quantbot_pipeline.duck import release_untrusted
from quantbot_pipeline.market.calls import CallStore, pieces_of, reading_calls

FEATURES = (
    "caller_prior_calls",
    "hour_utc",
    "mint_age_ms",
    "mint_prior_callers",
    "mint_prior_calls",
    "since_callers_last_call_ms",
    "weekday_utc",
)


@contextmanager
def call_features(store: CallStore, from_ms: int, to_ms: int) -> Iterator[Callable[[], Iterator[pa.Table]]]:
    """What was known when each call of the range was made, from strictly earlier calls of the whole store.

    Gives a function that reads them piece by piece, from the beginning whenever it is called; DuckDB holds them within
    the memory limit of the store and spills the rest. Columns: call_id, and `features`, the int64 FEATURES as a JSON object with sorted keys,
    and FEATURES (ages and times in ms, null without an earlier call; weekday 1 = Monday); ordered by (alert_ts_ms, call_id).
    """
    pairs = ", ".join(f"'{name}', {name}" for name in FEATURES)
    names = ", ".join(FEATURES)
    with reading_calls(store) as con:
        con.execute(
            f"""CREATE OR REPLACE TEMP TABLE features AS
                WITH history AS (
                  SELECT call_id, alert_ts_ms,
                         hour(make_timestamp_ms(alert_ts_ms)) AS hour_utc,
                         isodow(make_timestamp_ms(alert_ts_ms)) AS weekday_utc,
                         count(*) OVER of_caller AS caller_prior_calls,
                         alert_ts_ms - max(alert_ts_ms) OVER of_caller AS since_callers_last_call_ms,
                         count(*) OVER of_mint AS mint_prior_calls,
                         count(DISTINCT caller_name) OVER of_mint AS mint_prior_callers,
                         alert_ts_ms - min(alert_ts_ms) OVER of_mint AS mint_age_ms
                  FROM alerts WHERE alert_ts_ms < $to_ms
                  WINDOW of_caller AS (PARTITION BY caller_name ORDER BY alert_ts_ms
                                       RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
                         of_mint AS (PARTITION BY mint ORDER BY alert_ts_ms
                                     RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING))
                SELECT call_id, {names} FROM history WHERE alert_ts_ms >= $from_ms ORDER BY alert_ts_ms, call_id""",
            {"from_ms": from_ms, "to_ms": to_ms},
        )
        release_untrusted(con)  # the features are read when the backtest is done
        yield lambda: pieces_of(
            store.path, con.sql(f"SELECT call_id, json_object({pairs})::VARCHAR AS features, {names} FROM features")
        )
