"""`quantbot`: a thin command line over the same assets, stores and catalog that the Dagster UI shows.

Data goes to standard output, everything else to standard error. Exit status: 0 done, 1 a run failed (the rest is committed),
2 the input or the arguments are wrong. Imports of heavy libraries happen inside the commands.
"""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from quantbot_pipeline.config import BacktestConfig, RunType, make_config
from quantbot_pipeline.errors import InputError, QuantbotError
from quantbot_pipeline.months import contiguous, month_of, month_range, parse_day
from quantbot_pipeline.settings import Settings

if TYPE_CHECKING:
    import dagster as dg

app = typer.Typer(
    help="The research lab for calls.", no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False,
    rich_markup_mode=None,
)  # fmt: skip
ingest_app = typer.Typer(help="Bring calls and candles into the input stores.", no_args_is_help=True)
backtest_app = typer.Typer(help="Make runs and query their catalog.", no_args_is_help=True)
app.add_typer(ingest_app, name="ingest")
app.add_typer(backtest_app, name="backtest")

Output = Literal["table", "json", "csv"]
Interval = Literal["1m", "5m", "15m", "1h"]
Home = Annotated[Path | None, typer.Option(help="Directory of data/ and runs/ (QUANTBOT_HOME; default: here).")]
Format = Annotated[Output, typer.Option("--format", help="How to print the result.")]
Paths = Annotated[list[Path], typer.Argument(help="Files or folders.")]
From = Annotated[str, typer.Option("--from", help="First UTC day, YYYY-MM-DD or YYYY-MM.")]
To = Annotated[str, typer.Option("--to", help="Last UTC day, included; YYYY-MM means the whole month.")]
CallsDb = Annotated[Path | None, typer.Option(help="Another DuckDB file with a table alerts.")]
OnlyChanged = Annotated[bool, typer.Option(help="Keep runs whose inputs, code and configuration are the same.")]
# A command whose --format already means the input's format prints in the format of --output.
PrintAs = Annotated[Output, typer.Option("--output", help="How to print the result.")]


def main() -> None:
    """Entry point: every foreseen mistake ends in one line and an exit status, never in a traceback."""
    import click

    try:
        status = app(standalone_mode=False)
    except click.exceptions.Abort:
        status = _complain("interrupted", 130)
    except click.exceptions.NoArgsIsHelpError as e:
        print(e.format_message(), file=sys.stderr)  # noqa: T201
        status = 2
    except click.ClickException as e:
        status = _complain(e.format_message(), 2)
    except InputError as e:
        status = _complain(str(e), 2)
    except QuantbotError as e:
        status = _complain(str(e), 1)
    except PermissionError as e:
        status = _complain(f"{e.filename}: no permission; check its owner and mode, or choose another --home", 2)
    except OSError as e:
        status = _complain(
            f"{e.filename or 'disk'}: {e.strerror or e}; free space or check the path, then run again", 1
        )
    sys.exit(status if isinstance(status, int) else 0)


def _complain(text: str, status: int) -> int:
    print("quantbot: " + " ".join(text.split()), file=sys.stderr)  # noqa: T201
    return status


