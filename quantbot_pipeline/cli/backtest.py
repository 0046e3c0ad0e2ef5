"""`quantbot backtest …` and `quantbot backfill`: make runs."""

import inspect
import math
from typing import Annotated, Any, Literal

import typer

from quantbot_pipeline.cli.app import app, backtest_app
from quantbot_pipeline.cli.options import (
    ACTIVITY,
    COSTS,
    ORDER,
    OUTPUT,
    POLICY,
    RANGE,
    ROLLING,
    SEARCH,
    Format,
    From,
    Home,
    OnlyChanged,
    Options,
    To,
    days_of,
    open_settings,
    read_json,
)
from quantbot_pipeline.cli.output import note, print_runs
from quantbot_pipeline.config import BacktestConfig, Recipe, make_config
from quantbot_pipeline.errors import InputError, QuantbotError, counted
from quantbot_pipeline.months import month_of, month_range
from quantbot_pipeline.settings import Settings
from quantbot_pipeline.vocabulary import Interval


def _add_backtest(name: str, recipe: Recipe, text: str, *groups: Options) -> None:
    """Register a backtest command whose parameters are those of the groups."""

    def command(**given: Any) -> None:
        _backtest(recipe, given)

    chosen = {key: value for group in (RANGE, *groups, OUTPUT) for key, value in group.items()}
    command.__doc__ = text
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for key, (annotation, default) in chosen.items()
        ]
    )
    backtest_app.command(name)(command)


_add_backtest("path-only", "path-only", "Truth metrics of every call: peaks, hits, drawdowns.", ACTIVITY)


_add_backtest("policy", "policy", "Replay exit policies over every call: trades and summary.", POLICY, ORDER, COSTS)


_add_backtest("optimize", "optimization", "Search each caller's policy: the frontier.", SEARCH, ORDER, COSTS)


_add_backtest("full", "full", "Truth, policy and frontier in one run.", ACTIVITY, POLICY, SEARCH, ORDER, COSTS)


_add_backtest("baseline", "v1-baseline", "The capital-aware V1 baseline, per caller and grouped.", COSTS)


_add_backtest(
    "walk-forward", "walk-forward", "Whether last month's choice held up in this one.", SEARCH, ORDER, COSTS, ROLLING
)


def _config_values(given: dict[str, Any]) -> dict[str, Any]:
    """The configuration that the options of a backtest command spell."""
    values = {key: value for key, value in given.items() if key in BacktestConfig.model_fields and value is not None}
    hours = given["horizon_hours"]
    if not math.isfinite(hours):
        raise InputError(f"--horizon-hours {hours}: not a number of hours")
    values["horizon_ms"] = round(hours * 3_600_000)
    if given.get("policy"):
        values["policies"] = [p for text in given["policy"] for p in _read_policies(text)]
    for key in ("constraints", "grid"):
        if given.get(key) is not None:
            values[key] = read_json(f"--{key}", given[key])
    if given.get("objective") is not None:
        text = given["objective"]
        spelled = {"kind": text} if text.isalpha() else read_json("--objective", text)
        values["objective"] = {"kind": spelled} if isinstance(spelled, str) else spelled
    return values


def _read_policies(text: str) -> list[dict[str, Any]]:
    """The policies of one `--policy`: a JSON object, a JSON array of them, or @file with either."""
    value = read_json("--policy", text)
    found = value if isinstance(value, list) else [value]
    if not found:
        raise InputError("--policy: an empty list; give at least one policy")
    for policy in found:
        if not isinstance(policy, dict):
            raise InputError(f"--policy: a policy is a JSON object with a key kind (given: {policy!r})")
    return found


def _backtest(recipe: Recipe, given: dict[str, Any]) -> None:
    from_, to, fmt = given["from_"], given["to"], given["fmt"]
    settings = open_settings(given["home"], given["calls_from_duckdb"])
    config = make_config(_config_values(given) | days_of(from_, to))
    runs, failure = materialize(recipe, config, settings, only_changed=given["only_changed"])
    if not runs and failure is None:
        note(f"no calls between {from_} and {to} in {settings.alerts_db}: nothing to backtest")
    print_runs(runs, fmt, f"Runs: {recipe}")
    if failure is not None:
        raise QuantbotError(failure)


def materialize(
    recipe: Recipe | Literal["everything"], config: BacktestConfig, settings: Settings, *, only_changed: bool
) -> tuple[list[dict[str, Any]], str | None]:
    """Run the recipe (or every one) over the months that have calls; returns (committed runs, failure or None)."""
    from quantbot_pipeline.market.calls import month_statistics

    if config.from_ms is None or config.to_ms is None:
        raise InputError("a backtest needs a range of days")
    wanted = set(month_range(month_of(config.from_ms), month_of(config.to_ms - 1)))
    with_calls = [month for month in month_statistics(settings.alerts_db) if month in wanted]
    if not with_calls:
        return [], None
    from quantbot_pipeline.definitions import build_defs
    from quantbot_pipeline.orchestration.jobs import EVERYTHING, EVERYTHING_OPS, RECIPE_JOBS
    from quantbot_pipeline.orchestration.launch import launch
    from quantbot_pipeline.orchestration.partitions import months
    from quantbot_pipeline.orchestration.resources import Lab

    known = months.get_partition_keys()
    inside = [month for month in with_calls if month in known]
    if outside := [month for month in with_calls if month not in known]:
        text = (
            f"calls of {', '.join(outside)} are outside the month partitions {known[0]} … {known[-1]} "
            "(QUANTBOT_PARTITIONS_START sets the first)"
        )
        if not inside:
            raise InputError(text)
        note(f"{text}: left out")
    job, ops = (
        (EVERYTHING, EVERYTHING_OPS) if recipe == "everything" else (RECIPE_JOBS[recipe][0], RECIPE_JOBS[recipe][1:2])
    )
    lab = Lab(home=str(settings.home), calls_db=str(settings.calls_db) if settings.calls_db else None)
    return launch(build_defs({"lab": lab}), job, ops, config, settings, inside, only_changed=only_changed)


@app.command("backfill")
def backfill(
    from_: From,
    to: To,
    only_changed: OnlyChanged = False,
    interval: Annotated[Interval, typer.Option(help="Candle interval.")] = "5m",
    fmt: Format = "table",
    home: Home = None,
) -> None:
    """Everything for a range of months: truth, policies, frontier, baseline, walk-forward, and the catalog."""
    from quantbot_pipeline.catalog.sync import sync

    settings = open_settings(home)
    config = make_config({"interval": interval, **days_of(from_, to)})
    runs, failure = materialize("everything", config, settings, only_changed=only_changed)
    print_runs(runs, fmt, f"Backfill {from_} … {to}")
    unchanged = sum(run["unchanged"] for run in runs)
    note(
        f"{counted(len(runs) - unchanged, 'run')} made, {unchanged} unchanged"
        if runs
        else f"no calls between {from_} and {to}"
    )
    sync(settings.runs_dir, settings.catalog_db, lock_timeout_s=settings.lock_timeout_s)
    if failure is not None:
        raise QuantbotError(failure)
