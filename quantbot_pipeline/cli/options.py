"""Options that several commands share, and how their texts become values."""

import inspect
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from quantbot_pipeline.cli.hints import remember_home
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.months import month_of, parse_day
from quantbot_pipeline.vocabulary import Interval

if TYPE_CHECKING:
    from quantbot_pipeline.home import Home

Output = Literal["table", "json", "csv"]
ReportOutput = Literal["table", "json", "csv", "parquet", "html"]
HomeFolder = Annotated[Path | None, typer.Option(help="Directory of data/ and runs/ (QUANTBOT_HOME; default: here).")]
Format = Annotated[Output, typer.Option("--format", help="How to print the result.")]
Paths = Annotated[list[Path], typer.Argument(help="Files or folders.")]
From = Annotated[str, typer.Option("--from", help="First UTC day, YYYY-MM-DD or YYYY-MM.")]
To = Annotated[str, typer.Option("--to", help="Last UTC day, included; YYYY-MM means the whole month.")]
CallsDb = Annotated[Path | None, typer.Option(help="Another DuckDB file with a table alerts.")]
OnlyChanged = Annotated[bool, typer.Option(help="Keep runs whose inputs, code and configuration are the same.")]
Sync = Annotated[bool, typer.Option("--sync/--no-sync", help="Register the runs in the catalog, which reports read.")]
OfInterval = Annotated[Interval | None, typer.Option("--interval", help="Only runs of this candle interval.")]
# A command whose --format already means the input's format prints in the format of --output.
PrintAs = Annotated[Output, typer.Option("--output", help="How to print the result.")]


def open_home(home: Path | None, calls_db: Path | None = None, *, may_begin: bool = False) -> "Home":
    """Return a home that exists; with `may_begin` it may be made: by commands that bring or take inputs."""
    from pydantic import ValidationError

    from quantbot_pipeline.home import Home
    from quantbot_pipeline.settings import PREFIX, SECRET, Settings

    given = {"home": home, "calls_db": calls_db}
    try:
        settings = Settings.model_validate({key: value for key, value in given.items() if value is not None})
    except ValidationError as e:
        first = e.errors()[0]
        name = PREFIX + "_".join(map(str, first["loc"])).upper()
        shown = "" if first["loc"] and first["loc"][0] in SECRET else f" (given: {first['input']!r})"
        raise InputError(f"{name}: {first['msg']}{shown}") from None
    remember_home(settings.home)
    if settings.home.exists() and not settings.home.is_dir():
        raise InputError(f"{settings.home}: not a directory; choose another --home")
    if not may_begin and not settings.home.exists():
        raise InputError(
            f"{settings.home}: no such home; check --home and QUANTBOT_HOME, or begin one with `quantbot ingest calls`"
        )
    if calls_db is not None and not calls_db.exists():
        raise InputError(f"{calls_db}: no such file; make it with `quantbot ingest calls`")
    return Home(settings)


# Options of a command, {parameter: (annotation, default)}.
Options = dict[str, tuple[Any, Any]]


def _option(kind: Any, default: Any, text: str) -> tuple[Any, Any]:
    return Annotated[kind, typer.Option(help=text)], default


# What every backtest command takes, whatever its kind of run depends on.
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
# Further fields of the configuration, each with its option or, for `policies`, options.
BY_FIELD: dict[str, Options] = {
    "activity_move_pct": {"activity_move_pct": _option(float, 0.10, "Price move that counts as activity.")},
    "policies": {"policy": _option(list[str] | None, None, "A policy as JSON, or @file.json; repeatable.")},
    "policy_id": {"policy_id": _option(str | None, None, "Name of the policy, if there is only one.")},
    "both_orders": {"both_orders": _option(bool, False, "Replay both orders and mark ambiguous trades.")},
    "constraints": {"constraints": _option(str | None, None, 'Limits as JSON or @file.json, e.g. {"min_trades": 20}.')},
    "objective": {"objective": _option(str | None, None, "growth or median, or JSON with a key kind.")},
    "grid": {"grid": _option(str | None, None, "Levels of the policy grid as JSON or @file.json.")},
    "evidence": {
        "evidence": _option(str | None, None, 'Parameters of the evidence as JSON or @file.json, e.g. {"fdr": 0.05}.')
    },
    "intrabar": {
        "intrabar": _option(Literal["pessimistic", "optimistic"], "pessimistic", "Order of touches inside a candle.")
    },
    "taker_fee_bps": {"taker_fee_bps": _option(float, 30.0, "Fee per side.")},
    "slippage_bps": {"slippage_bps": _option(float, 10.0, "Slippage per side.")},
    "stop_slippage_bps": {"stop_slippage_bps": _option(float, 0.0, "Further slippage of protective exits.")},
    "pool_calls": {
        "pool_calls": _option(int, 0, "Calls of all callers that a caller's statistics lean on in the walk-forward.")
    },
    "tune_pool_calls": {
        "tune_pool_calls": _option(int, 20, "Calls of all callers that a caller's statistics lean on in the tuning.")
    },
    "targets": {
        "target": _option(
            list[str] | None, None, "What to predict: hit_2x, peak_1.5, drawdown_30, win, return …; repeatable."
        )
    },
    "rolling_months": {"rolling_months": _option(int, 3, "Months that the rolling scheme learns from.")},
}
OUTPUT: Options = {
    "only_changed": (OnlyChanged, False),
    "sync": (Sync, True),
    "fmt": (Format, "table"),
    "home": (HomeFolder, None),
}


