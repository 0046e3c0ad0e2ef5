"""The entry point of `quantbot`: every foreseen mistake ends in one line and an exit status.

Exit status: 0 done, 1 a run failed (the rest is committed), 2 the input or the arguments are wrong, 130 interrupted.
Heavy libraries are imported inside the commands.
"""

import atexit
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
# No plugin takes part in our models; to look for some, pydantic reads the metadata of every installed package.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
# OpenBLAS starts a thread per core when numpy loads, which spins for 0.1 s; the only matrices here are a model's, on one thread.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def run() -> NoReturn:
    """Entry point of the process: do what `main` does, then end without Python's own clearing away."""
    status = 0
    try:
        main()
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else 0
    atexit._run_exitfuncs()
    _end_at_once(status)


def main() -> None:
    """Run one command: every foreseen mistake ends in one line and an exit status, never in a traceback."""
    try:
        with noticed(), _without_noise():
            status = app(prog_name="quantbot", standalone_mode=False)
            sys.stdout.flush()
    except KeyboardInterrupt:
        status = INTERRUPTED
    except typer.TyperException as e:
        status = _complain_of_arguments(e.format_message())
    except InputError as e:
        status = complain(str(e), 2)
    except QuantbotError as e:
        status = complain(str(e), 1)
    except BrokenPipeError:  # whoever reads the output has seen enough
        status = 1
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
    """End this process without Python's search of all that is alive: 0.1 s after a short command, 0.7 s after a backtest."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _complain_of_arguments(text: str) -> int:
    if text.lstrip().startswith("Usage:"):  # no arguments at all: the text is the help
        note(text)
        return 2
    return complain(f"{text} (see --help)", 2)
