"""`replicas/runs`: the committed runs of a month at the places of QUANTBOT_REPLICAS.

Belongs here: months and metadata. Does not: what is copied, and how.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from quantbot_pipeline.errors import QuantbotError
from quantbot_pipeline.orchestration.resources import Lab
from quantbot_pipeline.orchestration.stopping import heeding
from quantbot_pipeline.specs import outputs

if TYPE_CHECKING:
    from quantbot_pipeline.runs.replicate import Replication
    from quantbot_pipeline.runs.store import RunStore

REPLICAS = dg.AssetKey(["replicas", "runs"])


def replica_assets(months: dg.PartitionsDefinition, backfill_policy: dg.BackfillPolicy) -> list[dg.AssetsDefinition]:
    """Return the asset of the replicas."""

    @dg.asset(
        key=REPLICAS,
        group_name="replicas",
        deps=[list(key) for key in outputs()],
        partitions_def=months,
        backfill_policy=backfill_policy,
    )
    def runs(context: dg.AssetExecutionContext, lab: Lab) -> dg.MaterializeResult:
        """The committed runs of a month, copied to the places of QUANTBOT_REPLICAS; without it nothing is done. What differs there is named and left."""
        from quantbot_pipeline.runs.replicate import replicate

        home, wanted = lab.open(), list(context.partition_keys)
        if not home.settings.replicas:
            context.log.info("QUANTBOT_REPLICAS names no place: nothing is copied")
        done: list[Replication] = []
        failures: list[str] = []
        for replica in home.replicas:
            try:
                with heeding(context):
                    done.append(replicate(home.runs, replica, months=wanted, tell=context.log.debug))
            except QuantbotError as e:  # the other places get their copies
                failures.append(str(e))
        for month in wanted:
            metadata = _metadata(home.runs, month, done)
            context.add_asset_metadata(metadata, asset_key=context.asset_key, partition_key=month)
        for one in done:
            for run_dir, why in one.faults.items():  # no failure: the check tells of them until somebody has looked
                context.log.error(f"{one.destination}: {run_dir}: {why}")
        if failures:
            raise dg.Failure(f"{len(failures)} replicas without their copies: {failures[0]}")
        return dg.MaterializeResult()

    return [runs]


def _metadata(source: "RunStore", month: str, done: Sequence["Replication"]) -> dict[str, Any]:
    """What the UI shows of a month: counts over all replicas, the largest lag, and a table with a row for each replica."""
    from quantbot_pipeline.runs.replicate import lag_of

    rows: list[dict[str, Any]] = []
    now_s = time.time()
    for one in done:
        own = one.of_month(month)
        lag = lag_of(source, own.compared, now_s)
        rows.append(
            {
                "replica": one.destination,
                "runs": len(own.alike) + len(own.copied),
                "copied": len(own.copied),
                "missing": len(own.missing),
                "differing": len(own.differing),
                "bytes": sum(own.copied.values()),
                "lag_s": round(lag.lag_s, 3),
            }
        )
    totals: dict[str, Any] = {
        name: sum(row[name] for row in rows) for name in ("copied", "missing", "differing", "bytes")
    }
    totals |= {"replicas": len(rows), "lag_s": max((row["lag_s"] for row in rows), default=0.0)}
    if rows:
        totals["each"] = dg.MetadataValue.table([dg.TableRecord(row) for row in rows])
    return totals
