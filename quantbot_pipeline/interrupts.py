"""Requests to stop this process (Ctrl-C, SIGTERM): remembered, whatever becomes of the exception that Python makes of them.

DuckDB turns that exception into a RuntimeError, and a destructor swallows it. So the signal is also read from the wakeup file
descriptor, which Python writes to whatever handler is installed: Dagster installs its own many times in a run.

Belongs here: noticing, and ending at the next chance. Does not: who asked, nor what a run that is stopped leaves behind.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AGAIN_S = 0.05  # after which a request that a destructor swallowed is made once more: the destructor is through by then


class _Ear:
    """The reading end of the wakeup file descriptor of this process, and what was heard."""

    def __init__(self) -> None:
        self.asked = False
        self.reading, self.writing = os.pipe()
        for end in (self.reading, self.writing):
            os.set_blocking(end, False)

    def listen(self) -> bool:
        """Whether a request to stop has come since this ear was made."""
        with contextlib.suppress(BlockingIOError):
            while heard := os.read(self.reading, 256):
                self.asked = self.asked or any(number in SIGNALS for number in heard)
        return self.asked

    def close(self) -> None:
        os.close(self.reading)
        os.close(self.writing)


_ear: _Ear | None = None


@contextlib.contextmanager
def noticed() -> Iterator[None]:
    """Notice every request to stop that comes during the block; an error that comes out of the block after one becomes it.

    Only the main thread can notice. A block inside another adds nothing but the exchange of the error.
    """
    global _ear
    with contextlib.ExitStack() as stack:
        if _ear is None and threading.current_thread() is threading.main_thread():
            _ear = _Ear()
            stack.callback(_forget, _ear, signal.set_wakeup_fd(_ear.writing, warn_on_full_buffer=False))
            stack.enter_context(_swallowed_requests_made_again())
        try:
            yield
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as e:  # Dagster's own interruption is no Exception
            if asked():
                raise KeyboardInterrupt from e
            raise


def _forget(ear: _Ear, before: int) -> None:
    global _ear
    signal.set_wakeup_fd(before)
    _ear = None
    ear.close()


def asked() -> bool:
    """Whether somebody has asked this process to stop since the outermost block of `noticed` began."""
    return _ear is not None and _ear.listen()


def stop_if_asked() -> None:
    """Raise KeyboardInterrupt if somebody has asked this process to stop."""
    if asked():
        raise KeyboardInterrupt


@contextlib.contextmanager
def put_off() -> Iterator[None]:
    """Let a request to stop wait for the end of the block; inside `noticed` it waits for the next `stop_if_asked`."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if callable(handler):  # what ends the process at once, or is ignored, stays so
            signal.signal(number, lambda number, _: waiting.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            if callable(handler):
                signal.signal(number, handler)
    if waiting and _ear is None:
        signal.raise_signal(waiting[0])


@contextlib.contextmanager
def _swallowed_requests_made_again() -> Iterator[None]:
    """Make a request again that somebody swallows, instead of printing it: a destructor, a weak reference, a C library's import.

    A timer of the kernel does so: a thread could not be started inside a callback that interrupted the start of another.
    """
    unraisable, printed, handler = sys.unraisablehook, sys.excepthook, signal.getsignal(signal.SIGALRM)

    def is_request(kind: type[BaseException]) -> bool:
        if issubclass(kind, Exception) or not asked():
            return False
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
        return True

    def on_unraisable(what: Any) -> None:
        if not is_request(what.exc_type):
            unraisable(what)

    def on_printed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not is_request(kind):
            printed(kind, error, trace)

    def again(number: int, frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGINT)

    sys.unraisablehook, sys.excepthook = on_unraisable, on_printed
    signal.signal(signal.SIGALRM, again)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook, sys.excepthook = unraisable, printed
        signal.signal(signal.SIGALRM, handler)
