"""The backtests: a multi-asset per step of `specs`, over months, each making one committed run per month.

Which outputs of a step are chosen decides the kind of run. A range of months is one Dagster run; months are independent: each
is committed and reported on its own, one that fails leaves the others standing, and the run fails at its end naming it.
The work is in `quantbot_pipeline.backtest`.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field, create_model

from quantbot_pipeline.config import BacktestConfig
from quantbot_pipeline.orchestration.judging import evaluations
from quantbot_pipeline.orchestration.resources import Lab
from quantbot_pipeline.orchestration.retries import never_again
from quantbot_pipeline.orchestration.stopping import heeding, stop_if_canceled
from quantbot_pipeline.specs import EVERYTHING, Key, Op, Output, RunKind, kind_for, ops, outputs, outputs_of

if TYPE_CHECKING:
    from quantbot_pipeline.backtest.month import MonthResult
    from quantbot_pipeline.home import Home
    from quantbot_pipeline.runs.manifest import DagsterRef

RETRY_NUMBER = "dagster/retry_number"
MOST_NAMED = 3  # anomalies in the reason why nothing is concluded from a month

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


@dataclass
class _Made:
    """What became of the months of a run; blocked: the truth of those whose inputs forbid conclusions, which failed, too."""

    committed: "dict[str, MonthResult | None]" = field(default_factory=dict)
    failed: dict[str, Exception] = field(default_factory=dict)
    blocked: "dict[str, MonthResult]" = field(default_factory=dict)

    def results(self) -> "Iterator[tuple[str, MonthResult | None]]":
        """Yield what was made of each month."""
        yield from self.committed.items()
        yield from self.blocked.items()


def backtest_assets(months: dg.PartitionsDefinition, backfill_policy: dg.BackfillPolicy) -> list[dg.AssetsDefinition]:
    """Return the assets of every step of the table of run kinds."""
    return [_assets_of(op, kinds, months, backfill_policy) for op, kinds in ops().items()]


def _assets_of(
    op: Op, kinds: list[RunKind], months: dg.PartitionsDefinition, backfill_policy: dg.BackfillPolicy
) -> dg.AssetsDefinition:
    made = outputs_of(kinds)

    @dg.multi_asset(
        name=op.name,
        specs=[_spec(output) for output in made.values()],
        can_subset=len(kinds) > 1,
        partitions_def=months,
        backfill_policy=backfill_policy,
        description=op.sentence,
    )
    def assets(context: dg.AssetExecutionContext, config: LaunchConfig, lab: Lab) -> Iterator[dg.MaterializeResult]:
        chosen = [key for key in made if dg.AssetKey(list(key)) in context.selected_asset_keys]
        yield from _run_months(context, config, lab.open(), kind_for(op, set(chosen)), chosen)

    return assets


def _spec(output: Output) -> dg.AssetSpec:
    return dg.AssetSpec(
        list(output.key),
        deps=[["inputs", "alerts"], ["inputs", "candles"]],
        group_name=output.key[0],
        description=output.sentence,
        kinds={"parquet"},
    )


def _run_months(
    context: dg.AssetExecutionContext, config: LaunchConfig, home: "Home", kind: RunKind, keys: Sequence[Key]
) -> Iterator[dg.MaterializeResult]:
    from quantbot_pipeline.config import make_config
    from quantbot_pipeline.errors import InputError

    if context.run.job_name == EVERYTHING and (why := _not_installed(kind)):
        context.log.warning(why)
        for key in keys:
            for month in context.partition_keys:
                context.add_asset_metadata({"left_out": why}, asset_key=list(key), partition_key=month)
            yield dg.MaterializeResult(asset_key=list(key))
        return
    values = config.model_dump()
    # Dagster repeats a run whose worker was killed: what that one had committed need not be made twice.
    only_changed = values.pop("only_changed") or RETRY_NUMBER in context.run.tags
    made = _Made()
    try:
        with heeding(context):
            _make_months(context, home, kind, make_config(values), keys, only_changed, made)
        if made.failed:
            if not any(map(may_pass, made.failed.values())):
                never_again(context)
            raise _failure(made.failed, of=len(context.partition_keys))
    except InputError as e:
        never_again(context)
        raise dg.Failure(str(e), metadata={"input_error": True}, allow_retries=False) from None
    except BaseException:
        # Whatever ends the run (a bad month, Terminate in the UI): months that are done count as done.
        for month, key, metadata in _metadata_of(made, keys):
            context.log_event(dg.AssetMaterialization(list(key), partition=month, metadata=metadata))
        if made.failed:
            _check_committed(context, home, keys, made)
        raise
    for month, key, metadata in _metadata_of(made, keys):
        context.add_asset_metadata(metadata, asset_key=list(key), partition_key=month)
    for key in keys:
        yield dg.MaterializeResult(asset_key=list(key))


def _not_installed(kind: RunKind) -> str | None:
    """Return why unattended runs leave a kind out: a module of an extra is not installed."""
    if kind.needs is None or find_spec(kind.needs) is not None:
        return None
    return f"{kind.name} is left out: {kind.needs} is not installed; see the extras in docs/operations.md"


def _make_months(
    context: dg.AssetExecutionContext,
    home: "Home",
    kind: RunKind,
    config: BacktestConfig,
    keys: Sequence[Key],
    only_changed: bool,
    made: "_Made",
) -> None:
    """Make the months one by one; fill `made`."""
    from quantbot_pipeline.backtest.month import run_month
    from quantbot_pipeline.backtest.remembered import ReplayCache
    from quantbot_pipeline.errors import QuantbotError
    from quantbot_pipeline.runs.manifest import DagsterRef

    cache: ReplayCache = {}
    names = ["/".join(key) for key in keys]
    started, total = time.monotonic(), len(context.partition_keys)
    for number, month in enumerate(context.partition_keys, 1):
        stop_if_canceled(context)
        made_by = DagsterRef(run_id=context.run.run_id, partition_key=month, asset_keys=names)
        try:
            if kind.concludes and home.settings.quality_blocks and (why := _blocks(home, month, config, made_by, made)):
                raise QuantbotError(why)
            made.committed[month] = run_month(
                home, kind.name, month, config, only_changed=only_changed, dagster=made_by, cache=cache
            )
        except Exception as e:
            stop_if_canceled(context)  # DuckDB makes an error of a request to stop, and the month has not failed
            made.failed[month] = e
            context.log.error(f"{month}: {_reason(month, e)}", exc_info=not isinstance(e, QuantbotError))
        context.log.info(f"{month}: {_progress(number, total, time.monotonic() - started)}")


def _progress(done: int, total: int, seconds: float) -> str:
    """Return how far a run is, for its log: months done, how many a minute, time left."""
    left = seconds / done * (total - done)
    return f"{done} of {total} months done, {60 * done / seconds:.3g} a minute, {left:.0f} s left"


def _blocks(home: "Home", month: str, config: BacktestConfig, made_by: "DagsterRef", made: "_Made") -> str | None:
    """Return why the month's inputs forbid conclusions, if they do; its truth is then what is made of the month."""
    from quantbot_pipeline.backtest.month import run_month
    from quantbot_pipeline.monitoring.anomalies import read_anomalies, sentence
    from quantbot_pipeline.monitoring.quality import read_quality, shortcomings

    truth = run_month(home, "path-only", month, config, only_changed=True, dagster=made_by)
    found = [] if truth is None else shortcomings(read_quality(truth.run_dir), home.settings)
    odd = run_month(home, "anomalies", month, config, only_changed=True, dagster=made_by)
    found += [] if odd is None else map(sentence, read_anomalies(odd.run_dir).errors[:MOST_NAMED])
    if truth is None or not found:
        return None
    made.blocked[month] = truth
    return f"{'; '.join(found)}; nothing is concluded from this month (QUANTBOT_QUALITY_BLOCKS)"


