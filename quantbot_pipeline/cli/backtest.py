"""`quantbot backtest …` and `quantbot backfill`: make runs."""

import inspect
import math
from typing import Annotated, Any

import typer

from quantbot_pipeline.cli.app import app, backtest_app
from quantbot_pipeline.cli.arrow import arrow_without_pandas
from quantbot_pipeline.cli.options import (
    Format,
    From,
    HomeFolder,
    OnlyChanged,
    Sync,
    To,
    days_of,
    open_home,
    options_of,
    read_json,
)
from quantbot_pipeline.cli.output import note, note_all, print_runs
from quantbot_pipeline.errors import InputError, QuantbotError, counted
from quantbot_pipeline.specs import EVERYTHING, KINDS, RunKind
from quantbot_pipeline.vocabulary import Interval


def add_backtest(kind: RunKind, app: typer.Typer = backtest_app) -> None:
    """Add the command of a kind of run; its options are those of the fields that its results depend on."""

    def command(**given: Any) -> None:
        _backtest(kind, given)

    command.__doc__ = kind.help
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for key, (annotation, default) in options_of(kind).items()
        ]
    )
    app.command(kind.command)(command)


for _kind in KINDS.values():
    add_backtest(_kind)


def _config_values(given: dict[str, Any]) -> dict[str, Any]:
    """The configuration that the options of a backtest command spell."""
    from quantbot_pipeline.config import BacktestConfig

    values = {key: value for key, value in given.items() if key in BacktestConfig.model_fields and value is not None}
    hours = given["horizon_hours"]
    if not math.isfinite(hours):
        raise InputError(f"--horizon-hours {hours}: not a number of hours")
    values["horizon_ms"] = round(hours * 3_600_000)
    if given.get("policy"):
        values["policies"] = [p for text in given["policy"] for p in _read_policies(text)]
    for key in ("constraints", "grid", "evidence"):
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


def _backtest(kind: RunKind, given: dict[str, Any]) -> None:
    from_, to, fmt = given["from_"], given["to"], given["fmt"]
    from quantbot_pipeline.config import make_config
    from quantbot_pipeline.materialize import materialize, register

    arrow_without_pandas()
    lab = open_home(given["home"], given["calls_from_duckdb"])
    config = make_config(_config_values(given) | days_of(from_, to))
    runs, failure = materialize(kind.name, config, lab, only_changed=given["only_changed"])
    if not runs and failure is None:
        note(f"no calls between {from_} and {to} in {lab.calls.path}: nothing to backtest")
    print_runs(runs, fmt, f"Runs: {kind.name}")
    if given["sync"]:
        note_all(register(lab))
    if failure is not None:
        raise QuantbotError(failure)


@app.command("backfill")
def backfill(
    from_: From,
    to: To,
    only_changed: OnlyChanged = False,
    interval: Annotated[Interval, typer.Option(help="Candle interval.")] = "5m",
    sync: Sync = True,
    fmt: Format = "table",
    home: HomeFolder = None,
) -> None:
    """Everything for a range of months: truth, policies, frontier, baseline, walk-forward, evidence, and the catalog."""
    from quantbot_pipeline.config import make_config
    from quantbot_pipeline.materialize import materialize, register

    arrow_without_pandas()
    lab = open_home(home)
    config = make_config({"interval": interval, **days_of(from_, to)})
    runs, failure = materialize(EVERYTHING, config, lab, only_changed=only_changed)
    print_runs(runs, fmt, f"Backfill {from_} … {to}")
    unchanged = sum(run["unchanged"] for run in runs)
    note(
        f"{counted(len(runs) - unchanged, 'run')} made, {unchanged} unchanged"
        if runs
        else f"no calls between {from_} and {to}"
    )
    if sync:
        note_all(register(lab))
    if failure is not None:
        raise QuantbotError(failure)