def _note(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201


def _settings(home: Path | None, calls_db: Path | None = None) -> Settings:
    given = {"home": home, "calls_db": calls_db}
    settings = Settings.model_validate({key: value for key, value in given.items() if value is not None})
    if settings.home.exists() and not settings.home.is_dir():
        raise InputError(f"{settings.home}: not a directory; choose another --home")
    if calls_db is not None and not calls_db.exists():
        raise InputError(f"{calls_db}: no such file; make it with `quantbot ingest calls`")
    return settings


def _print(rows: Sequence[dict[str, Any]], fmt: Output, title: str, columns: Sequence[str] = ()) -> None:
    from quantbot_pipeline.reports import render

    if fmt == "json":
        print(render.to_json(rows))  # noqa: T201
    elif fmt == "csv":
        print(render.to_csv(rows, columns))  # noqa: T201
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
    from quantbot_pipeline.market.calls import FORMATS, ingest_calls

    settings = _settings(home)
    source, printed = _split_format(fmt, output, FORMATS)
    report = ingest_calls(
        paths, settings.alerts_db, fmt=source, table=table, caller=caller, lock_timeout_s=settings.lock_timeout_s
    )
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
    from quantbot_pipeline.market.candles import FORMATS, ingest_candles

    settings = _settings(home)
    source, printed = _split_format(fmt, output, FORMATS)
    report = ingest_candles(
        paths, settings.candles_dir, interval, fmt=source, memory_limit=settings.memory_limit,
        lock_timeout_s=settings.lock_timeout_s,
    )  # fmt: skip
    _print_report(report, printed)


def _print_report(report: Any, fmt: Output) -> None:
    if fmt == "json":
        print(report.model_dump_json(indent=1))  # noqa: T201
        return
    row = report.model_dump(exclude={"notes", "months"})
    row["rejected"] = ", ".join(f"{reason} {n}" for reason, n in row["rejected"].items()) or "0"
    row["months"] = f"{report.months[0]} … {report.months[-1]}" if report.months else "none changed"
    _print([row], fmt, f"Ingested {report.kind}")


# --- backtest ---------------------------------------------------------------------------------------------------------


@backtest_app.command("path-only")
def path_only(
    from_: From,
    to: To,
    interval: Annotated[Interval, typer.Option(help="Candle interval.")] = "5m",
    calls_from_duckdb: CallsDb = None,
    entry: Annotated[Literal["open", "close"], typer.Option(help="Entry at the open or the close.")] = "open",
    latency_ms: Annotated[int, typer.Option(help="Delay between alert and entry.")] = 60_000,
    horizon_hours: Annotated[float, typer.Option(help="Length of the window.")] = 48.0,
    max_entry_delay_ms: Annotated[int, typer.Option(help="Longest wait for the entry candle.")] = 3_600_000,
    min_coverage: Annotated[float, typer.Option(help="Least share of candles in a window.")] = 0.0,
    activity_move_pct: Annotated[float, typer.Option(help="Price move that counts as activity.")] = 0.10,
    only_changed: OnlyChanged = False,
    fmt: Format = "table",
    home: Home = None,
) -> None:
    """Truth metrics of every call of the months: peaks, hits, drawdowns."""
    values = _window(locals()) | {"activity_move_pct": activity_move_pct}
    _backtest("path-only", values, from_, to, _settings(home, calls_from_duckdb), fmt, only_changed)


@backtest_app.command("policy")
def policy_command(
    from_: From,
    to: To,
    policy: Annotated[list[str] | None, typer.Option(help="A policy as JSON, or @file.json; repeatable.")] = None,
    policy_id: Annotated[str | None, typer.Option(help="Name of the policy, if there is only one.")] = None,
    interval: Annotated[Interval, typer.Option(help="Candle interval.")] = "5m",
    calls_from_duckdb: CallsDb = None,
    intrabar: Annotated[
        Literal["pessimistic", "optimistic"], typer.Option(help="Order of touches in a candle.")
    ] = "pessimistic",
    both_orders: Annotated[bool, typer.Option(help="Replay both orders and mark ambiguous trades.")] = False,
    entry: Annotated[Literal["open", "close"], typer.Option(help="Entry at the open or the close.")] = "open",
    latency_ms: Annotated[int, typer.Option(help="Delay between alert and entry.")] = 60_000,
    horizon_hours: Annotated[float, typer.Option(help="Length of the window.")] = 48.0,
    max_entry_delay_ms: Annotated[int, typer.Option(help="Longest wait for the entry candle.")] = 3_600_000,
    min_coverage: Annotated[float, typer.Option(help="Least share of candles in a window.")] = 0.0,
    taker_fee_bps: Annotated[float, typer.Option(help="Fee per side.")] = 30.0,
    slippage_bps: Annotated[float, typer.Option(help="Slippage per side.")] = 10.0,
    stop_slippage_bps: Annotated[float, typer.Option(help="Further slippage of protective exits.")] = 0.0,
    only_changed: OnlyChanged = False,
    fmt: Format = "table",
    home: Home = None,
) -> None:
    """Replay exit policies over every call of the months: trades and summary."""
    values = _window(locals()) | {
        "intrabar": intrabar, "both_orders": both_orders, "policy_id": policy_id, "taker_fee_bps": taker_fee_bps,
        "slippage_bps": slippage_bps, "stop_slippage_bps": stop_slippage_bps,
    }  # fmt: skip
    if policy:
        values["policies"] = [p for text in policy for p in _read_policies(text)]
    _backtest("policy", values, from_, to, _settings(home, calls_from_duckdb), fmt, only_changed)


def _window(options: dict[str, Any]) -> dict[str, Any]:
    names = ("interval", "entry", "latency_ms", "max_entry_delay_ms", "min_coverage")
    return {name: options[name] for name in names} | {"horizon_ms": round(options["horizon_hours"] * 3_600_000)}


def _read_policies(text: str) -> list[dict[str, Any]]:
    """The policies of one `--policy`: a JSON object, a JSON array of them, or @file with either."""
    where = "--policy"
    if text.startswith("@"):
        where = text[1:]
        try:
            text = Path(where).read_text(encoding="utf-8")
        except OSError as e:
            raise InputError(f"{where}: {e.strerror}; --policy @FILE needs a JSON file") from None
        except UnicodeDecodeError:
            raise InputError(f"{where}: not UTF-8 text; --policy @FILE needs a JSON file") from None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise InputError(f"{where}: not valid JSON: {e}") from None
    found = value if isinstance(value, list) else [value]
    for policy in found:
        if not isinstance(policy, dict):
            raise InputError(f"{where}: a policy is a JSON object with a key kind (given: {policy!r})")
    return found


def _backtest(
    run_type: RunType, values: dict[str, Any], from_: str, to: str, settings: Settings, fmt: Output, only_changed: bool
) -> None:
    from_ms, to_ms = parse_day(from_, end=False), parse_day(to, end=True)
    if from_ms >= to_ms:
        raise InputError(f"--from {from_} is after --to {to}; swap them")
    config = make_config(values | {"from_ms": from_ms, "to_ms": to_ms})
    runs, failure = _materialize(run_type, config, settings, only_changed=only_changed)
    if not runs and failure is None:
        _note(f"no calls between {from_} and {to} in {settings.alerts_db}: nothing to backtest")
    for run in runs if fmt == "table" else []:
        run["artifacts"] = ", ".join(f"{name} {rows}" for name, rows in run["artifacts"].items())
    columns = ("run_id", "run_type", "month", "status", "calls", "excluded", "run_dir", "artifacts")
    shown = ("month", "status", "calls", "excluded", "artifacts", "run_id")
    _print(runs, fmt, f"Runs: {run_type}", shown if fmt == "table" else columns)
    if failure is not None:
        raise QuantbotError(failure)


def _materialize(
    run_type: RunType, config: BacktestConfig, settings: Settings, *, only_changed: bool
) -> tuple[list[dict[str, Any]], str | None]:
    """Run the job over the months that have calls; returns (committed runs, failure or None).

    One Dagster run per stretch of months, as Dagster itself launches a backfill: months without calls cost nothing.
    """
    from quantbot_pipeline.market.calls import month_statistics

    if config.from_ms is None or config.to_ms is None:
        raise InputError("a backtest needs a range of days")
    wanted = set(month_range(month_of(config.from_ms), month_of(config.to_ms - 1)))
    with_calls = [month for month in month_statistics(settings.alerts_db) if month in wanted]
    if not with_calls:
        return [], None
    import dagster as dg

    from quantbot_pipeline.definitions import build_defs
    from quantbot_pipeline.orchestration.assets.backtests import LaunchConfig
    from quantbot_pipeline.orchestration.partitions import months
    from quantbot_pipeline.orchestration.resources import Lab

    known = months.get_partition_keys()
    outside = [month for month in with_calls if month not in known]
    if outside:
        _note(
            f"calls of {', '.join(outside)} are outside the month partitions {known[0]} … {known[-1]} and left out "
            "(QUANTBOT_PARTITIONS_START sets the first)"
        )
    inside = [month for month in with_calls if month in known]
    if not inside:
        return [], None
    lab = Lab(home=str(settings.home), calls_db=str(settings.calls_db) if settings.calls_db else None)
    job = build_defs({"lab": lab}).resolve_job_def(run_type.replace("-", "_"))
    launch = LaunchConfig(**config.model_dump(), only_changed=only_changed)
    runs: list[dict[str, Any]] = []
    failures: list[str] = []
    with _instance(settings) as instance, _progress(len(inside), run_type):
        for stretch in contiguous(inside):
            result = job.execute_in_process(
                run_config=dg.RunConfig(
                    ops={"backtest": launch}, loggers={"console": {"config": {"log_level": "CRITICAL"}}}
                ),
                instance=instance,
                tags={
                    "dagster/asset_partition_range_start": stretch[0],
                    "dagster/asset_partition_range_end": stretch[-1],
                },
                raise_on_error=False,
            )
            runs += _committed(result)
            failures += [failure] if (failure := _failure(result)) else []
    return runs, "; ".join(failures) or None


def _instance(settings: Settings) -> "dg.DagsterInstance":
    """The Dagster instance of the home directory: the same one that `quantbot ui` shows."""
    import dagster as dg
    import filelock

    prepare_instance(settings)
    # Two first uses at once would both create the instance's tables.
    with filelock.FileLock(settings.data_dir / ".dagster-init.lock"):
        return dg.DagsterInstance.get()


def prepare_instance(settings: Settings) -> None:
    """Point DAGSTER_HOME to the home (unless it is set) and give it a dagster.yaml if it has none."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    folder = Path(os.environ.setdefault("DAGSTER_HOME", str(settings.home)))
    if folder.is_dir() and not (folder / "dagster.yaml").exists():
        template = resources.files("quantbot_pipeline.orchestration") / "dagster.yaml"
        (folder / "dagster.yaml").write_bytes(template.read_bytes())


def _progress(total: int, title: str) -> Any:
    """A progress bar on a terminal, fed by the log lines of finished months; nothing elsewhere."""
    import contextlib
    import logging

    if not sys.stderr.isatty():
        return contextlib.nullcontext()
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=Console(stderr=True)
    )  # fmt: skip
    task = bar.add_task(title, total=total)

    class Advance(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if hasattr(record, "month"):
                bar.update(task, advance=1, description=f"{title} {record.month}")

    logger = logging.getLogger("quantbot_pipeline.backtest")
    logger.setLevel(logging.INFO)
    logger.addHandler(Advance())
    return bar


def _committed(result: "dg.ExecuteInProcessResult") -> list[dict[str, Any]]:
    """One object per run that the Dagster run committed, by month; failed ones too."""
    from quantbot_pipeline.artifacts.manifest import read_manifest

    folders: dict[str, None] = {}
    for event in result.all_events:
        if event.is_step_materialization:
            metadata = event.step_materialization_data.materialization.metadata
            if "run_dir" in metadata:
                folders[str(metadata["run_dir"].value)] = None
        elif event.is_step_failure and (data := event.step_failure_data.user_failure_data) is not None:
            failed = data.metadata.get("failed_run_dirs")
            folders |= dict.fromkeys(failed.value if failed else [])  # type: ignore[arg-type]
    found = []
    for folder in folders:
        manifest = read_manifest(Path(folder))
        found.append(
            {
                "run_id": manifest.run_id,
                "run_type": manifest.run_type,
                "month": manifest.month,
                "status": manifest.status,
                "calls": manifest.dataset.calls_count,
                "excluded": manifest.dataset.calls_excluded,
                "run_dir": folder,
                "artifacts": {name: entry.rows for name, entry in manifest.artifacts.items()},
            }
        )
    return sorted(found, key=lambda run: run["month"])


def _failure(result: "dg.ExecuteInProcessResult") -> str | None:
    """What went wrong, in one line; raises InputError when it is the user's input."""
    if result.success:
        return None
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            if data.user_failure_data is not None:
                text = data.user_failure_data.description or "failed"
                if "input_error" in data.user_failure_data.metadata:
                    raise InputError(text)
                return text
            return (data.error_display_string or "failed").strip().splitlines()[0]
    return "the Dagster run failed"


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
    from quantbot_pipeline.catalog.query import quarantined, run_counts
    from quantbot_pipeline.catalog.sync import sync

    settings = _settings(home)
    catalog = (duckdb or settings.catalog_db).absolute()
    base = (base_dir or settings.runs_dir).absolute()
    if base_dir is not None and not base.is_dir():
        raise InputError(f"{base}: no such directory; give the folder that holds the runs with --base-dir")
    report = sync(base, catalog, rebuild=rebuild, lock_timeout_s=settings.lock_timeout_s)
    _note(
        f"{report.runs} runs cataloged in {catalog} ({report.registered} new, {report.removed} gone, "
        f"{report.quarantined} in quarantine), {report.elapsed_ms:.0f} ms"
    )
    for row in quarantined(catalog).to_pylist():
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
    run_type: Annotated[str | None, typer.Option(help="path-only, policy, optimization or full.")] = None,
    status: Annotated[str | None, typer.Option(help="completed or failed.")] = None,
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
    from quantbot_pipeline.catalog.query import artifact_path, query_runs

    settings = _settings(home)
    catalog = (duckdb or settings.catalog_db).absolute()
    if (run_id is None) != (artifact_type is None):
        raise InputError("--run-id and --artifact-type go together")
    if run_id is not None and artifact_type is not None:
        print(artifact_path(catalog, (base_dir or settings.runs_dir).absolute(), run_id, artifact_type))  # noqa: T201
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
    run_dirs: Annotated[list[Path], typer.Argument(help="Run directories, or folders that hold some.")],
    fmt: Format = "table",
    home: Home = None,
) -> None:
    """Check every byte of committed runs against their manifests."""
    from quantbot_pipeline.artifacts.verify import check_run
    from quantbot_pipeline.errors import IntegrityError

    rows, broken = [], 0
    for folder in [found for given in run_dirs for found in _run_dirs(given)]:
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


