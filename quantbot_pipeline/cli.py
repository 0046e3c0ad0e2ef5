"""`quantbot`: a thin command line over the same assets, stores and catalog that the Dagster UI shows.

Data goes to standard output, everything else to standard error. Exit status: 0 done, 1 a run failed (the rest is committed),
2 the input or the arguments are wrong. Imports of heavy libraries happen inside the commands.
"""

import contextlib
import inspect
import json
import math
import os
import shutil
import sys
import threading
import webbrowser
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import typer
from pydantic import ValidationError

from quantbot_pipeline.config import BacktestConfig, Recipe, make_config
from quantbot_pipeline.durable import MEND_DISK, replacing
from quantbot_pipeline.errors import InputError, QuantbotError, counted
from quantbot_pipeline.months import month_of, month_range, parse_day
from quantbot_pipeline.replay.policies import unique_keys
from quantbot_pipeline.settings import Settings
from quantbot_pipeline.vocabulary import Interval, RunStatus, RunType

app = typer.Typer(
    help="The research lab for calls.", no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False,
    rich_markup_mode=None,
)  # fmt: skip
ingest_app = typer.Typer(help="Bring calls and candles into the input stores.", no_args_is_help=True)
backtest_app = typer.Typer(help="Make runs and query their catalog.", no_args_is_help=True)
app.add_typer(ingest_app, name="ingest")
app.add_typer(backtest_app, name="backtest")

Output = Literal["table", "json", "csv"]
Home = Annotated[Path | None, typer.Option(help="Directory of data/ and runs/ (QUANTBOT_HOME; default: here).")]
Format = Annotated[Output, typer.Option("--format", help="How to print the result.")]
Paths = Annotated[list[Path], typer.Argument(help="Files or folders.")]
From = Annotated[str, typer.Option("--from", help="First UTC day, YYYY-MM-DD or YYYY-MM.")]
To = Annotated[str, typer.Option("--to", help="Last UTC day, included; YYYY-MM means the whole month.")]
CallsDb = Annotated[Path | None, typer.Option(help="Another DuckDB file with a table alerts.")]
OnlyChanged = Annotated[bool, typer.Option(help="Keep runs whose inputs, code and configuration are the same.")]
OfInterval = Annotated[Interval | None, typer.Option("--interval", help="Only runs of this candle interval.")]
# A command whose --format already means the input's format prints in the format of --output.
PrintAs = Annotated[Output, typer.Option("--output", help="How to print the result.")]

INTERRUPTED = 130  # as shells report Ctrl-C


def main() -> None:
    """Entry point: every foreseen mistake ends in one line and an exit status, never in a traceback."""
    try:
        status = app(standalone_mode=False)
        if status == INTERRUPTED:
            _complain("interrupted; what is committed stays", INTERRUPTED)
    except typer.TyperException as e:
        status = _complain_of_arguments(e.format_message())
    except InputError as e:
        status = _complain(str(e), 2)
    except QuantbotError as e:
        status = _complain(str(e), 1)
    except PermissionError as e:
        status = _complain(f"{e.filename}: no permission; check its owner and mode, or choose another --home", 2)
    except OSError as e:
        status = _complain(f"{e.filename or 'the disk of --home'}: {e.strerror or e}; {MEND_DISK}", 1)
    sys.exit(status if isinstance(status, int) else 0)


def _complain_of_arguments(text: str) -> int:
    if text.lstrip().startswith("Usage:"):  # no arguments at all: the text is the help
        _note(text)
        return 2
    return _complain(f"{text} (see --help)", 2)


def _complain(text: str, status: int) -> int:
    print("quantbot: " + " ".join(text.split()), file=sys.stderr)
    return status


def _note(text: str) -> None:
    print(text, file=sys.stderr)