def _metadata_of(made: "_Made", keys: Sequence[Key]) -> Iterator[tuple[str, Key, dict[str, Any]]]:
    artifacts = {key: output.artifact for key, output in outputs().items()}
    for month, result in made.results():
        for key in keys:
            if result is None or artifacts[key] in result.manifest.artifacts:
                yield month, key, _metadata(artifacts[key], result)


def _check_committed(context: dg.AssetExecutionContext, home: "Home", keys: Sequence[Key], made: "_Made") -> None:
    """Log what the checks say of the months that were made: Dagster skips the checks of a step that failed."""
    artifacts = {key: output.artifact for key, output in outputs().items()}
    runs = {month: result for month, result in made.results() if result is not None}
    of_keys = {
        key: {month: run.run_dir for month, run in runs.items() if artifacts[key] in run.manifest.artifacts}
        for key in keys
    }
    for evaluation in evaluations(home, {key: run_dirs for key, run_dirs in of_keys.items() if run_dirs}):
        context.log_event(evaluation)


def may_pass(error: Exception) -> bool:
    """Whether the same work may succeed later: a store that did not answer, or what nobody has foreseen."""
    from quantbot_pipeline.errors import QuantbotError, StoreError

    return isinstance(error, StoreError) or not isinstance(error, QuantbotError)


def _reason(month: str, error: Exception) -> str:
    from quantbot_pipeline.errors import QuantbotError

    known = isinstance(error, QuantbotError)
    return str(error).removeprefix(f"{month}: ") if known else f"{type(error).__name__}: {error}"


def _failure(failed: dict[str, Exception], of: int) -> dg.Failure:
    """Return one error for all months that failed: each reason once, with its months and where the failed runs lie."""
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
    """Return numbers that the UI plots per month, a few rows as a table, and where the run lies."""
    if result is None:
        return {"calls": 0}
    from quantbot_pipeline.monitoring.highlights import TABLES, columns_of, highlights
    from quantbot_pipeline.runs.verify import read_artifact

    manifest = result.manifest
    entry = manifest.artifacts[artifact]
    rows = read_artifact(result.run_dir, manifest, artifact, columns_of(artifact))
    numbers, shown = highlights(artifact, rows)
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
    if shown:
        metadata[TABLES[artifact]] = dg.MetadataValue.table([dg.TableRecord(row) for row in shown])
    return metadata


def data_version(manifest: Any) -> str:
    """Return what is equal for runs of equal inputs, code and configuration."""
    parts = (manifest.dataset.fingerprint[:16], manifest.parameters["config_hash"], manifest.versions["code"])
    return "-".join(parts)
