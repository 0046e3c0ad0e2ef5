"""Which months have ended and are still to be closed: backtested by every kind of run after their last window has closed.

Belongs here: the decision, from what was materialized and what is under way, and where Dagster says so. Does not: when it is
asked for. What is due never depends on a tick: after any downtime the months that were missed are due.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from quantbot_pipeline.months import month_start_ms, next_month
from quantbot_pipeline.orchestration.partitions import months_of
from quantbot_pipeline.specs import EVERYTHING, Key, RunKind, ops

if TYPE_CHECKING:
    from quantbot_pipeline.config import BacktestConfig
    from quantbot_pipeline.home import Home

GRACE_MS = 2 * 3_600_000  # after the last window closes: its candles have to arrive
PAGE = 1_000
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def closes_at(month: str, reach_ms: int) -> int:
    """Return when a month can be closed (UTC ms): no call of it can need a later candle. reach_ms: as a call can need them."""
    return month_start_ms(next_month(month)) + reach_ms + GRACE_MS


def months_due(
    now_ms: int, months: Iterable[str], made: Mapping[str, Sequence[int | None]], under_way: set[str], reach_ms: int
) -> list[str]:
    """Return the months to close now, ascending.

    made: {month: when each kind of run was last made, UTC ms; None: never}. A run that was made before the month could be
    closed had open windows. under_way: months that an unfinished run is making.
    """
    return [
        month
        for month in sorted(months)
        if now_ms >= closes_at(month, reach_ms)
        and month not in under_way
        and any(at is None or at < closes_at(month, reach_ms) for at in made[month])
    ]


def widest_kinds() -> list[RunKind]:
    """Return the kinds that together make everything a month deserves: the widest of each step."""
    return [kinds[-1] for kinds in ops().values()]


def look(instance: dg.DagsterInstance, home: "Home", now_ms: int, partitions: Sequence[str]) -> list[str]:
    """Return the months to close now, as Dagster's instance and the store of calls tell; partitions: known to Dagster.

    Months count from the first one with calls. While there are no calls all partitions do: a run of such a month is at once done.
    """
    from quantbot_pipeline.backtest.inputs import reach_ms
    from quantbot_pipeline.config import BacktestConfig
    from quantbot_pipeline.market.calls import month_statistics

    config = BacktestConfig()
    reach = reach_ms(config)
    with_calls = list(month_statistics(home.calls)) if home.calls.path.exists() else []
    candidates = [m for m in (with_calls or partitions) if m in set(partitions) and now_ms >= closes_at(m, reach)]
    if not candidates:
        return []
    kinds = {kind.keys[-1]: _config_hash(kind, config) for kind in widest_kinds()}
    newest = [_newest(instance, key, config_hash, candidates) for key, config_hash in kinds.items()]
    made = {month: [times.get(month) for times in newest] for month in candidates}
    return months_due(now_ms, candidates, made, _under_way(instance), reach)


def _config_hash(kind: RunKind, config: "BacktestConfig") -> str:
    from quantbot_pipeline.backtest.provenance import parameters_of

    whole = "2024-01"  # any whole month has the hash of every whole month
    bounds = (month_start_ms(whole), month_start_ms(next_month(whole)))
    return str(parameters_of(kind, config, bounds, whole)["config_hash"])


def _newest(instance: dg.DagsterInstance, key: Key, config_hash: str, months: Sequence[str]) -> dict[str, int]:
    """{month: when the asset was last made with this configuration, UTC ms}; a month without calls has no configuration."""
    wanted, found, cursor = set(months), dict[str, int](), None
    records = dg.AssetRecordsFilter(asset_key=dg.AssetKey(list(key)), asset_partitions=list(months))
    while wanted - found.keys():
        page = instance.fetch_materializations(records, limit=PAGE, cursor=cursor)
        for record in page.records:
            made = record.asset_materialization
            if made is None or made.partition is None or made.partition in found:
                continue
            version = made.metadata.get("data_version")
            if version is None or f"-{config_hash}-" in str(version.value):
                found[made.partition] = int(record.timestamp * 1000)
        if not page.has_more:
            break
        cursor = page.cursor
    return found


def _under_way(instance: dg.DagsterInstance) -> set[str]:
    """The months of unfinished runs that make everything."""
    runs = instance.get_runs(dg.RunsFilter(job_name=EVERYTHING, statuses=UNFINISHED))
    return {month for run in runs for month in months_of(run.tags)}
