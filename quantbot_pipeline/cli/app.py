"""The command groups, to which the other files of this folder add their commands."""

import typer

app = typer.Typer(
    help="The research lab for calls.", no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False,
    rich_markup_mode=None,
)  # fmt: skip
ingest_app = typer.Typer(help="Bring calls and candles into the input stores.", no_args_is_help=True)
backtest_app = typer.Typer(help="Make runs and query their catalog.", no_args_is_help=True)
app.add_typer(ingest_app, name="ingest")
app.add_typer(backtest_app, name="backtest")
