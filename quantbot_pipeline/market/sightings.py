"""Which ingest saw which call: when calls were taken in, and which a later ingest of their source no longer has.

The tables are those of the store of calls: `call_sightings` has a row for each call and source, `ingests` one for each ingest,
source and caller. Belongs here: their meaning, and reading them. Does not: what it says of a caller; see `anomalies`.
"""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quantbot_pipeline.market.calls import CallStore, reading_calls

# Whether a sighting s of a call a is missing: a later ingest of its source and caller covers its time and has not seen it.
IS_MISSING = """EXISTS (SELECT 1 FROM ingests i WHERE i.id > s.last_ingest AND i.source = s.source
                        AND i.caller_name = s.caller_name AND a.alert_ts_ms BETWEEN i.from_ts_ms AND i.to_ts_ms)"""
UNKNOWN = -1


class Sightings(NamedTuple):
    """Calls by id, shapes (C,): when they were taken in (UTC ms; -1: unknown), and whether every source misses them now."""

    call_id: list[str]
    ingested: npt.NDArray[np.int64]
    missing: npt.NDArray[np.bool_]


def read_sightings(store: CallStore, to_ms: int) -> Sightings:
    """Return the sightings of all calls before a time, ordered by id; an absent store has none.

    A call that one of its sources still has is not missing. Raises InputError for a broken store.
    """
    with reading_calls(store) as con:
        known = {name.lower() for name in con.sql("FROM alerts").columns}  # another program's file may not say when
        at = "epoch_ms(TRY_CAST(a.ingested_at AS TIMESTAMP))" if "ingested_at" in known else "NULL"
        found = con.sql(
            f"""SELECT call_id, any_value(ingested) AS ingested, bool_and(missing) AS missing FROM (
                    SELECT a.call_id, coalesce({at}, {UNKNOWN})::BIGINT AS ingested,
                           s.call_id IS NOT NULL AND {IS_MISSING} AS missing
                    FROM alerts a LEFT JOIN call_sightings s USING (call_id) WHERE a.alert_ts_ms < ?)
                GROUP BY call_id ORDER BY call_id""",
            params=[to_ms],
        )
        table = found.to_arrow_table()
    return Sightings(
        table["call_id"].to_pylist(), table["ingested"].to_numpy(), table["missing"].to_numpy().astype(bool)
    )


def read_noted(store: CallStore, table: Literal["call_sightings", "ingests"]) -> pa.Table:
    """Return a table of sightings as it is stored, in order; an absent store has no row. Raises InputError for a broken store."""
    with reading_calls(store) as con:
        found = con.sql(f"FROM {table} ORDER BY ALL").to_arrow_table()
    if "at" not in found.column_names:
        return found
    times = found["at"].cast(pa.timestamp("ms", "UTC"), safe=False)
    return found.set_column(found.column_names.index("at"), "at", times)