# What every report takes; `--limit` has its own meaning in some.
OfFormat = Annotated[
    ReportOutput | None,
    typer.Option("--format", help="How to print it (default: as the name of --out ends, else table)."),
]
OutFile = Annotated[
    Path | None, typer.Option(help="Write to this file (.json, .csv, .parquet, .html) instead of printing.")
]
Columns = Annotated[str | None, typer.Option(help="Only these columns, in this order, separated by commas.")]
Sort = Annotated[str | None, typer.Option(help="Sort by this column; with a minus before it the largest first.")]
SHOWN: Options = {"sort": (Sort, None), "columns": (Columns, None), "fmt": (OfFormat, None), "out": (OutFile, None)}
REPORT: Options = {
    "caller": _option(str | None, None, "Only this caller; __all__ for all pooled, where a report has them."),
    "from_": (Annotated[str | None, typer.Option("--from", help="First month, YYYY-MM.")], None),
    "to": (Annotated[str | None, typer.Option("--to", help="Last month, YYYY-MM.")], None),
    "min_calls": (
        Annotated[int | None, typer.Option(min=0, help="Only rows of at least so many calls or trades.")],
        None,
    ),
    "limit": (Annotated[int | None, typer.Option(min=0, help="At most so many rows.")], None),
    "interval": (OfInterval, None),
    **SHOWN,
    "home": (HomeFolder, None),
}


def read_json(where: str, text: str, example: str = "") -> Any:
    """The JSON value of an option, or of the file that `@file` names; `example` shows a right one to whoever is wrong."""
    from quantbot_pipeline.replay.policies import unique_keys

    if text.startswith("@"):
        where = text[1:]
        text = read_text(where)
    try:
        return json.loads(text, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as e:
        hint = f"; {example}" if example else ""
        hint += f"; to read that file write @{text}" if len(text) < 256 and Path(text).is_file() else ""
        raise InputError(f"{where}: not valid JSON: {e} (given: {text[:80]!r}){hint}") from None


def read_text(where: str) -> str:
    """What is in the file that `@FILE` names."""
    try:
        return Path(where).read_text(encoding="utf-8")
    except OSError as e:
        raise InputError(f"{where}: {e.strerror}; @FILE needs a text file") from None
    except UnicodeDecodeError:
        raise InputError(f"{where}: not UTF-8 text; @FILE needs a text file") from None


def options_of(fields: Collection[str]) -> Options:
    """Return the options of a command that makes runs: the range, and those of the fields that its results depend on."""
    own: Options = {}
    for field, options in BY_FIELD.items():
        if field in fields:
            own |= options
    return RANGE | own | OUTPUT


def add_command(
    app: typer.Typer, name: str, text: str, options: Options, run: Callable[[dict[str, Any]], None]
) -> None:
    """Add a command whose options come from a table."""

    def command(**given: Any) -> None:
        run(given)

    command.__doc__ = text
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for key, (annotation, default) in options.items()
        ]
    )
    app.command(name)(command)


def between_months(lab: "Home", from_: str | None, to: str | None) -> "Home":
    """Return the home whose reports read the months from one to another alone."""
    bounds = []
    for option, given in (("--from", from_), ("--to", to)):
        if given is not None and month_of(parse_day(given, end=False)) != given:
            raise InputError(f"{option} {given}: reports are made of whole months; write YYYY-MM")
        bounds.append(given)
    if from_ is not None and to is not None and from_ > to:
        raise InputError(f"--from {from_} is after --to {to}; swap them")
    return lab if bounds == [None, None] else lab.between(from_, to)


def days_of(from_: str, to: str) -> dict[str, int]:
    """`--from` and `--to` as the bounds of a configuration."""
    from_ms, to_ms = parse_day(from_, end=False), parse_day(to, end=True)
    if from_ms >= to_ms:
        raise InputError(f"--from {from_} is after --to {to}; swap them")
    return {"from_ms": from_ms, "to_ms": to_ms}
