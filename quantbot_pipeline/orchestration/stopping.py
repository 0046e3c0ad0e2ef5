"""Ends a Dagster run that somebody has asked to end: Ctrl-C in a shell, *Terminate* in the web UI.

Dagster sends a run that is terminated one signal, and the signal can be lost. The status of the run stays, so every step and
every month asks for it first.
"""

import contextlib
from collections.abc import Iterator

import dagster as dg

from quantbot_pipeline.interrupts import noticed, stop_if_asked

# A run that works has failed only where run monitoring lost sight of it: another worker repeats it by then.
ENDING = (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.FAILURE)
Context = dg.AssetExecutionContext | dg.AssetCheckExecutionContext


@contextlib.contextmanager
def heeding(context: Context) -> Iterator[None]:
    """Raise KeyboardInterrupt before and after the block, and instead of its errors, once somebody has asked to stop.

    Dagster runs a generator with handlers of its own, so a block must not contain a `yield` of a step.
    """
    with noticed():
        stop_if_canceled(context)
        yield
        stop_if_asked()


def stop_if_canceled(context: Context) -> None:
    """Raise KeyboardInterrupt if this run is to stop: somebody has asked, or Dagster has given it up."""
    stop_if_asked()
    run = context.instance.get_run_by_id(context.run.run_id)
    if run is not None and run.status in ENDING:
        raise KeyboardInterrupt
