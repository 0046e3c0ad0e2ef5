"""`quantbot ingest …`: files into the stores."""

from collections.abc import Sequence
from typing import Annotated, Literal

import typer

from quantbot_pipeline.cli.app import ingest_app
from quantbot_pipeline.cli.options import HomeFolder, Output, Paths, PrintAs, open_home
from quantbot_pipeline.cli.output import print_report
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.vocabulary import Interval


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
    caller_from: Annotated[
        Literal["chat", "sender"] | None,
        typer.Option(help="Whose the calls of a chat are (default: chat; Discord: sender)."),
    ] = None,
    first_mention: Annotated[
        float | None,
        typer.Option(
            metavar="HOURS", help="Keep a caller's first call of a token in this time (default: 24 for chats; 0: all)."
        ),
    ] = None,
    timezone: Annotated[
        str | None,
        typer.Option(
            help="Zone of times without one, e.g. Europe/Moscow (tables: UTC; Telegram Desktop before 3.7.6 needs it)."
        ),
    ] = None,
    mapping: Annotated[
        list[str] | None, typer.Option("--map", help="NAME=COLUMN, our name and that of the file; repeatable.")
    ] = None,
    output: PrintAs = "table",
    home: HomeFolder = None,
) -> None:
    """Merge calls into data/alerts.duckdb; the same file again changes nothing."""
    from quantbot_pipeline.ingest.calls import FORMATS, ingest_calls

    lab = open_home(home, may_begin=True)
    source, printed = _split_format(fmt, output, FORMATS)
    report = ingest_calls(
        paths,
        lab.calls,
        fmt=source,
        table=table,
        caller=caller,
        caller_from=caller_from,
        first_mention=first_mention,
        timezone=timezone,
        mapping=mapping_of(mapping),
    )
    print_report(report, printed)
    report.require_some()


def mapping_of(options: Sequence[str] | None) -> dict[str, str]:
    """`--map NAME=COLUMN`, repeated, as {name: column}."""
    mapping = {}
    for option in options or ():
        name, sign, column = option.partition("=")
        if not sign or not name.strip() or not column.strip():
            raise InputError(f"--map {option!r}: write NAME=COLUMN, for instance --map open=o")
        mapping[name.strip()] = column.strip()
    return mapping


@ingest_app.command("candles")
def ingest_candles_command(
    paths: Paths,
    interval: Annotated[Interval, typer.Option(help="Interval of the candles.")],
    fmt: InputFormat = "auto",
    mint: Annotated[str | None, typer.Option(help="Token of files that name none.")] = None,
    mapping: Annotated[
        list[str] | None, typer.Option("--map", help="NAME=COLUMN, our name and that of the file; repeatable.")
    ] = None,
    stamp: Annotated[
        Literal["open", "close"] | None, typer.Option(help="Whether times are those of the open or of the close.")
    ] = None,
    timezone: Annotated[
        str | None, typer.Option(help="Time zone of times without one, e.g. Europe/Berlin (default: UTC).")
    ] = None,
    output: PrintAs = "table",
    home: HomeFolder = None,
) -> None:
    """Merge candles into data/candles/; the last row of a token and time wins."""
    from quantbot_pipeline.ingest.candles import FORMATS, ingest_candles

    lab = open_home(home, may_begin=True)
    source, printed = _split_format(fmt, output, FORMATS)
    report = ingest_candles(
        paths,
        lab.candles,
        interval,
        fmt=source,
        mint=mint,
        mapping=mapping_of(mapping),
        stamp=stamp,
        timezone=timezone,
    )
    print_report(report, printed)
    report.require_some()
