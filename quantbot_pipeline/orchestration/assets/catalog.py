"""The catalog: the published DuckDB index over all committed runs, month by month."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from quantbot_pipeline.orchestration.resources import Lab
from quantbot_pipeline.orchestration.stopping import heeding
from quantbot_pipeline.orchestration.waiting import CATALOG_WRITER
from quantbot_pipeline.specs import outputs

if TYPE_CHECKING:
    from quantbot_pipeline.catalog.catalog import Catalog

CATALOG = dg.AssetKey(["catalog", "runs"])


def catalog_assets(months: dg.PartitionsDefinition, backfill_policy: dg.BackfillPolicy) -> list[dg.AssetsDefinition]:
    """Return the asset of the catalog; a month of it is that month's runs."""

    @dg.asset(
        key=CATALOG,
        group_name="catalog",
        deps=[list(key) for key in outputs()],
        partitions_def=months,
        backfill_policy=backfill_policy,
        pool=CATALOG_WRITER,
        kinds={"duckdb"},
    )
    def runs(context: dg.AssetExecutionContext, lab: Lab) -> dg.MaterializeResult:
        """The index of all committed runs, data/backtest_catalog.duckdb. A month registers its runs; what fails verification is set aside. Cheap when nothing is new."""
        from quantbot_pipeline.catalog.sync import sync

        catalog = lab.open().catalog
        known = set(months.get_partition_keys())
        with heeding(context):
            report = sync(catalog, only=lambda month: month in context.partition_keys or month not in known)
        context.log.info(f"{report.registered} new, {report.removed} gone, {report.elapsed_ms:.0f} ms")
        for month, metadata in catalog_metadata(catalog, context.partition_keys).items():
            context.add_asset_metadata(metadata, asset_key=context.asset_key, partition_key=month)
        return dg.MaterializeResult()

    return [runs]


def catalog_metadata(catalog: "Catalog", months: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return what the UI shows of each month: runs by kind and status, rows, bytes, quarantined, the newest run."""
    from quantbot_pipeline.catalog.catalog import month_numbers

    shown: dict[str, dict[str, Any]] = {}
    for month, numbers in month_numbers(catalog, months).items():
        metadata: dict[str, Any] = numbers._asdict()
        metadata["kinds"] = dg.MetadataValue.json(numbers.kinds)
        metadata["newest_run"] = numbers.newest_run or "none"
        shown[month] = metadata | {"catalog": dg.MetadataValue.path(str(catalog.path))}
    return shown
