"""The command groups, to which the other files of this folder add their commands, and the options of `quantbot` itself."""

from typing import Annotated

import typer

from quantbot_pipeline.version import __version__

app = typer.Typer(
    help="The research lab for calls.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
ingest_app = typer.Typer(help="Bring calls and candles into the input stores.", no_args_is_help=True)
backtest_app = typer.Typer(help="Make runs and query their catalog.", no_args_is_help=True)
fetch_app = typer.Typer(help="Fetch calls and candles from the network into the input stores.", no_args_is_help=True)
runs_app = typer.Typer(help="Name, tag, show, compare and delete runs.", no_args_is_help=True)
app.add_typer(runs_app, name="runs")
app.add_typer(ingest_app, name="ingest")
app.add_typer(fetch_app, name="fetch")
app.add_typer(backtest_app, name="backtest")


def _say_version(asked: bool) -> None:
    if asked:
        print(f"quantbot {__version__}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version.")]


@app.callback()
def options_of_all_commands(version: Version = False) -> None:
    """The research lab for calls."""
