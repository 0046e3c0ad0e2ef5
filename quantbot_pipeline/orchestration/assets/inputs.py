"""The inputs: the inbox that feeds the stores, and what the stores hold of a month.

Materializing `inputs/alerts` and `inputs/candles` takes stock and changes nothing; `inputs/inbox` ingests files.
"""

import hashlib
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from quantbot_pipeline.orchestration.resources import Lab
from quantbot_pipeline.orchestration.stopping import heeding
from quantbot_pipeline.orchestration.waiting import INPUT_WRITER
from quantbot_pipeline.vocabulary import INTERVALS_MS

if TYPE_CHECKING:
    from quantbot_pipeline.home import Home


INBOX_KEY = dg.AssetKey(["inputs", "inbox"])


def input_assets(months: dg.PartitionsDefinition, backfill_policy: dg.BackfillPolicy) -> list[dg.AssetsDefinition]:
    """Return the assets that take stock of the stores, and the inbox."""

    @dg.asset(
        key=["inputs", "alerts"],
        group_name="inputs",
        partitions_def=months,
        backfill_policy=backfill_policy,
        kinds={"duckdb"},
    )
    def alerts(context: dg.AssetExecutionContext, lab: Lab) -> dg.MaterializeResult:
        """The calls of a month: how many, by how many callers, on how many tokens. They lie in data/alerts.duckdb."""
        with heeding(context):
            return _take_stock_of_calls(context, lab.open())

    @dg.asset(
        key=["inputs", "candles"],
        group_name="inputs",
        partitions_def=months,
        backfill_policy=backfill_policy,
        kinds={"parquet"},
    )
    def candles(context: dg.AssetExecutionContext, lab: Lab) -> dg.MaterializeResult:
        """The candles of a month: rows and bytes per interval, and rows that failed validity. They lie in data/candles/."""
        with heeding(context):
            return _take_stock_of_candles(context, lab.open())

    return [inbox, alerts, candles]


def _take_stock_of_calls(context: dg.AssetExecutionContext, home: "Home") -> dg.MaterializeResult:
    from quantbot_pipeline.market.calls import month_statistics

    statistics = month_statistics(home.calls)
    for month in context.partition_keys:
        counts = statistics.get(month, {"calls": 0, "callers": 0, "mints": 0})
        context.add_asset_metadata(counts, asset_key=context.asset_key, partition_key=month)
    return dg.MaterializeResult(data_version=_version(statistics))


def _take_stock_of_candles(context: dg.AssetExecutionContext, home: "Home") -> dg.MaterializeResult:
    from quantbot_pipeline.errors import InputError
    from quantbot_pipeline.market.candle_files import month_rows, store_signature

    for month in context.partition_keys:
        sizes: dict[str, tuple[int, int, int]] = {}
        unreadable: dict[str, str] = {}
        for interval in INTERVALS_MS:
            try:
                sizes[interval] = month_rows(home.candles.folder, interval, month)
            except InputError as e:  # one bad file must not keep the other months from being backtested
                unreadable[f"unreadable_{interval}"] = str(e)
                context.log.error(f"{month}: {e}")
        rows, rejected, size = (sum(column) for column in zip(*sizes.values(), (0, 0, 0), strict=True))
        metadata = {f"rows_{interval}": n for interval, (n, _, _) in sizes.items() if n}
        metadata |= {"rows": rows, "rejected_rows": rejected, "bytes": size}
        context.add_asset_metadata(metadata | unreadable, asset_key=context.asset_key, partition_key=month)
    return dg.MaterializeResult(data_version=_version(store_signature(home.candles.folder)))


def _version(content: object) -> dg.DataVersion:
    """Of a store as a whole: taking stock twice of the same store must not make what was backtested look out of date.

    Dagster knows one version for all months of a run, so it cannot be the month's own.
    """
    return dg.DataVersion(hashlib.sha256(repr(content).encode()).hexdigest()[:16])


class InboxConfig(dg.Config):
    """Which files to take; the sensor names those whose copy is complete."""

    files: list[str] = Field([], description="paths relative to data/inbox/; empty: everything that waits there")


@dg.asset(key=["inputs", "inbox"], group_name="inputs", pool=INPUT_WRITER, kinds={"duckdb"})
def inbox(context: dg.AssetExecutionContext, config: InboxConfig, lab: Lab) -> dg.MaterializeResult:
    """Ingests files of data/inbox/; what cannot be read is set aside in rejected/ with its reason."""
    from quantbot_pipeline.ingest.inbox import scan, set_aside, take_in
    from quantbot_pipeline.ingest.touched import changed_months, note_begin

    home = lab.open()
    with heeding(context):
        files = config.files or sorted(scan(home.settings.inbox_dir))
        note = note_begin(home, context.run.run_id, files, lambda run_id: has_told(context.instance, run_id))
        intake = take_in(home, files)
        # A run that was killed has told nobody what it set aside.
        earlier = [file for file in note.files if file not in intake.ingested]
        rejected = set_aside(home.settings.inbox_dir, earlier) | intake.rejected
        call_months, candle_months = changed_months(note, home)
    for path, reason in rejected.items():
        context.log.error(f"{path} set aside: {reason}")
    return dg.MaterializeResult(
        metadata={
            "files": len(intake.ingested),
            "rows_changed": sum(intake.ingested.values()),
            "rejected_files": len(rejected),
            "rejected": dg.MetadataValue.json(rejected),
            "call_months": dg.MetadataValue.json(sorted({*call_months, *intake.call_months})),
            "candle_months": dg.MetadataValue.json(sorted({*candle_months, *intake.candle_months})),
        }
    )


def has_told(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether Dagster knows which months this run of the inbox has changed."""
    events = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    return any(entry.dagster_event is not None and entry.dagster_event.asset_key == INBOX_KEY for entry in events)
