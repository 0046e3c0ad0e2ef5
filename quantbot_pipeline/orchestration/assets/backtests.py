"""The backtests: three multi-assets over months, each making one committed run per month.

`backtest` makes truth, policy and frontier artifacts in one pass; which of its outputs are chosen decides the run type.
`v1_baseline` and `walk_forward` are searches of their own. A range of months is one Dagster run; months are independent: each
is committed and reported on its own, one that fails leaves the others standing, and the run fails at its end naming it.
The work is in `quantbot_pipeline.backtest`.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field, create_model

from quantbot_pipeline.config import BacktestConfig, Recipe
from quantbot_pipeline.orchestration.assets.inputs import SINGLE_RUN
from quantbot_pipeline.orchestration.partitions import months
from quantbot_pipeline.orchestration.resources import Lab
from quantbot_pipeline.settings import Settings

if TYPE_CHECKING:
    from quantbot_pipeline.backtest.month import MonthResult

Key = tuple[str, str]
RETRY_NUMBER = "dagster/retry_number"

# asset key → (artifact, what it is)
BACKTEST: dict[Key, tuple[str, str]] = {
    ("truth", "paths"): ("paths", "What the price did after each call: peaks, 2x/3x/4x hits, drawdowns, activity."),
    ("truth", "features"): (
        "features",
        "What was known when each call was made: earlier calls of its caller and token.",
    ),
    ("policy", "trades"): ("trades", "What exit policies would have earned on each call, after costs."),
    ("policy", "summary"): ("summary", "Return, risk and exposure statistics of each policy over the month's calls."),
    ("results", "frontier"): ("frontier", "Every policy of the grid for every caller, ranked under constraints."),
}
V1: dict[Key, tuple[str, str]] = {
    ("results", "v1_frontier"): (
        "frontier",
        "Capital-aware V1 baseline: thirty parameter pairs per caller, by final capital.",
    ),
    ("results", "v1_equity"): ("equity", "The equity curve of each caller's best V1 account."),
}
WALK_FORWARD: dict[Key, tuple[str, str]] = {
    ("results", "walk_forward"): ("walk_forward", "What the choice made before the month earned in it."),
}
OUTPUTS = BACKTEST | V1 | WALK_FORWARD

# Dagster refuses a null inside a mapping (`"stop_pct": null`), but not inside Any; our own models validate it anyway.
_LOOSE: dict[Any, Any] = {dict[str, Any]: Any, list[dict[str, Any]]: list[Any]}
_fields: dict[str, Any] = {
    name: (_LOOSE.get(f.annotation, f.annotation), f) for name, f in BacktestConfig.model_fields.items()
}
_fields["only_changed"] = (
    bool,
    Field(False, description="keep a month's run if inputs, code and configuration are the same"),
)
LaunchConfig: Any = create_model("LaunchConfig", __base__=dg.Config, **_fields)


def recipe_of(artifacts: set[str]) -> Recipe:
    """The recipe of the `backtest` asset for the chosen artifacts: the narrow one, or everything in one run."""
    narrow: dict[Recipe, set[str]] = {
        "path-only": {"paths", "features"},
        "policy": {"trades", "summary"},
        "optimization": {"frontier"},
    }
    return next((recipe for recipe, contents in narrow.items() if artifacts <= contents), "full")


def _specs(outputs: dict[Key, tuple[str, str]]) -> list[dg.AssetSpec]:
    return [
        dg.AssetSpec(
            list(key),
            deps=[["inputs", "alerts"], ["inputs", "candles"]],
            group_name=key[0],
            description=description,
            kinds={"parquet"},
        )
        for key, (_, description) in outputs.items()
    ]


@dg.multi_asset(specs=_specs(BACKTEST), can_subset=True, partitions_def=months, backfill_policy=SINGLE_RUN)
def backtest(context: dg.AssetExecutionContext, config: LaunchConfig, lab: Lab) -> Iterator[dg.MaterializeResult]:
    """Replay the calls of each month and commit one run per month."""
    chosen = [key for key in BACKTEST if dg.AssetKey(list(key)) in context.selected_asset_keys]
    yield from _run_months(context, config, lab, recipe_of({BACKTEST[key][0] for key in chosen}), chosen)


@dg.multi_asset(specs=_specs(V1), partitions_def=months, backfill_policy=SINGLE_RUN)
def v1_baseline(context: dg.AssetExecutionContext, config: LaunchConfig, lab: Lab) -> Iterator[dg.MaterializeResult]:
    """Optimize the capital-aware baseline per caller and for the grouped account."""
    yield from _run_months(context, config, lab, "v1-baseline", list(V1))


@dg.multi_asset(specs=_specs(WALK_FORWARD), partitions_def=months, backfill_policy=SINGLE_RUN)
def walk_forward(context: dg.AssetExecutionContext, config: LaunchConfig, lab: Lab) -> Iterator[dg.MaterializeResult]:
    """Apply the policy chosen on the months before to this month. Earlier months are read in the body: the declared
    dependency is this month's inputs, so that a range of months stays one run."""
    yield from _run_months(context, config, lab, "walk-forward", list(WALK_FORWARD))


