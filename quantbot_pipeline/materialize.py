"""Materializing run kinds over a home's months: what the command line and the Python API ask for.

Belongs here: which months have calls and are partitions, which job makes a kind, and what registers the runs that were made.
Does not: Dagster's instance and runs; see `launch`.
"""

import logging
from typing import TYPE_CHECKING, Any

from quantbot_pipeline.config import BacktestConfig
from quantbot_pipeline.errors import InputError, QuantbotError
from quantbot_pipeline.months import month_of, month_range
from quantbot_pipeline.specs import EVERYTHING, KINDS

if TYPE_CHECKING:
    from quantbot_pipeline.home import Home

log = logging.getLogger(__name__)


def materialize(
    kind: str, config: BacktestConfig, home: "Home", *, only_changed: bool
) -> tuple[list[dict[str, Any]], str | None]:
    """Make runs of a kind (or of every one, `everything`) over the months of the configuration that have calls.

    Return the committed runs, one object each, and the failure, if any. Raises InputError when no month can be run.
    """
    from quantbot_pipeline.market.calls import month_statistics

    if kind not in (*KINDS, EVERYTHING):
        raise InputError(f"kind {kind!r} is unknown; choose one of {', '.join((*KINDS, EVERYTHING))}")
    if config.from_ms is None or config.to_ms is None:
        raise InputError("a backtest needs a range of days")
    wanted = set(month_range(month_of(config.from_ms), month_of(config.to_ms - 1)))
    known = list(month_statistics(home.calls))
    with_calls = [month for month in known if month in wanted]
    if kind in KINDS and KINDS[kind].predicts and known:  # it is made before a month has its calls
        with_calls = [month for month in sorted(wanted) if month >= known[0]]
    if not with_calls:
        return [], None
    from quantbot_pipeline.definitions import build_defs
    from quantbot_pipeline.definitions import defs as served
    from quantbot_pipeline.orchestration.jobs import everything_ops
    from quantbot_pipeline.orchestration.launch import launch
    from quantbot_pipeline.orchestration.resources import Lab

    months = _inside_partitions(home, with_calls)
    job, steps = (EVERYTHING, everything_ops()) if kind == EVERYTHING else (KINDS[kind].job, (KINDS[kind].op.name,))
    settings = home.settings
    resource = Lab(home=str(settings.home), calls_db=str(settings.calls_db) if settings.calls_db else None)
    defs = build_defs({"lab": resource})
    return launch(defs, served, job, steps, config, home, months, only_changed=only_changed)


def register(home: "Home") -> list[str]:
    """Register committed runs in the catalog and tell Dagster; return what a person must know of it, most often nothing.

    The runs are made by then, so a catalog that is busy or out of reach is no error: the next sync finds them.
    """
    from quantbot_pipeline.catalog.sync import sync
    from quantbot_pipeline.orchestration.report import report_sync

    try:
        report = sync(home.catalog)
    except (QuantbotError, OSError) as e:
        why = str(e) if isinstance(e, QuantbotError) else f"{e.filename}: {e.strerror}"
        return [
            f"the runs are made, but not in the catalog: {why}; register them with `quantbot backtest catalog-sync`"
        ]
    aside = f"the old catalog was unreadable and is now {report.set_aside}"
    return [*([aside] if report.set_aside else []), *([failure] if (failure := report_sync(home, report)) else [])]


def _inside_partitions(home: "Home", with_calls: list[str]) -> list[str]:
    """Return the months that Dagster can be asked for; log which are left out."""
    from quantbot_pipeline.orchestration.partitions import month_partitions

    known = month_partitions(home.settings.first_partition).get_partition_keys()
    inside = [month for month in with_calls if month in known]
    if outside := [month for month in with_calls if month not in known]:
        text = (
            f"calls of {', '.join(outside)} are outside the month partitions {known[0]} … {known[-1]} "
            "(QUANTBOT_PARTITIONS_START sets the first)"
        )
        if not inside:
            raise InputError(text)
        log.warning("%s: left out", text)
    return inside
