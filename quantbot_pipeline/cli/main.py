"""The entry point of `quantbot`: every foreseen mistake ends in one line and an exit status.

Exit status: 0 done, 1 a run failed (the rest is committed), 2 the input or the arguments are wrong, 130 interrupted.
Heavy libraries are imported inside the commands.
"""

import contextlib
import gc
import logging
import os
import sys
from collections.abc import Iterator
from typing import NoReturn

import typer

from quantbot_pipeline.cli import (  # noqa: F401  (they add their commands)
    backtest,
    catalog,
    demo,
    fetch,
    ingest,
    query,
    replicate,
    reports,
    runs,
    score,
    service,
    tearsheet,
    upkeep,
    warm_up,
)
from quantbot_pipeline.cli.app import app
from quantbot_pipeline.cli.output import complain, note
from quantbot_pipeline.durable import MEND_DISK
from quantbot_pipeline.errors import InputError, QuantbotError
from quantbot_pipeline.interrupts import asked, noticed

INTERRUPTED = 130  # as shells report Ctrl-C
# Imports allocate much and free nothing: with Python's own threshold of 700 objects a tenth of a short command was to look for garbage.
gc.set_threshold(50_000, 20, 50)


def main() -> None:
    """Entry point: every foreseen mistake ends in one line and an exit status, never in a traceback."""
    try:
        with noticed(), _without_noise():
            status = app(prog_name="quantbot", standalone_mode=False)
    except KeyboardInterrupt:
        status = INTERRUPTED
    except typer.TyperException as e:
        status = _complain_of_arguments(e.format_message())
    except InputError as e:
        status = complain(str(e), 2)
    except QuantbotError as e:
        status = complain(str(e), 1)
    except PermissionError as e:
        status = complain(f"{e.filename}: no permission; check its owner and mode, or choose another --home", 2)
    except OSError as e:
        status = complain(f"{e.filename or 'the disk of --home'}: {e.strerror or e}; {MEND_DISK}", 1)
    if status == INTERRUPTED:
        complain("interrupted; what is committed stays", INTERRUPTED)
        _end_at_once(INTERRUPTED)
    sys.exit(status if isinstance(status, int) else 0)


@contextlib.contextmanager
def _without_noise() -> Iterator[None]:
    """Print nothing that a library logs about a request to stop: SQLAlchemy logs it with a traceback, and raises it again."""

    def is_wanted(record: logging.LogRecord) -> bool:
        return not asked()

    handler = logging.lastResort  # of whoever has no handler
    if handler is not None:
        handler.addFilter(is_wanted)
    try:
        yield
    finally:
        if handler is not None:
            handler.removeFilter(is_wanted)


def _end_at_once(status: int) -> NoReturn:
    """End this process without Python's search of all that is alive: 0.7 s after a backtest, 1.3 s on a busy machine."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _complain_of_arguments(text: str) -> int:
    if text.lstrip().startswith("Usage:"):  # no arguments at all: the text is the help
        note(text)
        return 2
    return complain(f"{text} (see --help)", 2)