def _run_months(
    context: dg.AssetExecutionContext, config: LaunchConfig, lab: Lab, recipe: Recipe, keys: Sequence[Key]
) -> Iterator[dg.MaterializeResult]:
    from quantbot_pipeline.backtest.month import run_month
    from quantbot_pipeline.backtest.run import ReplayCache
    from quantbot_pipeline.config import make_config
    from quantbot_pipeline.errors import InputError, QuantbotError
    from quantbot_pipeline.runs.manifest import DagsterRef

    settings = lab.settings()
    values = config.model_dump()
    # Dagster repeats a run whose worker was killed: what that one had committed need not be made twice.
    only_changed = values.pop("only_changed") or RETRY_NUMBER in context.run.tags
    committed: dict[str, MonthResult | None] = {}
    failed: dict[str, Exception] = {}
    cache: ReplayCache = {}
    try:
        backtest_config = make_config(values)
        for month in context.partition_keys:
            reference = DagsterRef(
                run_id=context.run.run_id, partition_key=month, asset_keys=["/".join(key) for key in keys]
            )
            try:
                committed[month] = run_month(
                    settings,
                    recipe,
                    month,
                    backtest_config,
                    only_changed=only_changed,
                    dagster=reference,
                    cache=cache,
                )
            except Exception as e:
                failed[month] = e
                context.log.error(f"{month}: {_reason(month, e)}", exc_info=not isinstance(e, QuantbotError))
        if failed:
            raise _failure(failed, of=len(context.partition_keys))
    except InputError as e:
        raise dg.Failure(str(e), metadata={"input_error": True}, allow_retries=False) from None
    except BaseException:
        # Whatever ends the run (a bad month, Terminate in the UI): months that are done count as done.
        for month, result in committed.items():
            for key in keys:
                metadata = _metadata(OUTPUTS[key][0], result)
                context.log_event(dg.AssetMaterialization(list(key), partition=month, metadata=metadata))
        if failed:
            _check_committed(context, settings, keys, committed)
        raise
    for month, result in committed.items():
        for key in keys:
            metadata = _metadata(OUTPUTS[key][0], result)
            context.add_asset_metadata(metadata, asset_key=list(key), partition_key=month)
    for key in keys:
        yield dg.MaterializeResult(asset_key=list(key))


def _check_committed(
    context: dg.AssetExecutionContext,
    settings: Settings,
    keys: Sequence[Key],
    committed: "dict[str, MonthResult | None]",
) -> None:
    """Log what the checks say of the months that were made: Dagster skips the checks of a step that failed."""
    from quantbot_pipeline.orchestration.judging import evaluations

    run_dirs = {month: result.run_dir for month, result in committed.items() if result is not None}
    for evaluation in evaluations(settings, dict.fromkeys(keys, run_dirs)) if run_dirs else ():
        context.log_event(evaluation)


def _reason(month: str, error: Exception) -> str:
    from quantbot_pipeline.errors import QuantbotError

    known = isinstance(error, QuantbotError)
    return str(error).removeprefix(f"{month}: ") if known else f"{type(error).__name__}: {error}"


def _failure(failed: dict[str, Exception], of: int) -> dg.Failure:
    """One error for all months that failed: each reason once, with its months and where the failed runs lie."""
    from quantbot_pipeline.errors import InputError

    reasons: dict[str, list[str]] = {}
    for month, error in failed.items():
        reasons.setdefault(_reason(month, error), []).append(month)
    metadata: dict[str, Any] = {
        "failed_run_dirs": dg.MetadataValue.json([str(e.run_dir) for e in failed.values() if hasattr(e, "run_dir")])
    }
    if len(failed) == of and all(isinstance(e, InputError) for e in failed.values()):
        metadata["input_error"] = True
    text = "; ".join(f"{', '.join(months)}: {reason}" for reason, months in reasons.items())
    return dg.Failure(f"{len(failed)} of {of} months failed: {text}", metadata=metadata, allow_retries=False)


def _metadata(artifact: str, result: "MonthResult | None") -> dict[str, Any]:
    """Numbers that the UI plots per month, the best rows as a table, and where the run lies."""
    if result is None:
        return {"calls": 0}
    from quantbot_pipeline.monitoring.highlights import columns_of, highlights
    from quantbot_pipeline.runs.verify import read_artifact

    manifest = result.manifest
    entry = manifest.artifacts[artifact]
    rows = read_artifact(result.run_dir, manifest, artifact, columns_of(artifact))
    numbers, best = highlights(artifact, rows)
    metadata: dict[str, Any] = {
        "calls": manifest.dataset.calls_count,
        "excluded": manifest.dataset.calls_excluded,
        **{name: float(f"{value:.6g}") for name, value in numbers.items()},
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