def _settings(home: Path | None, calls_db: Path | None = None, *, may_begin: bool = False) -> Settings:
    """The settings of a home that exists; with `may_begin` it may be made: by commands that bring or take inputs."""
    given = {"home": home, "calls_db": calls_db}
    try:
        settings = Settings.model_validate({key: value for key, value in given.items() if value is not None})
    except ValidationError as e:
        first = e.errors()[0]
        name = "QUANTBOT_" + "_".join(map(str, first["loc"])).upper()
        raise InputError(f"{name}: {first['msg']} (given: {first['input']!r})") from None
    if settings.home.exists() and not settings.home.is_dir():
        raise InputError(f"{settings.home}: not a directory; choose another --home")
    if not may_begin and not settings.home.exists():
        raise InputError(
            f"{settings.home}: no such home; check --home and QUANTBOT_HOME, or begin one with `quantbot ingest calls`"
        )
    if calls_db is not None and not calls_db.exists():
        raise InputError(f"{calls_db}: no such file; make it with `quantbot ingest calls`")
    return settings


def _print(rows: Sequence[dict[str, Any]], fmt: Output, title: str, columns: Sequence[str] = ()) -> None:
    from quantbot_pipeline.reports import render

    if fmt == "json":
        print(render.to_json(rows))
    elif fmt == "csv":
        print(render.to_csv(rows, columns))
    else:
        render.print_table(rows, title, columns)


# --- ingest -----------------------------------------------------------------------------------------------------------


def _split_format(fmt: str, output: Output | None, known: Sequence[str]) -> tuple[str, Output]:
    """`--format` names the input's format or, as everywhere else, how to print; the words do not overlap but for csv."""
    if fmt in ("table", "json"):
        return "auto", fmt  # type: ignore[return-value]
    if fmt not in ("auto", *known):
        raise InputError(
            f"--format {fmt!r} is unknown; choose auto, {', '.join(known)} (input) or table, json (output)"
        )
    return fmt, output or "table"


InputFormat = Annotated[
    str, typer.Option("--format", help="Format of the files (auto: by suffix); table or json: how to print.")
]


@ingest_app.command("calls")
def ingest_calls_command(
    paths: Paths,
    fmt: InputFormat = "auto",
    table: Annotated[str | None, typer.Option(help="Table of a DuckDB file (default: alerts).")] = None,
    caller: Annotated[str | None, typer.Option(help="Caller of files without a caller_name column.")] = None,
    output: PrintAs = "table",
    home: Home = None,
) -> None:
    """Merge calls into data/alerts.duckdb; the same file again changes nothing."""
    from quantbot_pipeline.ingest.calls import FORMATS, ingest_calls

    settings = _settings(home, may_begin=True)
    source, printed = _split_format(fmt, output, FORMATS)
    report = ingest_calls(
        paths, settings.alerts_db, fmt=source, table=table, caller=caller, memory_limit=settings.memory_limit,
        lock_timeout_s=settings.lock_timeout_s,
    )  # fmt: skip
    _print_report(report, printed)


@ingest_app.command("candles")
def ingest_candles_command(
    paths: Paths,
    interval: Annotated[Interval, typer.Option(help="Interval of the candles.")],
    fmt: InputFormat = "auto",
    output: PrintAs = "table",
    home: Home = None,
) -> None:
    """Merge candles into data/candles/; the last row of a token and time wins."""
    from quantbot_pipeline.ingest.candles import FORMATS, ingest_candles

    settings = _settings(home, may_begin=True)
    source, printed = _split_format(fmt, output, FORMATS)
    report = ingest_candles(
        paths, settings.candles_dir, interval, fmt=source, memory_limit=settings.memory_limit,
        lock_timeout_s=settings.lock_timeout_s,
    )  # fmt: skip
    _print_report(report, printed)


def _print_report(report: Any, fmt: Output) -> None:
    if fmt == "json":
        print(report.model_dump_json(indent=1))
        return
    row = report.model_dump(exclude={"months"})
    row["rejected"] = ", ".join(f"{reason} {n}" for reason, n in row["rejected"].items()) or "0"
    row["months"] = f"{report.months[0]} … {report.months[-1]}" if report.months else "none changed"
    _print([row], fmt, f"Ingested {report.kind}")


# --- backtest ---------------------------------------------------------------------------------------------------------


RUN_COLUMNS = ("run_id", "run_type", "month", "status", "calls", "excluded", "run_dir", "artifacts", "unchanged")

# Options of the backtest commands, {parameter: (annotation, default)}; each command takes some of these groups.
Options = dict[str, tuple[Any, Any]]


def _option(kind: Any, default: Any, text: str) -> tuple[Any, Any]:
    return Annotated[kind, typer.Option(help=text)], default