# --- reports and the demo ---------------------------------------------------------------------------------------------


@app.command("leaderboard")
def leaderboard_command(
    interval: Annotated[Interval | None, typer.Option(help="Only runs of this candle interval.")] = None,
    fmt: Format = "table",
    home: Home = None,
) -> None:
    """Callers by what followed their calls, over the newest run of every month."""
    from quantbot_pipeline.reports.leaderboard import COLUMNS, leaderboard

    settings = _settings(home)
    _print(leaderboard(settings.catalog_db, settings.runs_dir, interval), fmt, "Callers", COLUMNS)


@app.command("ui")
def ui(
    host: Annotated[str, typer.Option(help="Interface to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port.")] = 3000,
    home: Home = None,
) -> None:
    """Start the Dagster web UI and daemon on this home directory."""
    settings = _settings(home)
    prepare_instance(settings)
    os.environ["QUANTBOT_HOME"] = str(settings.home)
    os.chdir(settings.home)
    _note(f"Dagster UI: http://{host}:{port}  (stop it with Ctrl-C)")
    command = [
        sys.executable,
        "-m",
        "dagster",
        "dev",
        "-m",
        "quantbot_pipeline.definitions",
        "-h",
        host,
        "-p",
        str(port),
    ]
    os.execv(sys.executable, command)  # noqa: S606


