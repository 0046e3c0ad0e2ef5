"""The backtests: one multi-asset whose chosen outputs decide which run type is made, one committed run per month.

A range of months is one Dagster run. Months are independent: each is committed and reported on its own; one that fails
leaves the others standing, and the run fails at its end naming it. The work is in `quantbot_pipeline.backtest`.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field, create_model

from quantbot_pipeline.config import CONTENTS, BacktestConfig, RunType
from quantbot_pipeline.orchestration.assets.inputs import SINGLE_RUN
from quantbot_pipeline.orchestration.partitions import months
from quantbot_pipeline.orchestration.resources import Lab

if TYPE_CHECKING:
    from quantbot_pipeline.backtest import MonthResult

# asset key → (artifact, what it is)
OUTPUTS: dict[tuple[str, str], tuple[str, str]] = {
    ("truth", "paths"): ("paths", "What the price did after each call: peaks, 2x/3x/4x hits, drawdowns, activity."),
    ("policy", "trades"): ("trades", "What each exit policy would have earned on each call, after costs."),
    ("policy", "summary"): ("summary", "Return, risk and exposure statistics of each policy over the month's calls."),
}

_fields: dict[str, Any] = {name: (f.annotation, f) for name, f in BacktestConfig.model_fields.items()}
_fields["only_changed"] = (
    bool,
    Field(False, description="keep a month's run if inputs, code and configuration are the same"),
)
LaunchConfig: Any = create_model("LaunchConfig", __base__=dg.Config, **_fields)


def run_type_of(artifacts: set[str]) -> RunType:
    """The run type whose contents cover the chosen artifacts with the least besides."""
    covering = [t for t, contents in CONTENTS.items() if artifacts <= set(contents)]
    return min(covering, key=lambda t: len(CONTENTS[t])) if covering else "full"


@dg.multi_asset(
    name="backtest",
    specs=[
        dg.AssetSpec(
            list(key),
            deps=[["inputs", "alerts"], ["inputs", "candles"]],
            group_name=key[0],
            description=description,
            kinds={"parquet"},
        )
        for key, (_, description) in OUTPUTS.items()
    ],
    can_subset=True,
    partitions_def=months,
    backfill_policy=SINGLE_RUN,
)
def backtest(
    context: dg.AssetExecutionContext,
    config: LaunchConfig,
    lab: Lab,
) -> Iterator[dg.MaterializeResult]:
    """Replay the calls of each month and commit one run per month."""
    from quantbot_pipeline.artifacts.manifest import DagsterRef
    from quantbot_pipeline.backtest import RunFailedError, run_month
    from quantbot_pipeline.config import make_config
    from quantbot_pipeline.errors import InputError

    settings = lab.settings()
    chosen = [key for key in OUTPUTS if dg.AssetKey(list(key)) in context.selected_asset_keys]
    run_type = run_type_of({OUTPUTS[key][0] for key in chosen})
    values = config.model_dump()
    only_changed = values.pop("only_changed")
    committed: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
    failed: dict[str, RunFailedError] = {}
    try:
        backtest_config = make_config(values)
        for month in context.partition_keys:
            reference = DagsterRef(
                run_id=context.run_id, partition_key=month, asset_keys=["/".join(key) for key in chosen]
            )
            try:
                result = run_month(
                    settings, run_type, month, backtest_config, only_changed=only_changed, dagster=reference
                )
            except RunFailedError as e:
                failed[month] = e
                context.log.error(str(e))
                continue
            committed[month] = {key: _metadata(OUTPUTS[key][0], result) for key in chosen}
    except InputError as e:
        _report_committed(context, committed)
        raise dg.Failure(str(e), metadata={"input_error": True}, allow_retries=False) from None
    if failed:
        _report_committed(context, committed)
        raise dg.Failure(
            f"{len(failed)} of {len(context.partition_keys)} months failed: " + "; ".join(map(str, failed.values())),
            metadata={"failed_run_dirs": dg.MetadataValue.json([str(e.run_dir) for e in failed.values()])},
            allow_retries=False,
        )
    for month, by_key in committed.items():
        for key, metadata in by_key.items():
            context.add_asset_metadata(metadata, asset_key=list(key), partition_key=month)
    for key in chosen:
        yield dg.MaterializeResult(asset_key=list(key))


def _report_committed(
    context: dg.AssetExecutionContext, committed: dict[str, dict[tuple[str, str], dict[str, Any]]]
) -> None:
    """Record the months that are done although the run as a whole fails."""
    for month, by_key in committed.items():
        for key, metadata in by_key.items():
            context.log_event(dg.AssetMaterialization(list(key), partition=month, metadata=metadata))


def _metadata(artifact: str, result: "MonthResult | None") -> dict[str, Any]:
    """Numbers that the UI plots per month, the best rows as a table, and where the run lies."""
    if result is None:
        return {"calls": 0}
    from quantbot_pipeline.artifacts.verify import read_artifact
    from quantbot_pipeline.reports.highlights import highlights

    manifest = result.manifest
    entry = manifest.artifacts[artifact]
    table = read_artifact(result.run_dir, manifest, artifact)
    numbers, best = highlights(artifact, table)
    metadata: dict[str, Any] = {
        "calls": manifest.dataset.calls_count,
        "excluded": manifest.dataset.calls_excluded,
        **numbers,
        "rows": entry.rows,
        "bytes": entry.bytes,
        "seconds": round(manifest.timing.total_ms / 1e3, 3),
        "run_id": manifest.run_id,
        "run_dir": dg.MetadataValue.path(str(result.run_dir)),
        "unchanged": result.reused,
        "data_version": data_version(manifest),
    }
    if best:
        metadata["best"] = dg.MetadataValue.table([dg.TableRecord(row) for row in best])
    return metadata


def data_version(manifest: Any) -> str:
    """Equal for runs of equal inputs, code and configuration."""
    parts = (manifest.dataset.fingerprint[:16], manifest.parameters["config_hash"], manifest.versions["code"])
    return "-".join(parts)