RANGE: Options = {
    "from_": (From, inspect.Parameter.empty),
    "to": (To, inspect.Parameter.empty),
    "interval": _option(Interval, "5m", "Candle interval."),
    "calls_from_duckdb": (CallsDb, None),
    "entry": _option(Literal["open", "close"], "open", "Entry at the open or the close of the entry candle."),
    "latency_ms": _option(int, 60_000, "Delay between alert and entry."),
    "horizon_hours": _option(float, 48.0, "Length of the window after the entry."),
    "max_entry_delay_ms": _option(int, 3_600_000, "Longest wait for the entry candle."),
    "min_coverage": _option(float, 0.0, "Least share of candles in a window."),
}
ACTIVITY: Options = {"activity_move_pct": _option(float, 0.10, "Price move that counts as activity.")}
COSTS: Options = {
    "taker_fee_bps": _option(float, 30.0, "Fee per side."),
    "slippage_bps": _option(float, 10.0, "Slippage per side."),
    "stop_slippage_bps": _option(float, 0.0, "Further slippage of protective exits."),
}
ORDER: Options = {
    "intrabar": _option(Literal["pessimistic", "optimistic"], "pessimistic", "Order of touches inside a candle.")
}
POLICY: Options = {
    "policy": _option(list[str] | None, None, "A policy as JSON, or @file.json; repeatable."),
    "policy_id": _option(str | None, None, "Name of the policy, if there is only one."),
    "both_orders": _option(bool, False, "Replay both orders and mark ambiguous trades."),
}
SEARCH: Options = {
    "constraints": _option(str | None, None, 'Limits as JSON or @file.json, e.g. {"min_trades": 20}.'),
    "objective": _option(str | None, None, "growth or median, or JSON with a key kind."),
    "grid": _option(str | None, None, "Levels of the policy grid as JSON or @file.json."),
}
ROLLING: Options = {"rolling_months": _option(int, 3, "Months that the rolling scheme learns from.")}
OUTPUT: Options = {"only_changed": (OnlyChanged, False), "fmt": (Format, "table"), "home": (Home, None)}


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
            values[key] = _read_json(f"--{key}", given[key])
    if given.get("objective") is not None:
        text = given["objective"]
        spelled = {"kind": text} if text.isalpha() else _read_json("--objective", text)
        values["objective"] = {"kind": spelled} if isinstance(spelled, str) else spelled
    return values


