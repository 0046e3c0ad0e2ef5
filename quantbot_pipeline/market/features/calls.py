"""What was known when a call was made of the calls before it: how many, of whom, of which token, how lately."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyarrow as pa

from quantbot_pipeline.duck import release_untrusted
from quantbot_pipeline.kept import Kept
from quantbot_pipeline.market.calls import (
    KEPT_ROOM,
    CallStore,
    files_of,
    is_small,
    pieces_of,
    reading_calls,
    within,
)
from quantbot_pipeline.market.features.names import FEATURES, RECENT_CALLS

# A window of strictly earlier calls; the last day and hour begin with the call exactly as old.
_QUERY = """WITH history AS (
    SELECT call_id, alert_ts_ms, caller_name, mint,
           hour(make_timestamp_ms(alert_ts_ms)) AS hour_utc,
           isodow(make_timestamp_ms(alert_ts_ms)) AS weekday_utc,
           count(*) OVER of_caller AS caller_prior_calls,
           alert_ts_ms - max(alert_ts_ms) OVER of_caller AS since_callers_last_call_ms,
           count(*) OVER of_mint AS mint_prior_calls,
           count(DISTINCT caller_name) OVER of_mint AS mint_prior_callers,
           alert_ts_ms - min(alert_ts_ms) OVER of_mint AS mint_age_ms,
           count(*) OVER (PARTITION BY caller_name ORDER BY alert_ts_ms
                          RANGE BETWEEN 86400000 PRECEDING AND 1 PRECEDING) AS caller_calls_24h,
           count(*) OVER (PARTITION BY mint ORDER BY alert_ts_ms
                          RANGE BETWEEN 86400000 PRECEDING AND 1 PRECEDING) AS mint_calls_24h,
           count(*) OVER (ORDER BY alert_ts_ms RANGE BETWEEN 86400000 PRECEDING AND 1 PRECEDING) AS calls_24h,
           count(DISTINCT caller_name) OVER (PARTITION BY mint ORDER BY alert_ts_ms
                                             RANGE BETWEEN 3600000 PRECEDING AND 1 PRECEDING) AS mint_callers_1h,
           count(*) OVER (PARTITION BY mint, caller_name ORDER BY alert_ts_ms
                          RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) > 0 AS again
    FROM {calls} WHERE alert_ts_ms < $to_ms
    WINDOW of_caller AS (PARTITION BY caller_name ORDER BY alert_ts_ms RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
           of_mint AS (PARTITION BY mint ORDER BY alert_ts_ms RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)),
known AS (
    SELECT *, count(*) FILTER (mint_prior_callers > again::INT) OVER (
                  PARTITION BY caller_name ORDER BY alert_ts_ms RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
              / nullif(caller_prior_calls, 0) AS caller_follow_share
    FROM history)"""
ALWAYS = (-(1 << 63), (1 << 63) - 1)
_KEPT: Kept[pa.Table] = Kept(KEPT_ROOM, lambda features: int(features.nbytes))


@contextmanager
def call_features(store: CallStore, from_ms: int, to_ms: int) -> Iterator[Callable[[], Iterator[pa.Table]]]:
    """What was known when each call of the range was made, from strictly earlier calls of the whole store.

    Gives a function that reads them piece by piece, from the beginning whenever it is called. Those of a small store are
    read whole, once per process. Those of any other are held by DuckDB within the memory limit of the store; it spills the
    rest. Columns: call_id; `features`, the int64 FEATURES as a JSON object with sorted keys; FEATURES (ages and times in ms,
    null without an earlier call; weekday 1 = Monday); RECENT_CALLS (int64, the share float64, null without an earlier call of
    the caller); ordered by (alert_ts_ms, call_id).
    """
    if not is_small(store):
        with _features(store, from_ms, to_ms) as read:
            yield lambda: (piece.drop_columns("alert_ts_ms") for piece in read())
        return
    whole = _KEPT.get(store, files_of(store), lambda: _all_features(store))
    rows = within(whole, from_ms, to_ms)
    ours = whole.slice(rows.start, rows.stop - rows.start).drop_columns("alert_ts_ms")
    table = pa.table([_as_duckdb_gives(column) for column in ours.columns], schema=ours.schema)
    yield lambda: iter([table])


def features_of_new(store: CallStore, calls: pa.Table) -> pa.Table:
    """Return what was known when some calls were made that the store need not know, as if they were ingested.

    calls: call_id, mint, caller_name (string), alert_ts_ms (int64), each call once. Columns as of `call_features` without `features`, and
    rows ordered by (alert_ts_ms, call_id). Calls of the store and of `calls` count as earlier ones; of a call that both have the
    store's counts.
    """
    names = ", ".join((*FEATURES, *RECENT_CALLS))
    columns = ("call_id", "mint", "caller_name", "alert_ts_ms")
    with reading_calls(store) as con:
        con.register("new_calls", calls.select(columns))
        both = f"""(SELECT {", ".join(columns)} FROM alerts
                    UNION ALL SELECT {", ".join(columns)} FROM new_calls WHERE call_id NOT IN (SELECT call_id FROM alerts))"""
        found = con.sql(
            f"{_QUERY.format(calls=both)} SELECT call_id, {names} FROM known "
            "WHERE call_id IN (SELECT call_id FROM new_calls) ORDER BY alert_ts_ms, call_id",
            params={"to_ms": ALWAYS[1]},
        )
        return found.to_arrow_table()


def _as_duckdb_gives(column: pa.ChunkedArray) -> pa.Array:
    """Return the column as DuckDB would hand it over alone: the validity bits behind its last row are ones.

    The content hash of the features includes those bits. Runs of earlier versions have it in their fingerprint.
    """
    array = pa.concat_arrays(column.chunks)
    if not array.null_count or len(array) % 8 == 0:
        return array
    validity, *values = array.buffers()
    bits = bytearray(validity)[: len(array) // 8 + 1]
    bits[-1] |= (0xFF << len(array) % 8) & 0xFF
    return pa.Array.from_buffers(array.type, len(array), [pa.py_buffer(bytes(bits)), *values])


def _all_features(store: CallStore) -> pa.Table:
    with _features(store, *ALWAYS) as read:
        return pa.concat_tables(read()).combine_chunks()


@contextmanager
def _features(store: CallStore, from_ms: int, to_ms: int) -> Iterator[Callable[[], Iterator[pa.Table]]]:
    pairs = ", ".join(f"'{name}', {name}" for name in FEATURES)
    names = ", ".join((*FEATURES, *RECENT_CALLS))
    with reading_calls(store) as con:
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE features AS {_QUERY.format(calls='alerts')} SELECT call_id, alert_ts_ms, {names} FROM known "
            "WHERE alert_ts_ms >= $from_ms ORDER BY alert_ts_ms, call_id",
            {"from_ms": from_ms, "to_ms": to_ms},
        )
        release_untrusted(con)  # the features are read when the backtest is done
        yield lambda: pieces_of(
            store.path,
            con.sql(f"SELECT call_id, alert_ts_ms, json_object({pairs})::VARCHAR AS features, {names} FROM features"),
        )
