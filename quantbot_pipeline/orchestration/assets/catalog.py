"""The catalog: the published DuckDB index over all committed runs."""

import dagster as dg

from quantbot_pipeline.orchestration.assets.backtests import OUTPUTS
from quantbot_pipeline.orchestration.resources import Lab


@dg.asset(
    key=["catalog", "runs"],
    group_name="catalog",
    deps=[list(key) for key in OUTPUTS],
    pool="catalog_writer",
    kinds={"duckdb"},
)
def runs(context: dg.AssetExecutionContext, lab: Lab) -> dg.MaterializeResult:
    """The index of all committed runs, data/backtest_catalog.duckdb; what fails verification is set aside. Cheap when nothing is new."""
    from quantbot_pipeline.catalog.sync import sync

    settings = lab.settings()
    report = sync(settings.runs_dir, settings.catalog_db, lock_timeout_s=settings.lock_timeout_s)
    return dg.MaterializeResult(
        metadata={**report.model_dump(exclude_none=True), "catalog": dg.MetadataValue.path(str(settings.catalog_db))}
    )