@app.command("demo")
def demo(fmt: Format = "table", home: Home = None) -> None:
    """Everything once: generated sample market (unless inputs exist), backfill, catalog, leaderboard."""
    from quantbot_pipeline.catalog.sync import sync
    from quantbot_pipeline.market.calls import month_statistics
    from quantbot_pipeline.months import month_start_ms, next_month
    from quantbot_pipeline.reports.leaderboard import COLUMNS, leaderboard

    settings = _settings(home)
    if not month_statistics(settings.alerts_db):
        _write_sample(settings)
    months = list(month_statistics(settings.alerts_db))
    _note(f"backtesting {len(months)} months ({months[0]} … {months[-1]}); the engine compiles once, at its first use")
    span = {"from_ms": month_start_ms(months[0]), "to_ms": month_start_ms(next_month(months[-1]))}
    run_types: tuple[RunType, ...] = ("path-only", "policy")
    for run_type in run_types:
        runs, failure = _materialize(run_type, make_config(span), settings, only_changed=True)
        if failure:
            raise QuantbotError(failure)
        _note(f"{run_type}: {len(runs)} runs")
    sync(settings.runs_dir, settings.catalog_db, lock_timeout_s=settings.lock_timeout_s)
    _print(
        leaderboard(settings.catalog_db, settings.runs_dir),
        fmt,
        "Callers of the sample market (generated data)",
        COLUMNS,
    )
    _note(
        "\nNext:\n  quantbot ui                                   the Dagster web UI\n"
        "  quantbot backtest catalog-query               the runs just made\n"
        '  quantbot backtest policy --from 2026-01 --to 2026-06 --policy \'{"kind":"time_stop","max_hold_ms":3600000}\'\n'
        "  quantbot ingest calls your_calls.csv --home ~/lab   your own data, in a home of its own"
    )


def _write_sample(settings: Settings) -> None:
    from quantbot_pipeline.market.calls import ingest_calls
    from quantbot_pipeline.market.candles import ingest_candles
    from quantbot_pipeline.market.sample import write_sample

    folder = settings.data_dir / "generated"
    _note(f"no calls yet: writing a generated sample market to {folder}")
    calls, candles = write_sample(folder)
    ingest_calls([calls], settings.alerts_db)
    ingest_candles([candles], settings.candles_dir, "5m", memory_limit=settings.memory_limit)
    shutil.rmtree(folder)
