"""`quantbot backtest …` and `quantbot backfill`: make runs."""

import contextlib
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from quantbot_pipeline.cli.app import app, backtest_app
from quantbot_pipeline.cli.lighter import arrow_without_pandas, kernels_without_scipy
from quantbot_pipeline.cli.options import (
    add_command,
    days_of,
    open_home,
    options_of,
    read_json,
)
from quantbot_pipeline.cli.output import note, note_all, print_rows, print_runs
from quantbot_pipeline.errors import InputError, QuantbotError, counted
from quantbot_pipeline.specs import EVERYTHING, KINDS, RunKind

if TYPE_CHECKING:
    from quantbot_pipeline.home import Home


def add_backtest(kind: RunKind, app: typer.Typer = backtest_app) -> None:
    """Add the command of a kind of run; its options are those of the fields that its results depend on."""
    add_command(app, kind.command, kind.help, options_of(kind.depends_on), partial(_backtest, kind))


def _config_values(given: dict[str, Any]) -> dict[str, Any]:
    """The configuration that the options of a backtest command spell."""
    from quantbot_pipeline.config import MAX_SPAN_MS, BacktestConfig

    values = {key: value for key, value in given.items() if key in BacktestConfig.model_fields and value is not None}
    hours = given["horizon_hours"]
    if not 0 < hours * 3_600_000 <= MAX_SPAN_MS:
        raise InputError(
            f"--horizon-hours {hours:g}: not the length of a window; give more than 0, and at most {MAX_SPAN_MS // 3_600_000}"
        )
    values["horizon_ms"] = round(hours * 3_600_000)
    if given.get("policy"):
        values["policies"] = [p for text in given["policy"] for p in _read_policies(text)]
    if given.get("target"):
        values["targets"] = given["target"]
    for key in ("constraints", "grid", "evidence"):
        if given.get(key) is not None:
            values[key] = read_json(f"--{key}", given[key])
    if given.get("objective") is not None:
        text = given["objective"]
        spelled = {"kind": text} if text.isalpha() else read_json("--objective", text)
        values["objective"] = {"kind": spelled} if isinstance(spelled, str) else spelled
    return values


@contextlib.contextmanager
def _options_as_typed() -> Iterator[None]:
    """Name the option, as it is typed, that an error about a field of the configuration begins with."""
    from quantbot_pipeline.config import BacktestConfig

    try:
        yield
    except InputError as e:
        field = re.split(r"\W", str(e), maxsplit=1)[0]
        if field != "policy" and field not in BacktestConfig.model_fields:
            raise
        rest = str(e).removeprefix(field).lstrip(".: ")
        option = "target" if field == "targets" else field.replace("_", "-")
        raise InputError(f"--{option}: {rest}") from None


def _read_policies(text: str) -> list[dict[str, Any]]:
    """The policies of one `--policy`: a JSON object, a JSON array of them, or @file with either."""
    from quantbot_pipeline.replay.policies import example

    value = read_json("--policy", text, example(text))
    found = value if isinstance(value, list) else [value]
    if not found:
        raise InputError("--policy: an empty list; give at least one policy")
    for policy in found:
        if not isinstance(policy, dict):
            raise InputError(
                f"--policy: a policy is a JSON object with a key kind (given: {policy!r}); {example(str(policy))}"
            )
    return found


def _backtest(kind: RunKind, given: dict[str, Any]) -> None:
    def printed(lab: "Home", runs: list[dict[str, Any]], failure: str | None) -> None:
        if not runs and failure is None:
            note(f"no calls between {given['from_']} and {given['to']} in {lab.calls.place}: nothing to backtest")
        print_runs(runs, given["fmt"], f"Runs: {kind.name}")
        if given["fmt"] == "table":
            _print_returns(lab, runs)
            if kind.predicts:
                _print_verdicts(lab, runs)

    _make(kind.name, given, printed)


def _backfill(given: dict[str, Any]) -> None:
    def printed(lab: "Home", runs: list[dict[str, Any]], failure: str | None) -> None:
        print_runs(runs, given["fmt"], f"Backfill {given['from_']} … {given['to']}")
        unchanged = sum(run["unchanged"] for run in runs)
        note(
            f"{counted(len(runs) - unchanged, 'run')} made, {unchanged} unchanged"
            if runs
            else f"no calls between {given['from_']} and {given['to']}"
        )

    _make(EVERYTHING, given, printed)


def _make(
    kind: str, given: dict[str, Any], printed: "Callable[[Home, list[dict[str, Any]], str | None], None]"
) -> None:
    """Make runs as the options say, have them printed, and register them; what failed is said at the end."""
    from quantbot_pipeline.config import make_config
    from quantbot_pipeline.materialize import materialize, register

    arrow_without_pandas()
    lab = open_home(given["home"], given["calls_from_duckdb"])
    values = _config_values(given) | days_of(given["from_"], given["to"])
    with _options_as_typed():
        config = make_config(values)
    kernels_without_scipy()  # loads numba: after what may be wrong with the arguments
    runs, failure = materialize(kind, config, lab, only_changed=given["only_changed"])
    printed(lab, runs, failure)
    if given["sync"]:
        note_all(register(lab))
    if failure is not None:
        raise QuantbotError(failure)


def _print_returns(lab: "Home", runs: list[dict[str, Any]]) -> None:
    """Print what the policies of the runs earned, if they replayed any."""
    from quantbot_pipeline.reports.policies import POLICY_COLUMNS, policies_of_runs

    rows = policies_of_runs([lab.runs.at(run["run_dir"]) for run in runs if run["status"] == "completed"])
    if rows:
        print_rows(rows, "table", "What each policy earned, after costs", POLICY_COLUMNS)


def _print_verdicts(lab: "Home", runs: list[dict[str, Any]]) -> None:
    """Print what the predictions of the last month are worth, if the runs made any."""
    from quantbot_pipeline.reports.predictions import PRINTED, for_people, report_of_run

    made = [lab.runs.at(run["run_dir"]) for run in runs if run["status"] == "completed"]
    if rows := report_of_run(made[-1]) if made else []:
        print_rows(for_people(rows), "table", "What the predictions are worth, to date", PRINTED)


add_command(
    app,
    "backfill",
    "Everything for a range of months: truth, policies, frontier, baseline, walk-forward, tuning, evidence, predictions, anomalies, and the catalog.",
    options_of([field for kind in KINDS.values() for field in kind.depends_on]),
    _backfill,
)
for _kind in KINDS.values():
    add_backtest(_kind)
