"""The research lab for calls: ingest, truth, policies, search, immutable runs and their catalog, run by Dagster.

`Home` is the Python API, `run` makes one run without Dagster; both are loaded when they are asked for.
"""

from typing import TYPE_CHECKING, Any

from quantbot_pipeline.version import __version__

if TYPE_CHECKING:
    from quantbot_pipeline.api import Home
    from quantbot_pipeline.backtest.month import run_month as run

__all__ = ["Home", "__version__", "run"]


def __getattr__(name: str) -> Any:
    if name == "Home":
        from quantbot_pipeline.api import Home

        return Home
    if name == "run":
        from quantbot_pipeline.backtest.month import run_month

        return run_month
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), "Home", "run"]
