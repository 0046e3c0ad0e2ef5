"""`quantbot fetch …`: candles and calls from the network into the stores."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from quantbot_pipeline.cli.app import fetch_app
from quantbot_pipeline.cli.options import Format, HomeFolder, Output, PrintAs, days_of, open_home
from quantbot_pipeline.cli.output import note, print_report, print_rows
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.vocabulary import Interval

if TYPE_CHECKING:
    from quantbot_pipeline.ingest.connectors.fetch import FetchReport

Source = Annotated[str, typer.Option("--source", help="geckoterminal, birdeye, ccxt:EXCHANGE or binance-vision.")]
FirstDay = Annotated[
    str | None, typer.Option("--from", help="Only calls from this UTC day on, YYYY-MM-DD or YYYY-MM (default: all).")
]
LastDay = Annotated[str | None, typer.Option("--to", help="Only calls up to this UTC day, included (default: all).")]
MONTH = "YYYY-MM"


@fetch_app.command("candles")
def fetch_candles_command(
    source: Source,
    interval: Annotated[Interval, typer.Option(help="Candle interval.")] = "5m",
    from_: FirstDay = None,
    to: LastDay = None,
    calls: Annotated[str | None, typer.Option(metavar=MONTH, help="Only calls of this UTC month.")] = None,
    horizon_hours: Annotated[float, typer.Option(help="Length of the window after the entry.")] = 48.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how many requests there would be; send none.")
    ] = False,
    fmt: Format = "table",
    home: HomeFolder = None,
) -> None:
    """Fetch the candles that the windows of stored calls still miss; what was answered is never asked again."""
    from quantbot_pipeline.ingest.connectors.fetch import fetch_candles

    if calls is not None and (from_ is not None or to is not None):
        raise InputError("--calls names a month, --from and --to name days; give one of the two")
    if calls is not None and len(calls) != len(MONTH):
        raise InputError(f"--calls {calls!r} is not a month; write {MONTH}")
    if not 0 < horizon_hours <= 24 * 366:
        raise InputError(f"--horizon-hours {horizon_hours:g}: it must be above 0 and at most a year")
    days = days_of(from_ or calls or "1970-01", to or calls or "9998-12")
    report = fetch_candles(
        open_home(home), source, interval, horizon_ms=round(horizon_hours * 3_600_000), dry_run=dry_run, **days
    )
    _print(report, fmt)
    report.require_whole()


@fetch_app.command("calls")
def fetch_calls_command(
    chat: Annotated[str, typer.Option(help="@name, link or number of a chat that the account can read.")],
    source: Annotated[Literal["telegram"], typer.Option("--source", help="Where the chat is.")] = "telegram",
    from_: Annotated[
        str | None, typer.Option("--from", help="Only messages from this UTC day on (default: all).")
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="Only messages up to this UTC day, included (default: all).")
    ] = None,
    caller_from: Annotated[
        Literal["chat", "sender"] | None, typer.Option(help="Whose the calls are (default: chat).")
    ] = None,
    first_mention: Annotated[
        float | None,
        typer.Option(metavar="HOURS", help="Keep a caller's first call of a token in this time (default: 24; 0: all)."),
    ] = None,
    output: PrintAs = "table",
    home: HomeFolder = None,
) -> None:
    """Read a chat's new messages, and merge their calls into data/alerts.duckdb; no message is read twice."""
    from quantbot_pipeline.ingest.connectors.telegram import fetch_calls

    days = days_of(from_ or "1970-01", to or "9998-12")
    lab = open_home(home, may_begin=True)
    new, report = fetch_calls(
        lab, chat, from_ms=days["from_ms"], to_ms=days["to_ms"], caller_from=caller_from, first_mention=first_mention
    )
    note(f"{source}: {new:,} new messages of {chat}")
    if report is not None:
        print_report(report, output)
        report.require_some()


def _print(report: "FetchReport", fmt: Output) -> None:
    for sentence in report.notes:
        note(" ".join(sentence.split()))
    for token, sentence in report.refused.items():
        note(f"{token}: refused: {' '.join(sentence.split())}")
    if fmt == "json":
        print(report.model_dump_json(indent=1))
        return
    row = report.model_dump(exclude={"notes", "refused", "stopped", "dry_run", "source", "interval"})
    for counts in ("left_out", "rejected"):
        row[counts] = ", ".join(f"{reason} {n}" for reason, n in row[counts].items()) or "0"
    row["months"] = f"{report.months[0]} … {report.months[-1]}" if report.months else "none changed"
    row["refused"] = len(report.refused)
    if report.dry_run:
        row = {name: row[name] for name in ("calls", "windows", "missing", "requests", "left_out")}
    what = "Would fetch" if report.dry_run else "Fetched"
    print_rows([row], fmt, f"{what} candles {report.interval} from {report.source}")