def _read_json(where: str, text: str) -> Any:
    """The JSON value of an option, or of the file that `@file` names."""
    if text.startswith("@"):
        where = text[1:]
        text = _read_text(where)
    try:
        return json.loads(text, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as e:
        hint = f"; to read that file write @{text}" if len(text) < 256 and Path(text).is_file() else ""
        raise InputError(f"{where}: not valid JSON: {e}{hint}") from None


def _read_text(where: str) -> str:
    """What is in the file that `@FILE` names."""
    try:
        return Path(where).read_text(encoding="utf-8")
    except OSError as e:
        raise InputError(f"{where}: {e.strerror}; @FILE needs a text file") from None
    except UnicodeDecodeError:
        raise InputError(f"{where}: not UTF-8 text; @FILE needs a text file") from None


def _read_policies(text: str) -> list[dict[str, Any]]:
    """The policies of one `--policy`: a JSON object, a JSON array of them, or @file with either."""
    value = _read_json("--policy", text)
    found = value if isinstance(value, list) else [value]
    if not found:
        raise InputError("--policy: an empty list; give at least one policy")
    for policy in found:
        if not isinstance(policy, dict):
            raise InputError(f"--policy: a policy is a JSON object with a key kind (given: {policy!r})")
    return found


def _backtest(recipe: Recipe, given: dict[str, Any]) -> None:
    from_, to, fmt = given["from_"], given["to"], given["fmt"]
    settings = _settings(given["home"], given["calls_from_duckdb"])
    config = make_config(_config_values(given) | _days(from_, to))
    runs, failure = _materialize(recipe, config, settings, only_changed=given["only_changed"])
    if not runs and failure is None:
        _note(f"no calls between {from_} and {to} in {settings.alerts_db}: nothing to backtest")
    _print_runs(runs, fmt, f"Runs: {recipe}")
    if failure is not None:
        raise QuantbotError(failure)


def _days(from_: str, to: str) -> dict[str, int]:
    """`--from` and `--to` as the bounds of a configuration."""
    from_ms, to_ms = parse_day(from_, end=False), parse_day(to, end=True)
    if from_ms >= to_ms:
        raise InputError(f"--from {from_} is after --to {to}; swap them")
    return {"from_ms": from_ms, "to_ms": to_ms}


def _print_runs(runs: list[dict[str, Any]], fmt: Output, title: str) -> None:
    if fmt != "table":
        _print(runs, fmt, title, RUN_COLUMNS)
        return
    # The rows of errors.parquet are errors, warnings and remarks: a sound run has some, too.
    artifacts = [{"notes" if name == "errors" else name: n for name, n in run["artifacts"].items()} for run in runs]
    shown = [
        run | {"artifacts": ", ".join(f"{name} {n}" for name, n in made.items())}
        for run, made in zip(runs, artifacts, strict=True)
    ]
    _print(shown, fmt, title, ("month", "run_type", "status", "calls", "excluded", "artifacts", "run_id"))
    bare = sorted({run["month"] for run in runs if run["status"] == "completed" and run["calls"] == run["excluded"]})
    if bare:
        _note(
            f"no call of {', '.join(bare)} has a window; errors.parquet of the run tells why (no candles of this interval?)"
        )


def _materialize(
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
        _note(f"{text}: left out")
    job, ops = (
        (EVERYTHING, EVERYTHING_OPS) if recipe == "everything" else (RECIPE_JOBS[recipe][0], RECIPE_JOBS[recipe][1:2])
    )
    lab = Lab(home=str(settings.home), calls_db=str(settings.calls_db) if settings.calls_db else None)
    return launch(build_defs({"lab": lab}), job, ops, config, settings, inside, only_changed=only_changed)


@backtest_app.command("catalog-sync")
def catalog_sync(
    base_dir: Annotated[Path | None, typer.Option(help="The runs (default: runs/ of the home).")] = None,
    duckdb: Annotated[Path | None, typer.Option(help="The catalog file.")] = None,
    stats: Annotated[bool, typer.Option(help="Print statistics of the cataloged runs.")] = False,
    rebuild: Annotated[bool, typer.Option(help="Forget the file and read every run anew.")] = False,
    fmt: Format = "table",
    home: Home = None,
) -> None:
    """Register committed runs in the catalog; quarantine what fails verification."""
    from quantbot_pipeline.catalog.catalog import quarantined, run_counts
    from quantbot_pipeline.catalog.sync import sync

    settings = _settings(home)
    catalog = (duckdb or settings.catalog_db).absolute()
    base = (base_dir or settings.runs_dir).absolute()
    if base_dir is not None and not base.is_dir():
        raise InputError(f"{base}: no such directory; give the folder that holds the runs with --base-dir")
    report = sync(base, catalog, rebuild=rebuild, lock_timeout_s=settings.lock_timeout_s)
    distrusted = quarantined(catalog).to_pylist()
    _note(
        f"{counted(report.runs, 'run')} cataloged in {catalog} ({report.registered} new, {report.removed} gone, "
        f"{len(distrusted)} in quarantine), {report.elapsed_ms:.0f} ms"
    )
    for row in distrusted:
        _note(f"quarantine: {row['reason']}")
    if report.set_aside:
        _note(f"the old file was unreadable and is now {report.set_aside}")
    if stats:
        table = run_counts(catalog)
        _print(table.to_pylist(), fmt, "Catalog", table.column_names)
    elif fmt != "table":
        _print([report.model_dump()], fmt, "Sync")


@backtest_app.command("catalog-query")
def catalog_query(
    run_type: Annotated[RunType | None, typer.Option(help="Runs of this kind.")] = None,
    status: Annotated[RunStatus | None, typer.Option(help="Runs that ended like this.")] = None,
    git_branch: Annotated[str | None, typer.Option(help="Branch of the code that made the run.")] = None,
    from_date: Annotated[str | None, typer.Option(help="Runs created on or after this UTC day.")] = None,
    to_date: Annotated[str | None, typer.Option(help="Runs created on or before this UTC day.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="At most so many runs, newest first.")] = 20,
    run_id: Annotated[str | None, typer.Option(help="With --artifact-type: print that artifact's path.")] = None,
    artifact_type: Annotated[str | None, typer.Option(help="alerts, paths, trades, summary, frontier, …")] = None,
    base_dir: Annotated[Path | None, typer.Option(help="The runs (default: runs/ of the home).")] = None,
    duckdb: Annotated[Path | None, typer.Option(help="The catalog file.")] = None,
    fmt: Format = "table",
    home: Home = None,
) -> None:
    """List cataloged runs, newest first, or print the path of one artifact."""
    from quantbot_pipeline.catalog.catalog import artifact_path, query_runs

    settings = _settings(home)
    catalog = (duckdb or settings.catalog_db).absolute()
    if (run_id is None) != (artifact_type is None):
        raise InputError("--run-id and --artifact-type go together")
    if run_id is not None and artifact_type is not None:
        print(artifact_path(catalog, (base_dir or settings.runs_dir).absolute(), run_id, artifact_type))
        return
    found = query_runs(
        catalog, run_type=run_type, status=status, git_branch=git_branch, limit=limit,
        from_ms=parse_day(from_date, end=False) if from_date else None,
        to_ms=parse_day(to_date, end=True) if to_date else None,
    )  # fmt: skip
    shown = (
        "run_id",
        "run_type",
        "status",
        "month",
        "created_at",
        "git_branch",
        "dataset_interval",
        "dataset_calls_count",
    )
    _print(found.to_pylist(), fmt, "Runs", shown if fmt == "table" else found.column_names)


@backtest_app.command("verify")
def verify(
    run_dirs: Annotated[
        list[Path] | None, typer.Argument(help="Run directories, or folders that hold some (default: all of the home).")
    ] = None,
    fmt: Format = "table",
    home: Home = None,
) -> None:
    """Check every byte of committed runs against their manifests."""
    from quantbot_pipeline.errors import IntegrityError
    from quantbot_pipeline.runs.verify import check_run

    rows, broken = [], 0
    for folder in [found for given in run_dirs or [_settings(home).runs_dir] for found in _run_dirs(given)]:
        try:
            manifest = check_run(folder)
            rows.append(
                {
                    "run_dir": str(folder),
                    "ok": True,
                    "detail": f"{manifest.status}, {len(manifest.artifacts)} artifacts",
                }
            )
        except IntegrityError as e:
            broken += 1
            rows.append({"run_dir": str(folder), "ok": False, "detail": str(e)})
    _print(rows, fmt, "Verification", ("run_dir", "ok", "detail"))
    if broken:
        raise QuantbotError(f"{broken} of {len(rows)} run directories cannot be trusted")


def _run_dirs(given: Path) -> list[Path]:
    if not given.is_dir():
        raise InputError(f"{given}: no such run directory")
    if given.name.startswith("run_id="):
        return [given.absolute()]
    inside = sorted([*given.absolute().glob("run_id=*"), *given.absolute().glob("*/run_id=*")])
    if not inside:
        raise InputError(f"{given}: no run directory (run_id=…) in here")
    return inside


TABLE_ROWS = 100


@app.command("query")
def query_command(
    sql: Annotated[str, typer.Argument(help="One SELECT over the catalog's tables and views, or @FILE with it.")],
    fmt: Annotated[Literal["table", "json", "csv", "parquet"], typer.Option("--format", help="How to print it.")] = "table",
    limit: Annotated[int | None, typer.Option(min=0, help=f"At most so many rows (default: {TABLE_ROWS} in a table, else all).")] = None,
    out: Annotated[Path | None, typer.Option(help="Write json, csv or parquet to this file instead of standard output.")] = None,
    timeout: Annotated[float, typer.Option(min=0.001, max=threading.TIMEOUT_MAX, help="Stop after so many seconds.")] = 300.0,
    home: Home = None,
) -> None:  # fmt: skip
    """Answer a SELECT over the catalog; it cannot read or write a file, nor change anything."""
    from quantbot_pipeline.catalog.room import answering
    from quantbot_pipeline.reports import export, render

    settings = _settings(home)
    _check_target(fmt, out, settings)
    asked = _read_text(sql[1:]) if sql.startswith("@") else sql
    with answering(
        settings.catalog_db, settings.runs_dir, asked, memory_limit=settings.memory_limit, timeout_s=timeout
    ) as answer:
        rows = export.Limited(answer.batches, TABLE_ROWS if limit is None and fmt == "table" else limit)
        columns = answer.schema.names
        if fmt == "table":
            found = [row for batch in export.rows_of(rows) for row in batch]
            render.print_table(found, counted(len(found), "row"), columns)
        elif fmt == "parquet":
            with _binary_target(out) as file:
                export.write_parquet(rows, answer.schema, file)
        else:
            with _text_target(out) as file:
                export.write_text(rows, columns, fmt, file)
    if rows.more:
        _note("there are more rows: raise --limit" + ("" if limit is not None else ", or take --format csv or json"))


def _check_target(fmt: str, out: Path | None, settings: Settings) -> None:
    if out is None:
        if fmt == "parquet" and sys.stdout.isatty():
            raise InputError("a Parquet file is nothing to read on a terminal; give --out FILE, or a pipe")
        return
    if fmt == "table":
        raise InputError("--out needs --format json, csv or parquet")
    if out.is_dir():
        raise InputError(f"{out}: a directory; give the name of the file to write with --out")
    if not out.absolute().parent.is_dir():
        raise InputError(f"{out.parent}: no such directory; create it, or write elsewhere with --out")
    if out.resolve().is_relative_to(settings.runs_dir.resolve()):
        raise InputError(f"{out}: runs never change; write outside {settings.runs_dir}")
    kept = (settings.alerts_db, settings.catalog_db, settings.candles_dir)
    if any(out.resolve().is_relative_to(path.resolve()) for path in kept):
        raise InputError(f"{out}: the lab keeps its own data there; write to another file with --out")


@contextlib.contextmanager
def _binary_target(out: Path | None) -> Iterator[IO[bytes]]:
    if out is None:
        yield sys.stdout.buffer
        return
    with replacing(out.absolute()) as temporary, temporary.open("wb") as file:
        yield file


@contextlib.contextmanager
def _text_target(out: Path | None) -> Iterator[IO[str]]:
    if out is None:
        yield sys.stdout
        return
    with replacing(out.absolute()) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        yield file


# --- reports and the demo ---------------------------------------------------------------------------------------------


@app.command("leaderboard")
def leaderboard_command(
    interval: OfInterval = None,
    fmt: Format = "table",
    home: Home = None,
) -> None:
    """Callers by what followed their calls, over the newest run of every month."""
    from quantbot_pipeline.reports.leaderboard import COLUMNS, leaderboard

    settings = _settings(home)
    _print(leaderboard(settings.catalog_db, settings.runs_dir, interval), fmt, "Callers", COLUMNS)
    _note_runs(settings, "paths", interval=interval)


def _note_runs(settings: Settings, artifact_type: str, **which: str | None) -> None:
    from quantbot_pipeline.reports.remarks import remarks

    for remark in remarks(settings.catalog_db, settings.runs_dir, artifact_type, **which):
        _note(remark)


@app.command("frontier")
def frontier_command(
    caller: Annotated[str | None, typer.Option(help="Caller, or __all__ for all pooled (default: each).")] = None,
    month: Annotated[str | None, typer.Option(help="Month, YYYY-MM (default: every month).")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Best ranks per caller and month.")] = 20,
    strategy: Annotated[Literal["grid-search", "v1-baseline"], typer.Option(help="Which search.")] = "grid-search",
    interval: OfInterval = None,
    fmt: Format = "table",
    home: Home = None,
) -> None:
    """The policies that the search ranked best for a caller, from the newest run of each month."""
    from quantbot_pipeline.reports.searches import FRONTIER_COLUMNS, frontier

    settings = _settings(home)
    if month is not None and month_of(parse_day(month, end=False)) != month:
        raise InputError(f"--month {month}: not a month; write YYYY-MM")
    rows = frontier(
        settings.catalog_db, settings.runs_dir, caller=caller, month=month, interval=interval, strategy_id=strategy, limit=limit
    )  # fmt: skip
    _print(rows, fmt, "Frontier", FRONTIER_COLUMNS if fmt == "table" else ())
    _note_runs(settings, "frontier", interval=interval, month=month, strategy_id=strategy)


@app.command("walk-forward")
def walk_forward_command(interval: OfInterval = None, fmt: Format = "table", home: Home = None) -> None:
    """What choices made on earlier months earned later, per caller and scheme, beside holding and the pooled choice."""
    from quantbot_pipeline.reports.searches import WALK_FORWARD_COLUMNS, walk_forward

    settings = _settings(home)
    _print(walk_forward(settings.catalog_db, settings.runs_dir, interval), fmt, "Walk-forward", WALK_FORWARD_COLUMNS)
    _note_runs(settings, "walk_forward", interval=interval)


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

    settings = _settings(home)
    config = make_config({"interval": interval, **_days(from_, to)})
    runs, failure = _materialize("everything", config, settings, only_changed=only_changed)
    _print_runs(runs, fmt, f"Backfill {from_} … {to}")
    unchanged = sum(run["unchanged"] for run in runs)
    _note(
        f"{counted(len(runs) - unchanged, 'run')} made, {unchanged} unchanged"
        if runs
        else f"no calls between {from_} and {to}"
    )
    sync(settings.runs_dir, settings.catalog_db, lock_timeout_s=settings.lock_timeout_s)
    if failure is not None:
        raise QuantbotError(failure)


@app.command("automation")
def automation(
    action: Annotated[Literal["on", "off", "status"], typer.Argument(help="What to do.")] = "status",
    dry_run: Annotated[bool, typer.Option(help="Say what would change, and change nothing.")] = False,
    fmt: Format = "table",
    home: Home = None,
) -> None:
    """Turn all schedules and sensors of this home's instance on or off; they run while `quantbot ui` (or a daemon) does."""
    from quantbot_pipeline.definitions import defs
    from quantbot_pipeline.orchestration.local.switch import switch

    rows = switch(defs, _settings(home), action, dry_run=dry_run)
    _print(rows, fmt, "Automation" + (" (dry run)" if dry_run else ""))


@app.command("prune")
def prune_command(
    before: Annotated[str, typer.Option(help="Runs created before this UTC day.")],
    yes: Annotated[bool, typer.Option("--yes", help="Second step: remove what the first step set aside.")] = False,
    force: Annotated[bool, typer.Option(help="Also the newest run of its kind, month and configuration.")] = False,
    fmt: Format = "table",
    home: Home = None,
) -> None:
    """Remove old runs in two steps: set them aside in runs/.trash/, look, then remove them with --yes."""
    from quantbot_pipeline.catalog.prune import empty_trash, set_aside
    from quantbot_pipeline.catalog.sync import sync

    settings = _settings(home)
    if yes:
        removed = empty_trash(settings.runs_dir, parse_day(before, end=False))
        _note(f"{counted(len(removed), 'run')} removed for good")
        _print([{"run_dir": path} for path in removed], fmt, "Removed", ("run_dir",))
        return
    sync(settings.runs_dir, settings.catalog_db, lock_timeout_s=settings.lock_timeout_s)
    moved = set_aside(settings.runs_dir, settings.catalog_db, parse_day(before, end=False), force=force)
    sync(settings.runs_dir, settings.catalog_db, lock_timeout_s=settings.lock_timeout_s)
    _note(f"{counted(len(moved), 'run')} set aside in {settings.runs_dir}/.trash; move back, or remove with --yes")
    _print([{"run_dir": path} for path in moved], fmt, "Set aside", ("run_dir",))


@app.command("dashboard")
def dashboard_command(
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="The file to write (default: data/dashboard.html of the home).")
    ] = None,
    fmt: Format = "table",
    home: Home = None,
) -> None:
    """Write the dashboard: one HTML file over the newest runs, which opens from disk without a network."""
    settings = _settings(home)
    if out is not None and out.is_dir():
        raise InputError(f"{out}: a directory; give the name of the file to write with --out")
    path = _write_dashboard(settings, out or settings.dashboard_html)
    if fmt == "table":
        print(path)
    else:
        _print([{"path": str(path), "bytes": path.stat().st_size}], fmt, "Dashboard")
    if open_:
        webbrowser.open(path.as_uri())


def _write_dashboard(settings: Settings, out: Path) -> Path:
    from quantbot_pipeline.reports.dashboard.page import write_dashboard

    return write_dashboard(settings.catalog_db, settings.runs_dir, settings.candles_dir, out)


@app.command("ui")
def ui(
    host: Annotated[str, typer.Option(help="Interface to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port.")] = 3000,
    home: Home = None,
) -> None:
    """Start the Dagster web UI and daemon on this home directory."""
    from quantbot_pipeline.orchestration.launch import open_instance
    from quantbot_pipeline.orchestration.local.retries import say_again
    from quantbot_pipeline.orchestration.local.services import serve

    settings = _settings(home, may_begin=True)
    os.environ["QUANTBOT_HOME"] = str(settings.home)
    with open_instance(settings) as instance:
        os.chdir(settings.home)
        serve(host, port, _note, lambda: say_again(instance))


@app.command("demo")
def demo(fmt: Format = "table", home: Home = None) -> None:
    """Everything once: generated sample market (unless inputs exist), backfill, catalog, leaderboard, dashboard."""
    from quantbot_pipeline.catalog.sync import sync
    from quantbot_pipeline.market.calls import month_statistics
    from quantbot_pipeline.months import month_start_ms, next_month
    from quantbot_pipeline.reports import render
    from quantbot_pipeline.reports.leaderboard import COLUMNS, leaderboard
    from quantbot_pipeline.reports.searches import FRONTIER_COLUMNS, WALK_FORWARD_COLUMNS, frontier, walk_forward

    settings = _settings(home, may_begin=True)
    if settings.home.is_dir() and not settings.data_dir.is_dir() and any(settings.home.iterdir()):
        raise InputError(f"{settings.home}: holds other files and is no home; give a new or empty folder with --home")
    if not month_statistics(settings.alerts_db):
        _write_sample(settings)
    months = list(month_statistics(settings.alerts_db))
    _note(
        f"backtesting {counted(len(months), 'month')} ({months[0]} … {months[-1]}); the engine compiles once, at its first use"
    )
    span = {"from_ms": month_start_ms(months[0]), "to_ms": month_start_ms(next_month(months[-1]))}
    recipes: tuple[Recipe, ...] = ("full", "v1-baseline", "walk-forward")
    for recipe in recipes:
        runs, failure = _materialize(recipe, make_config(span), settings, only_changed=True)
        if failure:
            raise QuantbotError(failure)
        _note(f"{recipe}: {counted(len(runs), 'run')}")
    sync(settings.runs_dir, settings.catalog_db, lock_timeout_s=settings.lock_timeout_s)
    reports = {
        "leaderboard": leaderboard(settings.catalog_db, settings.runs_dir),
        "frontier": frontier(settings.catalog_db, settings.runs_dir, month=months[-1], limit=1),
        "walk_forward": walk_forward(settings.catalog_db, settings.runs_dir),
    }
    _note(f"dashboard: open {_write_dashboard(settings, settings.dashboard_html)} in a browser")
    if fmt == "json":
        print(render.to_json([reports]))
        return
    _print(reports["leaderboard"], fmt, "Callers", COLUMNS)
    _print(reports["frontier"], fmt, f"The policy each caller deserved in {months[-1]}, in sample", FRONTIER_COLUMNS)
    _print(
        reports["walk_forward"],
        fmt,
        "Walk-forward: what the choice made before each month earned in it",
        WALK_FORWARD_COLUMNS,
    )
    _note(
        "\nNext:\n  quantbot ui                                   the Dagster web UI\n"
        "  quantbot backtest catalog-query               the runs just made\n"
        '  quantbot backtest policy --from 2026-01 --to 2026-06 --policy \'{"kind":"time_stop","max_hold_ms":3600000}\'\n'
        "  quantbot ingest calls your_calls.csv --home ~/lab   your own data, in a home of its own"
    )


def _write_sample(settings: Settings) -> None:
    from quantbot_pipeline.ingest.calls import ingest_calls
    from quantbot_pipeline.ingest.candles import ingest_candles
    from quantbot_pipeline.market.sample import write_sample

    folder = settings.data_dir / "generated"
    _note(f"no calls yet: writing a generated sample market to {folder}")
    calls, candles = write_sample(folder)
    ingest_calls([calls], settings.alerts_db)
    ingest_candles([candles], settings.candles_dir, "5m", memory_limit=settings.memory_limit)
    shutil.rmtree(folder)
