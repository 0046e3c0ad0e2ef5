"""`quantbot warm-up`: what a first backtest would wait for, done once at installation."""

from quantbot_pipeline.cli.app import app
from quantbot_pipeline.cli.output import note


@app.command("warm-up")
def warm_up_command() -> None:
    """Compile the engine once, so that the first backtest does not wait for it; `make` calls it at installation."""
    from quantbot_pipeline.backtest.warm_up import warm_up

    warm_up(note)
